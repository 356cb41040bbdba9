"""The runner child: frames out, frames in, each delta to the request that waits for it.

One frame a step carries the deltas of all requests. A request's consumer is woken once however many
parts came meanwhile, and no task is made per token.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import TypeAlias, assert_never

import msgspec

from localrun.backends.base import Job, Part, Refused, RunnerEvents, Sink
from localrun.backends.early import RUNNER_MODULE
from localrun.errors import LocalrunError, RunnerFailed
from localrun.messages import (
    TOKENS_PER_FRAME,
    Cancel,
    Credit,
    Embed,
    Embedded,
    EndReasoning,
    Failed,
    Load,
    Loaded,
    LoadFailed,
    MemoryAsked,
    MemoryGranted,
    MemoryRefused,
    RunnerAnswer,
    RunnerReady,
    Stats,
    Step,
    Submit,
    Tokens,
    decode_runner_answer,
    encode,
    error_of,
)
from localrun.system.launch import Launched, launch_child
from localrun.system.spawn import Child, adopt_child

_CREDIT_STEP_BYTES = 8 << 10
_PIECE_BYTES = 4 * TOKENS_PER_FRAME
_LAST_WORDS = 3

SmallRequest: TypeAlias = Load | MemoryGranted | MemoryRefused | EndReasoning | Cancel | Credit

_log = logging.getLogger("localrun.runner")


class LlamaCompletion:
    """Parts of one request, from the runner's frames to the task that answers the client."""

    __slots__ = ("_error", "_id", "_runner", "_sink", "_uncredited", "_waiter", "is_over", "parts")

    def __init__(self, runner: "LlamaRunner", request_id: int) -> None:
        self._runner, self._id = runner, request_id
        self.parts: list[Part] = []
        self._sink: Sink | None = None
        self._error: LocalrunError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._uncredited = 0
        self.is_over = False

    async def next(self) -> list[Part]:
        """Wait for what has come since the last call, at least one part, in order.

        Raises:
            LocalrunError: If the request failed; there is no end then.
        """
        if not self.parts and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.parts:
            parts, self.parts = self.parts, []
            return parts
        assert self._error is not None
        raise self._error

    def divert(self, sink: Sink) -> None:
        """Give deltas to `sink` while somebody waits in `next`, who is then not woken."""
        self._sink = sink

    def taken(self, n_bytes: int) -> None:
        """The client has taken so many bytes of text; told to the runner in larger steps."""
        self._uncredited += n_bytes
        if self._uncredited >= _CREDIT_STEP_BYTES and not self.is_over:
            self._runner.send(Credit(self._id, self._uncredited))
            self._uncredited = 0

    def end_reasoning(self) -> None:
        """Have the model answer now, if it is still reasoning."""
        if not self.is_over:
            self._runner.send(EndReasoning(self._id))

    def close(self) -> None:
        """No more is wanted; cancels the request if it has not ended."""
        self._runner.forget(self._id, cancel=not self.is_over)

    def flush(self) -> None:
        """Hand on what has been added to `parts`: to the sink, or to the one who waits."""
        waiter, sink = self._waiter, self._sink
        if waiter is None or waiter.done():
            return  # its task is at work, and will look
        if sink is not None and not self.is_over and self._sunk(sink):
            self.parts = []
        else:
            waiter.set_result(None)

    def _sunk(self, sink: Sink) -> bool:
        try:
            return sink(self.parts)
        except Exception as error:  # noqa: BLE001 (the others of this step must not suffer)
            _log.exception("a request cannot take what its runner says")
            self.parts = []
            self.fail(LocalrunError(f"internal error: {type(error).__name__}"))
            return True

    def fail(self, error: LocalrunError) -> None:
        """End with an error, after the parts that are there already."""
        if not self.is_over:
            self._error, self.is_over = error, True
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class LlamaRunner:
    """The parent's side of one `python -m localrun.runner`."""

    def __init__(self, events: RunnerEvents) -> None:
        self._events = events
        self._child: Child | None = None
        self._running: dict[int, LlamaCompletion] = {}
        self._embedding: dict[int, asyncio.Future[Embedded]] = {}
        self._next_request = 1
        self._asked_to_stop = False
        self._gone: LocalrunError | None = None

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._alive.pid

    @property
    def _alive(self) -> Child:
        assert self._child is not None, "the child has been started"
        return self._child

    async def adopt(self, launched: Launched) -> None:
        """Take over a process; frames may be sent at once, it reads them when it is up."""
        self._child = await adopt_child(launched, on_frame=self._on_frame, on_exit=self._on_exit)

    def load(self, load: Load) -> None:
        """Have it load a model; called once."""
        self.send(load)

    def answer_memory(self, ask: int, refused: Refused | None = None) -> None:
        """Answer a `MemoryAsked`: yes, or no with the reason."""
        if refused is None:
            self.send(MemoryGranted(ask))
        else:
            self.send(MemoryRefused(ask, refused.needed_bytes, refused.free_bytes, refused.device))

    def complete(self, job: Job) -> LlamaCompletion:
        """Begin to complete a prompt: its tokens in pieces, so that a cancel overtakes them."""
        request_id = self._new_id()
        completion = LlamaCompletion(self, request_id)
        if self._gone is not None:
            completion.fail(self._gone)
            return completion
        self._running[request_id] = completion
        n_prompt = len(job.tokens) // 4
        submit = msgspec.structs.replace(job.submit, request_id=request_id, n_prompt=n_prompt)
        self._send_prompt(request_id, job.tokens, submit)
        return completion

    async def embed(self, tokens: bytes) -> Embedded:
        """Turn one text (packed tokens) into a vector; texts of several callers share a step.

        Raises:
            LocalrunError: If the runner cannot, or is gone.
        """
        if self._gone is not None:
            raise self._gone
        request_id = self._new_id()
        answer: asyncio.Future[Embedded] = asyncio.get_running_loop().create_future()
        self._embedding[request_id] = answer
        self._send_prompt(request_id, tokens, Embed(request_id, len(tokens) // 4))
        try:
            return await answer
        finally:
            if self._embedding.pop(request_id, None) is not None and self._gone is None:
                self._alive.drop_bulk(request_id)
                self.send(Cancel(request_id))

    def _new_id(self) -> int:
        request_id = self._next_request
        self._next_request += 1
        return request_id

    def _send_prompt(self, request_id: int, tokens: bytes, request: "Submit | Embed") -> None:
        frames = [
            encode(Tokens(request_id, tokens[at : at + _PIECE_BYTES]))
            for at in range(0, len(tokens), _PIECE_BYTES)
        ]
        self._alive.send_bulk(request_id, [*frames, encode(request)])

    def stop(self) -> None:
        """Close its input: it leaves, whatever it is doing."""
        self._asked_to_stop = True
        self._alive.close_input()

    def kill(self) -> None:
        """End it at once."""
        self._asked_to_stop = True
        self._alive.kill()

    async def closed(self, timeout_s: float) -> None:
        """Wait until it is gone; it is killed after `timeout_s` seconds."""
        await self._alive.wait(timeout_s)

    def send(self, message: "SmallRequest") -> None:
        """Send a small message now."""
        self._alive.send(encode(message))

    def forget(self, request_id: int, *, cancel: bool) -> None:
        """Drop a request; what the runner still says about it is ignored."""
        if self._running.pop(request_id, None) is not None and cancel:
            self._alive.drop_bulk(request_id)
            self.send(Cancel(request_id))

    # ── from the child ────────────────────────────────────────────────────────────────────────

    def _on_frame(self, body: bytes) -> None:
        try:
            message = decode_runner_answer(body)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            _log.error("runner %s sent a broken frame: %s", self.pid, error)
            self._alive.kill()
            return
        if type(message) is Step:  # the hot path: once a step
            self._fan_out(message)
        else:
            self._take(message)

    def _fan_out(self, step: Step) -> None:
        """Each request's parts together: a frame may hold several steps."""
        running = self._running
        touched: list[LlamaCompletion] = []
        for delta in step.deltas:
            if (completion := running.get(delta.request_id)) is not None:
                if not completion.parts:
                    touched.append(completion)
                completion.parts.append(delta)
        for end in step.ends:
            if (completion := running.pop(end.request_id, None)) is not None:
                completion.parts.append(end)
                completion.is_over = True
                touched.append(completion)
        for completion in touched:
            completion.flush()

    def _take(self, message: RunnerAnswer) -> None:  # noqa: C901 (a case a message)
        match message:
            case Step():
                self._fan_out(message)
            case Failed(request_id, code, text, hint, facts):
                self._failed(request_id, error_of(code, text, hint, facts))
            case Embedded(request_id):
                if (answer := self._embedding.pop(request_id, None)) and not answer.done():
                    answer.set_result(message)
            case Loaded():
                self._events.loaded(message)
            case LoadFailed(code, text, hint):
                self._events.load_failed(error_of(code, text, hint))
            case MemoryAsked():
                self._events.memory_asked(message)
            case RunnerReady() | Stats():
                pass
            case _:
                assert_never(message)

    def _failed(self, request_id: int, error: LocalrunError) -> None:
        if (completion := self._running.pop(request_id, None)) is not None:
            completion.fail(error)
        elif (answer := self._embedding.pop(request_id, None)) and not answer.done():
            answer.set_exception(error)

    def _on_exit(self, status: int, last_words: str) -> None:
        error = self._gone = RunnerFailed(
            _obituary(status, last_words), hint="ask again: the model is loaded anew"
        )
        if not self._asked_to_stop:
            _log.error("%s\n%s", error.message, last_words)
        running, self._running = self._running, {}
        for completion in running.values():
            completion.fail(error)
        for request_id in list(self._embedding):
            self._failed(request_id, error)
        self._events.exited(error)


class StartLlama:
    """Starts runner children in one environment, and keeps one ready.

    Starting a bare runner takes a tenth of a second and more, which every first token of a model
    would wait for; the one that is ready takes some 15 MB and no time.

    Args:
        env: The children's whole environment.
        module: What is started.
        spare: A bare runner that has been launched already.
        respawn_s: Seconds from taking the spare to launching the next, so that it does not compete
            with the load.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        module: str = RUNNER_MODULE,
        *,
        spare: Launched | None = None,
        respawn_s: float = 10.0,
    ) -> None:
        self._env, self._module = env, module
        self._spare, self._respawn_s = spare, respawn_s
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def __call__(self, events: RunnerEvents) -> LlamaRunner:
        """Start a bare runner.

        Raises:
            RunnerFailed: If the process cannot be started.
        """
        runner = LlamaRunner(events)
        await runner.adopt(self._take_spare() or self._launch())
        if self._timer is None and not self._is_closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._respawn_s, self._respawn)
        return runner

    def close(self) -> None:
        """Let the spare go; no further one is kept."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._spare is not None:
            self._spare.discard()
            self._spare = None

    def _take_spare(self) -> Launched | None:
        spare, self._spare = self._spare, None
        if spare is not None and not spare.is_alive:
            spare.discard()
            return None
        return spare

    def _launch(self) -> Launched:
        try:
            return launch_child(self._module, env=self._env)
        except OSError as error:
            raise RunnerFailed(f"a runner cannot be started: {error}") from error

    def _respawn(self) -> None:
        self._timer = None
        if self._spare is None:
            with contextlib.suppress(RunnerFailed):  # who needs one is told
                self._spare = self._launch()


def _obituary(status: int, last_words: str) -> str:
    """How the process ended, and the last it said."""
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    lines = [line.strip() for line in last_words.splitlines() if line.strip()][-_LAST_WORDS:]
    said = f": {' | '.join(lines)}" if lines else ""
    return f"model runner has unexpectedly stopped ({how}){said}"
