"""The models on this machine: names and their manifests, in Ollama's layout under our own root.

    <root>/store.json                                the layout's version
    <root>/manifests/<host>/<namespace>/<model>/<tag>
    <root>/blobs/sha256-<64 hex>

A `:` in a host becomes `%3A`, because Windows has no such file names.
"""

import contextlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from localrun.errors import BadRequest, BadSetting, LocalrunError, ModelNotFound, NotFound
from localrun.names import DEFAULT_HOST, DEFAULT_NAMESPACE, HUB_HOST, ModelName, parse_name
from localrun.store.blobs import BLOB_NAME, Blobs, free_bytes, sync_folder, write_atomically
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
    dump_manifest,
    parse_config,
    parse_manifest,
)
from localrun.store.stored import StoredModel, weights_digest
from localrun.system.locks import locked

__all__ = ["SCHEMA_VERSION", "Library", "StoredModel", "hub_name"]

SCHEMA_VERSION = 1
_MAX_SMALL_BLOB_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class _Cached:
    stamp: tuple[int, int, int]
    model: StoredModel


class Library:
    """The models under one root; safe for several threads and processes.

    Args:
        root: Root of the store; it is made when something is first written.
        free: How many bytes the disk of a folder has left.

    Raises:
        BadSetting: If the root was written by a newer localrun.
    """

    def __init__(self, root: Path, free: Callable[[Path], int] = free_bytes) -> None:
        self.root = root
        self.blobs = Blobs(root, free)
        self._cache: dict[Path, _Cached] = {}
        self._check_schema()

    def list(self) -> list[StoredModel]:
        """Every model that can be read, newest first; damaged ones are left out."""
        found: list[StoredModel] = []
        for path in self._manifest_paths():
            with contextlib.suppress(LocalrunError, FileNotFoundError):
                found.append(self._read(path))
        return sorted(found, key=lambda model: model.modified_at, reverse=True)

    def get(self, name: ModelName) -> StoredModel:
        """The model of this name, whatever its casing.

        Raises:
            ModelNotFound: If there is none.
            BadManifest: If it is there and cannot be read.
        """
        path = self._locate(name)
        if path is None:
            raise ModelNotFound(name.short())
        try:
            return self._read(path)
        except FileNotFoundError as error:
            raise ModelNotFound(name.short()) from error

    def find(self, text: str) -> StoredModel:
        """The model that a user means: `user/repo` is looked for on the Hub's shelf too.

        Raises:
            InvalidName: If the text is no model name.
            ModelNotFound: If there is no such model; it quotes the text as it was written.
        """
        name = parse_name(text)
        for candidate in (name, hub_name(name)):
            if candidate is not None and self._locate(candidate) is not None:
                return self.get(candidate)
        raise ModelNotFound(text)

    def add(self, name: ModelName, manifest: Manifest, content: bytes | None = None) -> StoredModel:
        """Write a manifest, last and atomically, and drop what it leaves without an owner.

        An existing model of the same name, in any casing, is replaced.

        Args:
            name: The model's name.
            manifest: Its parts.
            content: The manifest's bytes where they come from elsewhere and are kept as they are.

        Raises:
            NotFound: If a blob of the manifest is not in the store.
        """
        with self._changing():
            for layer in (manifest.config, *manifest.layers):
                if not self.blobs.has(layer.digest, layer.size):
                    raise NotFound(f"blob {layer.digest} is not in the store")
            path = self._locate(name) or self._path(name)
            replaced = self._digests_at(path)
            write_atomically(path, dump_manifest(manifest) if content is None else content)
            self._drop_unreferenced(replaced)
            return self._read(path)

    def drop_unused(self, digests: Iterable[str]) -> None:
        """Remove those blobs that no model has; for who stored them and then failed."""
        with self._changing():
            self._drop_unreferenced(frozenset(digests))

    def drop_ownerless(self, before: float) -> int:
        """Remove the blobs that no model has and that came before a time (seconds since 1970).

        Returns:
            The bytes that were freed; 0 too where a manifest cannot be read, as it may own any.
        """
        n_bytes = 0
        with self._changing():
            try:
                owned = {self.blobs.path(digest).name for digest in self._referenced()}
            except LocalrunError:
                return 0
            for path in _children(self.root / "blobs"):
                if path.name in owned or not BLOB_NAME.fullmatch(path.name):
                    continue
                found = path.stat()
                # A linked file may be older than its link, which changes the time of the inode.
                if max(found.st_mtime, found.st_ctime) < before:
                    path.unlink(missing_ok=True)
                    n_bytes += found.st_size
        return n_bytes

    def unused_after(self, name: ModelName, manifest: Manifest) -> frozenset[str]:
        """Blobs that `add` of this manifest would leave without an owner."""
        path = self._locate(name)
        if path is None:
            return frozenset()
        try:
            others = self._referenced(other_than=path)
        except BadManifest:
            return frozenset()
        return self._digests_at(path) - manifest.digests - others

    def delete(self, name: ModelName) -> None:
        """Remove a model, and its blobs that no other model has.

        Raises:
            ModelNotFound: If there is none of this name.
        """
        with self._changing():
            path = self._locate(name)
            if path is None:
                raise ModelNotFound(name.short())
            digests = self._digests_at(path)
            path.unlink()
            self._cache.pop(path, None)
            self._remove_empty_folders(path.parent)
            self._drop_unreferenced(digests)

    def copy(self, source: ModelName, destination: ModelName) -> StoredModel:
        """Give a model a second name; blobs are shared. A model of that name is replaced.

        Raises:
            ModelNotFound: If there is no source.
        """
        content = self.manifest_bytes(source)
        return self.add(destination, parse_manifest(content), content)

    def manifest_bytes(self, name: ModelName) -> bytes:
        """The manifest as it is stored; its sha256 is the model's id.

        Raises:
            ModelNotFound: If there is no such model.
        """
        path = self._locate(name)
        if path is None:
            raise ModelNotFound(name.short())
        return path.read_bytes()

    # ── files ─────────────────────────────────────────────────────────────────────────────────

    @property
    def _manifests(self) -> Path:
        return self.root / "manifests"

    def _path(self, name: ModelName) -> Path:
        folder = self._manifests / _host_folder(name.host) / name.namespace / name.model
        return folder / name.tag

    def _locate(self, name: ModelName) -> Path | None:
        exact = self._path(name)
        if exact.is_file():
            return exact
        folder = self._manifests
        for part in (_host_folder(name.host), name.namespace, name.model, name.tag):
            found = next((p for p in _children(folder) if p.name.lower() == part.lower()), None)
            if found is None:
                return None
            folder = found
        return folder if folder.is_file() else None

    def _manifest_paths(self) -> Iterator[Path]:
        for host in _children(self._manifests):
            for namespace in _children(host):
                for model in _children(namespace):
                    yield from (tag for tag in _children(model) if not tag.name.startswith("."))

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

    # ── changes ───────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _changing(self) -> Generator[None]:
        """Hold the library's lock: two changes never see each other half done."""
        self._prepare()
        with locked(self.root / "library.lock"):
            yield

    def _prepare(self) -> None:
        self._manifests.mkdir(parents=True, exist_ok=True)
        version_file = self.root / "store.json"
        if not version_file.exists():
            content = json.dumps({"schema_version": SCHEMA_VERSION}) + "\n"
            write_atomically(version_file, content.encode())

    def _check_schema(self) -> None:
        version_file = self.root / "store.json"
        try:
            version = json.loads(version_file.read_bytes())["schema_version"]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise BadSetting(f"{version_file} cannot be read: {error}") from error
        if version != SCHEMA_VERSION:
            raise BadSetting(
                f"{self.root} is a store of version {version}, and this localrun knows"
                f" {SCHEMA_VERSION}",
                hint="update localrun, or set LOCALRUN_MODELS to another folder",
            )

    def _digests_at(self, path: Path) -> frozenset[str]:
        try:
            return parse_manifest(path.read_bytes()).digests
        except (BadManifest, FileNotFoundError):
            return frozenset()

    def _referenced(self, *, other_than: Path | None = None) -> frozenset[str]:
        paths = (path for path in self._manifest_paths() if path != other_than)
        return frozenset(
            digest for path in paths for digest in parse_manifest(path.read_bytes()).digests
        )

    def _drop_unreferenced(self, digests: frozenset[str]) -> None:
        if not digests:
            return
        try:
            unreferenced = digests - self._referenced()
        except BadManifest:
            return  # a manifest that cannot be read may own any blob
        for digest in unreferenced:
            # A foreign manifest may hold what is no digest; then there is no file of ours either.
            with contextlib.suppress(BadRequest):
                self.blobs.remove(digest)

    def _remove_empty_folders(self, folder: Path) -> None:
        while folder != self._manifests:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent
        sync_folder(folder)


def hub_name(name: ModelName) -> ModelName | None:
    """`user/repo:tag` as a name on the Hub; None if the name says another host or none."""
    if name.host != DEFAULT_HOST or name.namespace == DEFAULT_NAMESPACE:
        return None
    return ModelName(name.model, name.tag, name.namespace, HUB_HOST)


def _host_folder(host: str) -> str:
    return host.replace(":", "%3A")


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
