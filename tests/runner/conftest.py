"""Engines on tiny models with real llama.cpp."""

import queue
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from localrun.llama import Batch, Context, ContextSettings, Model
from localrun.messages import Delta, End, Failed, Logprob, Sampling, Step, Submit
from localrun.runner.engine import Engine
from localrun.runner.grammars import GrammarMade, GrammarMaker
from localrun.runner.lane import Lane
from localrun.runner.solo import SoloLane
from tests.fakes.tinygguf import make_tiny

GREEDY = Sampling(temperature=0.0)


@dataclass
class Answer:
    """What one request got, from its frames."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)
    end: End | Failed | None = None

    @property
    def done(self) -> End:
        assert isinstance(self.end, End), self.end
        return self.end


class Bench:
    """An engine with its requests and what they got."""

    def __init__(
        self, path: Path, *, n_ctx: int, n_cells: int, n_slots: int, n_kept: int, n_threads: int
    ) -> None:
        self.n_threads = n_threads
        self.model = Model.load([str(path)])
        self.n_ctx = n_ctx
        self.n_asked = 0
        self.made: queue.SimpleQueue[GrammarMade] = queue.SimpleQueue()
        self.answers: dict[int, Answer] = {}
        lane = Lane(
            self.model,
            self.context(n_cells, n_slots + n_kept),
            n_ctx=n_ctx,
            shares=True,
        )
        self.engine = Engine(
            self.model,
            lane,
            SoloLane(self._ask, self._solo),
            n_slots=n_slots,
            clock=time.monotonic,
            make_grammar=GrammarMaker(self.model.vocabulary, self.made.put).make,
        )

    def context(self, n_cells: int, n_seq_max: int = 1, n_batch: int = 512) -> Context:
        return Context(
            self.model,
            ContextSettings(
                n_cells=n_cells,
                n_seq_max=n_seq_max,
                n_batch=n_batch,
                n_ubatch=min(512, n_batch),
                n_outputs_max=n_seq_max,
                n_threads=self.n_threads,
            ),
        )

    def submit(
        self,
        request_id: int,
        prompt: Sequence[int],
        *,
        n_predict: int = 8,
        scope: str = "",
        sampling: Sampling = GREEDY,
        stop: tuple[str, ...] = (),
        **more: Any,
    ) -> Answer:
        answer = self.answers[request_id] = Answer()
        self.engine.submit(
            Submit(request_id, len(prompt), scope, sampling, stop, n_predict, **more),
            array("i", prompt),
        )
        return answer

    def turn(self, *, credit: bool = True) -> bool:
        if not (self.engine.lane.running or self.engine.solo.running) and self.n_unmade:
            self._constrain(self.made.get(timeout=10))
        while not self.made.empty():
            self._constrain(self.made.get())
        worked = self.engine.step()
        for frame in self.engine.take_frames():
            if isinstance(frame, Failed):
                self._end(frame.request_id, frame)
                continue
            self._take(frame, credit=credit)
        return worked

    @property
    def n_unmade(self) -> int:
        return sum(sequence.awaits_grammar for sequence in self.engine._waiting)

    def _constrain(self, made: GrammarMade) -> None:
        self.engine.constrain(made.request_id, made.made)

    def run(self, n_turns: int = 20_000) -> None:
        """Turn until every request has ended."""
        for _ in range(n_turns):
            if all(answer.end for answer in self.answers.values()):
                return
            self.turn()
        raise AssertionError("the engine did not come to an end")

    def until(self, condition: Callable[[], bool], n_turns: int = 2_000) -> None:
        for _ in range(n_turns):
            if condition():
                return
            self.turn()
        raise AssertionError("it did not come to that")

    def _take(self, step: Step, *, credit: bool) -> None:
        for delta in step.deltas:
            self._delta(delta)
            if credit:
                self.engine.credit(delta.request_id, len(delta.text.encode()))
        for end in step.ends:
            self._end(end.request_id, end)

    def _delta(self, delta: Delta) -> None:
        answer = self.answers[delta.request_id]
        assert answer.end is None, "a delta came after the end"
        answer.text += delta.text
        answer.tokens += delta.tokens
        answer.logprobs += delta.logprobs

    def _end(self, request_id: int, end: End | Failed) -> None:
        answer = self.answers[request_id]
        assert answer.end is None, "a request ended twice"
        answer.end = end

    def _ask(self) -> None:
        self.n_asked += 1

    def _solo(self) -> Lane:
        return Lane(self.model, self.context(self.n_ctx), n_ctx=self.n_ctx, shares=False)

    def close(self) -> None:
        self.engine.lane.context.close()
        for lane in self.engine.solo.lanes():
            lane.context.close()
        self.model.close()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", n_ctx=4096)


@pytest.fixture(scope="session")
def byte_speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "bytes.gguf"
    return make_tiny(path, n_ctx=4096, speaks_bytes=True, ends=True)


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(path: Path, **sizes: int) -> Bench:
        # One thread: beside another busy process two would wait for each other at every barrier.
        usual = {"n_ctx": 2048, "n_cells": 2048, "n_slots": 8, "n_kept": 8, "n_threads": 1}
        made.append(Bench(path, **{**usual, **sizes}))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


LOGIT_TOLERANCE = 1.0
"""How far below a solo run's best score a token of a batch may lie."""


def worst_gap(bench: Bench, prompt: Sequence[int], completion: Sequence[int]) -> float:
    """Teacher-force a text in a fresh solo context: the furthest any token is from the best."""
    n_tokens = len(prompt) + len(completion) + 8
    context = bench.context(n_tokens)
    batch = Batch(
        n_batch=512,
        n_outputs_max=1,
        n_seq_max=1,
        n_vocab=bench.model.vocabulary.n_tokens,
        n_ctx=n_tokens,
    )
    feed, at, worst = array("i", prompt), 0, 0.0
    for token in completion:
        row = None
        while row is None:
            chunk, feed = feed[:512], feed[512:]
            batch.clear()
            row = batch.add(0, at, chunk, wants_logits=not len(feed))
            context.decode(batch)
            at += len(chunk)
        logits = context.logits(row)
        worst = max(worst, max(logits) - logits[token])
        feed = array("i", [token])
    context.close()
    return worst


def prompt_of(n: int, seed: int = 0) -> list[int]:
    """A prompt of `n` printable tokens that starts with BOS and is the same for the same seed."""
    return [1] + [262 + (i * 7 + seed * 13 + i * i % 11) % 94 for i in range(n - 1)]
