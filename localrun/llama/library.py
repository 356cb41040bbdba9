"""Load llama.cpp through llama-cpp-python's low level, once a process, and check its ABI.

This is the only importer of `llama_cpp`. Its package imports numpy, jinja2 and a disk cache
(130 ms and 37 MB), of which the low level needs nothing, so an empty package is registered first:
32 ms and 9 MB.

Two handles lead to the same library. `low` is the binding, whose calls give the interpreter's lock
away; right for long calls, but beside one busy Python thread a short call then waits for the lock
up to 90 ms. `short` keeps the lock and is used for calls of some microseconds.
"""

import ctypes
import functools
import importlib
import importlib.util
import math
import sys
import types
from dataclasses import dataclass
from typing import Any

from localrun.errors import EngineMissing

_INSTALL = "scripts/run installs the engine, or: pip install 'llama-cpp-python==0.3.36'"

# Defaults of the structs that are passed by value. Upstream inserts fields in their middle, and a
# library newer than the binding would then read every later field from the wrong bytes, silently.
_MODEL_DEFAULTS = {
    "n_gpu_layers": -1,
    "split_mode": 1,
    "load_mode": -1,
    "main_gpu": 0,
    "vocab_only": False,
    "check_tensors": False,
    "use_extra_bufts": True,
    "no_host": False,
    "no_alloc": False,
    "load_mtp": False,
}
_CONTEXT_DEFAULTS = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_outputs_max": 0,
    "n_outputs_max_per_seq": 1,
    "flash_attn_type": -1,
    "rope_freq_base": 0.0,
    "yarn_ext_factor": -1.0,
    "defrag_thold": -1.0,
    "type_k": 1,
    "type_v": 1,
    "embeddings": False,
    "offload_kqv": True,
    "op_offload": True,
    "swa_full": True,
    "kv_unified": False,
    "n_samplers": 0,
    "ctx_other": None,
}
_BINDING_VERSIONS = (b"0.5.",)
"""Prefixes of `llama_version()` that the binding's structs were checked against."""

LOG_WARN, LOG_ERROR, LOG_CONTINUED = 3, 4, 5


@dataclass(frozen=True, slots=True)
class Native:
    """The loaded library: `low` gives the interpreter's lock away, `short` keeps it."""

    low: Any
    short: Any
    log: "NativeLog"


class NativeLog:
    """llama.cpp's log: warnings and errors go to standard error, the last errors are kept."""

    def __init__(self, callback_type: Any) -> None:
        self.errors: list[str] = []
        self._level = 0
        # The library keeps only the pointer: a collected callback is a segmentation fault.
        self.callback = callback_type(self._write)

    def _write(self, level: int, text: bytes, _user: object) -> None:
        self._level = self._level if level == LOG_CONTINUED else level
        if self._level < LOG_WARN:
            return
        line = text.decode("utf-8", "replace")
        sys.stderr.write(line)
        if self._level >= LOG_ERROR:
            self.errors = [*self.errors[-9:], line.strip()]


@functools.cache
def native() -> Native:
    """Load the library on first use.

    Raises:
        EngineMissing: If llama-cpp-python is not installed, its library cannot be loaded, or
            library and binding do not belong together.
    """
    low = _import_low_level()
    check_abi(low)
    log = NativeLog(low.llama_log_callback)
    low.llama_log_set(log.callback, ctypes.c_void_p(0))
    low.llama_backend_init()
    return Native(low, _short_calls(low), log)


def version() -> str:
    """llama.cpp's own version, such as `0.5.0-dev`."""
    text: bytes = native().low.llama_version()
    return text.decode()


def check_abi(low: Any) -> None:
    """Compare what the library answers with what the binding believes.

    Raises:
        EngineMissing: If a default or the version differs: a call would read wrong bytes.
    """
    found = bytes(low.llama_version())
    if not found.startswith(_BINDING_VERSIONS):
        raise EngineMissing(
            f"llama.cpp {found.decode()} does not match the binding (0.5.x)", hint=_INSTALL
        )
    _compare(low.llama_model_default_params(), _MODEL_DEFAULTS)
    _compare(low.llama_context_default_params(), _CONTEXT_DEFAULTS)


def describe() -> dict[str, Any]:
    """What this build can use: version, CPU features and devices, as plain JSON values."""
    low = native().low
    return {
        "llama_version": version(),
        "system_info": low.llama_print_system_info().decode(),
        "supports_gpu_offload": bool(low.llama_supports_gpu_offload()),
        "devices": _devices(low),
    }


def _import_low_level() -> Any:
    if "llama_cpp" not in sys.modules:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or spec.submodule_search_locations is None:
            raise EngineMissing("llama-cpp-python is not installed", hint=_INSTALL)
        package = types.ModuleType("llama_cpp")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["llama_cpp"] = package
    try:
        return importlib.import_module("llama_cpp.llama_cpp")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise EngineMissing(f"llama.cpp cannot be loaded: {error}", hint=_INSTALL) from error


def _compare(params: Any, defaults: dict[str, Any]) -> None:
    for name, expected in defaults.items():
        value: Any = getattr(params, name, float("nan"))
        same = math.isclose(value, expected) if isinstance(expected, float) else value == expected
        if not same:
            raise EngineMissing(
                f"this llama.cpp library is not the binding's: default {name} is {value},"
                f" not {expected}",
                hint=_INSTALL,
            )


_SHORT = (
    "llama_get_embeddings_seq",
    "llama_get_logits_ith",
    "llama_get_memory",
    "llama_memory_clear",
    "llama_memory_seq_cp",
    "llama_memory_seq_pos_max",
    "llama_memory_seq_pos_min",
    "llama_memory_seq_rm",
    "llama_sampler_accept",
    "llama_sampler_sample",
    "llama_set_embeddings",
    "llama_set_n_threads",
    "llama_token_to_piece",
    "llama_vocab_is_control",
    "llama_vocab_is_eog",
)


def _short_calls(low: Any) -> Any:
    """The same functions on a handle that keeps the interpreter's lock."""
    library = ctypes.PyDLL(low._lib._name)  # noqa: SLF001 (the binding offers no public path)
    calls = types.SimpleNamespace()
    for name in _SHORT:
        function = getattr(library, name)
        function.argtypes = getattr(low, name).argtypes
        function.restype = getattr(low, name).restype
        setattr(calls, name, function)
    return calls


_DEVICE_TYPES = ("cpu", "gpu", "igpu", "accel")


def _devices(low: Any) -> list[dict[str, Any]]:
    lib = low._lib  # noqa: SLF001 (ggml's symbols are exported but not bound)
    lib.ggml_backend_dev_count.restype = ctypes.c_size_t
    lib.ggml_backend_dev_get.restype = ctypes.c_void_p
    lib.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for name in ("name", "description"):
        function = getattr(lib, f"ggml_backend_dev_{name}")
        function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    lib.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    size_p = ctypes.POINTER(ctypes.c_size_t)
    lib.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, size_p, size_p]
    lib.ggml_backend_dev_memory.restype = None
    devices: list[dict[str, Any]] = []
    for index in range(lib.ggml_backend_dev_count()):
        device = lib.ggml_backend_dev_get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        lib.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        kind = lib.ggml_backend_dev_type(device)
        devices.append(
            {
                "name": lib.ggml_backend_dev_name(device).decode("utf-8", "replace"),
                "description": lib.ggml_backend_dev_description(device).decode("utf-8", "replace"),
                "type": _DEVICE_TYPES[kind] if kind < len(_DEVICE_TYPES) else "accel",
                "total_bytes": total.value,
                "free_bytes": free.value,
            }
        )
    return devices
