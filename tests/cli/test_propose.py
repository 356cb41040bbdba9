"""What a bare `localrun run` proposes."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.cli.propose import LADDER, is_hub_reachable, propose
from localrun.config import load_settings
from localrun.hardware.budget import Budget, GpuBudget
from tests.fakes.server import FakeServer, fake_server

GB = 1_000_000_000


def machine(
    ram_gb: float, gpu_gb: float = 0, *, n_threads: int = 8, unified: bool = False
) -> Budget:
    room = int(gpu_gb * GB)
    gpus = (GpuBudget("CUDA0", 0, room, room),) if gpu_gb else ()
    return Budget(int(ram_gb * GB), gpus, unified, n_threads)


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        (machine(64, 22), "gemma3:27b"),
        (machine(32, 11), "gemma3:12b"),
        (machine(32, 7.2), "llama3.1:8b"),
        (machine(16, 5), "gemma3:4b"),
        (machine(16, 2), "gemma3:4b"),
        (machine(16), "gemma3:4b"),
        (machine(16, n_threads=2), "llama3.2:1b"),
        (machine(2), "llama3.2:1b"),
        (machine(14, 10.5, unified=True), "gemma3:12b"),
    ],
)
def test_largest_model_that_runs_well_is_proposed(budget: Budget, name: str) -> None:
    proposal = propose(budget)
    assert proposal is not None
    assert proposal.name == name


def test_nothing_is_proposed_where_nothing_fits() -> None:
    assert propose(machine(0.5)) is None


@given(st.floats(0, 64), st.floats(0, 64), st.integers(1, 32), st.booleans())
def test_proposal_fits_the_gpu_or_the_ram(
    ram_gb: float, gpu_gb: float, n_threads: int, unified: bool
) -> None:
    budget = machine(ram_gb, gpu_gb, n_threads=n_threads, unified=unified)
    proposal = propose(budget)
    assert proposal is None or proposal.need_bytes <= max(ram_gb, gpu_gb) * GB


def test_ladder_goes_down() -> None:
    needs = [step.need_bytes for step in LADDER]
    assert needs == sorted(needs, reverse=True)
    assert all(step.download_bytes < step.need_bytes for step in LADDER)


def test_hub_in_reach_is_one_that_answers(tmp_path: Path) -> None:
    settings = load_settings({"LOCALRUN_HOME": str(tmp_path)})
    with fake_server(FakeServer()) as mirror:
        reached = replace(settings, hf_endpoint=f"http://127.0.0.1:{mirror.port}")
        assert is_hub_reachable(reached)
        assert not is_hub_reachable(replace(reached, hf_offline=True))
    assert not is_hub_reachable(reached)
