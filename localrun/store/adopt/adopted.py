"""The adopted models: found in other programs' folders, run from there, never written or removed.

Ollama's store and the Hub's cache are looked at anew each time, as their owners change them; any
other folder is taken as it was when the user named it. What we remember is one file of our own.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from localrun.config import Settings
from localrun.errors import BadModelFile, LocalrunError, SourceMissing
from localrun.names import DEFAULT_TAG, ModelName
from localrun.store.adopt.ollama import OllamaStore
from localrun.store.adopt.places import place_of, search
from localrun.store.adopt.records import Index, Place, Record, read_index, write_index
from localrun.store.library import Library
from localrun.store.stored import StoredModel
from localrun.system.locks import locked

_LM_STUDIO = ("~/.lmstudio/models", "~/.cache/lm-studio/models")


@dataclass(frozen=True, slots=True)
class Adoption:
    """What became of one folder.

    Attributes:
        place: The folder.
        models: What is now listed from it.
        skipped: GGUF files that are not, each with the reason.
    """

    place: Place
    models: tuple[StoredModel, ...]
    skipped: tuple[tuple[Path, str], ...] = ()


class Adopted:
    """The models of other programs; safe for several threads and processes.

    Args:
        index: Where we remember; the file need not be there.
        places: Folders that are looked at without being named.
    """

    def __init__(self, index: Path, places: Iterable[Place] = ()) -> None:
        self._path, self._places = index, tuple(places)
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._index = Index()
        self._stores: dict[Path, OllamaStore] = {}

    # ── for the library ───────────────────────────────────────────────────────────────────────

    def models(self) -> list[StoredModel]:
        """Those that are there as they were adopted; a damaged index lists none of them."""
        found: list[StoredModel] = []
        with contextlib.suppress(LocalrunError):
            index = self._look()
            for store in self._ollamas(index):
                found += [m for m in store.models() if not _is_forgotten(index, store.root, m.name)]
            for record in index.records:
                with contextlib.suppress(BadModelFile):
                    record.check()
                    found.append(record.model())
        return found

    def name_of(self, name: ModelName) -> ModelName | None:
        """The name as it is kept, None if there is no such model.

        Of a repository without a tag its only model is meant.
        """
        index = self._read()
        for store in self._ollamas(index):
            found = store.name_of(name)
            if found is not None and not _is_forgotten(index, store.root, found):
                return found
        record = _record(index, name) or _record(self._look(), name)
        return None if record is None else record.name

    def get(self, name: ModelName) -> StoredModel:
        """The model of a name that `name_of` gave.

        Raises:
            BadModelFile: If its files are gone or have changed.
        """
        index = self._read()
        for store in self._ollamas(index):
            if store.name_of(name) is not None and not _is_forgotten(index, store.root, name):
                return store.get(name)
        record = _record(index, name)
        if record is None:
            raise BadModelFile(f"{name.short()} was adopted and is no longer there")
        record.check()
        return record.model()

    def forget(self, name: ModelName) -> None:
        """List it no more; its files are not ours and stay."""

        def change(index: Index) -> Index:
            for store in self._ollamas(index):
                found = store.name_of(name)
                if found is not None and not _is_forgotten(index, store.root, found):
                    return _forgetting(index, store.root, found)
            record = _record(index, name)
            if record is None:
                return index
            rest = tuple(each for each in index.records if each is not record)
            index = replace(index, records=rest)
            if record.place.kind == "folder":
                return index
            return _forgetting(index, record.place.path, record.name)

        self._change(change)

    # ── for who adopts ────────────────────────────────────────────────────────────────────────

    def adopt(self, path: Path) -> Adoption:
        """List the models of a folder from now on; what was removed of it comes back.

        Raises:
            SourceMissing: If there is no such folder, or no model in it.
            DiskFull: If there is no room for our own record.
        """
        place = place_of(path)
        if place.kind == "ollama":
            models = tuple(OllamaStore(place.path).models())
            adoption = Adoption(place, models)
            records: Sequence[Record] = ()
        else:
            found = search(place, {})
            records = found.records
            models = tuple(record.model() for record in found.records)
            adoption = Adoption(place, models, tuple(found.skipped))
        if not models:
            reasons = "; ".join(f"{path}: {reason}" for path, reason in adoption.skipped[:3])
            raise SourceMissing(f"there is no model in {path}", hint=reasons)

        def change(index: Index) -> Index:
            index = index.without(place)
            if place not in self._places:
                index = replace(index, places=(*index.places, place))
            return replace(index, records=(*index.records, *records))

        self._change(change)
        return adoption

    def known(self) -> list[Place]:
        """Folders that are worth adopting on this machine, and are there."""
        paths = [place.path for place in self._places] + [Path(p).expanduser() for p in _LM_STUDIO]
        index = self._read()
        paths += [place.path for place in index.places if place.path not in paths]
        return [place_of(path) for path in paths if path.exists()]

    def damaged(self) -> list[tuple[Record, str]]:
        """The models that are listed no more, as their files are gone or have changed."""
        found: list[tuple[Record, str]] = []
        for record in self._look().records:
            try:
                record.check()
            except BadModelFile as error:
                found.append((record, error.message))
        return found

    # ── what is remembered ────────────────────────────────────────────────────────────────────

    def _all_places(self, index: Index) -> Iterator[Place]:
        yield from self._places
        yield from (place for place in index.places if place not in self._places)

    def _ollamas(self, index: Index) -> Iterator[OllamaStore]:
        for place in self._all_places(index):
            if place.kind == "ollama":
                yield self._stores.setdefault(place.path, OllamaStore(place.path))

    def _read(self) -> Index:
        """The index, read again where another process has changed it."""
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
        except FileNotFoundError:
            stamp = (0, 0)
        with self._lock:
            if stamp != self._stamp:
                self._index, self._stamp = read_index(self._path), stamp
            return self._index

    def _look(self) -> Index:
        """The index, with what the Hub's caches hold now."""
        index = self._read()
        fresh = self._with_hubs(index)
        if fresh.records == index.records:
            return index
        # It is remembered so that no header is read twice; that can fail, and nothing is lost.
        with contextlib.suppress(OSError):
            return self._change(self._with_hubs)
        return fresh

    def _with_hubs(self, index: Index) -> Index:
        """An index with what the Hub's caches hold now; what is gone from them stays known."""
        hubs = [place for place in self._all_places(index) if place.kind == "hub"]
        configs = {record.files: record.config for record in index.records}
        known = {record.name.key: record for record in index.records if record.place in hubs}
        for place in hubs:
            for record in search(place, configs).records:
                if not _is_damaged(record, known.get(record.name.key)):
                    known[record.name.key] = record
                if _is_forgotten(index, place.path, record.name):
                    known.pop(record.name.key, None)
        others = (record for record in index.records if record.place.kind != "hub")
        return replace(index, records=(*others, *known.values()))

    def _change(self, change: Callable[[Index], Index]) -> Index:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._path.with_suffix(".lock")):
            before = read_index(self._path)
            after = change(before)
            if after != before:
                write_index(self._path, after)
        return after


def _record(index: Index, name: ModelName) -> Record | None:
    for record in index.records:
        if record.name.key == name.key:
            return record
    if name.tag != DEFAULT_TAG:
        return None
    same = [record for record in index.records if record.name.key[:3] == name.key[:3]]
    return same[0] if len(same) == 1 else None


def _is_damaged(now: Record, before: Record | None) -> bool:
    """Whether a file has another size under the same hash."""
    if before is None or len(now.files) != len(before.files):
        return False
    pairs = zip(now.files, before.files, strict=True)
    return any(a.sha256 and a.sha256 == b.sha256 and a.size != b.size for a, b in pairs)


def _is_forgotten(index: Index, root: Path, name: ModelName) -> bool:
    return (str(root), name.full().lower()) in index.forgotten


def _forgetting(index: Index, root: Path, name: ModelName) -> Index:
    return replace(index, forgotten=index.forgotten | {(str(root), name.full().lower())})


# ── the library with them ─────────────────────────────────────────────────────────────────────


def open_adopted(settings: Settings) -> Adopted:
    """The adopted models of this user, Ollama's and the Hub's among them unless switched off."""
    places: list[Place] = []
    ours = settings.models.absolute()
    if settings.adopt:
        if settings.ollama_models is not None and settings.ollama_models != ours:
            places.append(Place(settings.ollama_models, "ollama"))
        if settings.hub_cache is not None:
            places.append(Place(settings.hub_cache, "hub"))
    return Adopted(settings.models / "adopted.json", places)


def open_library(settings: Settings) -> Library:
    """The models of this machine: ours, and those that are adopted.

    Raises:
        BadSetting: If the store was written by a newer localrun.
    """
    foreign = open_adopted(settings)
    return Library(settings.models, foreign=foreign, prunes=not settings.no_prune)
