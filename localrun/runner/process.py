"""The runner's life: wait for a model, load it after the scheduler's yes, then turn the engine."""

import os
import queue
import sys
import threading
import time
from array import array
from typing import TYPE_CHECKING

import msgspec

from localrun.errors import LocalrunError, OutOfMemory, Unsupported
from localrun.llama import version
from localrun.messages import (
    AskStats,
    Cancel,
    Credit,
    Embed,
    EndReasoning,
    Load,
    Loaded,
    LoadFailed,
    MemoryAsked,
    MemoryGranted,
    MemoryRefused,
    RunnerReady,
    RunnerRequest,
    Submit,
    Tokens,
    decode_runner_request,
    encode,
    failed,
    unpack_tokens,
)
from localrun.runner.grammars import GrammarMade, GrammarMaker
from localrun.runner.loading import Purpose, load_model, make_embedder, make_engine, needed_bytes
from localrun.system.frames import ChildPipe

if TYPE_CHECKING:
    from localrun.runner.embed import Embedder
    from localrun.runner.engine import Engine

_FLUSH_S = 2.0
_GATHER_S = 0.010
"""Steps shorter than this share a frame: waking server and client for each token of a fast model
takes more from the compute threads than it gives a reader."""
_LOAD_ASK, _SOLO_ASK, _EMBED_ASK = 1, 2, 3
_EMBEDS_ONLY = "this model makes embeddings, no text"


class RunnerProcess:
    """Messages in, engine turns, messages out. `run` is the main thread; a reader is beside it."""

    def __init__(self, pipe: ChildPipe) -> None:
        self._pipe = pipe
        self._inbox: queue.SimpleQueue[RunnerRequest | GrammarMade] = queue.SimpleQueue()
        self._engine: Engine | None = None
        self._embedder: Embedder
        self._served: tuple[Engine | Embedder, ...] = ()
        self._prompts: dict[int, array[int]] = {}

    def run(self) -> None:
        """Serve until the server closes its end (then the reader ends the process)."""
        threading.Thread(target=self._read, name="frames-in", daemon=True).start()
        try:
            self._pipe.send(encode(RunnerReady(os.getpid(), version())))
            self._prepare(self._wait_for_load())
        except LocalrunError as error:
            self._pipe.send(encode(LoadFailed(error.code, error.message, error.hint)))
            self._pipe.flush(_FLUSH_S)
            return
        has_work, sent_s = False, 0.0
        while True:
            self._drain(wait=not has_work)
            worked = [served.step(interrupted=self._is_called) for served in self._served]
            has_work = any(worked)
            now = time.monotonic()
            is_urgent = any(served.is_urgent for served in self._served)
            if not has_work or is_urgent or now - sent_s >= _GATHER_S:
                sent_s = now
                for served in self._served:
                    for frame in served.take_frames():
                        self._pipe.send(encode(frame))

    def _is_called(self) -> bool:
        return not self._inbox.empty()

    def _read(self) -> None:
        """The reader thread: every message to the inbox, a cancel into the running call too."""
        try:
            for body in self._pipe.frames():
                message = decode_runner_request(body)
                self._inbox.put(message)
                if isinstance(message, Cancel):
                    for served in self._served:
                        if message.request_id in served.in_flight:
                            served.abort()
        except (ValueError, msgspec.DecodeError) as error:
            sys.stderr.write(f"a broken frame from the server: {error}\n")
            sys.stderr.flush()
        # The server is gone or broken. The main thread may be deep inside a native call, which
        # nothing but the end of the process interrupts for sure.
        os._exit(0)

    def _drain(self, *, wait: bool) -> None:
        if wait:
            self._handle(self._inbox.get())
        while not self._inbox.empty():
            self._handle(self._inbox.get())

    def _handle(self, message: RunnerRequest | GrammarMade) -> None:
        engine = self._engine
        match message:
            case Tokens(request_id, tokens):
                self._prompts.setdefault(request_id, array("i")).extend(unpack_tokens(tokens))
            case Cancel(request_id):
                self._prompts.pop(request_id, None)
                for served in self._served:
                    served.cancel(request_id)
            case Embed(request_id):
                self._embedder.submit(message, self._prompts.pop(request_id, array("i")))
            case MemoryGranted() | MemoryRefused():
                self._remember(message)
            case AskStats():
                self._pipe.send(encode(engine.stats() if engine else self._embedder.stats()))
            case _:
                self._generate(engine, message)

    def _generate(self, engine: "Engine | None", message: RunnerRequest | GrammarMade) -> None:
        """What only concerns completions."""
        match message:
            case Submit(request_id) if engine is None:
                self._prompts.pop(request_id, None)
                self._pipe.send(encode(failed(request_id, Unsupported(_EMBEDS_ONLY))))
            case _ if engine is None:
                sys.stderr.write(f"a message out of turn: {type(message).__name__}\n")
            case Submit(request_id):
                engine.submit(message, self._prompts.pop(request_id, array("i")))
            case GrammarMade(request_id, made):
                engine.constrain(request_id, made)
            case EndReasoning(request_id):
                engine.end_reasoning(request_id)
            case Credit(request_id, n_bytes):
                engine.credit(request_id, n_bytes)
            case _:
                sys.stderr.write(f"a message out of turn: {type(message).__name__}\n")

    def _remember(self, answer: MemoryGranted | MemoryRefused) -> None:
        """The scheduler's word on a context that was asked for."""
        is_solo, engine, embedder = answer.ask_id == _SOLO_ASK, self._engine, self._embedder
        try:
            if isinstance(answer, MemoryRefused):
                raise _refusal(answer)
            if not is_solo:
                embedder.open()
            elif engine is not None:
                engine.solo.answered(granted=True)
        except LocalrunError as error:
            if not is_solo:
                embedder.refused(error)
            elif engine is not None:
                engine.solo.answered(granted=False)
                engine.fail_deterministic(error)

    # ── loading ───────────────────────────────────────────────────────────────────────────

    def _wait_for_load(self) -> Load:
        message = self._inbox.get()
        while not isinstance(message, Load):
            message = self._inbox.get()
        return message

    def _wait_for_grant(self) -> None:
        """Wait for the scheduler's word; what else comes meanwhile is handled after the load."""
        early: list[RunnerRequest | GrammarMade] = []
        while True:
            message = self._inbox.get()
            if isinstance(message, MemoryRefused):
                raise _refusal(message)
            if isinstance(message, MemoryGranted):
                break
            early.append(message)
        for message in early:
            self._inbox.put(message)

    def _prepare(self, load: Load) -> None:
        """Ask for the memory, then take it."""
        begun = time.monotonic()
        self._ask(_LOAD_ASK, "load", load)
        self._wait_for_grant()
        model = load_model(load)
        if not load.embeds:
            self._engine = make_engine(
                model,
                load,
                ask=lambda: self._ask(_SOLO_ASK, "context", load),
                make_grammar=GrammarMaker(model.vocabulary, self._inbox.put).make,
            )
        engine = self._engine
        self._embedder = make_embedder(
            model,
            load,
            ask=lambda: self._ask(_EMBED_ASK, "context", load),
            is_beside=lambda: engine is not None and bool(engine.lane.running),
        )
        self._served = (self._embedder,) if engine is None else (engine, self._embedder)
        self._pipe.send(
            encode(
                Loaded(
                    n_ctx=engine.n_ctx if engine else self._embedder.n_ctx,
                    n_cells=engine.lane.context.n_cells if engine else load.n_cells,
                    n_slots=engine.n_slots if engine else load.n_slots,
                    n_ctx_train=model.n_ctx_train,
                    n_vocab=model.vocabulary.n_tokens,
                    n_gpu_layers=load.n_gpu_layers,
                    used_bytes=needed_bytes(load, "load"),
                    load_s=time.monotonic() - begun,
                )
            )
        )

    def _ask(self, ask_id: int, purpose: Purpose, load: Load) -> None:
        self._pipe.send(encode(MemoryAsked(ask_id, purpose, needed_bytes(load, purpose))))


def _refusal(refused: MemoryRefused) -> LocalrunError:
    return OutOfMemory(refused.needed_bytes, refused.free_bytes, refused.device)
