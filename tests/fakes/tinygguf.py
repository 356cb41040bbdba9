"""Tiny GGUF models that really load, and phantoms with the true sizes of well-known ones.

`make_tiny` writes a random model of about a quarter of a megabyte, the same bytes for the same
arguments. Its output never ends by itself (control tokens have no weight) unless `ends` is set, and
it depends on the whole prompt. `make_phantom` writes header and tensor table of a real model and a
hole where the weights would be: llama.cpp accepts it with `no_alloc`, and a planner cannot tell it
from the real file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A template with one line a message; roles and texts come through verbatim."""

N_VOCAB = 366
"""Pieces of the tiny vocabulary: 5 control, 256 bytes, a space, 94 printable and 10 longer ones."""

_CONTROL = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
_N_BYTES = 256
_PIECES = ("▁", *map(chr, range(33, 127)))
_LONGER = ("▁the", "he", "in", "er", "on", "▁a", "re", "st", "an", "▁t")
_NORMAL, _UNKNOWN, _CONTROL_TYPE, _BYTE = 1, 2, 3, 6


def tiny_vocab() -> tuple[list[str], list[float], list[int]]:
    """Pieces, scores and types of the tiny vocabulary (SentencePiece with byte fallback)."""
    pieces = [*_CONTROL, *(f"<0x{i:02X}>" for i in range(_N_BYTES)), *_PIECES, *_LONGER]
    n_special = len(_CONTROL) + _N_BYTES
    scores = [0.0] * n_special + [-float(i) for i in range(len(pieces) - n_special)]
    types = [_UNKNOWN] + [_CONTROL_TYPE] * (len(_CONTROL) - 1) + [_BYTE] * _N_BYTES
    return pieces, scores, types + [_NORMAL] * (len(pieces) - n_special)


@dataclass(frozen=True, slots=True)
class _Tiny:
    arch: str
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    n_ff: int
    quantization: str

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head


def make_tiny(
    path: Path,
    *,
    arch: Literal["llama", "qwen2", "qwen3"] = "llama",
    n_ctx: int = 512,
    n_layer: int = 2,
    n_embd: int = 64,
    quantization: Literal["F32", "F16", "Q8_0"] = "F32",
    seed: int = 0,
    chat_template: str | None = CHATML,
    name: str = "tiny",
    shards: int = 1,
    ends: bool = False,
    speaks_bytes: bool = False,
    extra: Mapping[str, object] | None = None,
) -> Path:
    """Write a small random model that loads in llama.cpp and generates.

    Args:
        path: Where the file goes. With `shards` above 1 only its stem is used, the files are called
            `STEM-00001-of-0000N.gguf`.
        arch: Architecture, with the tensors that it asks for.
        n_ctx: Trained context in tokens.
        n_layer: Blocks.
        n_embd: Width; a multiple of 64.
        quantization: Format of the matrices; norms are always F32.
        seed: Another seed is another model.
        chat_template: Jinja text, None for a model without one.
        name: `general.name`.
        shards: Files to write.
        ends: Give the end token a weight, so that completions end by themselves sooner or later.
        speaks_bytes: Give byte tokens a weight, so that completions hold split and broken UTF-8.
        extra: Further metadata by whole key, such as `llama.pooling_type`.

    Returns:
        The file, or its first shard.
    """
    dims = _Tiny(arch, n_layer, n_embd, 4, 2, 2 * n_embd, quantization)
    n_tensors = 3 + n_layer * len(_block_shapes(dims))
    writer = gguf.GGUFWriter(
        path, arch, split_max_tensors=-(-n_tensors // shards) if shards > 1 else 0
    )
    _add_general(writer, name, quantization)
    _add_dimensions(writer, dims, n_ctx)
    _add_vocab(writer, chat_template)
    for key, value in (extra or {}).items():
        _add_value(writer, key, value)
    _add_weights(writer, dims, seed, _output_mask(ends=ends, speaks_bytes=speaks_bytes))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path if shards == 1 else path.with_name(f"{path.stem}-00001-of-{shards:05d}.gguf")


def shard_paths(first: Path) -> tuple[Path, ...]:
    """All shards of a model written with `shards`, in order, from its first."""
    stem, _, _, n = first.stem.rsplit("-", 3)
    return tuple(first.with_name(f"{stem}-{i:05d}-of-{n}.gguf") for i in range(1, int(n) + 1))


def _add_general(writer: Any, name: str, quantization: str) -> None:
    writer.add_name(name)
    writer.add_type("model")
    writer.add_size_label("0.1M")
    writer.add_license("mit")
    writer.add_file_type({"F32": 0, "F16": 1, "Q8_0": 7}[quantization])
    writer.add_quantization_version(2)


def _add_dimensions(writer: Any, dims: _Tiny, n_ctx: int) -> None:
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(dims.n_embd)
    writer.add_block_count(dims.n_layer)
    writer.add_feed_forward_length(dims.n_ff)
    writer.add_head_count(dims.n_head)
    writer.add_head_count_kv(dims.n_head_kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(dims.head_dim)
    writer.add_vocab_size(N_VOCAB)


def _add_vocab(writer: Any, chat_template: str | None) -> None:
    pieces, scores, types = tiny_vocab()
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    if chat_template is not None:
        writer.add_chat_template(chat_template)


def _output_mask(*, ends: bool, speaks_bytes: bool) -> "np.ndarray[Any, Any]":
    mask = np.ones((N_VOCAB, 1), np.float32)
    mask[: len(_CONTROL)] = 0.0
    if ends:
        mask[2] = 1.0
    if not speaks_bytes:
        mask[len(_CONTROL) : len(_CONTROL) + _N_BYTES] = 0.0
    return mask


def _block_shapes(dims: _Tiny) -> dict[str, tuple[int, ...]]:
    """Tensors of one block in numpy order, which is the reverse of ggml's."""
    q, kv = dims.n_head * dims.head_dim, dims.n_head_kv * dims.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (dims.n_embd,),
        "attn_q.weight": (q, dims.n_embd),
        "attn_k.weight": (kv, dims.n_embd),
        "attn_v.weight": (kv, dims.n_embd),
        "attn_output.weight": (dims.n_embd, q),
        "ffn_norm.weight": (dims.n_embd,),
        "ffn_gate.weight": (dims.n_ff, dims.n_embd),
        "ffn_up.weight": (dims.n_ff, dims.n_embd),
        "ffn_down.weight": (dims.n_embd, dims.n_ff),
    }
    if dims.arch == "qwen2":
        shapes |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    if dims.arch == "qwen3":
        shapes |= {"attn_q_norm.weight": (dims.head_dim,), "attn_k_norm.weight": (dims.head_dim,)}
    return shapes


def _add_weights(writer: Any, dims: _Tiny, seed: int, mask: "np.ndarray[Any, Any]") -> None:
    rng = np.random.default_rng(seed)

    def add(name: str, shape: tuple[int, ...], factor: "float | np.ndarray[Any, Any]") -> None:
        if len(shape) == 1:
            writer.add_tensor(name, np.full(shape, float("norm" in name), np.float32))
            return
        matrix = (rng.standard_normal(shape) * factor).astype(np.float32)
        if dims.quantization == "Q8_0":
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(matrix, kind), raw_dtype=kind)
        else:
            writer.add_tensor(
                name, matrix.astype(np.float16 if dims.quantization == "F16" else np.float32)
            )

    add("token_embd.weight", (N_VOCAB, dims.n_embd), 0.05)
    add("output_norm.weight", (dims.n_embd,), 1.0)
    add("output.weight", (N_VOCAB, dims.n_embd), mask)  # peaked: greedy choices are far apart
    for layer in range(dims.n_layer):
        for name, shape in _block_shapes(dims).items():
            add(f"blk.{layer}.{name}", shape, 0.05)


def _add_value(writer: Any, key: str, value: object) -> None:
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


# ── phantoms ──────────────────────────────────────────────────────────────────────────────────


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
    dims = PHANTOMS[model]
    file_type, most, finer = _MIXES[quantization]
    writer = gguf.GGUFWriter(path, dims.arch)
    _add_phantom_metadata(writer, dims, file_type)
    n_bytes = 0
    for name, shape in _phantom_shapes(dims).items():
        kind = "F32" if len(shape) == 1 or "gate_inp" in name else most
        if kind == most and (name.endswith("attn_v.weight") or _is_output(name, dims)):
            kind = finer
        n_bytes += _add_hole(writer, name, shape, GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    align = 32
    data_offset = -(-path.stat().st_size // align) * align
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


def _add_phantom_metadata(writer: Any, dims: Dims, file_type: int) -> None:
    writer.add_type("model")
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    writer.add_tokenizer_model("no_vocab")
    values: dict[str, object] = {
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
    for key, value in values.items():
        _add_value(writer, f"{dims.arch}.{key}", value)


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
