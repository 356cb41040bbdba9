"""Run the command line as a user does: a process of its own, against a loopback server."""

import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from localrun.config import child_environment
from tests.fakes.server import FakeServer, fake_server

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def server() -> Generator[FakeServer, None, None]:
    with fake_server(FakeServer()) as fake:
        yield fake


@pytest.fixture
def environment(server: FakeServer, tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose server is the fake one."""
    env = child_environment(
        LOCALRUN_HOME=str(tmp_path),
        LOCALRUN_HOST=f"127.0.0.1:{server.port}",
        PYTHONPATH=str(ROOT),
        PYTHONUTF8="1",
        COLUMNS="100",
        LOCALRUN_ADOPT="off",  # models of this machine's user are none of the tests'
    )
    return {name: value for name, value in env.items() if not name.startswith("OLLAMA_")}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Run `localrun ARGUMENTS` with nothing, or the given text, piped in."""

    def call(*arguments: str, stdin: str = "", **extra: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "localrun", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=environment | extra,
            timeout=30,
            check=False,
        )

    return call
