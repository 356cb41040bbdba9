"""llama.cpp's own memory accounting, for comparison with ours. Run as a module in a child process.

Reads a JSON list of `{"path", "n_ctx", …}` on standard input, writes a list of
`[weights, kv, compute]` in bytes. Uses a C++ symbol and the layout of libstdc++'s red-black tree,
which is why it lives in the tests only.
"""

import ctypes
import json
import sys
from typing import Any

import llama_cpp
from llama_cpp import llama_cpp as low

SYMBOL = "_Z26llama_get_memory_breakdownPK13llama_context"
_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8}


def _log_errors(level: int, text: bytes, data: Any) -> None:
    if level >= 4:
        sys.stderr.buffer.write(text)


def measure(case: dict[str, Any]) -> list[int]:
    """Sum of weights, KV cache and compute buffers over all of llama.cpp's buffer types."""
    model_params = llama_cpp.llama_model_default_params()
    model_params.no_alloc = True
    model_params.load_mode = 0
    model_params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(case["path"].encode(), model_params)
    assert model, case
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = case["n_ctx"]
    params.n_batch = case.get("n_batch", 2048)
    params.n_ubatch = case.get("n_ubatch", 512)
    params.n_seq_max = case.get("n_seq_max", 1)
    params.n_outputs_max = case.get("n_outputs_max", 0)
    params.type_k = _TYPES[case.get("type_k", "f16")]
    params.type_v = _TYPES[case.get("type_v", "f16")]
    params.flash_attn_type = int(case.get("flash_attention", True))
    params.swa_full = case.get("swa_full", True)
    params.kv_unified = True
    params.embeddings = case.get("embeddings", False)
    context = llama_cpp.llama_init_from_model(model, params)
    assert context, case
    total = _breakdown(context)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return total


def _breakdown(context: Any) -> list[int]:
    function = getattr(low._lib, SYMBOL)
    function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p]
    result = ctypes.create_string_buffer(48)  # a std::map, returned through a hidden pointer
    function(ctypes.addressof(result), context)
    total = [0, 0, 0]

    def read(address: int) -> int:
        return ctypes.c_size_t.from_address(address).value

    def walk(node: int) -> None:
        if node:
            walk(read(node + 16))
            for i in range(3):
                total[i] += read(node + 40 + 8 * i)
            walk(read(node + 24))

    walk(read(ctypes.addressof(result) + 16))
    return total


if __name__ == "__main__":
    callback = llama_cpp.llama_log_callback(_log_errors)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    json.dump([measure(case) for case in json.load(sys.stdin)], sys.stdout)
