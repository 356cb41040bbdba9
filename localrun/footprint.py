"""What a model occupies: weights, KV cache and compute buffers, in bytes. Pure.

Weights and KV cache are exact. The compute buffer is llama.cpp's on a CPU, within some MiB for
dense models; a GPU's is of the same order.

Source: `llama-kv-cache.cpp`, `llama-memory-recurrent.cpp`; the closed form of the compute buffer
was found by comparison with llama.cpp's own accounting (`no_alloc`), which the tests repeat.
"""

from dataclasses import dataclass

from localrun.gguf import TYPE_SIZES, ModelInfo

CELL_PADDING = 256
"""llama.cpp rounds the cells of a pool up to this."""

KV_TYPES = ("f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""Number formats that a KV cache may have; a quantized one of the values needs flash attention."""

_BLOCKS = {name.lower(): (block, size) for name, block, size in TYPE_SIZES.values()}
_WITH_BOTH = {"falcon-h1"}  # attention and recurrent state in the same layer
_WITHOUT_CACHE = {
    "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert",
    "neo-bert", "eurobert", "gemma-embedding",
}  # fmt: skip
_LAST, _RANK = 3, 4  # llama.cpp's numbers of ways to pool


@dataclass(frozen=True, slots=True)
class Pool:
    """The KV cache that all sequences of a context share.

    Attributes:
        n_cells: Tokens it holds.
        type_k: GGML name of the keys' format.
        type_v: The same of the values.
        n_seq_max: Sequence ids; each has its own recurrent state.
        n_ubatch: Tokens of one graph; counts where windowed layers are kept small.
        swa_full: Windowed layers get as many cells as the others (llama.cpp's default, and what
            reuse of prefixes needs).
    """

    n_cells: int
    type_k: str = "f16"
    type_v: str = "f16"
    n_seq_max: int = 1
    n_ubatch: int = 512
    swa_full: bool = True


def pad_cells(n_cells: int) -> int:
    """Cells as llama.cpp allocates them."""
    return -(-n_cells // CELL_PADDING) * CELL_PADDING


def row_bytes(kv_type: str, n: int) -> int:
    """Bytes of `n` elements in a GGML format; `n` is a multiple of its block."""
    block, size = _BLOCKS[kv_type]
    return n // block * size


def takes_kv_type(info: ModelInfo, kv_type: str) -> bool:
    """Whether the model's heads divide into blocks of this format; llama.cpp refuses otherwise."""
    block, _ = _BLOCKS[kv_type]
    dims = (info.head_dim_k, info.head_dim_v, info.head_dim_k_swa, info.head_dim_v_swa)
    return all(dim % block == 0 for dim in dims)


def pools_whole(info: ModelInfo) -> bool:
    """Whether the model turns a text into a vector in one graph, with every token an output.

    A causal one that takes the last token reads the text in pieces like a prompt.
    """
    in_pieces = info.is_causal and info.pooling_type in (_LAST, _RANK)
    return info.is_embedder and not in_pieces


def weights_bytes(info: ModelInfo) -> int:
    """Bytes of all tensors.

    On a CPU they count once, though repacked tensors stay mapped too: the mapping is clean page
    cache, which the kernel takes back when it needs room.
    """
    return info.weights_bytes


def layer_cell_bytes(
    info: ModelInfo, *, type_k: str = "f16", type_v: str = "f16"
) -> tuple[int, ...]:
    """What one token takes in the cache of each layer."""
    return tuple(_attention_bytes(info, layer, type_k, type_v) for layer in range(info.n_layer))


def layer_state_bytes(info: ModelInfo, n_seq_max: int) -> tuple[int, ...]:
    """Recurrent state of each layer, for all sequences; 0 where a layer has none."""
    state = 4 * info.n_recurrent * max(1, n_seq_max)
    return tuple(state if is_recurrent else 0 for is_recurrent in info.recurrent_layers)


def layer_kv_bytes(info: ModelInfo, pool: Pool) -> tuple[int, ...]:
    """KV cache and recurrent state of each layer."""
    cells = pad_cells(pool.n_cells)
    windowed = cells
    if not pool.swa_full:
        seen = info.sliding_window * pool.n_seq_max + pool.n_ubatch
        windowed = pad_cells(min(cells, seen))
    per_cell = layer_cell_bytes(info, type_k=pool.type_k, type_v=pool.type_v)
    state = layer_state_bytes(info, pool.n_seq_max)
    return tuple(
        per_cell[layer] * (windowed if info.swa_layers[layer] else cells) + state[layer]
        for layer in range(info.n_layer)
    )


def kv_bytes(
    info: ModelInfo,
    *,
    n_cells: int,
    type_k: str = "f16",
    type_v: str = "f16",
    n_seq_max: int = 1,
    swa_full: bool = True,
) -> int:
    """KV cache and recurrent state of a shared pool of `n_cells` tokens."""
    pool = Pool(n_cells, type_k, type_v, n_seq_max, swa_full=swa_full)
    return sum(layer_kv_bytes(info, pool))


def kv_bytes_per_cell(info: ModelInfo, *, type_k: str = "f16", type_v: str = "f16") -> int:
    """What one more token costs over all layers."""
    return sum(layer_cell_bytes(info, type_k=type_k, type_v=type_v))


def compute_bytes(
    info: ModelInfo,
    *,
    n_ubatch: int,
    n_outputs_max: int,
    n_cells: int,
    type_k: str = "f16",
    flash_attention: bool = True,
) -> int:
    """Scratch memory of one graph: logits, feed-forward and attention, whichever is largest.

    Args:
        info: The model.
        n_ubatch: Tokens of one graph.
        n_outputs_max: Rows with logits in one step.
        n_cells: Cells of the pool.
        type_k: Format of the cache; a quantized one takes a copy.
        flash_attention: Without it the scores of all heads are held.
    """
    if info.architecture in _WITHOUT_CACHE:
        return _encoder_bytes(info, n_ubatch, flash_attention=flash_attention)
    cells, heads = pad_cells(n_cells), max(info.n_head, default=0)
    outputs = min(n_outputs_max, n_ubatch)
    copies = 2 if type_k in ("f16", "bf16", "f32") else 3
    logits = 4 * (outputs * info.n_vocab + n_ubatch * copies * info.n_embd)
    masks = 2 * n_ubatch * cells * (2 if any(info.swa_layers) else 1)
    feed_forward = 4 * n_ubatch * (4 * info.n_embd + _wide(info)) + masks
    attention = 0
    if not flash_attention:
        kv_width = max(info.n_head_kv, default=0) * info.head_dim_k
        attention = 4 * n_ubatch * (cells * (heads + 1) + 5 * info.n_embd + 2 * kv_width)
    return max(logits, feed_forward, attention)


def _encoder_bytes(info: ModelInfo, n_tokens: int, *, flash_attention: bool) -> int:
    """The same of a model without a cache or logits, where each token sees every other."""
    heads = max(info.n_head, default=0)
    is_gated = info.architecture != "bert"
    wide = info.n_ff * (3 if is_gated else 1)
    feed_forward = 4 * n_tokens * (wide + 3 * info.n_embd) + 2 * n_tokens * n_tokens
    if flash_attention:
        return feed_forward
    attention = 4 * n_tokens * (n_tokens * (heads + 1) + 6 * info.n_embd)
    return max(feed_forward, attention)


def _wide(info: ModelInfo) -> int:
    """Elements per token that the feed-forward part holds at once."""
    if not info.n_expert_used:
        return 3 * info.n_ff
    gathered = info.n_embd if info.n_expert_used > 2 else 0
    return info.n_expert_used * (3 * info.n_ff_expert + gathered)


def _attention_bytes(info: ModelInfo, layer: int, type_k: str, type_v: str) -> int:
    """Bytes that one token takes in this layer's cache."""
    if layer >= info.n_layer_kv or info.architecture in _WITHOUT_CACHE:
        return 0
    if info.recurrent_layers[layer] and info.architecture not in _WITH_BOTH:
        return 0
    heads = info.n_head_kv[layer]
    is_swa = info.swa_layers[layer]
    keys = row_bytes(type_k, heads * (info.head_dim_k_swa if is_swa else info.head_dim_k))
    if info.is_mla:
        return keys
    width = heads * (info.head_dim_v_swa if is_swa else info.head_dim_v)
    return keys + row_bytes(type_v, width)
