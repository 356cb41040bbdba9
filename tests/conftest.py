"""What the whole suite shares: the real small model of the slow tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import WorkStealingScheduling

from localrun.config import child_environment
from localrun.names import parse_name
from localrun.store.library import Library

# Tests start children by the dozen: what is compiled once is kept, whatever the caller's habit.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A suite started in the background ignores Ctrl-C, and so would the children that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline for each example fails on a busy machine; every test has one of its own.
settings.register_profile("localrun", max_examples=50, deadline=None)
settings.load_profile("localrun")

ROOT = Path(__file__).resolve().parent.parent
REAL_HOME = ROOT / ".cache" / "test-home"
"""Kept between runs: the real model is fetched once."""


def pytest_xdist_make_scheduler(config, log):
    """Have neighbours run in one process: they share servers and models."""
    return WorkStealingScheduling(config, log) if config.option.dist == "load" else None


@pytest.fixture(scope="session")
def real_home() -> Path:
    """A home folder whose store holds the embedded default model, `smollm2:135m`."""
    REAL_HOME.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "localrun", "pull", "smollm2:135m"],
        env=child_environment(LOCALRUN_HOME=str(REAL_HOME)),
        check=True,
        timeout=300,
        cwd=ROOT,
    )
    return REAL_HOME


@pytest.fixture(scope="session")
def smollm2(real_home: Path) -> Path:
    """The GGUF file of `smollm2:135m`."""
    return Library(real_home / "models").get(parse_name("smollm2:135m")).model_paths[0]
