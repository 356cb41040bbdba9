"""Tiny GGUF models that really load, and phantoms with the true sizes of well-known ones.

`make_tiny` writes a random model of about a quarter of a megabyte, the same bytes for the same
arguments. Its output never ends by itself (control tokens have no weight) unless `ends` is set, and
it depends on the whole prompt. `make_phantom` (from `phantoms`) writes well-known models without
their weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from gguf.constants import GGMLQuantizationType

from tests.fakes.phantoms import PHANTOMS, add_value, make_phantom

__all__ = [
    "CHATML",
    "N_VOCAB",
    "PHANTOMS",
    "make_phantom",
    "make_tiny",
    "shard_paths",
    "tiny_vocab",
]

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
        add_value(writer, key, value)
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
