"""The models on this machine: names and their manifests, in Ollama's layout under our own root.

    <root>/store.json                                the layout's version
    <root>/manifests/<host>/<namespace>/<model>/<tag>
    <root>/blobs/sha256-<64 hex>

A `:` in a host becomes `%3A`, because Windows has no such file names.
"""

import contextlib
import json
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from localrun.errors import (
    BadRequest,
    BadSetting,
    LocalrunError,
    ModelNotFound,
    NotFound,
    Unsupported,
)
from localrun.names import DEFAULT_HOST, DEFAULT_NAMESPACE, HUB_HOST, ModelName, parse_name
from localrun.store.blobs import BLOB_NAME, Blobs, free_bytes, sync_folder, write_atomically
from localrun.store.manifest import BadManifest, Manifest, dump_manifest, parse_manifest
from localrun.store.reading import Reader, children
from localrun.store.stored import StoredModel
from localrun.system.locks import locked

__all__ = ["SCHEMA_VERSION", "Library", "StoredModel", "adopted_only", "hub_name"]

SCHEMA_VERSION = 1


class Foreign(Protocol):
    """Models that lie in other programs' folders; see `adopted`."""

    def models(self) -> list[StoredModel]:
        """Those that are there as they were adopted, in any order."""
        ...

    def name_of(self, name: ModelName) -> ModelName | None:
        """The name as it is kept, None if there is no such model."""
        ...

    def get(self, name: ModelName) -> StoredModel:
        """The model of a name that `name_of` gave.

        Raises `BadModelFile` if its files are gone or have changed.
        """
        ...

    def forget(self, name: ModelName) -> None:
        """List it no more; its files are not ours and stay."""
        ...


class Library(Reader):
    """The models under one root; safe for several threads and processes.

    Args:
        root: Root of the store; it is made when something is first written.
        free: How many bytes the disk of a folder has left.
        foreign: Models of other programs; where two have one name, ours is meant.
        prunes: Files go that no model uses any more. Those of a model that is deleted always do.

    Raises:
        BadSetting: If the root was written by a newer localrun.
    """

    def __init__(
        self,
        root: Path,
        free: Callable[[Path], int] = free_bytes,
        foreign: Foreign | None = None,
        *,
        prunes: bool = True,
    ) -> None:
        super().__init__(root, Blobs(root, free))
        self._foreign, self.prunes = foreign, prunes
        self._check_schema()

    def list(self) -> list[StoredModel]:
        """Every model that can be read, newest first; damaged ones are left out."""
        found = {model.name.key: model for model in self.models()}
        if self._foreign is not None:
            for model in self._foreign.models():
                if self._locate(model.name) is None:
                    found.setdefault(model.name.key, model)
        return sorted(found.values(), key=lambda model: model.modified_at, reverse=True)

    def get(self, name: ModelName) -> StoredModel:
        """The model of this name, whatever its casing.

        Raises:
            ModelNotFound: If there is none.
            BadManifest: If it is there and cannot be read.
            BadModelFile: If it was adopted, and its files are gone or have changed.
        """
        path = self._locate(name)
        if path is None:
            if self._foreign is not None and (adopted := self._foreign.name_of(name)) is not None:
                return self._foreign.get(adopted)
            raise ModelNotFound(name.short())
        try:
            return self._read(path)
        except FileNotFoundError as error:
            raise ModelNotFound(name.short()) from error

    def find(self, text: str) -> StoredModel:
        """The model that a user means; see `resolve`.

        Raises:
            InvalidName: If the text is no model name.
            ModelNotFound: If there is no such model; it quotes the text as it was written.
            BadModelFile: If it was adopted, and its files are gone or have changed.
        """
        return self.get(self.resolve(text))

    def resolve(self, text: str) -> ModelName:
        """The name that a user means: `user/repo` is looked for on the Hub's shelf too.

        Raises:
            InvalidName: If the text is no model name.
            ModelNotFound: If there is no such model; it quotes the text as it was written.
        """
        name = parse_name(text)
        on_hub = hub_name(name)
        candidates = (name,) if on_hub is None else (name, on_hub)
        for candidate in candidates:
            if self._locate(candidate) is not None:
                return candidate
        for candidate in candidates if self._foreign is not None else ():
            if self._foreign is not None and (found := self._foreign.name_of(candidate)):
                return found
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
            if self.prunes:
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
        with self._changing():
            found = self.ownerless(before)
            n_bytes = sum(path.stat().st_size for path in found)
            for path in found:
                path.unlink(missing_ok=True)
        return n_bytes

    def ownerless(self, before: float) -> tuple[Path, ...]:
        """The blobs that `drop_ownerless` would remove."""
        try:
            owned = {self.blobs.path(digest).name for digest in self._referenced()}
        except LocalrunError:
            return ()
        blobs = (path for path in children(self.root / "blobs") if BLOB_NAME.fullmatch(path.name))
        return tuple(p for p in blobs if p.name not in owned and _came_before(p, before))

    def unused_after(self, name: ModelName, manifest: Manifest) -> frozenset[str]:
        """Blobs that `add` of this manifest would leave without an owner."""
        path = self._locate(name)
        if path is None or not self.prunes:
            return frozenset()
        try:
            others = self._referenced(other_than=path)
        except BadManifest:
            return frozenset()
        return self._digests_at(path) - manifest.digests - others

    def delete(self, name: ModelName) -> None:
        """Remove a model, and its blobs that no other model has; of an adopted one our record.

        Raises:
            ModelNotFound: If there is none of this name.
        """
        with self._changing():
            path = self._locate(name)
            if path is None:
                self._forget(name)
                return
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
            Unsupported: If it was adopted, so that the store has nothing of it.
        """
        path = self._locate(name)
        if path is None:
            raise adopted_only(self.get(name))
        return path.read_bytes()

    # ── files ─────────────────────────────────────────────────────────────────────────────────

    def _forget(self, name: ModelName) -> None:
        adopted = None if self._foreign is None else self._foreign.name_of(name)
        if self._foreign is None or adopted is None:
            raise ModelNotFound(name.short())
        self._foreign.forget(adopted)

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


def _came_before(path: Path, moment: float) -> bool:
    """Whether a blob was there; a linked file may be older than its link, which sets ctime."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return max(found.st_mtime, found.st_ctime) < moment


def adopted_only(model: StoredModel) -> Unsupported:
    """The refusal of what needs the files of a model in our store."""
    return Unsupported(
        f"{model.name.short()} is adopted: its files are not in the store",
        hint=f"localrun pull {model.model_paths[0]}  takes them in, without a copy where the disk"
        " is the same",
    )


def hub_name(name: ModelName) -> ModelName | None:
    """`user/repo:tag` as a name on the Hub; None if the name says another host or none."""
    if name.host != DEFAULT_HOST or name.namespace == DEFAULT_NAMESPACE:
        return None
    return ModelName(name.model, name.tag, name.namespace, HUB_HOST)
