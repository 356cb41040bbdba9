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
from pathlib import Path

from localrun.errors import LocalrunError
from localrun.store.library import Library
from localrun.system.locks import locked

PARTS_S = 14 * 86400.0
"""How long a part that a pull could go on from is kept after its last byte."""

REST_S = 86400.0
"""How long files without an owner are kept, and those that nobody can go on with."""

_log = logging.getLogger("localrun.store")


def clean(library: Library, clock: Callable[[], float] = time.time) -> int:
    """Remove what nobody will come back for; blocking.

    Args:
        library: The store.
        clock: Seconds since 1970.

    Returns:
        The bytes that were freed; none where the user wants everything kept.
    """
    root, now = library.root, clock()
    if not (library.prunes and root.is_dir()):
        return 0
    try:
        n_bytes, has_parts = _clean_parts(root / "partial", now)
        n_bytes += _clean_old(_entries(root / "quarantine"), now - REST_S)
        n_bytes += _clean_old(_unfinished(root), now - REST_S)
        if not has_parts:
            n_bytes += library.drop_ownerless(now - REST_S)
    except (OSError, LocalrunError) as error:
        _log.warning("%s could not be cleaned: %s", root, error)
        return 0
    if n_bytes:
        _log.info("%.1f MB of files without an owner were removed", n_bytes / 1e6)
    return n_bytes


def _clean_parts(folder: Path, now: float) -> tuple[int, bool]:
    """Remove old parts; the bytes, and whether something is left that is on its way."""
    n_bytes, has_parts = 0, False
    locks = [path for path in _entries(folder) if path.suffix == ".lock"]
    for lock in locks:
        with locked(lock, waits=False) as is_ours:
            mine = [lock.with_suffix(suffix) for suffix in (".part", ".journal", "")]
            mine = [path for path in mine if path.exists()]
            if is_ours and max(map(_age_of, [*mine, lock])) < now - PARTS_S:
                n_bytes += sum(map(_remove, mine))
                with contextlib.suppress(PermissionError):  # Windows keeps what is open
                    lock.unlink(missing_ok=True)
            else:
                has_parts = has_parts or bool(mine) or not is_ours
    owned = {lock.stem for lock in locks}
    for path in _entries(folder):
        if path.suffix == ".lock" or path.stem in owned or path.name in owned:
            continue
        if _age_of(path) < now - REST_S:
            n_bytes += _remove(path)
        else:
            has_parts = True  # an upload, a copy or a quantization, in this process or another
    return n_bytes, has_parts


def _unfinished(root: Path) -> Iterator[Path]:
    """Small files whose writer was killed before their rename."""
    yield from (root / "blobs").glob(".new-*")
    yield from (root / "manifests").glob("*/*/*/.new-*")


def _clean_old(paths: Iterator[Path] | list[Path], before: float) -> int:
    return sum(_remove(path) for path in paths if _age_of(path) < before)


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
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            n_bytes = sum(each.lstat().st_size for each in path.rglob("*") if each.is_file())
            shutil.rmtree(path, ignore_errors=True)
            return n_bytes
        n_bytes = path.lstat().st_size
        path.unlink()
        return n_bytes
    return 0
