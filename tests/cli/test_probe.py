"""`localrun probe` as a process, on this machine and with a stand-in for the GPU's driver."""

import json
from pathlib import Path

import pytest

from localrun.cli.plan import Plan, describe, to_json
from localrun.gguf import open_header
from localrun.hardware.plan import Budget, Candidate, GpuBudget, Wish, choose
from tests.cli.conftest import Run
from tests.fakes.nvml import build_fake_nvml
from tests.fakes.phantoms import make_phantom
from tests.fakes.tinygguf import make_tiny

GIB = 1 << 30


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> str:
    library = build_fake_nvml(tmp_path_factory.mktemp("nvml"))
    if library is None:
        pytest.skip("no C compiler to build the stand-in for NVML")
    return str(library)


def test_probe_says_what_is_here_and_what_the_engine_uses(run: Run) -> None:
    shown = run("probe").stdout
    for name in ("Machine", "Cores", "Memory", "8 GB rule", "Engine"):
        assert f"{name} " in shown
    assert "llama.cpp" in shown


def test_probe_gives_programs_all_facts(run: Run) -> None:
    facts = json.loads(run("probe", "--json").stdout)
    assert facts["machine"]["ram_total_bytes"] > 0
    assert facts["engine"]["error"] == ""
    assert isinstance(facts["advice"], list)


def test_gpu_is_shown_with_the_8_gb_verdict_and_what_to_mend(run: Run, nvml: str) -> None:
    gpu = {"FAKE_NVML_COUNT": "1", "FAKE_NVML_TOTAL": str(8 * GIB), "FAKE_NVML_FREE": str(7 * GIB)}
    shown = run("probe", LOCALRUN_NVML_LIBRARY=nvml, **gpu).stdout
    assert "GPU        CUDA0 " in shown
    assert "7-8B models fit wholly on the GPU" in shown
    if "CPU only" in shown:
        assert "To mend    llama.cpp is built for the CPU only" in shown
        assert "pip install" in shown


def test_a_plan_that_must_leave_the_gpu_idle_says_how_to_mend_it(
    run: Run, nvml: str, tmp_path: Path
) -> None:
    shown = run("probe", str(make_tiny(tmp_path / "tiny.gguf")), LOCALRUN_NVML_LIBRARY=nvml).stdout
    assert ("Runs on    the CPU" in shown) == ("built for the CPU only" in shown)


def test_broken_driver_is_a_note_and_not_a_traceback(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.so").write_bytes(b"not a library")
    done = run("probe", LOCALRUN_NVML_LIBRARY=str(tmp_path / "broken.so"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "no GPU found" in done.stdout


def test_plan_of_a_file_is_printed(run: Run, tmp_path: Path) -> None:
    file = make_tiny(tmp_path / "tiny.gguf")
    shown = run("probe", str(file)).stdout
    assert shown.splitlines()[0].split() == ["QUANTIZATION", "SIZE", "RUNS", "ON", "REASON"]
    assert "\nRuns on    the CPU\n" in shown
    assert json.loads(run("probe", str(file), "--json").stdout)["rows"][0]["is_chosen"] is True


def test_model_that_nobody_knows_gets_near_names(run: Run) -> None:
    done = run("probe", "lama2")
    assert done.returncode == 1
    assert "llama2" in done.stderr


def test_damaged_file_is_an_error_with_exit_1(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(10))
    done = run("probe", str(tmp_path / "bad.gguf"))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")


def test_plan_of_a_7b_model_marks_the_chosen_row(tmp_path: Path) -> None:
    info = open_header(make_phantom(tmp_path / "m.gguf", "llama2-7b")).info
    candidates = [
        Candidate("Q4_K_M", info.weights_bytes, info),
        Candidate("F16", 13_500_000_000, None),
    ]
    gpu = GpuBudget("CUDA0", 0, 7 * GIB, 6 * GIB)
    choice = choose(candidates, Budget(4 * GIB, (gpu,), n_threads=4), Wish())
    plan = Plan(choice.rows, choice.advice, (("odd", "an adapter"),))
    lines = describe(plan).splitlines()
    assert lines[1].split()[:5] == ["★", "Q4_K_M", "4.0", "GB", "CUDA0"]
    assert "does not fit" in lines[2]
    assert lines[3].split() == ["odd", "cannot", "be", "taken", "an", "adapter"]
    rows = to_json(plan)["rows"]
    assert isinstance(rows, list)
    assert [row["is_chosen"] for row in rows] == [True, False]
