"""A real child that speaks `messages.py` like a runner, without llama; told how to misbehave.

A request tells it by its first stop string, `fake: ORDER [NUMBER]`; without one it says the words
`t0 t1 …`. `fake: pieces ["…", …]` says those pieces, a step each. Where log-probabilities are asked
for, each piece gets -0.5 and as many alternatives `a0`, `a1` as asked. A text of n tokens has the
vector (3/5, 4/5, n). The environment tells it how to load:

    FAKE_LOAD=refuse | crash | stall | hold     (hold: waits for the file FAKE_RELEASE)
    FAKE_NEED=BYTES                             (what it asks for; the load's own by default)
    FAKE_PACE=SECONDS                           (between steps)
    FAKE_LOG=PATH                               (a line for each thing that happens)
"""

import argparse
import json
import os
import queue
import signal
import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localrun.messages import (
    Cancel,
    Credit,
    Delta,
    Embed,
    Embedded,
    End,
    EndReasoning,
    Failed,
    FinishReason,
    Load,
    Loaded,
    LoadFailed,
    Logprob,
    MemoryAsked,
    MemoryGranted,
    MemoryRefused,
    RunnerReady,
    RunnerRequest,
    Step,
    Submit,
    Tokens,
    decode_runner_request,
    encode,
    unpack_tokens,
)
from localrun.system.frames import ChildPipe
from localrun.system.parent import connect_to_parent

CREDIT_WINDOW_BYTES = 64 << 10
KIB = "x" * 1024
TEXTS = {
    "separators": ["a\u2028b", "\u0085", "<&>", "\u2029", '"\\'],
    "chinese": ["天空", "是", "蓝色", "的。"],
    "lagging": ["", "", "é!"],
}


@dataclass
class Running:
    """A request that is being answered."""

    submit: Submit
    order: str
    number: int
    pieces: Iterator[str]
    n_made: int = 0
    n_uncredited: int = 0


class FakeRunner:
    """One thread reads, the other turns a step for everybody who may go on."""

    def __init__(self, pipe: ChildPipe) -> None:
        self._pipe = pipe
        self._inbox: queue.SimpleQueue[RunnerRequest] = queue.SimpleQueue()
        self._running: dict[int, Running] = {}
        self._n_tokens: dict[int, int] = {}
        self._log_path = os.environ.get("FAKE_LOG", "")

    def run(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()
        self._pipe.send(encode(RunnerReady(os.getpid(), "fake")))
        self.log(f"started {os.getpid()}")
        if not self._load():
            self._pipe.flush(5.0)
            return
        pace_s = float(os.environ.get("FAKE_PACE", "0"))
        while True:
            moves = self._step()
            if moves and pace_s:
                threading.Event().wait(pace_s)
            self._take(wait=not moves)

    def log(self, line: str) -> None:
        if self._log_path:
            with Path(self._log_path).open("a") as file:
                file.write(line + "\n")

    def _read(self) -> None:
        for body in self._pipe.frames():
            self._inbox.put(decode_runner_request(body))
        os._exit(0)

    def _load(self) -> bool:
        load = self._inbox.get()
        assert isinstance(load, Load)
        self.log(f"load {load.n_ctx} {load.paths[0]}")
        how = os.environ.get("FAKE_LOAD", "")
        if how == "crash":
            os.write(2, b"ggml_abort: out of luck\n")
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "stall":
            threading.Event().wait()
        if how == "refuse":
            self._pipe.send(
                encode(LoadFailed("bad_model_file", "the file is odd", "pull it again"))
            )
            return False
        need = int(os.environ.get("FAKE_NEED", "0"))
        needs = {"cpu": need} if need else dict(load.weights_bytes)
        self._pipe.send(encode(MemoryAsked(1, "load", needs)))
        answer = self._inbox.get()
        if isinstance(answer, MemoryRefused):
            message = f"refused {answer.needed_bytes} of {answer.free_bytes} on {answer.device}"
            self._pipe.send(encode(LoadFailed("out_of_memory", message)))
            return False
        assert isinstance(answer, MemoryGranted)
        while how == "hold" and not Path(os.environ["FAKE_RELEASE"]).exists():
            threading.Event().wait(0.01)
        loaded = Loaded(load.n_ctx, load.n_cells, load.n_slots, 512, 300, 0, needs, 0.001)
        self._pipe.send(encode(loaded))
        return True

    def _take(self, *, wait: bool) -> None:
        if wait:
            self._handle(self._inbox.get())
        while not self._inbox.empty():
            self._handle(self._inbox.get())

    def _handle(self, message) -> None:  # noqa: C901 (a case a message)
        match message:
            case Tokens(request_id, tokens):
                n = len(unpack_tokens(tokens))
                self._n_tokens[request_id] = self._n_tokens.get(request_id, 0) + n
            case Submit():
                assert self._n_tokens.pop(message.request_id, 0) == message.n_prompt
                self._submit(message)
            case Cancel(request_id):
                self.log(f"cancel {request_id}")
                if self._running.pop(request_id, None) is not None:
                    end = End(request_id, "cancelled", 1, 0, 0, 0, 0, 0)
                    self._pipe.send(encode(Step((), (end,))))
            case Embed(request_id, n_prompt):
                assert self._n_tokens.pop(request_id, 0) == n_prompt
                vector = array("f", (0.6, 0.8, n_prompt)).tobytes()
                self._pipe.send(encode(Embedded(request_id, vector, n_prompt)))
            case EndReasoning(request_id):
                self.log(f"end reasoning {request_id}")
            case Credit(request_id, n_bytes):
                if request_id in self._running:
                    self._running[request_id].n_uncredited -= n_bytes

    def _submit(self, submit: Submit) -> None:
        order, number, rest = "say", 0, ""
        if submit.stop and submit.stop[0].startswith("fake: "):
            order, _, rest = submit.stop[0].removeprefix("fake: ").partition(" ")
            number = int(rest) if rest.isdigit() else 0
        n = submit.n_predict if submit.n_predict >= 0 else 5
        held = " grammar" if submit.grammar else ""
        held += f" budget={submit.reasoning.budget}" if submit.reasoning else ""
        self.log(f"submit {submit.request_id} {submit.scope} n_ctx={submit.n_ctx} {order}{held}")
        pieces = {
            "flood": lambda: (KIB for _ in range(number)),
            "texts": lambda: iter(list(TEXTS.values())[number]),
            "pieces": lambda: iter(json.loads(rest)),
        }.get(order, lambda: (f"t{i} " for i in range(n)))
        self._running[submit.request_id] = Running(submit, order, number, pieces())

    def _step(self) -> bool:
        """A step of everybody; False if nobody could move."""
        deltas, ends = [], []
        for request_id, request in list(self._running.items()):
            if request.n_uncredited > CREDIT_WINDOW_BYTES:
                continue
            if request.order in ("crash", "fail", "stall") and request.n_made >= request.number:
                self._misbehave(request_id, request)
                continue
            piece = next(request.pieces, None)
            if piece is None:
                del self._running[request_id]
                ends.append(self._end(request_id, request))
                continue
            request.n_made += 1
            request.n_uncredited += len(piece.encode())
            deltas.append(
                Delta(request_id, piece, (200 + request.n_made % 50,), _logprobs(request, piece))
            )
        if deltas or ends:
            self._pipe.send(encode(Step(tuple(deltas), tuple(ends))))
        return bool(deltas or ends)

    def _end(self, request_id: int, request: Running) -> End:
        reason: FinishReason = "length" if request.submit.n_predict >= 0 else "stop"
        self.log(f"end {request_id} {request.n_made}")
        return End(
            request_id, reason, request.submit.n_prompt, 0, request.n_made, 0.001, 0.002, 0.003
        )

    def _misbehave(self, request_id: int, request: Running) -> None:
        if request.order == "crash":
            os.write(2, b"CUDA error: device is on fire\n")
            self._pipe.flush(5.0)
            os.kill(os.getpid(), signal.SIGKILL)
        if request.order == "fail":
            del self._running[request_id]
            self._pipe.send(encode(Failed(request_id, "runner_failed", "the decode failed", "")))


def _logprobs(request: Running, piece: str) -> tuple[Logprob, ...]:
    n = request.submit.n_logprobs
    top = tuple((f"a{i}".encode(), -1.0 - i) for i in range(n))
    return () if n < 0 else (Logprob(piece.encode(), -0.5, top),)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames-fd", type=int, required=True)
    FakeRunner(connect_to_parent(parser.parse_args().frames_fd)).run()


if __name__ == "__main__":
    main()
