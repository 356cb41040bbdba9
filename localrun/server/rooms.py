"""What a running server consists of: store, text worker, scheduler, machine, counters."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from localrun.backends.base import StartRunner
from localrun.backends.early import Early
from localrun.backends.llamacpp import StartLlama
from localrun.backends.ollama import Daemon, DaemonLimits
from localrun.backends.text import TextWorker
from localrun.config import Settings, child_environment
from localrun.errors import Busy
from localrun.hardware.budget import Budget
from localrun.scheduler.events import Limits
from localrun.scheduler.policy import CLOSING
from localrun.scheduler.scheduler import Scheduler
from localrun.server.agents import Agents
from localrun.server.choice import Choice, find_daemon
from localrun.server.kept import KeptResponses
from localrun.server.machine import Measure
from localrun.server.metrics import Counts
from localrun.server.planner import Planner
from localrun.server.shelf import Shelf
from localrun.server.tape import Streams
from localrun.server.trail import Trail
from localrun.store.adopt.adopted import open_library
from localrun.store.library import Library, StoredModel

if TYPE_CHECKING:
    from localrun.server.answers import Call
    from localrun.store.catalog import Catalog
    from localrun.store.pull import PullEvent

_N_PULLS = 8


class Pull(Protocol):
    """What `localrun.store.pull.pull` is; blocking."""

    def __call__(  # noqa: PLR0913 (the border that the store agreed on)
        self,
        text: str,
        *,
        library: Library,
        catalog: "Catalog",
        settings: Settings,
        budget: Budget,
        allow_files: bool,
        report: "Callable[[PullEvent], None]",
        cancelled: Callable[[], bool],
        insecure: bool = False,
        credentials: tuple[str, str] | None = None,
    ) -> StoredModel:
        """Bring a model to this machine."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the server waits.

    Attributes:
        grace_s: Running answers may go on so many seconds after a signal to stop.
        told_s: Clients that are told of the end have so many seconds to read it.
        ping_s: A stream that has been silent so many seconds is sent a ping.
        resume_s: A dropped stream that has a name waits so many seconds for its reader.
    """

    grace_s: float = 5.0
    told_s: float = 2.0
    ping_s: float = 10.0
    resume_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What tests replace: how runners start, who prepares text, what the machine has, who pulls.

    `pull` None is the store's own, imported by the first pull: it brings huggingface_hub.
    """

    start_runner: StartRunner
    text: TextWorker
    measure: Callable[[], Budget]
    pull: Pull | None = None
    patience: Patience = field(default_factory=Patience)
    daemon_limits: DaemonLimits = field(default_factory=DaemonLimits)


@dataclass(slots=True)
class Rooms:
    """The parts of one server. Used on its event loop.

    Attributes:
        settings: All settings.
        parts: The replaceable parts.
        scheduler: Owner of the runners.
        shelf: Models of the store.
        planner: Plans loads.
        counts: What happened.
        calls: Requests being answered.
        cli_token: What a request must carry to pull a local file.
        pulls: Threads for pulls, which are long; the others must not wait for them.
        closing: Set when the server stops; pulls look at it.
        names: By digest of weights, the model under whose name they were last loaded.
        agents: Mends the prompts of agents.
        streams: Answers that outlive their connection.
        trail: The last requests, for `explain`.
        responses: Those of OpenAI's API that later ones go on from.
        choice: Which backend answers for a model.
        daemon: An Ollama that may answer, too; None where none is asked.
    """

    settings: Settings
    parts: Parts
    scheduler: Scheduler
    shelf: Shelf
    planner: Planner
    choice: Choice
    daemon: Daemon | None
    cli_token: str = ""
    counts: Counts = field(default_factory=Counts)
    calls: "set[Call]" = field(default_factory=set["Call"])
    pulls: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_N_PULLS, thread_name_prefix="pull")
    )
    closing: threading.Event = field(default_factory=threading.Event)
    names: dict[str, StoredModel] = field(default_factory=dict[str, StoredModel])
    agents: Agents = field(default_factory=Agents)
    streams: Streams = field(init=False)
    trail: Trail = field(default_factory=Trail)

    def __post_init__(self) -> None:
        self.streams = Streams(self.patience.resume_s)

    responses: KeptResponses = field(default_factory=KeptResponses)

    @property
    def patience(self) -> Patience:
        """How long the server waits."""
        return self.parts.patience

    async def start(self) -> None:
        """Bring up what a first request would else wait for."""
        await self.parts.text.start()
        self.planner.warm_up()

    def begin_close(self) -> None:
        """Let nobody in any more; running answers go on."""
        self.closing.set()
        self.scheduler.close()

    async def close(self, *, grace_s: float) -> None:
        """Give running answers `grace_s` seconds, tell the rest, end the children."""
        self.begin_close()
        await self._wait_calls(grace_s)
        for call in list(self.calls):
            call.abort(Busy(CLOSING))
        await self._wait_calls(self.patience.told_s)
        for call in list(self.calls):  # those that do not read what they are told
            if call.task is not None:
                call.task.cancel()
        self.parts.start_runner.close()
        await self.scheduler.shutdown()
        await self.parts.text.close()
        await self.planner.close()
        if self.daemon is not None:
            self.daemon.close()
        self.pulls.shutdown(wait=False, cancel_futures=True)

    async def _wait_calls(self, timeout_s: float) -> None:
        tasks = [call.task for call in self.calls if call.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)


def make_parts(settings: Settings, early: Early) -> Parts:
    """The real parts; they take the children that run already."""
    env = child_environment()
    return Parts(
        StartLlama(env, spare=early.take_runner()),
        TextWorker(env, launched=early.take_text()),
        Measure(settings, env),
    )


def make_rooms(settings: Settings, parts: Parts | None = None, early: Early | None = None) -> Rooms:
    """Furnish a server. Nothing is started and nothing measured yet.

    Raises:
        BadSetting: If the store was written by a newer localrun.
    """
    parts = parts or make_parts(settings, early or Early())
    limits = Limits(
        max_queue=settings.max_queue,
        max_loaded=settings.max_loaded_models,
        keep_alive_s=settings.keep_alive_s,
        load_timeout_s=settings.load_timeout_s,
    )
    scheduler = Scheduler(parts.start_runner, budget={}, limits=limits)
    choice = Choice(settings)
    return Rooms(
        settings=settings,
        parts=parts,
        scheduler=scheduler,
        shelf=Shelf(open_library(settings), go_template=settings.go_template),
        planner=Planner(settings, scheduler, parts.measure),
        choice=choice,
        daemon=find_daemon(settings, choice, parts.daemon_limits),
        agents=Agents(keeps_nonces=settings.keep_nonces),
    )
