"""Tiny encoders that really load, and the same computed with numpy, for comparison.

`make_tiny_bert` writes a random BERT with a WordPiece vocabulary; `TinyBert` is its forward pass as
the paper has it, which shares nothing with llama.cpp but the weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

MEAN, CLS, LAST, RANK = 1, 2, 3, 4
"""llama.cpp's numbers for ways to pool."""

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?"
_WORDS = ("the", "sky", "is", "blue", "grass", "green", "why", "cat", "runs")
_CLS_TOKEN, _SEP_TOKEN = 2, 3
_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3
_LAYERS, _HEADS = 2, 4
_EPS = 1e-12

Weights = dict[str, "np.ndarray[Any, Any]"]


def wordpiece_vocab() -> tuple[list[str], list[int]]:
    """Pieces and their types; a piece that begins a word has llama.cpp's mark."""
    pieces = [*_SPECIAL, *(f"▁{w}" for w in _WORDS), *(f"▁{c}" for c in _LETTERS), *_LETTERS]
    types = [_CONTROL, _UNKNOWN] + [_CONTROL] * 3
    return pieces, types + [_NORMAL] * (len(pieces) - len(types))


def make_tiny_bert(
    path: Path, *, pooling: int | None = MEAN, n_ctx: int = 512, n_embd: int = 64, seed: int = 0
) -> Path:
    """Write a random encoder.

    Args:
        path: Where the file goes.
        pooling: llama.cpp's number, None to leave it unsaid; RANK adds a head with one output.
        n_ctx: Trained context in tokens, the rows of the position table.
        n_embd: Width.
        seed: Another seed is another model.
    """
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("tiny bert")
    writer.add_type("model")
    writer.add_file_type(0)
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(2 * n_embd)
    writer.add_head_count(_HEADS)
    writer.add_layer_norm_eps(_EPS)
    writer.add_causal_attention(value=False)
    if pooling is not None:
        writer.add_pooling_type(gguf.PoolingType(pooling))
    _add_vocab(writer)
    for name, matrix in _weights(n_ctx, n_embd, seed, has_head=pooling == RANK).items():
        writer.add_tensor(name, matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocab(writer: Any) -> None:
    pieces, types = wordpiece_vocab()
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores([-1000.0] * len(pieces))
    writer.add_token_types(types)
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(_CLS_TOKEN)
    writer.add_sep_token_id(_SEP_TOKEN)
    writer.add_mask_token_id(4)


def _weights(n_ctx: int, n_embd: int, seed: int, *, has_head: bool) -> Weights:
    rng = np.random.default_rng(seed)
    n_vocab, n_ff = len(wordpiece_vocab()[0]), 2 * n_embd

    def matrix(*shape: int, scale: float = 0.15) -> "np.ndarray[Any, Any]":
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    found: Weights = {
        "token_embd.weight": matrix(n_vocab, n_embd, scale=1.0),
        "position_embd.weight": matrix(n_ctx, n_embd, scale=0.3),
        "token_types.weight": matrix(2, n_embd),
        "token_embd_norm.weight": 1 + matrix(n_embd),
        "token_embd_norm.bias": matrix(n_embd),
    }
    for layer in range(_LAYERS):
        block = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (n_embd, n_embd))
        block |= {"ffn_up": (n_ff, n_embd), "ffn_down": (n_embd, n_ff)}
        for name, shape in block.items():
            found[f"blk.{layer}.{name}.weight"] = matrix(*shape)
            found[f"blk.{layer}.{name}.bias"] = matrix(shape[0])
        for name in ("attn_output_norm", "layer_output_norm"):
            found[f"blk.{layer}.{name}.weight"] = 1 + matrix(n_embd)
            found[f"blk.{layer}.{name}.bias"] = matrix(n_embd)
    if has_head:
        found |= {"cls.weight": matrix(n_embd, n_embd), "cls.bias": matrix(n_embd)}
        found |= {"cls.output.weight": matrix(1, n_embd), "cls.output.bias": matrix(1)}
    return found


@dataclass(frozen=True)
class TinyBert:
    """The model that `make_tiny_bert` writes for the same arguments."""

    pooling: int = MEAN
    n_ctx: int = 512
    n_embd: int = 64
    seed: int = 0

    def vector(self, tokens: Sequence[int]) -> "np.ndarray[Any, Any]":
        """The pooled vector of length 1, or the score of a rerank model."""
        weights = _weights(self.n_ctx, self.n_embd, self.seed, has_head=self.pooling == RANK)
        hidden = self._hidden(weights, np.array(tokens))
        if self.pooling == RANK:
            head = np.tanh(weights["cls.weight"] @ hidden[0] + weights["cls.bias"])
            return np.asarray(weights["cls.output.weight"] @ head + weights["cls.output.bias"])
        pooled = hidden[0] if self.pooling == CLS else hidden.mean(axis=0)
        return np.asarray(pooled / np.linalg.norm(pooled))

    def _hidden(self, w: Weights, tokens: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        x = w["token_embd.weight"][tokens] + w["token_types.weight"][0]
        x = _norm(w, "token_embd_norm", x + w["position_embd.weight"][: len(tokens)])
        for layer in range(_LAYERS):
            block = f"blk.{layer}"
            q, k, v = (_linear(w, f"{block}.attn_{name}", x) for name in "qkv")
            attended = np.concatenate(
                [_attend(*rows) for rows in zip(*map(_heads, (q, k, v)), strict=True)], axis=1
            )
            x = _norm(
                w, f"{block}.attn_output_norm", x + _linear(w, f"{block}.attn_output", attended)
            )
            inner = _gelu(_linear(w, f"{block}.ffn_up", x))
            x = _norm(w, f"{block}.layer_output_norm", x + _linear(w, f"{block}.ffn_down", inner))
        return np.asarray(x)


def _heads(x: "np.ndarray[Any, Any]") -> "list[np.ndarray[Any, Any]]":
    return np.split(x, _HEADS, axis=1)


def _attend(q: Any, k: Any, v: Any) -> "np.ndarray[Any, Any]":
    scores = q @ k.T / math.sqrt(q.shape[1])
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True) @ v)


def _linear(w: Weights, name: str, x: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])


def _norm(w: Weights, name: str, x: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    centered = x - x.mean(axis=1, keepdims=True)
    scaled = centered / np.sqrt((centered**2).mean(axis=1, keepdims=True) + _EPS)
    return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])


def _gelu(x: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
