"""What file names say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.hardware.plan import plain_quantization
from localrun.store.quantization import (
    RemoteFile,
    group_files,
    is_loadable,
    is_quantization,
    read_file_name,
    select_group,
)

NAMES = [
    ("llama-2-7b-chat.Q4_K_M.gguf", "model", "Q4_K_M"),
    ("Meta-Llama-3.1-8B-Instruct-Q4_K_L.gguf", "model", "Q4_K_L"),
    ("Llama-3.2-3B-Instruct-f16.gguf", "model", "F16"),
    ("Qwen3-30B-A3B-UD-Q4_K_XL.gguf", "model", "UD-Q4_K_XL"),
    ("UD-IQ1_S/DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf", "model", "UD-IQ1_S"),
    ("Q8_0/model-00001-of-00004.gguf", "model", "Q8_0"),
    ("BF16/gemma-3-27b-it-BF16-00002-of-00002.gguf", "model", "BF16"),
    ("mmproj-model-f16.gguf", "side", "F16"),
    ("gemma-3-4b-it-mmproj-BF16.gguf", "side", "BF16"),
    ("qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", "model", "Q4_K_M"),
    ("Phi-3-mini-4k-instruct-q4.gguf", "model", "Q4_K_M"),
    ("Phi-3-mini-4k-instruct-fp16.gguf", "model", "F16"),
    ("gpt-oss-20b-mxfp4.gguf", "model", "MXFP4"),
    ("gpt-oss-120b-mxfp4-00001-of-00003.gguf", "model", "MXFP4"),
    ("capybara.i1-IQ3_XXS.gguf", "model", "IQ3_XXS"),
    ("Qwen-1_8B-Chat.Q3_K.gguf", "model", "Q3_K_M"),
    ("gemma-7b-it_q4_1.gguf", "model", "Q4_1"),
    ("Q4_K_M.gguf", "model", "Q4_K_M"),
    ("Llama-3.2-3B-Instruct-Q4_0_4_8.gguf", "model", "Q4_0_4_8"),
    ("Llama-3.2-3B-Instruct.imatrix", "other", ""),
    ("imatrix_unsloth.gguf", "side", ""),
    ("llama-2-70b-chat.Q6_K.gguf-split-a", "pieces", ""),
    ("model.Q6_K.gguf.part1of2", "pieces", ""),
    ("grok-1-IQ3_XS-split-00001-of-00009.gguf", "model", "IQ3_XS"),
    ("all-MiniLM-L6-v2-ggml-model-f16.gguf", "model", "F16"),
    ("nomic-embed-text-v1.5.f32.gguf", "model", "F32"),
    ("SmolLM2-135M-Instruct.Q4_1.gguf", "model", "Q4_1"),
    ("mtp-Qwen3-27B-Q4_K_M.gguf", "side", "Q4_K_M"),
    ("Mixtral-8x7B-v0.1-KQ2.gguf", "model", ""),
    ("BitNet-TQ2_0.gguf", "model", "TQ2_0"),
    ("model.gguf", "model", ""),
    ("Bonsai-Q1_0.gguf", "model", "Q1_0"),
    ("model-NVFP4.gguf", "model", "NVFP4"),
    ("README.md", "other", ""),
    ("my-lora-f16.gguf", "side", "F16"),
]


@pytest.mark.parametrize(("path", "kind", "quantization"), NAMES)
def test_a_file_name_says_kind_and_quantization(path: str, kind: str, quantization: str) -> None:
    name = read_file_name(path)
    assert (name.kind, name.quantization) == (kind, quantization)


TAGS = ["Q4_K_M", "Q8_0", "IQ4_XS", "UD-Q2_K_XL", "BF16", "MXFP4", "IQ1_S", "Q5_K_S"]
STEMS = st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,12}([.-][0-9]{1,2}[Bb])?", fullmatch=True)


@given(STEMS, st.sampled_from(TAGS), st.sampled_from(".-"), st.booleans(), st.booleans())
def test_a_tag_is_found_in_every_habit_of_naming(
    stem: str, tag: str, joint: str, lower: bool, in_folder: bool
) -> None:
    shown = tag.lower() if lower else tag
    path = f"{shown}/{stem}.gguf" if in_folder else f"{stem}{joint}{shown}.gguf"
    name = read_file_name(path)
    assert name.quantization == tag or name.kind == "side"


@given(st.text(max_size=60), st.booleans())
def test_any_name_is_read_without_an_error(text: str, is_gguf: bool) -> None:
    read_file_name(f"{text}.gguf" if is_gguf else text)


@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_shards_come_together_in_order_however_they_are_listed(n: int, random: object) -> None:
    files = [RemoteFile(f"a/m-Q4_K_M-{i:05}-of-{n:05}.gguf", i) for i in range(1, n + 1)]
    random.shuffle(files)  # type: ignore[attr-defined]
    (group,) = group_files(files)
    assert not group.unusable
    assert [file.size for file in group.files] == list(range(1, n + 1))
    assert group.n_bytes == n * (n + 1) // 2
    if n > 1:
        (group,) = group_files(files[1:])
        assert f"{n - 1} of {n} shards" in group.unusable


def test_side_files_are_left_out_and_what_cannot_be_loaded_says_why() -> None:
    groups = group_files(
        RemoteFile(path, 1)
        for path in (
            "README.md", "m-Q4_K_M.gguf", "mmproj-F16.gguf", "m-Q4_0_4_4.gguf",
            "m.Q6_K.gguf-split-a", "m.Q6_K.gguf-split-b", "m-Q8_0-00001-of-00002.gguf",
        )
    )  # fmt: skip
    assert [(g.quantization, g.unusable.partition(" ")[0]) for g in groups] == [
        ("Q4_K_M", ""),
        ("Q4_0_4_4", "llama.cpp"),
        ("m.Q6_K.gguf-split-a", "cut"),
        ("Q8_0", "1"),
    ]
    assert [len(g.files) for g in groups] == [1, 1, 2, 1]


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ("q4_k_m", "m-Q4_K_M.gguf"),
        ("Q2_K_XL", "m-UD-Q2_K_XL.gguf"),
        ("m-q8_0.gguf", "m-Q8_0.gguf"),
        ("M-Q8_0", "m-Q8_0.gguf"),
        ("Q3_K", None),
        ("Q4_0_4_4", None),
        ("7b", None),
    ],
)
def test_a_tag_selects_by_quantization_or_file_name(wanted: str, path: str | None) -> None:
    paths = ("m-Q4_K_M.gguf", "m-UD-Q2_K_XL.gguf", "m-Q8_0.gguf", "m-Q4_0_4_4.gguf")
    found = select_group(group_files(RemoteFile(p, 1) for p in paths), wanted)
    assert (found.label if found else None) == path


def test_what_llama_cpp_dropped_is_not_loadable() -> None:
    assert is_loadable("Q4_K_M")
    assert is_loadable("IQ4_NL")
    assert not is_loadable("Q4_0_8_8")
    assert not is_loadable("IQ4_KS")
    assert is_quantization("q4_k_m")
    assert not is_quantization("7b")


def test_our_tags_are_those_of_the_planner() -> None:
    for tag in ("Q4_K_M", "UD-Q4_K_XL", "Q4_K_L", "MXFP4", "F16"):
        assert is_quantization(plain_quantization(tag))
