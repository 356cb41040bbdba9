"""Write a GGUF file in another number format, or join its shards; one call of llama.cpp.

Used by `python -m localrun.runner --quantize`, a child of its own: the call takes minutes, ends the
process on damaged input, and can only be broken off by ending it.
"""

import ctypes
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from localrun.errors import BadModelFile, EngineMissing
from localrun.llama.library import native
from localrun.metadata import FILE_TYPES

COPY = "COPY"
"""In place of a number format: keep every tensor as it is."""

BUFFER_BYTES = 512 << 20
"""Rows in memory at once; with them a quantization takes about 0.6 GiB, whatever the model."""

_DEFAULTS = {
    "nthread": 0,
    "allow_requantize": False,
    "quantize_output_tensor": True,
    "only_copy": False,
    "pure": False,
    "keep_split": False,
    "dry_run": False,
    "max_buf_size": 8 << 30,
}
_TENSOR = re.compile(r"^\[ *\d+/ *\d+\] +(\S+) +- \[")
_FAILED = re.compile(r"failed to quantize: *(.*)")
_LOG_ERROR = 4


def quantize(
    source: Path, target: Path, file_type: str, *, n_threads: int, on_tensor: Callable[[str], None]
) -> None:
    """Write `source` to `target`; blocking.

    Args:
        source: A GGUF file, or the first shard beside the others under their real names.
        target: Where the one new file goes.
        file_type: One of `FILE_TYPES`' names, or `COPY`.
        n_threads: Threads that compute.
        on_tensor: Told the name of each tensor when its turn comes.

    Raises:
        BadModelFile: If llama.cpp cannot do it, in its words.
        EngineMissing: If the library is not the binding's.
    """
    low = native().low
    params = low.llama_model_quantize_default_params()
    _check_abi(params)
    params.nthread = max(1, n_threads)
    params.max_buf_size = BUFFER_BYTES
    if file_type == COPY:
        params.only_copy = True
    else:
        params.ftype = _FTYPES[file_type]
    log = _Log(low, on_tensor)
    low.llama_log_set(log.callback, ctypes.c_void_p(0))
    try:
        code = low.llama_model_quantize(
            str(source).encode(), str(target).encode(), ctypes.byref(params)
        )
    finally:
        low.llama_log_set(native().log.callback, ctypes.c_void_p(0))
    if code:
        raise BadModelFile(f"llama.cpp cannot write the model as {file_type}: {log.reason}")


_FTYPES: Mapping[str, int] = {name: number for number, name in FILE_TYPES.items()}


def _check_abi(params: Any) -> None:
    """The struct is passed by pointer, but its fields are as movable as all others."""
    for name, expected in _DEFAULTS.items():
        value = getattr(params, name, None)
        if value != expected:
            raise EngineMissing(
                f"this llama.cpp library is not the binding's: quantization's default {name} is"
                f" {value}, not {expected}"
            )


class _Log:
    """llama.cpp's log of the call: which tensor it is at, and why it failed."""

    def __init__(self, low: Any, on_tensor: Callable[[str], None]) -> None:
        self.reason = "no reason was given"
        self._on_tensor = on_tensor
        self._line = ""
        # The library keeps only the pointer: a collected callback is a segmentation fault.
        self.callback = low.llama_log_callback(self._write)

    def _write(self, level: int, text: bytes, _user: object) -> None:
        self._line += text.decode("utf-8", "replace")
        if found := _TENSOR.match(self._line):
            self._on_tensor(found[1])
            self._line = self._line[found.end() :]
        if not self._line.endswith("\n"):
            return
        line, self._line = self._line.strip(), ""
        if found := _FAILED.search(line):
            self.reason = found[1]
        elif level >= _LOG_ERROR and line and self.reason.startswith("no reason"):
            self.reason = line
