"""What is remembered of adopted models: one small file in our own store.

<root>/adopted.json    folders, models found in them, and names that the user has removed
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias, cast

from localrun.errors import BadModelFile, BadSetting, InvalidName
from localrun.names import ModelName, parse_name
from localrun.store.adopt.inside import is_inside
from localrun.store.blobs import write_atomically
from localrun.store.manifest import (
    CONFIG_TYPE,
    MODEL,
    Layer,
    Manifest,
    ModelConfig,
    digest_of,
    dump_config,
    dump_manifest,
    parse_config,
)
from localrun.store.stored import StoredModel, weights_digest

Kind: TypeAlias = Literal["ollama", "hub", "folder"]

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Place:
    """A folder whose models are used where they lie."""

    path: Path
    kind: Kind


@dataclass(frozen=True, slots=True)
class AdoptedFile:
    """A foreign file as it was when it was adopted.

    Attributes:
        path: Where it is.
        size: Bytes.
        mtime_ns: When its content was last written.
        sha256: Of its content, as the folder's owner says; empty if nobody does.
    """

    path: Path
    size: int
    mtime_ns: int
    sha256: str = ""

    @property
    def digest(self) -> str:
        """Names the content; made of path, size and time where nobody knows its hash."""
        if self.sha256:
            return f"sha256:{self.sha256}"
        return digest_of(f"{self.path}\0{self.size}\0{self.mtime_ns}".encode())


@dataclass(frozen=True, slots=True)
class Record:
    """A model in a foreign folder.

    Attributes:
        name: Ours for it.
        place: The folder.
        files: The GGUF file, or all shards in order.
        config: What a listing shows of it.
    """

    name: ModelName
    place: Place
    files: tuple[AdoptedFile, ...]
    config: ModelConfig

    def check(self) -> None:
        """See that the files are still those that were adopted.

        Raises:
            BadModelFile: If one is gone, has changed, or leads out of its folder.
        """
        name = self.name.short()
        for file in self.files:
            try:
                found = file.path.stat()
            except OSError as error:
                raise BadModelFile(
                    f"{name} was adopted, and its file {file.path} is gone",
                    hint=f"put it back, or forget it with  localrun rm {name}",
                ) from error
            if not is_inside(file.path, self.place.path):
                raise BadModelFile(f"{file.path} leads out of {self.place.path}")
            if (found.st_size, found.st_mtime_ns) != (file.size, file.mtime_ns):
                raise BadModelFile(
                    f"{name} was adopted, and its file {file.path} has changed since",
                    hint=f"localrun adopt {self.place.path}  takes it as it is now",
                )

    def model(self) -> StoredModel:
        """The model as the others see it; its files are not looked at."""
        layers = tuple(
            Layer(MODEL, file.digest, file.size, name=file.path.name if self.files[1:] else "")
            for file in self.files
        )
        config = dump_config(self.config)
        manifest = Manifest(Layer(CONFIG_TYPE, digest_of(config), len(config)), layers)
        newest = max(file.mtime_ns for file in self.files) / 1e9
        return StoredModel(
            name=self.name,
            digest=digest_of(dump_manifest(manifest)).removeprefix("sha256:"),
            size_bytes=manifest.size_bytes,
            modified_at=datetime.fromtimestamp(newest, UTC).astimezone(),
            manifest=manifest,
            config=self.config,
            model_paths=tuple(file.path for file in self.files),
            model_digest=weights_digest(manifest),
            template=None,
            chat_template=None,
            system=None,
            params={},
            licenses=(),
            messages=(),
            adopted=str(self.place.path),
        )


@dataclass(frozen=True, slots=True)
class Index:
    """All that is remembered.

    Attributes:
        places: Folders that the user has named.
        records: Models, those of the Hub's cache as they were last seen.
        forgotten: Folder and whole name of models that the user does not want to see.
    """

    places: tuple[Place, ...] = ()
    records: tuple[Record, ...] = ()
    forgotten: frozenset[tuple[str, str]] = frozenset()

    def without(self, place: Place) -> "Index":
        """The same with nothing known of one folder."""
        return replace(
            self,
            places=tuple(each for each in self.places if each.path != place.path),
            records=tuple(each for each in self.records if each.place.path != place.path),
            forgotten=frozenset(each for each in self.forgotten if each[0] != str(place.path)),
        )


def read_index(path: Path) -> Index:
    """What is remembered; nothing if there is no file.

    Raises:
        BadSetting: If the file cannot be read.
    """
    try:
        body: object = json.loads(path.read_bytes())
        return _parse(cast("Mapping[str, object]", body))
    except FileNotFoundError:
        return Index()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidName) as error:
        raise BadSetting(
            f"{path} cannot be read: {error}",
            hint="remove it, and adopt the folders again: localrun adopt PATH",
        ) from error


def write_index(path: Path, index: Index) -> None:
    """Remember it, all or nothing."""
    body = {
        "version": _VERSION,
        "places": [_place_json(place) for place in index.places],
        "models": [_record_json(record) for record in index.records],
        "forgotten": sorted(map(list, index.forgotten)),
    }
    write_atomically(path, json.dumps(body, ensure_ascii=False, indent=1).encode() + b"\n")


def _place_json(place: Place) -> dict[str, object]:
    return {"path": str(place.path), "kind": place.kind}


def _record_json(record: Record) -> dict[str, object]:
    return {
        "name": record.name.full(),
        "place": _place_json(record.place),
        "config": json.loads(dump_config(record.config)),
        "files": [
            {
                "path": str(file.path),
                "size": file.size,
                "mtime_ns": file.mtime_ns,
                "sha256": file.sha256,
            }
            for file in record.files
        ],
    }


def _parse(body: Mapping[str, object]) -> Index:
    if body["version"] != _VERSION:
        raise ValueError(f"it is of version {body['version']}, and {_VERSION} is known here")
    return Index(
        tuple(_parse_place(each) for each in _list(body["places"])),
        tuple(_parse_record(cast("Mapping[str, object]", each)) for each in _list(body["models"])),
        frozenset((str(pair[0]), str(pair[1])) for pair in map(_list, _list(body["forgotten"]))),
    )


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("a list is expected")
    return cast("list[object]", value)


def _parse_place(value: object) -> Place:
    body = cast("Mapping[str, object]", value)
    kind = body["kind"]
    if kind not in ("ollama", "hub", "folder"):
        raise ValueError(f"there is no kind {kind!r} of folder")
    return Place(Path(str(body["path"])), kind)


def _parse_record(body: Mapping[str, object]) -> Record:
    files = tuple(map(_parse_file, _list(body["files"])))
    if not files:
        raise ValueError("a model without a file")
    return Record(
        name=parse_name(str(body["name"])),
        place=_parse_place(body["place"]),
        files=files,
        config=parse_config(json.dumps(body["config"]).encode()),
    )


def _parse_file(value: object) -> AdoptedFile:
    body = cast("Mapping[str, object]", value)
    size, mtime_ns = body["size"], body["mtime_ns"]
    if not isinstance(size, int) or not isinstance(mtime_ns, int):
        raise TypeError("size and time are whole numbers")
    return AdoptedFile(Path(str(body["path"])), size, mtime_ns, str(body["sha256"]))
