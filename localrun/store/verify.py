"""Check what is stored against its hashes, and fetch again the parts that are damaged."""

import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from localrun.config import Settings
from localrun.errors import InvalidName, LocalrunError, SourceMissing
from localrun.names import DEFAULT_HOST
from localrun.store.addresses import names_registry, read_address
from localrun.store.catalog import Catalog
from localrun.store.flight import Watcher
from localrun.store.journal import open_journal
from localrun.store.library import Library, StoredModel
from localrun.store.manifest import MODEL, Layer, parse_manifest
from localrun.store.origin import Wanted
from localrun.store.pull import understand
from localrun.store.sums import Sums, good_parts, keep_sums, sum_file
from localrun.system.locks import locked

_HEX = re.compile(r"[0-9a-f]{64}$")

Tell = Callable[[Layer, int], None]
"""Told the layer and how many of its bytes are done."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not what it should be.

    Attributes:
        model: One that needs it.
        models: The names of all that do.
        layer: What it should be.
        path: Where it is or should be.
        reason: What is wrong.
        good: Parts that can be kept.
    """

    model: StoredModel
    models: tuple[str, ...]
    layer: Layer
    path: Path
    reason: str
    good: frozenset[int] = frozenset()


def verify(
    library: Library, models: Iterable[StoredModel], tell: Tell, is_cancelled: Callable[[], bool]
) -> list[Damage]:
    """Hash every file of the models, each once; blocking. Nothing is moved or changed.

    A file of an adopted folder whose hash nobody knows is checked for size and time alone, which
    listing it has done.

    Raises:
        Cancelled: If `is_cancelled` said so.
    """
    users: dict[Path, list[StoredModel]] = {}
    layers: dict[Path, Layer] = {}
    for model in models:
        for layer, path in _files(model, library):
            users.setdefault(path, []).append(model)
            layers.setdefault(path, layer)
    found: list[Damage] = []
    for path, layer in layers.items():
        names = tuple(model.name.short() for model in users[path])
        is_ours = not users[path][0].adopted
        reason, good = _check(path, layer, library if is_ours else None, tell, is_cancelled)
        if reason:
            found.append(Damage(users[path][0], names, layer, path, reason, good))
    return found


def _files(model: StoredModel, library: Library) -> list[tuple[Layer, Path]]:
    if not model.adopted:
        parts = (model.manifest.config, *model.manifest.layers)
        return [(layer, library.blobs.path(layer.digest)) for layer in parts]
    weights = zip(model.manifest.of_type(MODEL), model.model_paths, strict=True)
    return [(layer, path) for layer, path in weights if _is_named_by_hash(layer, path)]


def _is_named_by_hash(layer: Layer, path: Path) -> bool:
    blob = path.readlink().name if path.is_symlink() else path.name
    found = _HEX.search(blob)
    return found is not None and layer.digest == f"sha256:{found[0]}"


def _check(
    path: Path, layer: Layer, ours: Library | None, tell: Tell, is_cancelled: Callable[[], bool]
) -> tuple[str, frozenset[int]]:
    sha256 = layer.digest.removeprefix("sha256:")
    try:
        now = sum_file(path, layer.size, lambda n_bytes: tell(layer, n_bytes), is_cancelled)
    except FileNotFoundError:
        return "is gone", frozenset()
    except OSError as error:
        return f"cannot be read: {error.strerror}", frozenset()
    if (now.sha256, now.size) == (sha256, layer.size):
        if ours is not None:
            keep_sums(ours.root, now)
        return "", frozenset()
    good = good_parts(ours.root, sha256, layer.size, now) if ours is not None else frozenset[int]()
    return _reason(now, layer), good


def _reason(now: Sums, layer: Layer) -> str:
    if now.size != layer.size:
        return f"has {now.size} bytes instead of {layer.size}"
    return "has another content than its name says"


# ── mending ───────────────────────────────────────────────────────────────────────────────────


def mend(
    damage: Damage,
    library: Library,
    settings: Settings,
    tell: Callable[[int], None],
    is_cancelled: Callable[[], bool],
) -> None:
    """Fetch a damaged file again from where it came: of one that has good parts only the others.

    The file stays where it is until its source has been found to have it still.

    Raises:
        SourceMissing: If nobody is known who has it, or it is another program's.
        PullFailed: If it cannot be fetched; what is good of it is kept for the next try.
        Cancelled: If `is_cancelled` said so.
    """
    if damage.model.adopted:
        raise SourceMissing(
            f"{damage.path} is another program's file", hint="mend it there, or pull the model"
        )
    fetch = _fetcher(damage, library, settings, tell, is_cancelled)
    _set_apart(damage, library)
    fetch()


def _fetcher(
    damage: Damage,
    library: Library,
    settings: Settings,
    tell: Callable[[int], None],
    is_cancelled: Callable[[], bool],
) -> Callable[[], object]:
    name, sha256 = damage.model.name, damage.layer.digest.removeprefix("sha256:")
    try:
        catalog = Catalog.load(settings.catalog)
        source = understand(name.short(), library, catalog, settings, allow_files=False).source
        for group in source.offer().groups:
            for file in group.files:
                if file.sha256 == sha256:
                    return lambda: source.fetch(file, lambda _d, _t, n: tell(n), is_cancelled)
    except (SourceMissing, InvalidName):
        pass
    if _came_from_registry(damage.model, library):
        try:
            return _from_registry(damage, library, Watcher(tell, is_cancelled))
        except SourceMissing:
            pass
    raise SourceMissing(
        f"nobody is known who has this file of {name.short()} as it was",
        hint=f"localrun pull {name.short()}",
    )


def _came_from_registry(model: StoredModel, library: Library) -> bool:
    """Whether to ask there: of Ollama's the config tells, so that no name of a user's is sent."""
    if not names_registry(model.name.full()):
        return False
    try:
        config = library.blobs.path(model.manifest.config.digest).read_bytes()
    except OSError:
        config = b""
    return model.name.host != DEFAULT_HOST or b'"rootfs"' in config


def _from_registry(damage: Damage, library: Library, watcher: Watcher) -> Callable[[], object]:
    # Only here: the HTTP client takes a fifth of a second to import.
    from localrun.store.registry import Registry
    from localrun.store.transfer import fetch_file

    layer, name = damage.layer, damage.model.name.full()
    address = read_address(name, insecure=False)
    with Registry(address) as registry:
        manifest = parse_manifest(registry.read_manifest())
    if layer.digest not in manifest.digests:
        raise SourceMissing(f"{name} has changed at its registry")

    def fetch() -> object:
        wanted = Wanted(f"{name} ({layer.digest[:19]})", layer.size, layer.digest[7:])
        with Registry(address) as registry:
            resolve = lambda: registry.locate(layer.digest, layer.size)  # noqa: E731 (one use)
            return fetch_file(wanted, resolve, library.blobs, watcher)

    return fetch


def _set_apart(damage: Damage, library: Library) -> None:
    """Make of a damaged blob a part that a transfer goes on from."""
    key, size = f"sha256-{damage.layer.digest[7:]}", damage.layer.size
    part = library.blobs.partial(f"{key}.part")
    with locked(part.with_suffix(".lock")):
        if not damage.path.exists():
            return
        if damage.good and not part.exists():
            if damage.path.stat().st_nlink > 1:  # someone else's file too, which is not written to
                shutil.copyfile(damage.path, part)
            else:
                damage.path.replace(part)
            os.truncate(part, size)
            journal = open_journal(part.with_suffix(".journal"), key, size)
            try:
                for span in journal.parts:
                    span.done = span.size if span.index in damage.good else 0
                    journal.record(span)
            finally:
                journal.close()
        damage.path.unlink(missing_ok=True)


def explain(error: LocalrunError) -> str:
    """An error in one line."""
    return f"{error.message}; {error.hint}" if error.hint else error.message
