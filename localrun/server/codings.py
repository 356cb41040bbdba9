"""Compressed request bodies: zstd, gzip and deflate, never unpacked beyond a limit. Pure."""

import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

from localrun.errors import BadRequest

if sys.version_info >= (3, 14):
    from compression.zstd import DecompressionParameter, ZstdDecompressor, ZstdError
else:
    from backports.zstd import DecompressionParameter, ZstdDecompressor, ZstdError

_MAX_WINDOW_LOG = 25
"""A window above 32 MiB is longer than any body, and would be allocated at once."""

_MAX_FRAMES = 1024
_MAX_CODINGS = 4


class BodyTooLarge(BadRequest):
    """Raised when a request body is longer than the server takes."""

    code = "body_too_large"
    status = 413

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the request body is larger than {max_bytes >> 20} MiB")


class UnknownCoding(BadRequest):
    """Raised when a body is compressed in a way that is not known here."""

    code = "unknown_coding"
    status = 415

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the Content-Encoding {name[:40]!r} is not known",
            hint=f"send the body plain, or in one of {', '.join(_MAKERS)}",
        )


class BadCoding(BadRequest):
    """Raised when a body is not what its `Content-Encoding` says."""

    code = "bad_coding"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"failed to decompress {name} body", hint=why)


class _Decoder(Protocol):
    """What the decompressors of the standard library have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zlib:
    """zlib's decompressor with the interface of the others."""

    def __init__(self, window_bits: int) -> None:
        self._inner = zlib.decompressobj(window_bits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = len(piece) < max_length
        return piece


def _gzip(_: bytes) -> _Decoder:
    return _Zlib(16 + zlib.MAX_WBITS)


def _deflate(body: bytes) -> _Decoder:
    """With zlib's header, as the standard says, or without, as some clients send it."""
    has_header = len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return _Zlib(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)


def _zstd(_: bytes) -> _Decoder:
    return ZstdDecompressor(options={DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})


_MAKERS: Mapping[str, Callable[[bytes], _Decoder]] = {
    "zstd": _zstd,
    "gzip": _gzip,
    "deflate": _deflate,
}
_OTHER_NAMES = {"x-gzip": "gzip"}


def decode_body(body: bytes, codings: str, max_bytes: int) -> bytes:
    """Unpack a body; may take as long as `max_bytes` take, and holds no lock meanwhile.

    Args:
        body: As it came.
        codings: The `Content-Encoding` header: in the order in which they were applied.
        max_bytes: Length of the result, and of each step on the way there.

    Raises:
        UnknownCoding: If a coding is not known.
        BodyTooLarge: If the result would be longer; no more than that is ever unpacked.
        BadCoding: If the body is damaged or ends too early.
    """
    names = [word for part in codings.lower().split(",") if (word := part.strip())]
    names = [_OTHER_NAMES.get(name, name) for name in names if name != "identity"]
    for name in names:
        if name not in _MAKERS:
            raise UnknownCoding(name)
    if len(names) > _MAX_CODINGS:
        raise UnknownCoding(", ".join(names))
    for name in reversed(names):
        try:
            body = _decode(body, name, max_bytes)
        except (zlib.error, ZstdError, EOFError) as error:
            raise BadCoding(name, str(error)) from error
    return body


def _decode(body: bytes, name: str, max_bytes: int) -> bytes:
    """All frames of a body, one after the other."""
    pieces: list[bytes] = []
    n_bytes = 0
    for _ in range(_MAX_FRAMES):
        decoder = _MAKERS[name](body)
        while not decoder.eof:
            piece = decoder.decompress(body, max_bytes - n_bytes + 1)
            pieces.append(piece)
            n_bytes += len(piece)
            if n_bytes > max_bytes:
                raise BodyTooLarge(max_bytes)
            if _is_starved(decoder):
                raise BadCoding(name, "the body ends too early")
            body = b""
        body = decoder.unused_data
        if not body:
            return b"".join(pieces)
    raise BadCoding(name, f"it has more than {_MAX_FRAMES} frames")


def _is_starved(decoder: _Decoder) -> bool:
    """Whether it waits for bytes that will not come."""
    return decoder.needs_input and not decoder.eof
