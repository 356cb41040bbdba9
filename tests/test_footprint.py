"""Our formulas against llama.cpp's own accounting, and against each other."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.footprint import (
    KV_TYPES,
    Pool,
    compute_bytes,
    kv_bytes,
    kv_bytes_per_cell,
    layer_kv_bytes,
    row_bytes,
    takes_kv_type,
    weights_bytes,
)
from localrun.gguf import ModelInfo, open_header
from tests.fakes.phantoms import ENCODER_PHANTOMS, ODD_PHANTOMS, PHANTOMS, make_phantom

SETTINGS: list[dict[str, Any]] = [
    {"n_ctx": 8192},
    {"n_ctx": 8192, "flash_attention": False},
    {"n_ctx": 32768, "n_seq_max": 16, "n_outputs_max": 16},
    {"n_ctx": 8192, "type_k": "q8_0", "type_v": "q8_0", "n_outputs_max": 1},
    {"n_ctx": 8192, "swa_full": False, "n_seq_max": 4, "n_outputs_max": 4},
    {"n_ctx": 4096, "n_ubatch": 128, "n_outputs_max": 24, "n_seq_max": 24},
    {"n_ctx": 1000, "n_ubatch": 256, "n_outputs_max": 8, "n_seq_max": 8, "n_batch": 256},
]
ENCODERS: list[dict[str, Any]] = [
    {"n_ctx": n, "n_batch": n, "n_ubatch": n, "embeddings": True, "flash_attention": flash}
    for n in (512, 2048, 8192)
    for flash in (True, False)
]
MIB = 1 << 20
DENSE = {name for name, dims in PHANTOMS.items() if not dims.n_expert and dims.arch != "gemma3"}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("phantoms")
    return {
        name: make_phantom(folder / f"{name}.gguf", name) for name in (*PHANTOMS, *ODD_PHANTOMS)
    }


@pytest.fixture(scope="module")
def measured(phantoms: dict[str, Path]) -> list[tuple[str, dict[str, Any], list[int]]]:
    """llama.cpp's accounting of every phantom under every setting, from one child process."""
    cases = [
        (name, setting)
        for name in phantoms
        for setting in SETTINGS
        if not (name in ODD_PHANTOMS and "type_v" in setting) and name not in ENCODER_PHANTOMS
    ]
    cases += [
        (name, setting)
        for name, n_ctx in ENCODER_PHANTOMS.items()
        for setting in ENCODERS
        if setting["n_ctx"] <= n_ctx
    ]
    questions = [{"path": str(phantoms[name]), **setting} for name, setting in cases]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fakes.no_alloc"],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    if "undefined symbol" in done.stderr:
        pytest.skip("this llama.cpp does not export its memory breakdown")
    assert done.returncode == 0, done.stderr
    return [(*case, answer) for case, answer in zip(cases, json.loads(done.stdout), strict=True)]


def pool_of(setting: dict[str, Any]) -> Pool:
    return Pool(
        setting["n_ctx"],
        setting.get("type_k", "f16"),
        setting.get("type_v", "f16"),
        setting.get("n_seq_max", 1),
        setting.get("n_ubatch", 512),
        setting.get("swa_full", True),
    )


def compute_of(info: ModelInfo, setting: dict[str, Any]) -> int:
    return compute_bytes(
        info,
        n_ubatch=setting.get("n_ubatch", 512),
        n_outputs_max=setting.get("n_outputs_max", 2048),
        n_cells=setting["n_ctx"],
        type_k=setting.get("type_k", "f16"),
        flash_attention=setting.get("flash_attention", True),
    )


def test_weights_and_kv_cache_are_exactly_those_of_llama_cpp(
    phantoms: dict[str, Path], measured: list[tuple[str, dict[str, Any], list[int]]]
) -> None:
    for name, setting, (weights, kv, _) in measured:
        info = open_header(phantoms[name]).info
        assert abs(weights - weights_bytes(info)) < 64, (name, setting)  # padding between tensors
        assert kv == sum(layer_kv_bytes(info, pool_of(setting))), (name, setting)


def test_compute_buffers_come_close_to_those_of_llama_cpp(
    phantoms: dict[str, Path], measured: list[tuple[str, dict[str, Any], list[int]]]
) -> None:
    for name, setting, (_, _, compute) in measured:
        ours = compute_of(open_header(phantoms[name]).info, setting)
        allowed = (2 if name in ENCODER_PHANTOMS else 16 if name in DENSE else 40) * MIB
        assert abs(ours - compute) <= allowed, (name, setting, ours / MIB, compute / MIB)


def test_the_kv_cache_of_llama2_is_two_gibibytes_at_its_trained_context(
    phantoms: dict[str, Path],
) -> None:
    info = open_header(phantoms["llama2-7b"]).info
    assert kv_bytes(info, n_cells=4096) == 2 << 30
    assert kv_bytes(info, n_cells=4096, type_k="q8_0", type_v="q8_0") == (2 << 30) * 34 // 64


def test_a_compressed_cache_holds_keys_only(phantoms: dict[str, Path]) -> None:
    info = open_header(phantoms["deepseek-v2-lite"]).info
    assert info.is_mla
    assert kv_bytes_per_cell(info) == 27 * 576 * 2


def test_layers_that_share_a_cache_have_none_of_their_own(phantoms: dict[str, Path]) -> None:
    info = open_header(phantoms["llama3.1-8b"]).info
    shared = replace(info, n_layer_kv=20)
    assert kv_bytes(shared, n_cells=4096) == kv_bytes(info, n_cells=4096) * 20 // 32


def test_recurrent_state_grows_with_sequences_and_not_with_context(
    phantoms: dict[str, Path],
) -> None:
    info = open_header(phantoms["mamba-130m"]).info
    one = kv_bytes(info, n_cells=4096)
    assert kv_bytes(info, n_cells=8192) == one
    assert kv_bytes(info, n_cells=4096, n_seq_max=3) == 3 * one
    assert one == 24 * 4 * (3 * 1536 + 16 * 1536)


def test_windowed_layers_are_small_only_without_swa_full(phantoms: dict[str, Path]) -> None:
    info = open_header(phantoms["gemma3-4b"]).info
    assert kv_bytes(info, n_cells=8192) == 1088 * MIB
    assert kv_bytes(info, n_cells=8192, swa_full=False) == 334 * MIB


def test_few_output_rows_save_most_of_the_compute_buffer(phantoms: dict[str, Path]) -> None:
    info = open_header(phantoms["qwen3-8b"]).info
    all_rows = compute_bytes(info, n_ubatch=512, n_outputs_max=512, n_cells=8192)
    few_rows = compute_bytes(info, n_ubatch=512, n_outputs_max=24, n_cells=8192)
    assert all_rows > 2.5 * few_rows


@pytest.mark.parametrize(
    ("kv_type", "n_bytes"), [("f32", 1024), ("f16", 512), ("q8_0", 272), ("q4_0", 144)]
)
def test_rows_take_what_their_format_says(kv_type: str, n_bytes: int) -> None:
    assert row_bytes(kv_type, 256) == n_bytes


def test_heads_that_do_not_divide_into_blocks_stay_unquantized(tmp_path: Path) -> None:
    from tests.fakes.tinygguf import make_tiny

    info = open_header(make_tiny(tmp_path / "tiny.gguf")).info  # heads of 16
    assert takes_kv_type(info, "f16")
    assert not takes_kv_type(info, "q8_0")


@given(
    name=st.sampled_from(["llama3.1-8b", "gemma3-4b", "mamba-130m", "deepseek-v2-lite"]),
    cells=st.tuples(st.integers(1, 200_000), st.integers(1, 200_000)).map(sorted),
    kv_type=st.sampled_from(KV_TYPES),
    n_seq_max=st.integers(1, 256),
)
def test_more_cells_never_take_fewer_bytes(
    name: str, cells: list[int], kv_type: str, n_seq_max: int
) -> None:
    info = _infos()[name]
    few, many = (
        kv_bytes(info, n_cells=n, type_k=kv_type, type_v=kv_type, n_seq_max=n_seq_max)
        for n in cells
    )
    assert 0 < few <= many


def _infos(found: dict[str, ModelInfo] = {}) -> dict[str, ModelInfo]:  # noqa: B006 (a cache)
    import tempfile

    if not found:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("llama3.1-8b", "gemma3-4b", "mamba-130m", "deepseek-v2-lite"):
                found[name] = open_header(make_phantom(Path(folder) / name, name)).info
    return found
