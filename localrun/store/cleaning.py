"""Remove what pulls, uploads and creations have left: old parts, and files without an owner.

Nothing that is in use goes. A part under its lock belongs to a running pull, of this process or
another. Files that are being written are young. While there is any part, no blob is looked at: the
finished files of a model that is on its way have no owner yet. And the rest waits a day, so that a
client may store the files of a model one after the other.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from localrun.errors import LocalrunError
from localrun.store.library import Library
from localrun.system.locks import locked

PARTS_S = 14 * 86400.0
"""How long a part that a pull could go on from is kept after its last byte."""

REST_S = 86400.0
"""How long files without an owner are kept, and those that nobody can go on with."""

_log = logging.getLogger("localrun.store")


@dataclass(frozen=True, slots=True)
class Ages:
    """How many seconds things are kept.

    Attributes:
        parts: A part that a pull could go on from, after its last byte.
        rest: Files without an owner, and those that nobody can go on with.
        quarantine: What did not have its promised content.
    """

    parts: float = PARTS_S
    rest: float = REST_S
    quarantine: float = REST_S


ON_DEMAND = Ages(parts=0.0, rest=3600.0, quarantine=0.0)
"""For who asks: what a command in another window may be making is an hour old at most."""

_USUAL = Ages()
_Take: TypeAlias = Callable[[Path], int]


@dataclass(frozen=True, slots=True)
class Waste:
    """A file or folder of ours that nobody needs."""

    path: Path
    n_bytes: int


def find_waste(
    library: Library, ages: Ages = ON_DEMAND, clock: Callable[[], float] = time.time
) -> list[Waste]:
    """What `clean` would remove; nothing is changed."""
    root, now = library.root, clock()
    found: list[Waste] = []

    def note(path: Path) -> int:
        found.append(Waste(path, _size_of(path)))
        return found[-1].n_bytes

    _, has_parts = _clean_parts(root / "partial", now, ages, note)
    _clean_old(_entries(root / "quarantine"), now - ages.quarantine, note)
    _clean_old(_unfinished(root), now - ages.rest, note)
    if not has_parts:
        for path in library.ownerless(now - ages.rest):
            note(path)
    return found


def clean(library: Library, clock: Callable[[], float] = time.time, ages: Ages = _USUAL) -> int:
    """Remove what nobody will come back for; blocking.

    Args:
        library: The store.
        clock: Seconds since 1970.
        ages: How long things are kept.

    Returns:
        The bytes that were freed; none where the user wants everything kept.
    """
    root, now = library.root, clock()
    if not (library.prunes and root.is_dir()):
        return 0
    try:
        n_bytes, has_parts = _clean_parts(root / "partial", now, ages, _remove)
        n_bytes += _clean_old(_entries(root / "quarantine"), now - ages.quarantine, _remove)
        n_bytes += _clean_old(_unfinished(root), now - ages.rest, _remove)
        if not has_parts:
            n_bytes += library.drop_ownerless(now - ages.rest)
    except (OSError, LocalrunError) as error:
        _log.warning("%s could not be cleaned: %s", root, error)
        return 0
    if n_bytes:
        _log.info("%.1f MB of files without an owner were removed", n_bytes / 1e6)
    return n_bytes


def _clean_parts(folder: Path, now: float, ages: Ages, take: _Take) -> tuple[int, bool]:
    """Take old parts; the bytes, and whether something is left that is on its way."""
    n_bytes, has_parts = 0, False
    locks = [path for path in _entries(folder) if path.suffix == ".lock"]
    for lock in locks:
        with locked(lock, waits=False) as is_ours:
            mine = [lock.with_suffix(suffix) for suffix in (".part", ".journal", "")]
            mine = [path for path in mine if path.exists()]
            if is_ours and max(map(_age_of, [*mine, lock])) < now - ages.parts:
                n_bytes += sum(map(take, [*mine, lock]))
            else:
                has_parts = has_parts or bool(mine) or not is_ours
    owned = {lock.stem for lock in locks}
    for path in _entries(folder):
        if path.suffix == ".lock" or path.stem in owned or path.name in owned:
            continue
        if _age_of(path) < now - ages.rest:
            n_bytes += take(path)
        else:
            has_parts = True  # an upload, a copy or a quantization, in this process or another
    return n_bytes, has_parts


def _unfinished(root: Path) -> Iterator[Path]:
    """Small files whose writer was killed before their rename, and sums of blobs that are gone."""
    yield from (root / "blobs").glob(".new-*")
    yield from (
        each for each in _entries(root / "sums") if not (root / "blobs" / each.name).exists()
    )
    yield from (root / "manifests").glob("*/*/*/.new-*")


def _clean_old(paths: Iterator[Path] | list[Path], before: float, take: _Take) -> int:
    return sum(take(path) for path in paths if _age_of(path) < before)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _age_of(path: Path) -> float:
    """When it was last changed, or came to where it is; of a folder the newest thing in it."""
    newest = 0.0
    with contextlib.suppress(FileNotFoundError):
        inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
        for each in (path, *inside):
            found = each.lstat()
            newest = max(newest, found.st_mtime, found.st_ctime)
    return newest


def _remove(path: Path) -> int:
    """Remove a file or a folder of ours; the bytes that it took."""
    n_bytes = _size_of(path)
    # Windows keeps what is open: a lock that we hold ourselves.
    with contextlib.suppress(FileNotFoundError, PermissionError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    return n_bytes


def _size_of(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            return sum(each.lstat().st_size for each in path.rglob("*") if each.is_file())
        return path.lstat().st_size
    return 0
