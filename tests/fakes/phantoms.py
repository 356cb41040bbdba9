"""Phantoms: header and tensor table of well-known models over a hole where the weights would be.

llama.cpp accepts them with `no_alloc`, and a planner cannot tell them from the real files. They
take some kilobytes of disk and have no vocabulary, only its size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType


def add_value(writer: Any, key: str, value: object) -> None:
    """Add a metadata value, its type taken from the Python value."""
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case list() | tuple():
            writer.add_array(key, list(value))
        case _:
            writer.add_string(key, str(value))


@dataclass(frozen=True, slots=True)
class Dims:
    """True dimensions of a dense or mixture-of-experts transformer."""

    arch: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ctx: int
    n_vocab: int
    tied: bool = False
    qk_norm: bool = False
    bias: bool = False
    post_norm: bool = False
    n_expert: int = 0
    n_expert_used: int = 0
    n_ff_expert: int = 0
    extra: Mapping[str, object] = field(default_factory=dict)


PHANTOMS: dict[str, Dims] = {
    "llama2-7b": Dims("llama", 32, 4096, 11008, 32, 32, 128, 4096, 32000),
    "llama3.1-8b": Dims("llama", 32, 4096, 14336, 32, 8, 128, 131072, 128256),
    "llama3.2-1b": Dims("llama", 16, 2048, 8192, 32, 8, 64, 131072, 128256, tied=True),
    "llama2-13b": Dims("llama", 40, 5120, 13824, 40, 40, 128, 4096, 32000),
    "llama3.1-70b": Dims("llama", 80, 8192, 28672, 64, 8, 128, 131072, 128256),
    "qwen3-8b": Dims("qwen3", 36, 4096, 12288, 32, 8, 128, 40960, 151936, qk_norm=True),
    "qwen2.5-7b": Dims("qwen2", 28, 3584, 18944, 28, 4, 128, 32768, 152064, bias=True),
    "mixtral-8x7b": Dims(
        "llama", 32, 4096, 14336, 32, 8, 128, 32768, 32000, n_expert=8, n_expert_used=2
    ),
    "qwen3-30b-a3b": Dims(
        "qwen3moe", 48, 2048, 6144, 32, 4, 128, 40960, 151936,
        qk_norm=True, n_expert=128, n_expert_used=8, n_ff_expert=768,
    ),
    "gemma2-9b": Dims(
        "gemma2", 42, 3584, 14336, 16, 8, 256, 8192, 256000, tied=True, post_norm=True
    ),
    "gemma3-4b": Dims(
        "gemma3", 34, 2560, 10240, 8, 4, 256, 131072, 262144,
        tied=True, qk_norm=True, post_norm=True, extra={"attention.sliding_window": 1024},
    ),
}  # fmt: skip
"""What `make_phantom` can write."""

_MIXES = {
    # name: (file type, most tensors, attn_v and the output)
    "Q8_0": (7, "Q8_0", "Q8_0"),
    "Q6_K": (18, "Q6_K", "Q6_K"),
    "Q5_K_M": (17, "Q5_K", "Q6_K"),
    "Q4_K_M": (15, "Q4_K", "Q6_K"),
    "IQ4_XS": (30, "IQ4_XS", "Q6_K"),
    "Q4_0": (2, "Q4_0", "Q6_K"),
    "Q3_K_M": (12, "Q3_K", "Q5_K"),
    "Q2_K": (10, "Q2_K", "Q3_K"),
    "F16": (1, "F16", "F16"),
}


def make_phantom(path: Path, model: str, *, quantization: str = "Q4_K_M") -> Path:
    """Write header and tensor table of a well-known model over a sparse file of its true size.

    Args:
        path: Where the file goes; it takes some kilobytes of disk.
        model: A name of `PHANTOMS`.
        quantization: A name of `_MIXES`; sizes come within some percent of real files.
    """
    if model in ODD_PHANTOMS:
        return _write(path, *ODD_PHANTOMS[model]())
    dims = PHANTOMS[model]
    file_type, most, finer = _MIXES[quantization]
    tensors: dict[str, tuple[tuple[int, ...], str]] = {}
    for name, shape in _phantom_shapes(dims).items():
        kind = "F32" if len(shape) == 1 or "gate_inp" in name else most
        if kind == most and (name.endswith("attn_v.weight") or _is_output(name, dims)):
            kind = finer
        tensors[name] = (shape, kind)
    return _write(path, dims.arch, _phantom_metadata(dims, file_type), tensors)


Tensors = dict[str, tuple[tuple[int, ...], str]]
"""Name to shape (ne0 first) and GGML type."""

Odd = tuple[str, dict[str, object], Tensors]
"""Architecture, metadata and tensors."""


def _write(path: Path, arch: str, metadata: Mapping[str, object], tensors: Tensors) -> Path:
    writer = gguf.GGUFWriter(path, arch)
    writer.add_type("model")
    writer.add_quantization_version(2)
    writer.add_tokenizer_model("no_vocab")
    for key, value in metadata.items():
        is_whole = key.startswith(("general.", "tokenizer."))
        add_value(writer, key if is_whole else f"{arch}.{key}", value)
    n_bytes = sum(
        _add_hole(writer, name, shape, GGMLQuantizationType[kind])
        for name, (shape, kind) in tensors.items()
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    data_offset = -(-path.stat().st_size // 32) * 32
    with path.open("r+b") as file:
        file.truncate(data_offset + n_bytes)
    return path


def _is_output(name: str, dims: Dims) -> bool:
    return name == ("token_embd.weight" if dims.tied else "output.weight")


def _add_hole(writer: Any, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType) -> int:
    block, size = map(int, GGML_QUANT_SIZES[kind])
    n_bytes = prod(shape) // block * size
    rows = list(reversed(shape))
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        dtype = np.dtype(np.float32 if kind == GGMLQuantizationType.F32 else np.float16)
        writer.add_tensor_info(name, rows, dtype, n_bytes)
    else:
        rows[-1] = rows[-1] // block * size
        writer.add_tensor_info(name, rows, np.dtype(np.uint8), n_bytes, raw_dtype=kind)
    return -(-n_bytes // 32) * 32


def _phantom_metadata(dims: Dims, file_type: int) -> dict[str, object]:
    values: dict[str, object] = {
        "general.file_type": file_type,
        "context_length": dims.n_ctx,
        "embedding_length": dims.n_embd,
        "block_count": dims.n_layer,
        "feed_forward_length": dims.n_ff,
        "vocab_size": dims.n_vocab,
        "attention.head_count": dims.n_head,
        "attention.head_count_kv": dims.n_head_kv,
        "attention.key_length": dims.head_dim,
        "attention.value_length": dims.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 1e6,
        **dims.extra,
    }
    if dims.n_expert:
        values |= {"expert_count": dims.n_expert, "expert_used_count": dims.n_expert_used}
    if dims.n_ff_expert:
        values["expert_feed_forward_length"] = dims.n_ff_expert
    return values


def _phantom_shapes(dims: Dims) -> dict[str, tuple[int, ...]]:
    """All tensors in ggml order, ne0 first."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (dims.n_embd, dims.n_vocab)}
    shapes["output_norm.weight"] = (dims.n_embd,)
    if not dims.tied:
        shapes["output.weight"] = (dims.n_embd, dims.n_vocab)
    for layer in range(dims.n_layer):
        block = {**_attention_shapes(dims), **_feed_forward_shapes(dims)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def _attention_shapes(dims: Dims) -> dict[str, tuple[int, ...]]:
    e, q, kv = dims.n_embd, dims.n_head * dims.head_dim, dims.n_head_kv * dims.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (e,),
        "attn_q.weight": (e, q),
        "attn_k.weight": (e, kv),
        "attn_v.weight": (e, kv),
        "attn_output.weight": (q, e),
    }
    if dims.qk_norm:
        shapes |= {"attn_q_norm.weight": (dims.head_dim,), "attn_k_norm.weight": (dims.head_dim,)}
    if dims.bias:
        shapes |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    return shapes


def _feed_forward_shapes(dims: Dims) -> dict[str, tuple[int, ...]]:
    e, ff = dims.n_embd, dims.n_ff_expert or dims.n_ff
    shapes: dict[str, tuple[int, ...]] = {"ffn_norm.weight": (e,)}
    if dims.post_norm:
        shapes |= {"post_attention_norm.weight": (e,), "post_ffw_norm.weight": (e,)}
    if dims.n_expert:
        return shapes | {
            "ffn_gate_inp.weight": (e, dims.n_expert),
            "ffn_gate_exps.weight": (e, ff, dims.n_expert),
            "ffn_up_exps.weight": (e, ff, dims.n_expert),
            "ffn_down_exps.weight": (ff, e, dims.n_expert),
        }
    return shapes | {
        "ffn_gate.weight": (e, ff),
        "ffn_up.weight": (e, ff),
        "ffn_down.weight": (ff, e),
    }


# ── odd ones: no attention, or a compressed cache ─────────────────────────────────────────────


def _mamba() -> tuple[str, dict[str, object], Tensors]:
    e, n_layer, inner, state, dt, conv, n_vocab = 768, 24, 1536, 16, 48, 4, 50280
    metadata: dict[str, object] = {
        "general.file_type": 15, "context_length": 1048576, "embedding_length": e,
        "block_count": n_layer, "feed_forward_length": 0, "attention.head_count": 0,
        "vocab_size": n_vocab, "ssm.conv_kernel": conv, "ssm.inner_size": inner,
        "ssm.state_size": state, "ssm.time_step_rank": dt,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }  # fmt: skip
    block: Tensors = {
        "attn_norm.weight": ((e,), "F32"),
        "ssm_in.weight": ((e, 2 * inner), "Q4_K"),
        "ssm_conv1d.weight": ((conv, inner), "F32"),
        "ssm_conv1d.bias": ((inner,), "F32"),
        "ssm_x.weight": ((inner, dt + 2 * state), "F32"),
        "ssm_dt.weight": ((dt, inner), "F32"),
        "ssm_dt.bias": ((inner,), "F32"),
        "ssm_a": ((state, inner), "F32"),
        "ssm_d": ((inner,), "F32"),
        "ssm_out.weight": ((inner, e), "Q4_K"),
    }
    tensors: Tensors = {
        "token_embd.weight": ((e, n_vocab), "Q6_K"),
        "output_norm.weight": ((e,), "F32"),
    }
    return "mamba", metadata, tensors | _repeat(n_layer, block)


def _deepseek_v2_lite() -> tuple[str, dict[str, object], Tensors]:
    e, n_layer, heads, n_vocab = 2048, 27, 16, 102400
    metadata: dict[str, object] = {
        "general.file_type": 15, "context_length": 163840, "embedding_length": e,
        "block_count": n_layer, "feed_forward_length": 10944, "attention.head_count": heads,
        "attention.head_count_kv": 1, "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e4, "expert_used_count": 6, "expert_count": 64, "vocab_size": n_vocab,
        "expert_shared_count": 2, "expert_feed_forward_length": 1408, "expert_weights_scale": 1.0,
        "leading_dense_block_count": 1, "attention.kv_lora_rank": 512,
        "attention.key_length": 576, "attention.value_length": 512,
        "attention.key_length_mla": 192, "attention.value_length_mla": 128,
        "rope.dimension_count": 64,
    }  # fmt: skip
    attention: Tensors = {
        "attn_norm.weight": ((e,), "F32"),
        "ffn_norm.weight": ((e,), "F32"),
        "attn_q.weight": ((e, heads * 192), "Q4_K"),
        "attn_kv_a_mqa.weight": ((e, 576), "Q8_0"),
        "attn_kv_a_norm.weight": ((512,), "F32"),
        "attn_k_b.weight": ((128, 512, heads), "Q8_0"),
        "attn_v_b.weight": ((512, 128, heads), "Q8_0"),
        "attn_output.weight": ((heads * 128, e), "Q4_K"),
    }
    experts: Tensors = {
        "ffn_gate_inp.weight": ((e, 64), "F32"),
        "ffn_gate_exps.weight": ((e, 1408, 64), "Q4_K"),
        "ffn_up_exps.weight": ((e, 1408, 64), "Q4_K"),
        "ffn_down_exps.weight": ((1408, e, 64), "Q8_0"),
        "ffn_gate_shexp.weight": ((e, 2816), "Q4_K"),
        "ffn_up_shexp.weight": ((e, 2816), "Q4_K"),
        "ffn_down_shexp.weight": ((2816, e), "Q8_0"),
    }
    dense: Tensors = {
        "ffn_gate.weight": ((e, 10944), "Q4_K"),
        "ffn_up.weight": ((e, 10944), "Q4_K"),
        "ffn_down.weight": ((10944, e), "Q8_0"),
    }
    tensors: Tensors = {
        "token_embd.weight": ((e, n_vocab), "Q4_K"),
        "output_norm.weight": ((e,), "F32"),
        "output.weight": ((e, n_vocab), "Q6_K"),
    }
    tensors |= _repeat(1, attention | dense)
    return "deepseek2", metadata, tensors | _repeat(n_layer, attention | experts, first=1)


def _gpt_oss_20b() -> tuple[str, dict[str, object], Tensors]:
    e, n_layer, heads, kv, dim, experts, n_vocab = 2880, 24, 64, 8, 64, 32, 201088
    metadata: dict[str, object] = {
        "general.file_type": 38, "context_length": 131072, "embedding_length": e,
        "block_count": n_layer, "feed_forward_length": e, "attention.head_count": heads,
        "attention.head_count_kv": kv, "attention.key_length": dim, "attention.value_length": dim,
        "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 150000.0,
        "rope.dimension_count": dim, "attention.sliding_window": 128, "expert_count": experts,
        "expert_used_count": 4, "expert_feed_forward_length": e, "vocab_size": n_vocab,
    }  # fmt: skip
    block: Tensors = {
        "attn_norm.weight": ((e,), "F32"),
        "post_attention_norm.weight": ((e,), "F32"),
        "attn_sinks.weight": ((heads,), "F32"),
        "ffn_gate_inp.weight": ((e, experts), "F32"),
        "ffn_gate_inp.bias": ((experts,), "F32"),
    }
    for name, shape in {
        "attn_q": (e, heads * dim), "attn_k": (e, kv * dim), "attn_v": (e, kv * dim),
        "attn_output": (heads * dim, e),
    }.items():  # fmt: skip
        block |= {f"{name}.weight": (shape, "Q8_0"), f"{name}.bias": (shape[1:], "F32")}
    for name in ("gate", "up", "down"):
        block[f"ffn_{name}_exps.weight"] = ((e, e, experts), "MXFP4")
        block[f"ffn_{name}_exps.bias"] = ((e, experts), "F32")
    tensors: Tensors = {
        "token_embd.weight": ((e, n_vocab), "Q8_0"),
        "output_norm.weight": ((e,), "F32"),
        "output.weight": ((e, n_vocab), "Q8_0"),
    }
    return "gpt-oss", metadata, tensors | _repeat(n_layer, block)


def _lfm2() -> tuple[str, dict[str, object], Tensors]:
    e, ff, heads, n_vocab = 2048, 8192, 32, 65536
    heads_kv = [0, 0, 8, 0, 0, 8, 0, 0, 8, 0, 8, 0, 8, 0, 8, 0]
    metadata: dict[str, object] = {
        "general.file_type": 15, "context_length": 128000, "embedding_length": e,
        "block_count": len(heads_kv), "feed_forward_length": ff, "attention.head_count": heads,
        "attention.head_count_kv": heads_kv, "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 1e6, "vocab_size": n_vocab, "shortconv.l_cache": 3,
    }  # fmt: skip
    feed: Tensors = {
        "attn_norm.weight": ((e,), "F32"),
        "ffn_norm.weight": ((e,), "F32"),
        "ffn_gate.weight": ((e, ff), "Q4_K"),
        "ffn_up.weight": ((e, ff), "Q4_K"),
        "ffn_down.weight": ((ff, e), "Q6_K"),
    }
    attention: Tensors = {
        "attn_q_norm.weight": ((64,), "F32"),
        "attn_k_norm.weight": ((64,), "F32"),
        "attn_q.weight": ((e, e), "Q4_K"),
        "attn_k.weight": ((e, 512), "Q4_K"),
        "attn_v.weight": ((e, 512), "Q6_K"),
        "attn_output.weight": ((e, e), "Q4_K"),
    }
    convolution: Tensors = {
        "shortconv.conv.weight": ((3, e), "F32"),
        "shortconv.in_proj.weight": ((e, 3 * e), "Q4_K"),
        "shortconv.out_proj.weight": ((e, e), "Q4_K"),
    }
    tensors: Tensors = {
        "token_embd.weight": ((e, n_vocab), "Q6_K"),
        "token_embd_norm.weight": ((e,), "F32"),
    }
    for layer, n in enumerate(heads_kv):
        block = feed | (attention if n else convolution)
        tensors |= _repeat(layer + 1, block, first=layer)
    return "lfm2", metadata, tensors


def _bert(n_layer: int, e: int, heads: int, n_ctx: int, n_vocab: int) -> Odd:
    """An encoder: no cache, and all of a text in one graph."""
    metadata: dict[str, object] = {
        "general.file_type": 1, "context_length": n_ctx, "embedding_length": e,
        "block_count": n_layer, "feed_forward_length": 4 * e, "attention.head_count": heads,
        "attention.layer_norm_epsilon": 1e-12, "attention.causal": False, "pooling_type": 1,
        "vocab_size": n_vocab, "tokenizer.ggml.token_type_count": 2,
    }  # fmt: skip
    block: Tensors = {}
    for name, shape in {
        "attn_q": (e, e), "attn_k": (e, e), "attn_v": (e, e), "attn_output": (e, e),
        "ffn_up": (e, 4 * e), "ffn_down": (4 * e, e),
    }.items():  # fmt: skip
        block |= {f"{name}.weight": (shape, "F16"), f"{name}.bias": (shape[1:], "F32")}
    for name in ("attn_output_norm", "layer_output_norm"):
        block |= {f"{name}.weight": ((e,), "F32"), f"{name}.bias": ((e,), "F32")}
    tensors: Tensors = {
        "token_embd.weight": ((e, n_vocab), "F16"),
        "position_embd.weight": ((e, n_ctx), "F32"),
        "token_types.weight": ((e, 2), "F32"),
        "token_embd_norm.weight": ((e,), "F32"),
        "token_embd_norm.bias": ((e,), "F32"),
    }
    return "bert", metadata, tensors | _repeat(n_layer, block)


def _repeat(n_layer: int, block: Tensors, first: int = 0) -> Tensors:
    return {f"blk.{i}.{name}": what for i in range(first, n_layer) for name, what in block.items()}


ODD_PHANTOMS: dict[str, Callable[[], Odd]] = {
    "mamba-130m": _mamba,
    "deepseek-v2-lite": _deepseek_v2_lite,
    "gpt-oss-20b": _gpt_oss_20b,
    "lfm2-1.2b": _lfm2,
    "minilm-l6": lambda: _bert(6, 384, 12, 512, 30522),
    "bge-large": lambda: _bert(24, 1024, 16, 512, 30522),
    "bge-m3": lambda: _bert(24, 1024, 16, 8192, 250002),
}
"""More of what `make_phantom` can write, in one quantization each."""

ENCODER_PHANTOMS = {"minilm-l6": 512, "bge-large": 512, "bge-m3": 8192}
"""Those of them that only embed, and their windows."""
