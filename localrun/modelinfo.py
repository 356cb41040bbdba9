"""What a GGUF header says about its model: names, dimensions, and bytes by place. Pure.

Source: llama.cpp's `llama_model_base::load_hparams`, `llama_hparams` and `src/models/*.cpp`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from localrun.errors import BadModelFile
from localrun.metadata import FILE_TYPES, GUESSED, Keys, MetadataValue

_MAX_LAYERS = 1024

# Architectures with a sliding window: every n-th layer sees everything. Without an entry only a
# pattern in the file makes one; phi3 carries a window that llama.cpp ignores.
_WINDOW_PATTERNS = {
    "gemma2": 2, "gpt-oss": 2, "cohere2": 4, "exaone4": 4, "exaone-moe": 4, "llama4": 4, "olmo2": 4,
    "afmoe": 4, "mellum": 4, "gemma3n": 5, "gemma3": 6, "gemma-embedding": 6, "plamo3": 8,
}  # fmt: skip
_WINDOW_PATTERNS_DENSE_FIRST = {"modern-bert": 3, "smallthinker": 4, "cohere2moe": 4}
_WINDOWS = {"gemma2": 4096, "exaone4": 4096, "llama4": 8192}
_NO_WINDOW = {"phi3"}

_RECURRENT = {"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"}
_HYBRID_BY_INTERVAL = {"qwen3next", "qwen35", "qwen35moe", "qwen4exp", "minimax-01"}
_HYBRID_BY_HEADS = {
    "granitehybrid", "jamba", "kimi-linear", "kimi-k3", "lfm2", "lfm2moe", "plamo2", "glm5-next",
    "bailingmoe3", "nemotron_h", "nemotron_h_moe",
}  # fmt: skip
_EMBEDDERS = {
    "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert",
    "neo-bert", "gemma-embedding", "llama-embed",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file.

    Attributes:
        name: Such as `blk.0.attn_q.weight`.
        shape: Elements per dimension, ne0 (the row) first.
        type: GGML name of the number format, such as `Q4_K`.
        offset: Bytes from the start of the file's tensor data.
        n_bytes: Length, without padding.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The facts of a model that planning, serving and showing it need.

    Counts are 0 and texts empty where the file says nothing. Tuples are per layer.

    Attributes:
        architecture: `general.architecture`, such as `llama`.
        name: `general.name`.
        kind: `model`, `adapter`, `mmproj`, `imatrix`, `vocab`, or `shard` (not the first of a
            split).
        size_label: Such as `8B`.
        license: As the author wrote it.
        file_type: Quantization as people call it, such as `Q4_K_M`.
        n_params: Elements of all tensors.
        n_layer: Blocks, without those for multi-token prediction.
        n_ctx_train: Trained context in tokens.
        n_embd: Width.
        n_ff: Widest feed-forward part.
        n_vocab: Tokens.
        n_head: Query heads.
        n_head_kv: Key and value heads; 0 where a layer has no attention.
        head_dim_k: Key length of a head.
        head_dim_v: Value length of a head.
        head_dim_k_swa: Key length in sliding-window layers.
        head_dim_v_swa: Value length in sliding-window layers.
        is_mla: The cache holds one compressed row per token, and no values.
        n_layer_kv: Layers with a KV cache of their own; later ones share.
        sliding_window: Tokens that windowed layers see; 0 for none.
        swa_layers: Which layers are windowed.
        recurrent_layers: Which layers keep a fixed state.
        n_recurrent: Elements (f32) of that state, per layer and sequence.
        n_expert: Experts.
        n_expert_used: Experts per token.
        n_ff_expert: Width of one expert.
        pooling_type: llama.cpp's id, None where unsaid.
        is_causal: Tokens see only what came before.
        is_embedder: Made for embeddings, not for text.
        tokenizer: `tokenizer.ggml.model`.
        pre_tokenizer: `tokenizer.ggml.pre`.
        chat_template: Jinja text, None without one.
        bos_token: Token id, None where unsaid.
        eos_token: Token id, None where unsaid.
        add_bos: Whether prompts begin with `bos_token`; None where unsaid.
        split_no: Number of this shard, from 0.
        split_count: Shards; 1 for a whole file.
        n_tensors: Tensors of the whole model, by `split.tensors.count` or by count.
        weights_bytes: All tensors.
        layer_bytes: Tensors of each block.
        input_bytes: Token embeddings and their like, which stay on the CPU.
        output_bytes: Output matrix and norm; without a matrix the embeddings serve twice.
        is_tied: The token embeddings are the output matrix too.
        type_bytes: Bytes of the blocks' and output's matrices by GGML type.
    """

    architecture: str
    name: str
    kind: str
    size_label: str
    license: str
    file_type: str
    n_params: int
    n_layer: int
    n_ctx_train: int
    n_embd: int
    n_ff: int
    n_vocab: int
    n_head: tuple[int, ...]
    n_head_kv: tuple[int, ...]
    head_dim_k: int
    head_dim_v: int
    head_dim_k_swa: int
    head_dim_v_swa: int
    is_mla: bool
    n_layer_kv: int
    sliding_window: int
    swa_layers: tuple[bool, ...]
    recurrent_layers: tuple[bool, ...]
    n_recurrent: int
    n_expert: int
    n_expert_used: int
    n_ff_expert: int
    pooling_type: int | None
    is_causal: bool
    is_embedder: bool
    tokenizer: str
    pre_tokenizer: str
    chat_template: str | None
    bos_token: int | None
    eos_token: int | None
    add_bos: bool | None
    split_no: int
    split_count: int
    n_tensors: int
    weights_bytes: int
    layer_bytes: tuple[int, ...]
    input_bytes: int
    output_bytes: int
    is_tied: bool
    type_bytes: tuple[tuple[str, int], ...]


def model_info(
    metadata: Mapping[str, MetadataValue],
    array_lengths: Mapping[str, int],
    tensors: Sequence[TensorInfo],
) -> ModelInfo:
    """Gather the facts of one file.

    Args:
        metadata: All keys of the header.
        array_lengths: Length of every array, kept or not.
        tensors: The file's tensors.

    Raises:
        BadModelFile: If a value has a type or size that cannot be.
    """
    keys = Keys(metadata, array_lengths)
    n_layer = max(0, keys.count("block_count") - keys.count("nextn_predict_layers"))
    if n_layer > _MAX_LAYERS:
        raise BadModelFile(f"the file claims {n_layer} layers; no model has so many")
    n_head = keys.per_layer("attention.head_count", n_layer, default=0)
    n_embd = keys.count("embedding_length")
    head_dim = n_embd // max(max(n_head, default=0), 1) if any(n_head) else 0
    head_dim_k = keys.count("attention.key_length", head_dim)
    head_dim_v = keys.count("attention.value_length", head_dim)
    n_head_kv = keys.per_layer("attention.head_count_kv", n_layer, default=n_head)
    n_ff = keys.widest("feed_forward_length")
    recurrent = _recurrent_layers(keys, n_layer, n_head_kv)
    swa = _swa_layers(keys, n_layer)
    tied = all(t.name != "output.weight" for t in tensors)
    return ModelInfo(
        architecture=keys.architecture,
        name=keys.text("general.name"),
        kind=_kind(keys, tensors),
        size_label=keys.text("general.size_label"),
        license=keys.text("general.license"),
        file_type=_file_type(metadata, tensors),
        n_params=sum(prod(t.shape) for t in tensors),
        n_layer=n_layer,
        n_ctx_train=keys.count("context_length"),
        n_embd=n_embd,
        n_ff=n_ff,
        n_vocab=_n_vocab(keys, tensors),
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim_k=head_dim_k,
        head_dim_v=head_dim_v,
        head_dim_k_swa=keys.count("attention.key_length_swa", head_dim_k),
        head_dim_v_swa=keys.count("attention.value_length_swa", head_dim_v),
        is_mla=keys.count("attention.key_length_mla") > 0,
        n_layer_kv=max(0, n_layer - keys.count("attention.shared_kv_layers")),
        sliding_window=_window(keys) if any(swa) else 0,
        swa_layers=swa,
        recurrent_layers=recurrent,
        n_recurrent=_n_recurrent(keys, n_embd, n_head, head_dim_k) if any(recurrent) else 0,
        n_expert=keys.count("expert_count"),
        n_expert_used=keys.widest("expert_used_count"),
        n_ff_expert=keys.widest("expert_feed_forward_length") or n_ff,
        pooling_type=keys.optional_count("pooling_type"),
        is_causal=keys.flag("attention.causal", default=True),
        is_embedder=_is_embedder(keys),
        tokenizer=keys.text("tokenizer.ggml.model"),
        pre_tokenizer=keys.text("tokenizer.ggml.pre"),
        chat_template=keys.text("tokenizer.chat_template") or None,
        bos_token=keys.token("bos"),
        eos_token=keys.token("eos"),
        add_bos=keys.optional_flag("tokenizer.ggml.add_bos_token"),
        split_no=keys.whole_count("split.no"),
        split_count=max(1, keys.whole_count("split.count")),
        n_tensors=keys.whole_count("split.tensors.count") or len(tensors),
        is_tied=tied,
        **_bytes_by_place(tensors, n_layer),  # type: ignore[arg-type]  # the five byte fields
    )


def spread_weights(info: ModelInfo, n_bytes: int) -> ModelInfo:
    """The facts of a split model of `n_bytes`, of which only the first shard has been seen.

    The weights not seen are spread over the layers evenly.
    """
    missing = n_bytes - info.weights_bytes
    if info.split_count < 2 or missing <= 0 or not info.n_layer:
        return info
    each, rest = divmod(missing, info.n_layer)
    layers = tuple(size + each + (i < rest) for i, size in enumerate(info.layer_bytes))
    return replace(info, weights_bytes=n_bytes, layer_bytes=layers, is_tied=False)


def _kind(keys: Keys, tensors: Sequence[TensorInfo]) -> str:
    said = keys.text("general.type")
    if keys.whole_count("split.no") > 0:
        return "shard"
    if said in ("adapter", "mmproj", "imatrix"):
        return said
    if keys.architecture == "clip":
        return "mmproj"
    if keys.text("adapter.type"):
        return "adapter"
    return "model" if tensors or keys.whole_count("split.count") > 1 else "vocab"


def _file_type(metadata: Mapping[str, MetadataValue], tensors: Sequence[TensorInfo]) -> str:
    value = metadata.get("general.file_type")
    if type(value) is int and (name := FILE_TYPES.get(value & ~GUESSED)):
        return name
    totals: dict[str, int] = {}
    for tensor in tensors:
        totals[tensor.type] = totals.get(tensor.type, 0) + tensor.n_bytes
    return max(totals, key=lambda kind: totals[kind]) if totals else "unknown"


def _n_vocab(keys: Keys, tensors: Sequence[TensorInfo]) -> int:
    if n := keys.length("tokenizer.ggml.tokens") or keys.count("vocab_size"):
        return n
    return next((t.shape[-1] for t in tensors if t.name == "token_embd.weight"), 0)


def _is_embedder(keys: Keys) -> bool:
    pooled = (keys.optional_count("pooling_type") or 0) > 0
    return pooled or keys.architecture in _EMBEDDERS


def _window(keys: Keys) -> int:
    return keys.count("attention.sliding_window", _WINDOWS.get(keys.architecture, 0))


def _swa_layers(keys: Keys, n_layer: int) -> tuple[bool, ...]:
    arch, pattern = keys.architecture, keys.value("attention.sliding_window_pattern")
    none = (False,) * n_layer
    if arch in _NO_WINDOW or not _window(keys) or (arch == "exaone4" and n_layer != 64):
        return none
    if isinstance(pattern, list):
        if len(pattern) < n_layer:
            raise BadModelFile(f"sliding_window_pattern has {len(pattern)} of {n_layer} layers")
        return tuple(bool(value) for value in pattern[:n_layer])
    dense_first = arch in _WINDOW_PATTERNS_DENSE_FIRST
    every = (_WINDOW_PATTERNS_DENSE_FIRST if dense_first else _WINDOW_PATTERNS).get(arch)
    if every is None:
        return none
    every = keys.count("attention.sliding_window_pattern", every)
    full_at = 0 if dense_first else every - 1
    return tuple(every == 0 or i % every != full_at for i in range(n_layer))


def _recurrent_layers(keys: Keys, n_layer: int, n_head_kv: tuple[int, ...]) -> tuple[bool, ...]:
    arch, listed = keys.architecture, keys.value("attention.recurrent_layers")
    if isinstance(listed, list) and len(listed) >= n_layer:
        return tuple(bool(value) for value in listed[:n_layer])
    if arch in _RECURRENT or arch == "falcon-h1":
        return (True,) * n_layer
    if arch in _HYBRID_BY_INTERVAL:
        every = keys.count("full_attention_interval", 4) or 4
        return tuple((i + 1) % every != 0 for i in range(n_layer))
    if arch in _HYBRID_BY_HEADS:
        n_ff = keys.per_layer("feed_forward_length", n_layer, default=0)
        only_without_ff = arch.startswith("nemotron_h")
        return tuple(
            heads == 0 and not (only_without_ff and ff)
            for heads, ff in zip(n_head_kv, n_ff, strict=True)
        )
    return (False,) * n_layer


def _n_recurrent(keys: Keys, n_embd: int, n_head: tuple[int, ...], head_dim: int) -> int:
    """f32 elements of state per layer and sequence. Source: `llama_hparams::n_embd_r, n_embd_s`."""
    heads = max(n_head, default=0)
    if size := keys.count("wkv.head_size"):
        return n_embd * (keys.count("token_shift_count", 2) + size)
    if cache := keys.count("shortconv.l_cache"):
        return n_embd * (cache - 1)
    n_conv = keys.count("ssm.conv_kernel")
    if kda := keys.count("kda.head_dim"):
        return 3 * (n_conv - 1 if n_conv else 3) * heads * kda + kda * kda * heads
    if keys.architecture == "minimax-01":
        return head_dim * head_dim * heads
    inner, state = keys.count("ssm.inner_size"), keys.count("ssm.state_size")
    groups = keys.count("ssm.group_count")
    return max(n_conv - 1, 0) * (inner + 2 * groups * state) + state * inner


def _bytes_by_place(tensors: Iterable[TensorInfo], n_layer: int) -> dict[str, object]:
    layers, inputs, outputs = [0] * n_layer, 0, 0
    types: dict[str, int] = {}
    for tensor in tensors:
        layer = _layer_of(tensor.name)
        is_input = layer is None and _is_input(tensor.name)
        if layer is not None and layer < n_layer:
            layers[layer] += tensor.n_bytes
        elif layer is None and not is_input:
            outputs += tensor.n_bytes
        else:
            inputs += tensor.n_bytes
        if len(tensor.shape) > 1 and not is_input:
            types[tensor.type] = types.get(tensor.type, 0) + tensor.n_bytes
    return {
        "weights_bytes": sum(layers) + inputs + outputs,
        "layer_bytes": tuple(layers),
        "input_bytes": inputs,
        "output_bytes": outputs,
        "type_bytes": tuple(sorted(types.items())),
    }


def _layer_of(name: str) -> int | None:
    if not name.startswith("blk."):
        return None
    digits = name[4:12].partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else None


def _is_input(name: str) -> bool:
    return name.startswith(("token_embd", "position_embd", "token_types", "per_layer_token_embd"))
