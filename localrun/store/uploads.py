"""A blob that a client sends: hashed while it is written, named only if it is what it says."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from localrun.errors import BadRequest
from localrun.store.blobs import Blobs
from localrun.store.quantization import RemoteFile
from localrun.store.sources.file import FileSource

PREFIX = "upload-"
"""Of the file's name until it is whole."""


class DigestMismatch(BadRequest):
    """Raised when a file is not what its digest says."""

    code = "digest_mismatch"

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(
            f'digest mismatch, expected "{expected}", got "{got}"',
            hint="the file was changed on its way, or while it was read; send it again",
        )


class Upload:
    """One file on its way into the blobs; used by one thread at a time.

    Args:
        blobs: Where it goes.
        digest: What it is to be.
        size: Bytes that are said to come; 0 if nobody says.

    Raises:
        DiskFull: If there is no room for so many.
    """

    def __init__(self, blobs: Blobs, digest: str, size: int) -> None:
        self._blobs, self._digest, self._size = blobs, digest, size
        blobs.ensure_room(size)
        self._descriptor, name = tempfile.mkstemp(prefix=PREFIX, dir=blobs.partial("x").parent)
        self._path = Path(name)
        self._proof = hashlib.sha256()
        self._is_open = True

    def write(self, pieces: Sequence[bytes]) -> None:
        """Hash and write what has come.

        Raises:
            DiskFull: If there is no room any more.
        """
        content = b"".join(pieces)
        self._proof.update(content)
        view = memoryview(content)
        with self._blobs.writing(self._size or len(content)):
            while view:
                view = view[os.write(self._descriptor, view) :]

    def finish(self, pieces: Sequence[bytes]) -> None:
        """Write the last of it, and give it the blob's name.

        Raises:
            DigestMismatch: If it is not what it was to be.
            DiskFull: If there is no room any more.
        """
        self.write(pieces)
        self._close()
        got = f"sha256:{self._proof.hexdigest()}"
        if got != self._digest:
            raise DigestMismatch(self._digest, got)
        self._path.chmod(0o644)
        self._blobs.commit(self._path, self._digest)

    def discard(self) -> None:
        """Remove what is not committed; nothing happens after `finish`."""
        self._close()
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self._descriptor)


def link_file(blobs: Blobs, path: Path, digest: str, is_cancelled: Callable[[], bool]) -> None:
    """Take a file of this machine into the blobs: linked where the disk allows it, else copied.

    Raises:
        DigestMismatch: If its content has another digest.
        SourceMissing: If there is no such file, or it changed meanwhile.
        Cancelled: If `is_cancelled` said so.
        DiskFull: If it must be copied and there is no room.
    """
    source = FileSource(path, blobs)
    size = source.size()
    got = source.fetch(RemoteFile(str(path), size), _tell_nobody, is_cancelled)
    if got != digest:
        raise DigestMismatch(digest, got)


def _tell_nobody(_digest: str, _total: int, _completed: int, /) -> None:
    pass
