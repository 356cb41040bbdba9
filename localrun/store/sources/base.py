"""What every source of models can do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from localrun.gguf import ByteReader
from localrun.store.quantization import FileGroup, RemoteFile

Tell = Callable[[str, int, int], None]
"""Told the digest (empty while it is unknown), the bytes of the whole and the bytes here."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a source has under one name.

    Attributes:
        where: The source in one line, for people and for the config blob.
        groups: What could be taken, and what could not with its reason.
        license: As the source says; empty if it does not.
        is_gated: Files are given only to who has accepted the terms.
    """

    where: str
    groups: tuple[FileGroup, ...]
    license: str = ""
    is_gated: bool = False


class Source(Protocol):
    """A place that has the files of one model."""

    def offer(self) -> Offer:
        """Say what is there. Raises `PullFailed`."""
        ...

    def reader(self, file: RemoteFile, /) -> ByteReader | None:
        """What reads spans of a file, such as its header; None where that is not possible.

        Calling it raises `PullFailed`.
        """
        ...

    def fetch(self, file: RemoteFile, tell: Tell, is_cancelled: Callable[[], bool]) -> str:
        """Bring a file into the blobs and return its digest; blocking.

        Raises:
            PullFailed: In the class that says why it failed.
            Cancelled: If `is_cancelled` said so.
        """
        ...
