"""Read the header of a GGUF file from any byte reader, and check it against the file. Pure.

Native code gets to see a file only after every tensor's span is known to lie inside it. Reading is
incremental: a header in front of a remote file costs one or two ranged reads.

Source: the GGUF specification and `ggml/src/gguf.cpp`.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeAlias

from localrun.errors import BadModelFile
from localrun.metadata import MetadataValue
from localrun.modelinfo import ModelInfo, TensorInfo, model_info

__all__ = [
    "ByteReader",
    "Header",
    "MetadataValue",
    "ModelInfo",
    "TensorInfo",
    "join_headers",
    "open_header",
    "open_model",
    "read_header",
]

ByteReader: TypeAlias = Callable[[int, int], bytes]
"""`(offset, size)` → up to `size` bytes; fewer or none at the end of what can be read."""

TYPE_SIZES = {
    # id: (name, elements of a block, bytes of a block)
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
"""GGML tensor types of the pinned llama.cpp."""

_REMOVED = {4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8",
            36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8"}  # fmt: skip
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q",
            11: "<q", 12: "<d"}  # fmt: skip
_STRING, _ARRAY = 8, 9

_FIRST_READ = 1 << 20
_MAX_HEADER = 256 << 20
_MAX_STRING = 64 << 20
_MAX_PAIRS = 1 << 16
_MAX_TENSORS = 1 << 17
_MAX_STRINGS = 4 << 20  # of all arrays together; the largest vocabularies and merges are 0.8 M
_MAX_NAME, _MAX_DIMS, _MAX_ALIGNMENT = 64, 4, 1 << 20
_KEPT_ARRAY = 1024
_U64, _U32 = struct.Struct("<Q"), struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header.

    Attributes:
        info: The facts of the model.
        metadata: Every key. Arrays of the tokenizer and long ones are None unless asked for.
        array_lengths: Length of every array, kept or not.
        tensors: In the file's order.
        data_offset: Where the tensors begin, in bytes.
        file_bytes: How long the file must be at least.
    """

    info: ModelInfo
    metadata: dict[str, MetadataValue]
    array_lengths: dict[str, int]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    file_bytes: int


def open_header(path: Path, *, keep_arrays: bool = False) -> Header:
    """Read the header of a file on disk.

    Raises:
        BadModelFile: If it is not a whole, well-formed GGUF file.
        OSError: If it cannot be read.
    """
    with path.open("rb", buffering=0) as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        return read_header(read, path.stat().st_size, keep_arrays=keep_arrays)


def open_model(paths: Sequence[Path]) -> ModelInfo:
    """The facts of a model in one file, or of all its shards in order.

    Raises:
        BadModelFile: If a file is not whole, or the shards do not belong together.
        OSError: If a file cannot be read.
    """
    return join_headers([open_header(path) for path in paths])


def join_headers(headers: Sequence[Header]) -> ModelInfo:
    """The facts of a whole model, from the headers of its file or of all its shards in order.

    Raises:
        BadModelFile: If a shard is missing, foreign or out of order.
    """
    first = headers[0]
    count = first.info.split_count
    if count != len(headers):
        raise BadModelFile(f"the model has {count} shards and {len(headers)} are here")
    if count == 1:
        return first.info
    for position, header in enumerate(headers):
        no, of = header.info.split_no, header.info.split_count
        if (no, of) != (position, count):
            raise BadModelFile(f"shard {position + 1} of {count} calls itself {no + 1} of {of}")
    tensors = [tensor for header in headers for tensor in header.tensors]
    if len({tensor.name for tensor in tensors}) != first.info.n_tensors:
        raise BadModelFile(
            f"the shards hold {len(tensors)} tensors where {first.info.n_tensors} are announced",
            hint="fetch the model again; its shards are not of one piece",
        )
    return model_info(first.metadata, first.array_lengths, tensors)


def read_header(read: ByteReader, file_bytes: int, *, keep_arrays: bool = False) -> Header:
    """Read and check a header.

    Args:
        read: Gives the file's bytes; called for growing ranges from the start.
        file_bytes: Length of the whole file; every tensor must lie inside.
        keep_arrays: Keep the values of all arrays (a vocabulary is some tens of megabytes).

    Raises:
        BadModelFile: If the file is empty, foreign, cut short, damaged or too new.
    """
    cursor = _Cursor(read, file_bytes)
    n_tensors, n_pairs = _read_preamble(cursor)
    metadata: dict[str, MetadataValue] = {}
    lengths: dict[str, int] = {}
    for _ in range(n_pairs):
        key = cursor.text()
        if not key or key in metadata:
            raise _damaged(f"the key {key[:64]!r} is empty or comes twice")
        metadata[key], length = _read_value(cursor, key, keep_arrays=keep_arrays)
        if length is not None:
            lengths[key] = length
    alignment = _alignment(metadata)
    tensors = _read_tensors(cursor, n_tensors, alignment)
    data_offset = cursor.at if not tensors else _pad(cursor.at, alignment)
    end = data_offset + (tensors[-1].offset + tensors[-1].n_bytes if tensors else 0)
    if end > file_bytes:
        raise _cut_short(end, file_bytes)
    info = model_info(metadata, lengths, tensors)
    return Header(info, metadata, lengths, tensors, data_offset, end)


class _Cursor:
    """A position in the header, over a buffer that grows from the file's start."""

    def __init__(self, read: ByteReader, file_bytes: int) -> None:
        self._read, self._file_bytes = read, file_bytes
        self.buffer = bytearray()
        self.at = 0
        self.n_strings = 0

    def need(self, size: int) -> int:
        """Make `size` bytes from here readable, step over them, and say where they begin."""
        start = self.at
        if start + size > len(self.buffer):
            self._fill(start + size)
        self.at = start + size
        return start

    def u32(self) -> int:
        start = self.need(4)  # before the buffer is looked at, which it may replace
        return int(_U32.unpack_from(self.buffer, start)[0])

    def u64(self) -> int:
        start = self.need(8)
        return int(_U64.unpack_from(self.buffer, start)[0])

    def text(self) -> str:
        size = self.u64()
        if size > _MAX_STRING:
            raise _damaged(f"a text of {size:,} bytes")
        start = self.need(size)
        return self.buffer[start : start + size].decode("utf-8", "replace")

    def remaining(self) -> int:
        return self._file_bytes - self.at

    def skip_texts(self, n: int) -> None:
        """Step over `n` strings without making objects of them."""
        at, buffer, unpack = self.at, self.buffer, _U64.unpack_from
        while n:
            try:
                while n:
                    at += 8 + unpack(buffer, at)[0]
                    n -= 1
            except (struct.error, OverflowError):  # a length beyond the buffer, or beyond reason
                self._fill(at + 8)
        if at > len(buffer):
            self._fill(at)
        self.at = at

    def _fill(self, end: int) -> None:
        if end > self._file_bytes:
            raise _cut_short(end, self._file_bytes)
        if end > _MAX_HEADER:
            raise _damaged(f"a header of more than {_MAX_HEADER >> 20} MiB")
        wanted = min(max(end, 2 * len(self.buffer), _FIRST_READ), self._file_bytes, _MAX_HEADER)
        while len(self.buffer) < end:
            piece = self._read(len(self.buffer), wanted - len(self.buffer))
            if not piece:
                raise _cut_short(end, len(self.buffer))
            self.buffer += piece


def _read_preamble(cursor: _Cursor) -> tuple[int, int]:
    """Check magic and version; the counts of tensors and of metadata pairs."""
    if cursor.remaining() < 24:
        start = cursor.need(max(0, cursor.remaining()))
        raise _foreign(bytes(cursor.buffer[start:]))
    start = cursor.need(8)
    if not cursor.buffer.startswith(b"GGUF"):
        raise _foreign(bytes(cursor.buffer[:512]))
    version = int(_U32.unpack_from(cursor.buffer, start + 4)[0])
    if version & 0xFFFF == 0 and version:
        raise BadModelFile(
            "the file is in big-endian byte order, which this machine does not read",
            hint="take the little-endian file of the same model",
        )
    if version < 2:
        raise BadModelFile(
            f"the file is GGUF version {version}, from 2023; llama.cpp no longer reads it",
            hint="pull a newer file of the same model",
        )
    if version > 3:
        raise BadModelFile(
            f"the file is GGUF version {version}; this localrun reads 2 and 3",
            hint="pip install --upgrade localrun",
        )
    n_tensors, n_pairs = cursor.u64(), cursor.u64()
    if n_tensors > _MAX_TENSORS or n_pairs > _MAX_PAIRS:
        raise _damaged(f"{n_tensors:,} tensors and {n_pairs:,} metadata pairs")
    return n_tensors, n_pairs


def _read_value(
    cursor: _Cursor, key: str, *, keep_arrays: bool
) -> tuple[MetadataValue, int | None]:
    """A value, and the length if it is an array."""
    kind = cursor.u32()
    if kind == _STRING:
        return cursor.text(), None
    if kind == _ARRAY:
        return _read_array(cursor, key, keep_arrays=keep_arrays)
    form = _SCALARS.get(kind)
    if form is None:
        raise _too_new(f"the value type {kind} of {key[:64]!r} is unknown")
    start = cursor.need(struct.calcsize(form))
    value: MetadataValue = struct.unpack_from(form, cursor.buffer, start)[0]
    return value, None


def _read_array(cursor: _Cursor, key: str, *, keep_arrays: bool) -> tuple[MetadataValue, int]:
    kind, n = cursor.u32(), cursor.u64()
    keep = keep_arrays or (n <= _KEPT_ARRAY and not key.startswith("tokenizer."))
    if kind == _STRING:
        cursor.n_strings += n
        if n * 8 > cursor.remaining() or cursor.n_strings > _MAX_STRINGS:
            raise _damaged(f"{key[:64]!r} claims {n:,} texts")
        if keep:
            return [cursor.text() for _ in range(n)], n
        cursor.skip_texts(n)
        return None, n
    form = _SCALARS.get(kind)
    if form is None:
        raise _too_new(f"the array type {kind} of {key[:64]!r} is unknown")
    width = struct.calcsize(form)
    if n * width > cursor.remaining():
        raise _damaged(f"{key[:64]!r} claims {n:,} values")
    start = cursor.need(n * width)
    if not keep:
        return None, n
    return list(struct.unpack_from(f"<{n}{form[1]}", cursor.buffer, start)), n


def _alignment(metadata: Mapping[str, MetadataValue]) -> int:
    value = metadata.get("general.alignment", 32)
    if type(value) is not int or not 0 < value <= _MAX_ALIGNMENT or value & (value - 1):
        raise _damaged(f"an alignment of {str(value)[:32]}")
    return value


def _read_tensors(cursor: _Cursor, n: int, alignment: int) -> tuple[TensorInfo, ...]:
    tensors: list[TensorInfo] = []
    seen: set[str] = set()
    expected = 0
    for _ in range(n):
        tensor = _read_tensor(cursor)
        if tensor.name in seen:
            raise _damaged(f"two tensors are called {tensor.name!r}")
        if tensor.offset != expected:
            raise _damaged(f"tensor {tensor.name!r} lies at {tensor.offset}, not at {expected}")
        seen.add(tensor.name)
        tensors.append(tensor)
        expected = _pad(expected + tensor.n_bytes, alignment)
    return tuple(tensors)


def _read_tensor(cursor: _Cursor) -> TensorInfo:
    name = cursor.text()
    n_dims = cursor.u32()
    if len(name) >= _MAX_NAME or not 1 <= n_dims <= _MAX_DIMS:
        raise _damaged(f"tensor {name[:64]!r} has {n_dims} dimensions")
    start = cursor.need(8 * n_dims)
    shape = struct.unpack_from(f"<{n_dims}Q", cursor.buffer, start)
    kind, offset = cursor.u32(), cursor.u64()
    if not all(shape) or prod(shape) >= 1 << 62:
        raise _damaged(f"tensor {name!r} has the shape {shape}")
    type_name, block, block_bytes = _type_of(name, kind)
    if shape[0] % block:
        raise _damaged(
            f"rows of tensor {name!r} have {shape[0]} elements, not whole {type_name} blocks"
        )
    return TensorInfo(name, shape, type_name, offset, prod(shape) // block * block_bytes)


def _type_of(name: str, kind: int) -> tuple[str, int, int]:
    if kind in _REMOVED:
        raise BadModelFile(
            f"the file uses {_REMOVED[kind]}, a format that llama.cpp has removed",
            hint="pull a Q4_0, IQ4_NL or Q4_K_M file of the same model",
        )
    if kind not in TYPE_SIZES:
        raise _too_new(f"tensor {name!r} has the unknown number format {kind}")
    return TYPE_SIZES[kind]


def _pad(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment


def _damaged(what: str) -> BadModelFile:
    return BadModelFile(f"the GGUF header is damaged: {what}", hint="fetch the file again")


def _too_new(what: str) -> BadModelFile:
    return BadModelFile(
        f"{what}; the file is damaged, or newer than this localrun",
        hint="fetch the file again, or upgrade localrun",
    )


def _cut_short(needed: int, there: int) -> BadModelFile:
    return BadModelFile(
        f"the file is cut short: {needed - there:,} of at least {needed:,} bytes are missing",
        hint="fetch the file again",
    )


def _foreign(head: bytes) -> BadModelFile:
    """Say what a file is that is not GGUF."""
    if not head:
        return BadModelFile("the file is empty", hint="fetch it again")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, what in _FOREIGN:
        if (text if start.islower() else head).startswith(start):
            return BadModelFile(f"not a GGUF file: {what}", hint="fetch the model's GGUF file")
    if head[8:9] == b"{":
        return BadModelFile(
            "not a GGUF file: these are safetensors weights", hint="look for a GGUF of this model"
        )
    if b"GGUF".startswith(head[:4]) or head.startswith(b"GGUF"):
        return _cut_short(24, len(head))
    return BadModelFile("not a GGUF file: it does not begin with GGUF")


_FOREIGN = (
    (b"<!doctype", "it is a web page; the server may have answered with an error or a login"),
    (b"<html", "it is a web page; the server may have answered with an error or a login"),
    (b"<?xml", "it is an XML text, perhaps a storage server's error"),
    (b"version https://git-lfs", "it is a Git LFS pointer; the weights were not fetched"),
    (b"lmgg", "it is a GGML file from before August 2023"),
    (b"fmgg", "it is a GGML file from before August 2023"),
    (b"tjgg", "it is a GGML file from before August 2023"),
    (b"algg", "it is an old GGML adapter"),
    (b"PK\x03\x04", "it is a zip or PyTorch archive"),
    (b"\x1f\x8b", "it is compressed with gzip"),
    (b"\x80\x02", "it is a Python pickle"),
    (b"{", "it is a JSON text, perhaps a server's error"),
    (b"GUFF", "its bytes are swapped"),
)
