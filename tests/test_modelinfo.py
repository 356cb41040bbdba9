"""What a header says about the kinds of layers: windows, recurrent state, and how layers differ."""

from collections.abc import Mapping
from typing import Any

import pytest

from localrun.errors import BadModelFile
from localrun.modelinfo import ModelInfo, TensorInfo, model_info


def info_of(
    arch: str, n_layer: int, keys: Mapping[str, Any] | None = None, **plain: Any
) -> ModelInfo:
    metadata: dict[str, Any] = {
        "general.architecture": arch,
        f"{arch}.block_count": n_layer,
        f"{arch}.embedding_length": 64,
        f"{arch}.attention.head_count": 4,
    }
    metadata |= {f"{arch}.{key}": value for key, value in (keys or {}).items()}
    return model_info(metadata | plain, {}, [])


def marks(flags: tuple[bool, ...]) -> str:
    return "".join("x" if flag else "." for flag in flags)


WINDOW = {"attention.sliding_window": 128}


@pytest.mark.parametrize(
    ("arch", "keys", "expected"),
    [
        ("llama", WINDOW, "........"),  # a window that this architecture does not use
        ("phi3", WINDOW | {"attention.sliding_window_pattern": [True] * 8}, "........"),
        ("gemma2", {}, "x.x.x.x."),
        ("gpt-oss", WINDOW, "x.x.x.x."),
        ("gemma3", WINDOW, "xxxxx.xx"),
        ("gemma3", {}, "........"),
        ("cohere2", WINDOW | {"attention.sliding_window_pattern": 2}, "x.x.x.x."),
        ("gemma3", WINDOW | {"attention.sliding_window_pattern": 0}, "xxxxxxxx"),
        ("smallthinker", WINDOW, ".xxx.xxx"),
        ("gemma4", WINDOW | {"attention.sliding_window_pattern": [1, 0] * 4}, "x.x.x.x."),
        ("exaone4", WINDOW, "........"),  # its small models have none
    ],
)
def test_windowed_layers_follow_the_architecture(
    arch: str, keys: dict[str, Any], expected: str
) -> None:
    assert marks(info_of(arch, 8, keys).swa_layers) == expected


def test_exaone4_has_a_window_at_32b_only() -> None:
    assert marks(info_of("exaone4", 64).swa_layers) == "xxx." * 16


@pytest.mark.parametrize(
    ("arch", "keys", "expected"),
    [
        ("llama", {}, "........"),
        ("mamba", {}, "xxxxxxxx"),
        ("qwen3next", {}, "xxx.xxx."),
        ("qwen35", {"full_attention_interval": 2}, "x.x.x.x."),
        ("qwen35", {"attention.recurrent_layers": [1, 1, 0, 0] * 2}, "xx..xx.."),
        ("lfm2", {"attention.head_count_kv": [0, 0, 8, 0, 0, 8, 0, 0]}, "xx.xx.xx"),
        (
            "nemotron_h",
            {
                "attention.head_count_kv": [0, 8, 0, 0, 0, 8, 0, 0],
                "feed_forward_length": [0, 0, 9, 0, 9, 0, 0, 9],
            },
            "x..x..x.",
        ),
    ],
)
def test_recurrent_layers_follow_the_architecture(
    arch: str, keys: dict[str, Any], expected: str
) -> None:
    assert marks(info_of(arch, 8, keys).recurrent_layers) == expected


@pytest.mark.parametrize(
    ("arch", "keys", "n"),
    [
        (
            "mamba",
            {"ssm.conv_kernel": 4, "ssm.inner_size": 96, "ssm.state_size": 16},
            3 * 96 + 1536,
        ),
        (
            "mamba2",
            {
                "ssm.conv_kernel": 4,
                "ssm.inner_size": 96,
                "ssm.state_size": 16,
                "ssm.group_count": 2,
            },
            3 * (96 + 64) + 1536,
        ),
        ("rwkv6", {"wkv.head_size": 16}, 64 * (2 + 16)),
        ("lfm2", {"shortconv.l_cache": 3, "attention.head_count_kv": 0}, 64 * 2),
        ("kimi-linear", {"kda.head_dim": 8, "attention.head_count_kv": 0}, 3 * 3 * 32 + 8 * 8 * 4),
        ("minimax-01", {}, 16 * 16 * 4),
        ("llama", {"ssm.inner_size": 99}, 0),
    ],
)
def test_recurrent_state_is_as_large_as_in_llama_cpp(
    arch: str, keys: dict[str, Any], n: int
) -> None:
    assert info_of(arch, 4, keys).n_recurrent == n


def test_prediction_layers_and_shared_layers_do_not_count_as_layers_with_a_cache() -> None:
    info = info_of("gemma3n", 30, {"attention.shared_kv_layers": 10, "nextn_predict_layers": 2})
    assert (info.n_layer, info.n_layer_kv) == (28, 18)


def test_counts_may_differ_per_layer() -> None:
    info = info_of("deci", 2, {"feed_forward_length": [8, 32], "attention.head_count_kv": [1, 2]})
    assert (info.n_ff, info.n_head_kv, info.n_head) == (32, (1, 2), (4, 4))


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"context_length": -1}, "'-1', which is not a count"),
        ({"context_length": True}, "'True', which is not a count"),
        ({"attention.head_count_kv": [1]}, "1 values for 4 layers"),
        ({"attention.sliding_window_pattern": [True], **WINDOW}, "1 of 4 layers"),
    ],
)
def test_values_that_cannot_be_are_refused(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadModelFile, match=sentence):
        info_of("gemma3", 4, keys)


@pytest.mark.parametrize(
    ("arch", "keys", "is_embedder"),
    [
        ("bert", {}, True),
        ("qwen3", {"pooling_type": 3}, True),
        ("qwen3", {"pooling_type": 0}, False),
        ("llama", {}, False),
    ],
)
def test_embedding_models_are_told_by_pooling_or_architecture(
    arch: str, keys: dict[str, Any], is_embedder: bool
) -> None:
    assert info_of(arch, 2, keys).is_embedder is is_embedder


def test_bytes_are_filed_by_place() -> None:
    sizes = {
        "token_embd.weight": 1,
        "blk.0.attn_q.weight": 10,
        "blk.1.attn_q.weight": 20,
        "blk.1.attn_norm.weight": 5,
        "blk.2.nextn.eh_proj.weight": 400,  # a prediction layer, which is not loaded
        "output_norm.weight": 100,
        "output.weight": 200,
    }
    tensors = [TensorInfo(name, (4, 4), "Q8_0", 0, n) for name, n in sizes.items()]
    metadata: dict[str, Any] = {
        "general.architecture": "x",
        "x.block_count": 3,
        "x.nextn_predict_layers": 1,
    }
    info = model_info(metadata, {}, tensors)
    assert (info.layer_bytes, info.output_bytes) == ((10, 25), 300)
    assert info.weights_bytes == sum(sizes.values())
    assert not info.is_tied


def test_a_file_without_anything_is_a_vocabulary() -> None:
    info = model_info({}, {}, [])
    assert (info.kind, info.file_type, info.n_vocab, info.n_layer) == ("vocab", "unknown", 0, 0)


def test_the_vocabulary_is_as_long_as_the_embeddings_where_nothing_says() -> None:
    tensors = [TensorInfo("token_embd.weight", (64, 1000), "F32", 0, 4 * 64_000)]
    assert model_info({"general.architecture": "x"}, {}, tensors).n_vocab == 1000
