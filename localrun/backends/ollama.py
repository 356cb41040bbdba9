"""The handle of an Ollama daemon: kept connections, its answers, and whether it is there.

Nothing polls it. A question that finds nobody is remembered for a moment, so that lists do not wait
for a daemon that is gone; the next question after that finds it again.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast
from urllib.parse import urlsplit

import msgspec

from localrun.backends.http import BROKEN, Body, Connection, Head, Origin, body_of
from localrun.errors import BackendFailed, BackendGone, LocalrunError

HOP_HEADER = "x-localrun-hop"
"""On every request of ours: who gets it does not forward it again."""

Json: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class DaemonLimits:
    """How long a daemon is waited for.

    Attributes:
        connect_s: Seconds until it takes a connection.
        ask_s: Seconds for a short question.
        silence_s: An answer that is silent so many seconds has the daemon asked if it is alive.
        memory_s: Who was not there is not looked for by the way for so many seconds.
    """

    connect_s: float = 2.0
    ask_s: float = 2.0
    silence_s: float = 30.0
    memory_s: float = 3.0


class Reply:
    """An answer that has begun. Used by one task."""

    def __init__(self, head: Head, body: AsyncGenerator[bytes, None], watch: "_Watch") -> None:
        self._body, self._watch = body, watch
        self.status = head.status
        self.content_type = head.fields.get("content-type", "")

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the body as they come."""
        watch = self._watch
        with watch.daemon.breaking():
            async for piece in self._body:
                watch.n_pieces += 1
                yield piece

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self.pieces()])


class Daemon:
    """One Ollama daemon. Used on the event loop only.

    Args:
        url: Where it is, without a path.
        is_expected: Somebody has said that it is there; else it was only looked for.
        limits: How long it is waited for.

    Attributes:
        version: What it said when it was last asked.
        trouble: Why it was not reached the last time; empty if it was.
    """

    def __init__(
        self, url: str, *, is_expected: bool = True, limits: DaemonLimits | None = None
    ) -> None:
        self.url, self.is_expected = url, is_expected
        self.version = ""
        self.trouble = ""
        self.limits = limits or DaemonLimits()
        self._origin = Origin(url)
        self._lost_at = float("-inf")
        self._seen_at = 0.0

    @property
    def address(self) -> str:
        """The daemon as people read it, without a password that its URL may hold."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port}"

    @property
    def was_lost_lately(self) -> bool:
        """Whether nobody was there a moment ago."""
        return time.monotonic() - self._lost_at < self.limits.memory_s

    @property
    def seen_at(self) -> float:
        """Unix time of its last answer; 0 if there was none."""
        return self._seen_at

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, path: str, *, body: Body = b"", headers: Mapping[str, str] = {}
    ) -> AsyncGenerator[Reply]:
        """Ask, and give the answer as soon as it begins. Leaving the block ends the request.

        Args:
            method: HTTP's.
            path: With its query.
            body: Sent as it is.
            headers: Beside our own.

        Raises:
            BackendGone: If it cannot be reached, or is silent and does not say that it lives.
            BackendFailed: If it breaks off, or speaks no HTTP.
        """
        task = asyncio.current_task()
        assert task is not None
        connection = await self._connect()
        ours = {**headers, HOP_HEADER: "1", "accept-encoding": "identity"}
        with _Watch(self, task) as watch, self._hanging(watch, task):
            try:
                with self.breaking():
                    head = await self._origin.send(connection, method, path, body, ours)
                self._lost_at, self.trouble, self._seen_at = float("-inf"), "", time.time()
                async with contextlib.aclosing(body_of(connection, method, head)) as pieces:
                    yield Reply(head, pieces, watch)
            finally:
                self._origin.give_back(connection)

    async def ask(self, path: str) -> Json:
        """The JSON object that a GET answers with, soon.

        Raises:
            BackendGone: If there is none in time.
            BackendFailed: If it is none.
        """
        try:
            async with asyncio.timeout(self.limits.ask_s), self.request("GET", path) as reply:
                body = await reply.read()
        except TimeoutError as error:
            raise self._lost("it does not answer") from error
        found: object = None
        with contextlib.suppress(msgspec.DecodeError):
            found = msgspec.json.decode(body)
        if reply.status != 200 or not isinstance(found, dict):
            raise BackendFailed(f"what answers at {self.address} is no Ollama")
        return cast("Json", found)

    async def is_alive(self) -> bool:
        """Whether it answers now; learns its version."""
        try:
            self.version = str((await self.ask("/api/version")).get("version", ""))
        except LocalrunError as error:
            self.trouble = error.message
            return False
        return True

    def close(self) -> None:
        """Let go of the connections."""
        self._origin.close()

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self.limits.connect_s):
                return await self._origin.connect()
        except OSError as error:  # a timeout is one
            raise self._lost(error.strerror or "it does not answer") from error

    def _lost(self, why: str) -> BackendGone:
        self._lost_at, self.trouble = time.monotonic(), why
        return BackendGone(
            f"Ollama at {self.address} cannot be reached: {why}", hint="start it:  ollama serve"
        )

    @contextlib.contextmanager
    def breaking(self) -> Generator[None]:
        """Turn what a broken connection raises into our error."""
        try:
            yield
        except BROKEN as error:
            raise BackendFailed(
                f"Ollama at {self.address} broke off: {str(error) or type(error).__name__}",
                hint="its log says why; the request can be sent again",
            ) from error

    @contextlib.contextmanager
    def _hanging(self, watch: "_Watch", task: "asyncio.Task[object]") -> Generator[None]:
        """Turn the end that the watch has brought about into our error."""
        try:
            yield
        except asyncio.CancelledError:
            if watch.has_hung and task.uncancel() == 0:
                raise self._lost("it does not answer any more") from None
            raise


class _Watch:
    """Ends the task of a request whose daemon is silent and does not say that it lives.

    A daemon may take minutes to load a model or to read a prompt, so that no fixed time is right.
    """

    def __init__(self, daemon: Daemon, task: "asyncio.Task[object]") -> None:
        self.daemon, self._task = daemon, task
        self._loop = asyncio.get_running_loop()
        self._n_before = 0
        self._timer: asyncio.TimerHandle | None = None
        self._question: asyncio.Task[None] | None = None
        self.n_pieces = 0
        self.has_hung = False

    def __enter__(self) -> "_Watch":
        self._timer = self._loop.call_later(self.daemon.limits.silence_s, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        for waiting in (self._timer, self._question):
            if waiting is not None:
                waiting.cancel()

    def _look(self) -> None:
        if self.n_pieces == self._n_before:
            self._question = self._loop.create_task(self._ask())
        else:
            self._n_before = self.n_pieces
            self.__enter__()

    async def _ask(self) -> None:
        if await self.daemon.is_alive():
            self.__enter__()
        else:
            self.has_hung = True
            self._task.cancel()
