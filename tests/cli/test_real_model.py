"""`localrun run` with the real small model and a private server."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from localrun.config import child_environment
from tests.cli.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

QUESTION = "Why is the sky blue?"


@pytest.fixture
def environment(real_home: Path) -> dict[str, str]:
    return child_environment(
        LOCALRUN_HOME=str(real_home), LOCALRUN_HOST="127.0.0.1:9", PYTHONPATH=str(ROOT)
    )


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "localrun", "run", "smollm2:135m", *arguments]


def processes_of(home: Path) -> list[str]:
    """Command lines of the processes that have this home folder in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"LOCALRUN_HOME={home}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.parametrize("question", [QUESTION, "为什么天空是蓝色的"])
def test_a_question_is_answered_without_a_server(
    environment: dict[str, str], question: str
) -> None:
    done = subprocess.run(
        command(question, "-o", "num_predict=24", "-o", "seed=1", "--verbose"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) >= 3
    assert "eval count:           24 token(s)" in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_interrupt_leaves_no_process_behind(environment: dict[str, str], real_home: Path) -> None:
    with subprocess.Popen(
        command(QUESTION), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 1)
        assert len(processes_of(real_home)) >= 3
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert processes_of(real_home) == []
