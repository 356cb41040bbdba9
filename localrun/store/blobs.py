"""Blobs: files named by their content, and the one place where a digest becomes a path.

Layout, Ollama's: `blobs/sha256-<64 hex>`. What is on its way is kept apart in `partial/`, and what
did not have its promised content in `quarantine/`: nothing half-done ever has a blob's name.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from localrun.errors import BadRequest, BrokenTransfer, Cancelled, DiskFull

BLOB_NAME = re.compile(r"sha256-[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ROOM_LEFT_BYTES = 64 << 20
_PIECE_BYTES = 1 << 20
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write on the folder's disk."""
    return shutil.disk_usage(folder).free


class Blobs:
    """The blobs under one root; safe for several threads and processes.

    Args:
        root: Root of the store; folders are made when they are first needed.
        free: How many bytes the disk of a folder has left.
    """

    def __init__(self, root: Path, free: Callable[[Path], int] = free_bytes) -> None:
        self.root = root
        self._free = free

    def path(self, digest: str) -> Path:
        """Where a blob is or would be.

        Raises:
            BadRequest: If the digest is not `sha256:` and 64 lower-case hex digits.
        """
        if not _DIGEST.fullmatch(digest):
            raise BadRequest("invalid digest format")
        return self.root / "blobs" / digest.replace(":", "-")

    def partial(self, name: str) -> Path:
        """Where a file on its way is kept; `name` is ours, never a user's."""
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        return self._folder("partial") / name

    def has(self, digest: str, size: int | None = None) -> bool:
        """Whether the blob is there, and has `size` bytes if that is given."""
        try:
            found = self.path(digest).stat()
        except FileNotFoundError:
            return False
        return size is None or found.st_size == size

    def ensure_room(self, n_bytes: int) -> None:
        """Check that the disk takes `n_bytes` more and keeps a little for others.

        Raises:
            DiskFull: If it does not.
        """
        free = self._free(self._folder("blobs"))
        if free < n_bytes + _ROOM_LEFT_BYTES:
            raise _disk_full(self.root, n_bytes, free)

    @staticmethod
    def digest(content: bytes) -> str:
        """The digest that a blob of this content has."""
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def put(self, content: bytes) -> str:
        """Store a small blob and return its digest; it is there already if it is."""
        digest = self.digest(content)
        if not self.has(digest, len(content)):
            write_atomically(self.path(digest), content)
        return digest

    def commit(self, file: Path, digest: str) -> Path:
        """Give a file that is whole and verified its blob's name; returns the blob's path.

        The file's bytes are on the disk before the name is.
        """
        target = self.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        _sync_file(file)
        file.replace(target)
        sync_folder(target.parent)
        return target

    def quarantine(self, file: Path) -> Path:
        """Move a file that is not what it should be out of the way; returns its new path."""
        target = self._folder("quarantine") / file.name
        n = 1
        while target.exists():
            target = target.with_name(f"{file.name}.{n}")
            n += 1
        return file.replace(target)

    def remove(self, digest: str) -> None:
        """Remove a blob; nothing happens if it is not there."""
        self.path(digest).unlink(missing_ok=True)

    @contextmanager
    def writing(self, n_bytes: int) -> Generator[None]:
        """Turn the system's "no room" inside the block into `DiskFull`."""
        try:
            yield
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise _disk_full(self.root, n_bytes, self._free(self.root)) from error

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole small file or none: temporary file beside it, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _sync_file(file: Path) -> None:
    try:
        descriptor = os.open(file, os.O_RDWR)
    except PermissionError:  # a link to a file that is read-only; Linux syncs it all the same
        descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Put a rename on the disk, where the system can (Windows cannot open a folder)."""
    with contextlib.suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _disk_full(root: Path, needed: int, free: int) -> DiskFull:
    return DiskFull(
        f"{needed / 1e9:.2f} GB are to be written and {free / 1e9:.2f} GB are free under {root}",
        hint="remove models with `localrun rm`, or set LOCALRUN_MODELS to a larger disk",
    )


@dataclass(frozen=True, slots=True)
class Stream:
    """Bytes on their way into the blobs.

    Attributes:
        name: What to call them in messages.
        read: Gives up to so many bytes more, none at the end.
        size: How many there are to be.
        sha256: What they are to be, 64 hex digits; empty if nobody says.
        report: Told how many are here.
        is_cancelled: Whether to give up.
    """

    name: str
    read: Callable[[int], bytes]
    size: int
    sha256: str
    report: Callable[[int], None]
    is_cancelled: Callable[[], bool]


def take_stream(blobs: Blobs, stream: Stream) -> str:
    """Hash a stream while it is written, verify it and commit it; returns the digest.

    Raises:
        BrokenTransfer: If it is not what it was to be; what arrived is set aside.
        Cancelled: If the stream's owner gives up.
        DiskFull: If there is no room.
    """
    blobs.ensure_room(stream.size)
    descriptor, name = tempfile.mkstemp(prefix="stream-", dir=blobs.partial("x").parent)
    path, proof, n_bytes = Path(name), hashlib.sha256(), 0
    try:
        with blobs.writing(stream.size), os.fdopen(descriptor, "wb", buffering=0) as file:
            while n_bytes <= stream.size and (piece := stream.read(_PIECE_BYTES)):
                if stream.is_cancelled():
                    raise Cancelled("the pull was cancelled")
                proof.update(piece)
                file.write(piece)
                n_bytes += len(piece)
                stream.report(min(n_bytes, stream.size))
        path.chmod(0o644)
        got = proof.hexdigest()
        if n_bytes != stream.size or (stream.sha256 and got != stream.sha256):
            kept = blobs.quarantine(path)
            raise BrokenTransfer(
                f"{stream.name} is not what was promised ({n_bytes} bytes, sha256 {got}); it was"
                f" set aside as {kept}",
                hint="pull it again; the file set aside may be deleted",
            )
        blobs.commit(path, f"sha256:{got}")
    finally:
        path.unlink(missing_ok=True)
    return f"sha256:{got}"
