"""From the driver's library to a placement: machines of 4, 6, 8 and 24 GB, and without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.linuxroot import GIB, write_root
from tests.fakes.nvml import build_fake_nvml
from tests.fakes.phantoms import make_phantom

QUANTIZATIONS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")


@pytest.fixture(scope="session")
def fake_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = build_fake_nvml(tmp_path_factory.mktemp("nvml"))
    if library is None:
        pytest.skip("no C compiler to build the stand-in for NVML")
    return library


def plan(nvml: Path, folder: Path, model: str, vram_gib: float, ram_gib: int) -> dict[str, Any]:
    """Run `whole_path` on a machine whose desktop holds 300 MiB of the card."""
    root = write_root(
        folder / "root", ram_bytes=ram_gib * GIB, available_bytes=int(ram_gib * 0.85 * GIB)
    )
    models = {
        q: str(make_phantom(folder / f"{model}-{q}.gguf", model, quantization=q))
        for q in QUANTIZATIONS
    }
    total = int(vram_gib * GIB)
    env = {
        "FAKE_NVML_COUNT": "1" if vram_gib else "0",
        "FAKE_NVML_TOTAL": str(total),
        "FAKE_NVML_FREE": str(max(0, total - (300 << 20))),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.hardware.whole_path"],
        input=json.dumps({"nvml": str(nvml), "root": str(root), "models": models}),
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("model", ["llama2-7b", "llama3.1-8b"])
@pytest.mark.parametrize("vram_gib", [8, 24])
def test_8_gb_and_more_hold_a_7_to_8b_model_wholly(
    fake_nvml: Path, tmp_path: Path, model: str, vram_gib: float
) -> None:
    answer = plan(fake_nvml, tmp_path, model, vram_gib, ram_gib=16)
    assert answer["machine"]["has_8gb_gpu"]
    assert answer["is_on_gpu"]
    assert answer["chosen"] in ("Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")
    assert answer["placement"]["need_bytes"]["CUDA0"] <= answer["free"]["CUDA0"]
    assert answer["placement"]["n_ctx"] >= 4096


@pytest.mark.parametrize("vram_gib", [4, 6])
def test_4_and_6_gb_offload_in_part_or_take_fewer_bits(
    fake_nvml: Path, tmp_path: Path, vram_gib: float
) -> None:
    answer = plan(fake_nvml, tmp_path, "llama3.1-8b", vram_gib, ram_gib=16)
    assert not answer["machine"]["has_8gb_gpu"]
    assert "less than 8 GB" in answer["machine"]["verdict_8gb"]
    placement = answer["placement"]
    in_part = 0 < placement["n_gpu_layers"] < placement["n_layers"]
    modest = placement["type_k"] == "q8_0" or answer["chosen"] in ("IQ4_XS", "Q3_K_M")
    assert in_part or modest
    assert placement["need_bytes"]["CUDA0"] <= answer["free"]["CUDA0"]


def test_without_a_gpu_the_cpu_takes_its_quick_format(fake_nvml: Path, tmp_path: Path) -> None:
    answer = plan(fake_nvml, tmp_path, "llama3.1-8b", 0, ram_gib=16)
    assert answer["machine"]["verdict_8gb"].startswith("no GPU found")
    assert answer["chosen"] == "Q4_K_M"
    assert answer["placement"]["n_gpu_layers"] == 0
    assert answer["placement"]["n_threads"] == 8
    assert answer["free"].keys() == {"cpu"}


def test_a_small_machine_without_a_gpu_takes_fewer_bits_or_nothing(
    fake_nvml: Path, tmp_path: Path
) -> None:
    answer = plan(fake_nvml, tmp_path, "llama3.1-8b", 0, ram_gib=6)
    assert answer["chosen"] in ("IQ4_XS", "Q3_K_M")
    answer = plan(fake_nvml, tmp_path, "llama3.1-8b", 0, ram_gib=2)
    assert answer["chosen"] is None
    assert all(not fits and "GiB" in reason for _, fits, reason in answer["rows"])
