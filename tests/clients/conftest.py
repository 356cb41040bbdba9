"""A server of ours with real models, for the genuine clients.

These tests run in an environment of their own (`.cache/clients`), which holds the clients and not
localrun; `scripts/test --all` makes it and runs them there.

With LOCALRUN_TEST_OLLAMA=1 the same tests go over a real Ollama daemon that answers for us: it has
the same models, in a store of its own that shares their files.
"""

import contextlib
import json
import os
import shutil
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
CANNOT_FETCH = CANNOT_BUILD = 3
OVER_OLLAMA = os.environ.get("LOCALRUN_TEST_OLLAMA", "") not in ("", "0")
DAEMON_HOME = ROOT / ".cache" / "ollama"
START_S = 60

collect_ignore_glob = [] if find_spec("litellm") else ["test_*.py"]
"""Outside their own environment there is nothing to collect."""


NOT_OLLAMAS = {
    "test_a_tool_is_called_and_its_answer_used": "it does not read the calls of this model",
    "test_a_streamed_tool_call_comes_as_a_whole": "it does not read the calls of this model",
    "test_a_required_tool_is_called_in_a_stream": "it ignores tool_choice",
    "test_responses": "it has no incomplete_details",
    "test_a_response_goes_on_from_the_one_before": "it keeps no responses",
    "test_a_stop_sequence_is_told": "it does not say which one ended an answer",
    "test_a_tool_is_used_and_its_result_read": "it does not read the calls of this model",
    "test_a_forced_tool_is_used_in_a_stream": "it ignores tool_choice",
    "test_tokens_are_counted_as_they_are_charged": "it counts no tokens",
}
"""What the daemon itself does not do, so that nothing in front of it can: tests by name."""


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
        reason = NOT_OLLAMAS.get(item.name.partition("[")[0])
        if OVER_OLLAMA and reason:
            item.add_marker(pytest.mark.skip(reason=f"Ollama: {reason}"))


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
def ours() -> Iterator[Running]:
    """`localrun serve` on a free port, until the last test has run."""
    HOME.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with serving([PYTHON, "-m", "localrun", "serve"], port, environment(port)) as running:
        localrun(port, "pull", SMALL)
        yield running


@pytest.fixture(scope="session")
def server(ours: Running) -> Iterator[Running]:
    """The server that the clients talk to: ours, or a second one in front of a daemon."""
    if not OVER_OLLAMA:
        yield ours
        return
    program = daemon_program()
    for name, weights in ((CODER, "coder"), (MINILM, "minilm")):
        made(ours, name, weights)
    store = DAEMON_HOME / "store"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(HOME / "models", store, copy_function=os.link)
    there, port = free_port(), free_port()
    with serving([program, "serve"], there, daemon_environment(there, store)):
        env = environment(port) | {"LOCALRUN_OLLAMA": f"127.0.0.1:{there}"}
        env |= {"LOCALRUN_BACKEND": "ollama", "LOCALRUN_MODELS": str(DAEMON_HOME / "empty")}
        with serving([PYTHON, "-m", "localrun", "serve"], port, env) as running:
            yield running


def daemon_program() -> str:
    """The real daemon, built unless it is there from before."""
    found = subprocess.run(
        [PYTHON, ROOT / "scripts" / "install_ollama"],
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if found.returncode == CANNOT_BUILD and not os.environ.get("CI"):
        pytest.skip("Ollama cannot be built here: Go or a C++ compiler is missing")
    assert found.returncode == 0
    return found.stdout.strip()


def daemon_environment(port: int, store: Path) -> dict[str, str]:
    """A daemon that sees neither the user's models nor the network."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "HOME": str(DAEMON_HOME),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(store),
        "OLLAMA_CONTEXT_LENGTH": "4096",
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_NOPRUNE": "1",
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def serving(command: "list[object]", port: int, env: dict[str, str]) -> Iterator[Running]:
    """A server as a process of its own, for the length of the block."""
    with subprocess.Popen(list(map(str, command)), env=env) as process:
        try:
            _wait(port, process)
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
