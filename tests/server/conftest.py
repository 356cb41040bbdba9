"""A real server in a thread: real HTTP, real text worker, a real child that only plays a runner."""

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from localrun.backends.llamacpp import StartLlama
from localrun.backends.ollama import DaemonLimits
from localrun.backends.text import TextWorker
from localrun.config import Settings, child_environment
from localrun.hardware.budget import Budget
from localrun.server.app import Server, create_app, loop_factory
from localrun.server.ports import bind
from localrun.server.rooms import Parts, Patience, Rooms
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny

ROOT = Path(__file__).parents[2]
DEADLINE_S = 20.0
GIB = 1 << 30


@dataclass
class Running:
    """A server that runs in a thread."""

    settings: Settings
    log_path: Path
    port: int = 0
    rooms: Rooms | None = None
    server: Server | None = None
    loop: asyncio.AbstractEventLoop | None = None
    thread: threading.Thread | None = None
    ready: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options) -> httpx2.Client:
        # No certificates to load: this is plain HTTP, and loading them takes most of a test.
        return httpx2.Client(base_url=self.url, timeout=DEADLINE_S, verify=False, **options)

    def stop(self) -> None:
        assert self.loop is not None
        assert self.server is not None
        self.loop.call_soon_threadsafe(self.server.stop)

    def log(self) -> list[str]:
        """What the fake runners did."""
        return self.log_path.read_text().splitlines() if self.log_path.exists() else []

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Wait until something is so, at most `DEADLINE_S`."""
        deadline = threading.Event()
        timer = threading.Timer(DEADLINE_S, deadline.set)
        timer.daemon = True
        timer.start()
        while not happened():
            assert not deadline.wait(0.005), f"it did not happen; the log: {self.log()}"
        timer.cancel()

    def wait_log(self, words: str) -> None:
        self.wait_for(lambda: any(words in line for line in self.log()))


@contextlib.contextmanager
def running(
    home: Path,
    *,
    fake: dict[str, str] | None = None,
    budget_bytes=GIB,
    pull=None,
    patience=None,
    runner="tests.fakes.runner",
    daemon_limits=None,
    **changes,
):
    """Run a server in a thread over the store in `home/models`; `runner` is what plays it."""
    changes.setdefault("ollama", "off")  # not the one that the developer may have running
    settings = Settings(home=home, models=home / "models", port=0, **changes)
    state = Running(settings, home / f"runner-{uuid.uuid4().hex}.log")
    env = child_environment(PYTHONPATH=str(ROOT), FAKE_LOG=str(state.log_path), **(fake or {}))
    parts = Parts(
        StartLlama(env, runner),
        TextWorker(env),
        lambda: Budget(cpu_bytes=budget_bytes, n_threads=1),
        pull,
        patience or Patience(),
        daemon_limits or DaemonLimits(),
    )
    sockets = bind(settings)
    state.port = sockets[0].getsockname()[1]

    async def main() -> None:
        app = create_app(settings, parts)
        state.rooms, state.loop = app.state.rooms, asyncio.get_running_loop()
        state.server = Server(app, state.ready.set)
        await state.server.serve(sockets=sockets)

    def run() -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(main())

    state.thread = threading.Thread(target=run, daemon=True)
    state.thread.start()
    assert state.ready.wait(DEADLINE_S)
    try:
        yield state
    finally:
        with contextlib.suppress(RuntimeError):  # it has ended already
            state.stop()
        state.thread.join(DEADLINE_S)
        for sock in sockets:
            sock.close()
        assert not state.thread.is_alive()


THINKER = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools> as <tool_call>{}</tool_call>{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
"""A template like Qwen3's: tools, and reasoning that can be switched off."""

FILLER = (
    "{{ if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>{{ else }}{{ .Prompt }}{{ end }}"
)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A store with a few tiny models; copied by nobody, changed by nobody."""
    home = tmp_path_factory.mktemp("home")
    tiny = make_tiny(home / "tiny.gguf", n_ctx=512)
    other = make_tiny(home / "other.gguf", n_ctx=512, seed=1)
    store_model(home / "models", "tiny", tiny, params={"stop": ["</s>"], "temperature": 0.5})
    store_model(home / "models", "other", other, system="Be brief.", license="MIT")
    store_model(home / "models", "filler", other, template=FILLER)
    thinker = make_tiny(home / "thinker.gguf", arch="qwen3", chat_template=THINKER, seed=2)
    store_model(home / "models", "thinker", thinker)
    for name, pooling in (("embedder", 3), ("ranker", 4)):
        extra = {"qwen3.pooling_type": pooling}
        file = make_tiny(home / f"{name}.gguf", arch="qwen3", n_ctx=64, seed=pooling, extra=extra)
        store_model(home / "models", name, file)
    return home


@pytest.fixture(scope="module")
def server(models) -> Iterator[Running]:
    """One server for the tests of a module that leave it as it was."""
    with running(models) as state:
        yield state


@pytest.fixture
def client(server) -> Iterator[httpx2.Client]:
    with server.client() as found:
        yield found
