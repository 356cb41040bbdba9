"""A GGUF file on this machine: linked into the store where the disk allows it, else copied."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from localrun.errors import Cancelled, SourceMissing
from localrun.gguf import ByteReader
from localrun.store.blobs import Blobs, Stream, take_stream
from localrun.store.quantization import FileGroup, RemoteFile, group_files, read_file_name
from localrun.store.sources.base import Offer, Tell

_PIECE_BYTES = 1 << 20


class FileSource:
    """One file, or all shards of a split one, given any of them."""

    def __init__(self, path: Path, blobs: Blobs) -> None:
        self._path, self._blobs = path.expanduser().absolute(), blobs

    def offer(self) -> Offer:
        """The file with its shards.

        Raises:
            SourceMissing: If it is not there or is no GGUF file by its name.
        """
        if not self._path.is_file():
            raise SourceMissing(f"there is no file {self._path}")
        name = read_file_name(self._path.name)
        if name.kind == "other":
            raise SourceMissing(
                f"{self._path} is no .gguf file", hint="only GGUF files can be taken as they are"
            )
        if name.n_shards == 1:
            file = RemoteFile(str(self._path), self._path.stat().st_size)
            return Offer(str(self._path), (FileGroup(name.quantization or "GGUF", (file,)),))
        shards = [
            RemoteFile(str(path), path.stat().st_size)
            for path in sorted(self._path.parent.glob("*.gguf"))
            if read_file_name(path.name).stem == name.stem
        ]
        return Offer(str(self._path), tuple(group_files(shards)))

    def size(self) -> int:
        """Bytes of the file.

        Raises:
            SourceMissing: If there is none that can be read.
        """
        try:
            return self._path.stat().st_size
        except OSError as error:
            raise SourceMissing(f"there is no file {self._path}: {error.strerror}") from error

    def reader(self, file: RemoteFile, /) -> ByteReader:
        """What reads spans of the file."""

        def read(start: int, size: int) -> bytes:
            with Path(file.path).open("rb") as opened:
                opened.seek(start)
                return opened.read(size)

        return read

    def fetch(self, file: RemoteFile, tell: Tell, is_cancelled: Callable[[], bool]) -> str:
        """Hash the file, then link or copy it."""
        source = Path(file.path).resolve()
        before = _state(source)
        digest = self._hash(source, file.size, tell, is_cancelled)
        if self._blobs.has(digest, file.size):
            return digest
        link = self._blobs.partial(f"{digest.replace(':', '-')}.link")
        link.unlink(missing_ok=True)
        try:
            os.link(source, link)
        except OSError:
            return self._copy(source, file, digest, is_cancelled)
        if _state(source) != before:
            link.unlink()
            raise SourceMissing(f"{source} changed while it was read", hint="pull it again")
        self._blobs.commit(link, digest)
        return digest

    @staticmethod
    def _hash(source: Path, size: int, tell: Tell, is_cancelled: Callable[[], bool]) -> str:
        proof, n_bytes = hashlib.sha256(), 0
        with source.open("rb", buffering=0) as opened:
            while piece := opened.read(_PIECE_BYTES):
                if is_cancelled():
                    raise Cancelled("the pull was cancelled")
                proof.update(piece)
                n_bytes += len(piece)
                tell("", size, min(n_bytes, size))
        return f"sha256:{proof.hexdigest()}"

    def _copy(
        self, source: Path, file: RemoteFile, digest: str, is_cancelled: Callable[[], bool]
    ) -> str:
        with source.open("rb", buffering=0) as opened:
            stream = Stream(
                name=str(source),
                read=opened.read,
                size=file.size,
                sha256=digest.removeprefix("sha256:"),
                report=lambda _: None,
                is_cancelled=is_cancelled,
            )
            return take_stream(self._blobs, stream)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
