"""Read the models under a root in Ollama's layout. Nothing is ever written here.

<root>/manifests/<host>/<namespace>/<model>/<tag>
<root>/blobs/sha256-<64 hex>
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from localrun.errors import LocalrunError
from localrun.names import ModelName
from localrun.store.blobs import Blobs
from localrun.store.manifest import (
    ADAPTER,
    CHAT_TEMPLATE,
    DRAFT,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    PROJECTOR,
    SYSTEM,
    TEMPLATE,
    BadManifest,
    Manifest,
    digest_of,
    parse_config,
    parse_manifest,
)
from localrun.store.stored import StoredModel, weights_digest

_MAX_SMALL_BLOB_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class _Cached:
    stamp: tuple[int, int, int]
    model: StoredModel


class Reader:
    """The models under one root, read; safe for several threads.

    Args:
        root: Root of the store; it need not be there.
        blobs: Its blobs.
    """

    def __init__(self, root: Path, blobs: Blobs) -> None:
        self.root, self.blobs = root, blobs
        self._cache: dict[Path, _Cached] = {}

    def models(self) -> list[StoredModel]:
        """Every model that can be read; damaged ones are left out."""
        found: list[StoredModel] = []
        for path in self._manifest_paths():
            with contextlib.suppress(LocalrunError, FileNotFoundError):
                found.append(self._read(path))
        return found

    # ── files ─────────────────────────────────────────────────────────────────────────────────

    @property
    def _manifests(self) -> Path:
        return self.root / "manifests"

    def _path(self, name: ModelName) -> Path:
        folder = self._manifests / self._host_folder(name.host) / name.namespace / name.model
        return folder / name.tag

    def _locate(self, name: ModelName) -> Path | None:
        exact = self._path(name)
        if exact.is_file():
            return exact
        folder = self._manifests
        for part in (self._host_folder(name.host), name.namespace, name.model, name.tag):
            found = next((p for p in children(folder) if p.name.lower() == part.lower()), None)
            if found is None:
                return None
            folder = found
        return folder if folder.is_file() else None

    def _host_folder(self, host: str) -> str:
        return host.replace(":", "%3A")

    def _manifest_paths(self) -> Iterator[Path]:
        for host in children(self._manifests):
            for namespace in children(host):
                for model in children(namespace):
                    yield from (tag for tag in children(model) if not tag.name.startswith("."))

    def _name_of(self, path: Path) -> ModelName:
        host, namespace, model, tag = path.relative_to(self._manifests).parts
        return ModelName(model, tag, namespace, host.replace("%3A", ":"))

    def _read(self, path: Path) -> StoredModel:
        found = path.stat()
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        cached = self._cache.get(path)
        if cached is not None and cached.stamp == stamp:
            return cached.model
        modified_at = datetime.fromtimestamp(found.st_mtime, UTC).astimezone()
        model = self._build(path, path.read_bytes(), modified_at)
        self._cache[path] = _Cached(stamp, model)
        return model

    def _build(self, path: Path, content: bytes, modified_at: datetime) -> StoredModel:
        manifest = parse_manifest(content)
        weights = manifest.of_type(MODEL)
        if not weights:
            raise BadManifest(f"{path} has no model layer")
        return StoredModel(
            name=self._name_of(path),
            digest=digest_of(content).removeprefix("sha256:"),
            size_bytes=manifest.size_bytes,
            modified_at=modified_at,
            manifest=manifest,
            config=parse_config(self._small(manifest.config.digest)),
            model_paths=self._paths(manifest, MODEL),
            model_digest=weights_digest(manifest),
            template=self._text(manifest, TEMPLATE),
            chat_template=self._text(manifest, CHAT_TEMPLATE),
            system=self._text(manifest, SYSTEM),
            params=self._params(manifest),
            licenses=tuple(
                self._small(layer.digest).decode("utf-8", "replace")
                for layer in manifest.of_type(LICENSE)
            ),
            messages=self._messages(manifest),
            adapter_paths=self._paths(manifest, ADAPTER),
            projector_paths=self._paths(manifest, PROJECTOR),
            draft_paths=self._paths(manifest, DRAFT),
        )

    def _paths(self, manifest: Manifest, media_type: str) -> tuple[Path, ...]:
        return tuple(self.blobs.path(layer.digest) for layer in manifest.of_type(media_type))

    def _small(self, digest: str) -> bytes:
        path = self.blobs.path(digest)
        try:
            with path.open("rb") as file:
                return file.read(_MAX_SMALL_BLOB_BYTES)
        except OSError as error:
            raise BadManifest(f"the blob {digest} cannot be read: {error}") from error

    def _text(self, manifest: Manifest, media_type: str) -> str | None:
        layers = manifest.of_type(media_type)
        return self._small(layers[-1].digest).decode("utf-8", "replace") if layers else None

    def _json(self, manifest: Manifest, media_type: str) -> object:
        text = self._text(manifest, media_type)
        try:
            return json.loads(text) if text else None
        except (ValueError, RecursionError) as error:
            raise BadManifest(f"a layer of type {media_type} is no JSON: {error}") from error

    def _params(self, manifest: Manifest) -> dict[str, object]:
        params = self._json(manifest, PARAMS)
        return cast("dict[str, object]", params) if isinstance(params, dict) else {}

    def _messages(self, manifest: Manifest) -> tuple[dict[str, object], ...]:
        turns = self._json(manifest, MESSAGES)
        if not isinstance(turns, list):
            return ()
        return tuple(
            cast("dict[str, object]", turn)
            for turn in cast("list[object]", turns)
            if isinstance(turn, dict)
        )


def children(folder: Path) -> list[Path]:
    """What is in a folder, by name; nothing if there is none."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
