"""The hashes of a blob's parts, kept when it was whole: they tell later which part is damaged.

<root>/sums/sha256-<64 hex>    32 bytes a part, in order; parts as those of the transfer
"""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localrun.errors import Cancelled
from localrun.store.blobs import write_atomically
from localrun.store.journal import plan_part_bytes, plan_parts

_PIECE_BYTES = 1 << 20
_SUM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Sums:
    """What a file's content is.

    Attributes:
        sha256: Of the whole, 64 hex digits.
        size: Bytes.
        parts: Of each part, as the transfer divides a file of the promised size.
    """

    sha256: str
    size: int
    parts: tuple[bytes, ...]


def sum_file(
    path: Path, size: int, tell: Callable[[int], None], is_cancelled: Callable[[], bool]
) -> Sums:
    """Hash a file and its parts.

    Args:
        path: The file.
        size: How long it is to be; what is beyond counts for the whole only.
        tell: Told how many bytes are done.
        is_cancelled: Asked before each piece.

    Raises:
        Cancelled: If `is_cancelled` said so.
        OSError: If it cannot be read.
    """
    whole, n_bytes, sums = hashlib.sha256(), 0, list[bytes]()
    spans = plan_parts(size, plan_part_bytes(size)) if size else []
    with path.open("rb", buffering=0) as file:
        for end in [span.end for span in spans] + [1 << 62]:
            part = hashlib.sha256()
            while n_bytes < end and (piece := file.read(min(_PIECE_BYTES, end - n_bytes))):
                if is_cancelled():
                    raise Cancelled("the check was cancelled")
                whole.update(piece)
                part.update(piece)
                n_bytes += len(piece)
                tell(min(n_bytes, size))
            sums.append(part.digest())
    return Sums(whole.hexdigest(), n_bytes, tuple(sums[:-1]))


def keep_sums(root: Path, sums: Sums) -> None:
    """Remember the parts of a blob that is whole; one of a single part needs no memory."""
    if len(sums.parts) > 1:
        write_atomically(_path(root, sums.sha256), b"".join(sums.parts))


def good_parts(root: Path, sha256: str, size: int, now: Sums) -> frozenset[int]:
    """Which parts of a damaged file are as they were.

    Without a memory of them, those that a file cut short still has are taken for good: the hash of
    the whole is checked again at the end.
    """
    spans = plan_parts(size, plan_part_bytes(size)) if size else []
    kept = b""
    with contextlib.suppress(OSError):
        kept = _path(root, sha256).read_bytes()
    if len(kept) == _SUM_BYTES * len(spans):
        before = [kept[i : i + _SUM_BYTES] for i in range(0, len(kept), _SUM_BYTES)]
        pairs = enumerate(zip(before, now.parts, strict=True))
        return frozenset(index for index, (then, found) in pairs if then == found)
    if now.size >= size:
        return frozenset()
    return frozenset(span.index for span in spans if span.end <= now.size)


def _path(root: Path, sha256: str) -> Path:
    return root / "sums" / f"sha256-{sha256}"
