"""A private server lives as long as the command that needs it, with the real server."""

import http.client
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from localrun.cli.client import Client
from localrun.config import child_environment
from tests.cli.conftest import ROOT
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny

HOLD = """
import sys
from localrun.cli.private import private_server

with private_server() as client:
    print(client.port, client.key, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a user without a server."""
    return child_environment(
        LOCALRUN_HOME=str(tmp_path),
        LOCALRUN_HOST="127.0.0.1:9",
        LOCALRUN_ADOPT="off",
        PYTHONPATH=str(ROOT),
    )


def hold(environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def is_gone(port: int, within_s: float) -> bool:
    """Whether nobody listens on a port any more, within a time."""
    never = threading.Event()
    for _ in range(int(within_s / 0.05)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/api/version")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return True
        finally:
            connection.close()
        never.wait(0.05)
    return False


def test_list_without_a_server_runs_its_own_and_shows_the_same(
    environment: dict[str, str], tmp_path: Path
) -> None:
    store_model(tmp_path / "models", "small", make_tiny(tmp_path / "small.gguf"))

    def localrun(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "localrun", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    (model,) = json.loads(localrun("list", "--json"))
    _, row = localrun("list").splitlines()
    assert row.split()[:2] == [model["name"], model["digest"][:12]]


def test_private_server_ends_with_its_command_and_wants_its_key(
    environment: dict[str, str],
) -> None:
    with hold(environment) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        port, key = holder.stdout.readline().split()
        assert Client("127.0.0.1", int(port), key).get("/api/tags") == {"models": []}
        with pytest.raises(Exception, match="key"):
            Client("127.0.0.1", int(port)).get("/api/tags")
        holder.stdin.close()
        assert holder.wait(15) == 0
        assert is_gone(int(port), 0.5)


def test_private_server_ends_when_its_command_is_killed(environment: dict[str, str]) -> None:
    with hold(environment) as holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline().split()[0])
        holder.kill()
        assert is_gone(port, 10)


def test_error_of_a_server_that_cannot_start_is_told_as_its_own(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "store.json").write_text('{"schema_version": 999}')
    done = subprocess.run(
        [sys.executable, "-m", "localrun", "list"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert error.startswith("Error: ")
    assert "is a store of version 999" in error
    assert hint.startswith("update localrun")
