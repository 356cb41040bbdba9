"""The runner's life: wait for a model, load it after the scheduler's yes, then turn the engine."""

import os
import queue
import sys
import threading
import time
from array import array
from typing import Literal, TypeAlias

import msgspec

from localrun.errors import LocalrunError, OutOfMemory
from localrun.llama import Context, ContextSettings, Model, version
from localrun.messages import (
    AskStats,
    Cancel,
    Credit,
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
    unpack_tokens,
)
from localrun.runner.engine import Engine
from localrun.runner.grammars import GrammarMade, GrammarMaker
from localrun.runner.lane import Lane
from localrun.runner.solo import SoloLane
from localrun.runner.threads import Threads
from localrun.system.frames import ChildPipe
from localrun.system.idle import idle_core_seconds

Purpose: TypeAlias = Literal["load", "context"]

_FLUSH_S = 2.0
_GATHER_S = 0.010
"""Steps shorter than this share a frame: waking server and client for each token of a fast model
takes more from the compute threads than it gives a reader."""
_LOAD_ASK, _SOLO_ASK = 1, 2


class RunnerProcess:
    """Messages in, engine turns, messages out. `run` is the main thread; a reader is beside it."""

    def __init__(self, pipe: ChildPipe) -> None:
        self._pipe = pipe
        self._inbox: queue.SimpleQueue[RunnerRequest | GrammarMade] = queue.SimpleQueue()
        self._engine: Engine | None = None
        self._load: Load | None = None
        self._prompts: dict[int, array[int]] = {}

    def run(self) -> None:
        """Serve until the server closes its end (then the reader ends the process)."""
        threading.Thread(target=self._read, name="frames-in", daemon=True).start()
        try:
            self._pipe.send(encode(RunnerReady(os.getpid(), version())))
            engine = self._engine = self._prepare(self._wait_for_load())
        except LocalrunError as error:
            self._pipe.send(encode(LoadFailed(error.code, error.message, error.hint)))
            self._pipe.flush(_FLUSH_S)
            return
        has_work, sent_s = False, 0.0
        while True:
            self._drain(wait=not has_work)
            has_work = engine.step(interrupted=lambda: not self._inbox.empty())
            now = time.monotonic()
            if not has_work or engine.is_urgent or now - sent_s >= _GATHER_S:
                sent_s = now
                for frame in engine.take_frames():
                    self._pipe.send(encode(frame))

    def _read(self) -> None:
        """The reader thread: every message to the inbox, a cancel into the running call too."""
        try:
            for body in self._pipe.frames():
                message = decode_runner_request(body)
                self._inbox.put(message)
                engine = self._engine
                if (
                    isinstance(message, Cancel)
                    and engine is not None
                    and message.request_id in engine.in_flight
                ):
                    engine.abort()
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

    def _handle(self, message: RunnerRequest | GrammarMade) -> None:  # noqa: C901 (a case a message)
        engine = self._engine
        assert engine is not None
        match message:
            case Tokens(request_id, tokens):
                self._prompts.setdefault(request_id, array("i")).extend(unpack_tokens(tokens))
            case Submit():
                engine.submit(message, self._prompts.pop(message.request_id, array("i")))
            case Cancel(request_id):
                self._prompts.pop(request_id, None)
                engine.cancel(request_id)
            case GrammarMade(request_id, made):
                engine.constrain(request_id, made)
            case EndReasoning(request_id):
                engine.end_reasoning(request_id)
            case Credit(request_id, n_bytes):
                engine.credit(request_id, n_bytes)
            case AskStats():
                self._pipe.send(encode(engine.stats()))
            case MemoryGranted(ask_id) if ask_id == _SOLO_ASK:
                self._open_solo(engine)
            case MemoryRefused() if message.ask_id == _SOLO_ASK:
                engine.solo.answered(granted=False)
                engine.fail_deterministic(_refusal(message))
            case _:
                sys.stderr.write(f"a message out of turn: {type(message).__name__}\n")

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

    def _prepare(self, load: Load) -> Engine:
        """Ask for the memory, then take it."""
        begun = time.monotonic()
        self._load = load
        self._ask(_LOAD_ASK, "load", load)
        self._wait_for_grant()
        model = Model.load(
            load.paths,
            n_gpu_layers=load.n_gpu_layers,
            main_gpu=load.main_gpu,
            use_mmap=load.use_mmap,
        )
        n_ctx = min(load.n_ctx, load.n_cells)
        lane = Lane(
            model,
            Context(model, _settings(load, load.n_cells, load.n_seq_max, load.n_batch)),
            n_ctx=n_ctx,
            shares=not model.is_recurrent,
            # Beside a GPU the CPU threads wait on purpose, which looks like a taken core.
            threads=Threads(load.n_threads, idle_core_seconds)
            if load.adapts_threads and not load.n_gpu_layers
            else None,
        )
        engine = Engine(
            model,
            lane,
            SoloLane(lambda: self._ask(_SOLO_ASK, "context", load), lambda: self._solo_lane(model)),
            n_slots=min(load.n_slots, load.n_seq_max),
            clock=time.monotonic,
            make_grammar=GrammarMaker(model.vocabulary, self._inbox.put).make,
        )
        self._pipe.send(
            encode(
                Loaded(
                    n_ctx=n_ctx,
                    n_cells=lane.context.n_cells,
                    n_slots=engine.n_slots,
                    n_ctx_train=model.n_ctx_train,
                    n_vocab=model.vocabulary.n_tokens,
                    n_gpu_layers=load.n_gpu_layers,
                    used_bytes=_needed(load, "load"),
                    load_s=time.monotonic() - begun,
                )
            )
        )
        return engine

    def _ask(self, ask_id: int, purpose: Purpose, load: Load) -> None:
        self._pipe.send(encode(MemoryAsked(ask_id, purpose, _needed(load, purpose))))

    def _open_solo(self, engine: Engine) -> None:
        try:
            engine.solo.answered(granted=True)
        except LocalrunError as error:
            engine.fail_deterministic(error)

    def _solo_lane(self, model: Model) -> Lane:
        assert self._load is not None
        n_ctx = min(self._load.n_ctx, self._load.n_cells)
        settings = _settings(self._load, n_ctx, 1, self._load.n_ubatch)
        return Lane(model, Context(model, settings), n_ctx=n_ctx, shares=False)


def _settings(load: Load, n_cells: int, n_seq_max: int, n_batch: int) -> ContextSettings:
    return ContextSettings(
        n_cells=n_cells,
        n_seq_max=n_seq_max,
        n_batch=n_batch,
        n_ubatch=min(load.n_ubatch, n_batch),
        # Rows with logits reserve 4 bytes a vocabulary entry each: only as many as a step can want.
        n_outputs_max=n_seq_max,
        n_threads=load.n_threads,
        type_k=load.type_k,
        type_v=load.type_v,
        flash_attention=load.flash_attention,
    )


def _needed(load: Load, purpose: Purpose) -> dict[str, int]:
    """Bytes by device: a further context takes cells and compute, the load the weights as well."""
    n_cells = load.n_cells if purpose == "load" else min(load.n_ctx, load.n_cells)
    devices = {*load.weights_bytes, *load.cell_bytes, *load.compute_bytes}
    weights = load.weights_bytes if purpose == "load" else {}
    return {
        device: weights.get(device, 0)
        + n_cells * load.cell_bytes.get(device, 0)
        + load.compute_bytes.get(device, 0)
        for device in sorted(devices)
    }


def _refusal(refused: MemoryRefused) -> LocalrunError:
    return OutOfMemory(refused.needed_bytes, refused.free_bytes, refused.device)
