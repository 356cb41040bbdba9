"""A daemon behind our server, as the command line shows and chooses it."""

import pytest

from tests.cli.conftest import Run
from tests.fakes.server import PS, TAGS, FakeServer


@pytest.fixture
def server_with_theirs(server: FakeServer) -> FakeServer:
    theirs = TAGS["models"][0] | {"name": "theirs:latest", "backend": "ollama"}
    server.tags = {"models": [*TAGS["models"], theirs]}
    return server


def test_models_of_a_daemon_are_marked_in_the_table(
    run: Run, server_with_theirs: FakeServer
) -> None:
    head, ours, theirs = run("list").stdout.splitlines()
    assert head.split()[-1] == "BACKEND"
    assert ours.split()[0] == "tiny:latest"
    assert "ollama" not in ours
    assert theirs.split()[0] == "theirs:latest"
    assert theirs.split()[-1] == "ollama"


def test_without_a_daemon_the_tables_are_ollamas(run: Run) -> None:
    assert PS["models"]
    assert "BACKEND" not in run("list").stdout + run("ps").stdout


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_a_backend_is_asked_for_with_each_request(run: Run, server: FakeServer, how: str) -> None:
    if how == "flag":
        done = run("run", "--backend", "ollama", "tiny", "hi")
    else:
        done = run("run", "tiny", "hi", LOCALRUN_BACKEND="ollama")
    assert done.returncode == 0, done.stderr
    sent = [
        {name.lower(): value for name, value in one.items()}.get("x-localrun-backend")
        for one in server.headers
    ]
    assert "ollama" in sent


def test_an_unknown_backend_is_misuse(run: Run) -> None:
    done = run("run", "--backend", "vllm", "tiny", "hi")
    assert done.returncode == 2
    assert "llamacpp" in done.stderr
