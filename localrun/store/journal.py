"""What of a file has arrived: its parts, and the journal that survives a kill.

The journal is one line of JSON, padded to a block, and a little-endian u64 per part: how many of
its bytes are in the partial file. A part's bytes are written before its number, and a number in one
call, so that a process killed at any point loses what it had not yet recorded and nothing else.
"""

import contextlib
import json
import os
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

_HEADER_BYTES = 512
_COUNT = struct.Struct("<Q")
_MIB = 1 << 20
_one_writer = threading.Lock()
_SMALLEST_PART, _LARGEST_PART, _PARTS_WANTED = 8 * _MIB, 64 * _MIB, 64
RECORD_BYTES = 256 << 10
"""A part's progress is recorded at least this often."""


@dataclass(slots=True)
class Part:
    """A span of the file; `lock` is held while a byte is written and counted in `done`."""

    index: int
    start: int
    size: int
    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def at(self) -> int:
        """Where in the file its next byte belongs."""
        return self.start + self.done

    @property
    def end(self) -> int:
        """One past its last byte."""
        return self.start + self.size

    @property
    def is_done(self) -> bool:
        """Whether all its bytes are in the partial file."""
        return self.done == self.size


def plan_part_bytes(size: int) -> int:
    """How long the parts of a file are: whole MiB, so many that connections share the work."""
    wanted = -(-size // (_PARTS_WANTED * _MIB)) * _MIB
    return min(max(wanted, _SMALLEST_PART), _LARGEST_PART)


def plan_parts(size: int, part_bytes: int) -> list[Part]:
    """The parts of a file in order; they cover it without gap or overlap."""
    return [
        Part(index, start, min(part_bytes, size - start))
        for index, start in enumerate(range(0, size, part_bytes))
    ]


class Journal:
    """The journal of one partial file; the caller holds the file's lock.

    Attributes:
        parts: All parts in order, `done` as found on the disk.
    """

    def __init__(self, descriptor: int, parts: list[Part]) -> None:
        self._descriptor = descriptor
        self.parts = parts

    @property
    def completed(self) -> int:
        """Bytes that have arrived."""
        return sum(part.done for part in self.parts)

    def record(self, part: Part) -> None:
        """Write a part's progress; its bytes have been written before."""
        place = _HEADER_BYTES + part.index * _COUNT.size
        write_at(self._descriptor, _COUNT.pack(part.done), place)

    def close(self) -> None:
        """Close the file; a late `record` fails and cannot hit another file of that number."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


def open_journal(path: Path, key: str, size: int) -> Journal:
    """Open the journal of a file, or begin one.

    Args:
        path: Where it is.
        key: What names the file's content; another key begins anew.
        size: Bytes of the whole file; another size begins anew.
    """
    found = _read(path, key, size)
    parts = found if found is not None else plan_parts(size, plan_part_bytes(size))
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags, 0o644)
    journal = Journal(descriptor, parts)
    if found is None:
        os.ftruncate(descriptor, 0)
        part_bytes = parts[0].size if parts else 0
        header = json.dumps({"key": key, "size": size, "part_bytes": part_bytes})
        content = header.ljust(_HEADER_BYTES - 1).encode() + b"\n" + bytes(8 * len(parts))
        write_at(descriptor, content, 0)
    return journal


def read_completed(path: Path) -> int:
    """Bytes that a journal says have arrived; for who only watches. 0 if there is none."""
    with contextlib.suppress(OSError):
        counts = path.read_bytes()[_HEADER_BYTES:]
        return sum(count for (count,) in _COUNT.iter_unpack(counts[: len(counts) // 8 * 8]))
    return 0


def _read(path: Path, key: str, size: int) -> list[Part] | None:
    try:
        content = path.read_bytes()
        header = cast("object", json.loads(content[:_HEADER_BYTES]))
    except (OSError, ValueError):
        return None
    if not isinstance(header, dict):
        return None
    facts = cast("dict[str, object]", header)
    part_bytes = facts.get("part_bytes")
    if (facts.get("key"), facts.get("size")) != (key, size) or not isinstance(part_bytes, int):
        return None
    parts = plan_parts(size, part_bytes) if part_bytes > 0 else []
    counts = content[_HEADER_BYTES:]
    if len(counts) != _COUNT.size * len(parts):
        return None
    for part, (done,) in zip(parts, _COUNT.iter_unpack(counts), strict=True):
        if done > part.size:
            return None
        part.done = done
    return parts


def write_at(descriptor: int, content: bytes | memoryview, place: int) -> None:
    """Write all of `content` at a place in a file; several threads may do so at once."""
    view = memoryview(content)
    if hasattr(os, "pwrite"):
        while view:
            n = os.pwrite(descriptor, view, place)
            view, place = view[n:], place + n
        return
    with _one_writer:  # Windows has no such call
        os.lseek(descriptor, place, os.SEEK_SET)
        while view:
            view = view[os.write(descriptor, view) :]


def read_at(descriptor: int, buffer: memoryview, place: int) -> int:
    """Fill a buffer from a place in a file, as far as the file goes; returns the bytes read."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], place)
    with _one_writer:
        os.lseek(descriptor, place, os.SEEK_SET)
        content = os.read(descriptor, len(buffer))
    buffer[: len(content)] = content
    return len(content)
