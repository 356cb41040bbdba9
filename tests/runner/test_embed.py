"""Embeddings: pooled as the model says, batched, bounded, and beside running answers."""

import array
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localrun.errors import OutOfMemory
from localrun.llama import ContextSettings, EmbeddingContext, Model
from localrun.messages import Embed, Embedded, Failed
from localrun.runner.embed import Embedder
from tests.fakes.tinybert import CLS, LAST, MEAN, RANK, TinyBert, make_tiny_bert
from tests.fakes.tinygguf import make_tiny
from tests.runner.conftest import Bench, prompt_of


class Desk:
    """An embedder and what its requests got."""

    def __init__(self, path: Path, *, n_ctx: int, n_texts: int = 8, granted: bool = True) -> None:
        self.model = Model.load([str(path)])
        self.n_asked = 0
        self.opened: list[EmbeddingContext] = []
        self.settings = ContextSettings(
            n_cells=n_ctx,
            n_seq_max=n_texts,
            n_batch=n_ctx,
            n_ubatch=n_ctx,
            n_outputs_max=n_texts,
            n_threads=1,
        )
        self.embedder = Embedder(self.model, n_ctx=n_ctx, ask=self._ask, open_context=self._open)
        self.got: dict[int, Embedded | Failed] = {}
        if granted:
            self.embedder.open()

    def _ask(self) -> None:
        self.n_asked += 1

    def _open(self) -> EmbeddingContext:
        self.opened.append(EmbeddingContext(self.model, self.settings))
        return self.opened[-1]

    def submit(self, request_id: int, tokens: list[int]) -> None:
        self.embedder.submit(Embed(request_id, len(tokens)), array.array("i", tokens))

    def take(self) -> None:
        for frame in self.embedder.take_frames():
            assert frame.request_id not in self.got, "a request ended twice"
            self.got[frame.request_id] = frame

    def run(self) -> int:
        """Turn until nothing is left; returns the number of turns."""
        n_turns = 0
        while self.embedder.step():
            n_turns += 1
        self.take()
        return n_turns

    def vector(self, request_id: int) -> "np.ndarray":
        frame = self.got[request_id]
        assert isinstance(frame, Embedded), frame
        return np.frombuffer(frame.vector, "<f4")

    def failure(self, request_id: int) -> Failed:
        frame = self.got[request_id]
        assert isinstance(frame, Failed), frame
        return frame

    def close(self) -> None:
        for context in self.opened:
            context.close()
        self.model.close()


@pytest.fixture
def desk() -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(path: Path, **sizes: Any) -> Desk:
        made.append(Desk(path, **{"n_ctx": 512, **sizes}))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def berts(tmp_path_factory: pytest.TempPathFactory) -> dict[int | None, Path]:
    folder = tmp_path_factory.mktemp("berts")
    return {
        pooling: make_tiny_bert(folder / f"{pooling}.gguf", pooling=pooling)
        for pooling in (MEAN, CLS, RANK, None)
    }


def words(n: int, seed: int = 0) -> list[int]:
    return [2, *(5 + (i * 7 + seed * 13 + i * i % 11) % 80 for i in range(n - 2)), 3]


@pytest.mark.parametrize("pooling", [MEAN, CLS, RANK, None])
@pytest.mark.parametrize("n_tokens", [2, 9, 512])
def test_encoder_gives_what_the_paper_says(
    berts: dict[int | None, Path], desk: Callable[..., Desk], pooling: int | None, n_tokens: int
) -> None:
    one = desk(berts[pooling])
    one.submit(1, words(n_tokens))
    one.run()
    expected = TinyBert(pooling=pooling or MEAN).vector(words(n_tokens))
    np.testing.assert_allclose(one.vector(1), expected, atol=2e-3)


def test_texts_that_share_a_call_get_the_vectors_they_get_alone(
    berts: dict[int | None, Path], desk: Callable[..., Desk]
) -> None:
    one = desk(berts[MEAN])
    lengths = [3, 40, 7, 120, 3, 60, 9, 12, 100, 200]
    for k, n in enumerate(lengths):
        one.submit(k, words(n, seed=k))
    assert one.run() == 2, "512 tokens or 8 texts fit a call"
    for k, n in enumerate(lengths):
        expected = TinyBert().vector(words(n, seed=k))
        np.testing.assert_allclose(one.vector(k), expected, atol=2e-3)
        assert math.isclose(float(np.linalg.norm(one.vector(k))), 1.0, abs_tol=1e-5)


@pytest.mark.parametrize("n_ctx", [1024, pytest.param(8192, marks=pytest.mark.slow)])
def test_text_as_long_as_the_window_passes_and_a_longer_one_is_refused(
    tmp_path: Path, desk: Callable[..., Desk], n_ctx: int
) -> None:
    one = desk(make_tiny_bert(tmp_path / "long.gguf", n_ctx=n_ctx), n_ctx=n_ctx)
    one.submit(1, words(n_ctx))
    one.submit(2, words(n_ctx + 1))
    one.run()
    expected = TinyBert(n_ctx=n_ctx).vector(words(n_ctx))
    assert float(one.vector(1) @ expected) > 0.999
    failed = one.failure(2)
    assert (failed.code, failed.facts["needed"], failed.facts["available"]) == (
        "prompt_too_long",
        n_ctx + 1,
        n_ctx,
    )


@pytest.mark.parametrize(
    ("tokens", "n_prompt", "code"),
    [([], 0, "bad_request"), ([2, 5, 3], 2, "bad_request"), ([2, 9999, 3], 3, "bad_request")],
)
def test_wrong_text_fails_alone(
    berts: dict[int | None, Path],
    desk: Callable[..., Desk],
    tokens: list[int],
    n_prompt: int,
    code: str,
) -> None:
    one = desk(berts[MEAN])
    one.submit(1, words(5))
    one.embedder.submit(Embed(2, n_prompt), array.array("i", tokens))
    one.run()
    assert len(one.vector(1)) == 64
    assert one.failure(2).code == code


@pytest.mark.parametrize("pooling", [None, LAST])
@pytest.mark.parametrize("n_prompt", [1, 2, 100])
def test_causal_model_pools_its_last_token_in_pieces_or_at_once(
    tmp_path: Path, desk: Callable[..., Desk], pooling: int | None, n_prompt: int
) -> None:
    extra = {} if pooling is None else {"llama.pooling_type": pooling}
    one = desk(make_tiny(tmp_path / "causal.gguf", extra=extra))
    one.submit(1, prompt_of(n_prompt))
    at_once = one.run()
    one.embedder._is_beside = lambda: True
    one.submit(2, prompt_of(n_prompt))
    one.submit(3, prompt_of(n_prompt, seed=1))
    in_pieces = one.run()
    assert in_pieces >= at_once + (n_prompt == 100) * 3
    np.testing.assert_allclose(one.vector(2), one.vector(1), atol=2e-3)
    assert math.isclose(float(np.linalg.norm(one.vector(1))), 1.0, abs_tol=1e-5)
    if n_prompt > 1:
        assert float(one.vector(3) @ one.vector(1)) < 0.999


def test_cancelled_text_leaves_its_group_and_the_others_are_answered(
    tmp_path: Path, desk: Callable[..., Desk]
) -> None:
    one = desk(make_tiny(tmp_path / "causal.gguf"))
    one.embedder._is_beside = lambda: True
    for k in range(3):
        one.submit(k, prompt_of(60, seed=k))
    one.embedder.step()
    one.embedder.cancel(1)
    one.embedder.cancel(7)
    one.run()
    assert one.failure(1).code == "cancelled"
    for k in (0, 2):
        assert len(one.vector(k)) == 64


def test_abort_breaks_off_a_call_and_nothing_is_lost(
    berts: dict[int | None, Path], desk: Callable[..., Desk]
) -> None:
    one = desk(berts[MEAN])
    one.submit(1, words(300))

    def abort_now() -> bool:
        one.embedder.abort()
        return False

    assert one.embedder.step(interrupted=abort_now)
    one.take()
    assert not one.got
    one.run()
    np.testing.assert_allclose(one.vector(1), TinyBert().vector(words(300)), atol=2e-3)


def test_context_is_asked_for_once_and_a_refusal_can_be_repeated(
    berts: dict[int | None, Path], desk: Callable[..., Desk]
) -> None:
    one = desk(berts[MEAN], granted=False)
    one.submit(1, words(5))
    one.submit(2, words(5))
    assert (one.embedder.step(), one.embedder.step(), one.n_asked) == (False, False, 1)
    one.embedder.refused(OutOfMemory(2 << 30, 1 << 30, "cpu"))
    one.take()
    assert {one.failure(k).code for k in (1, 2)} == {"out_of_memory"}
    one.submit(3, words(5))
    one.embedder.step()
    assert one.n_asked == 2
    one.embedder.open()
    one.run()
    assert len(one.vector(3)) == 64


def test_rank_model_gives_one_raw_score(
    berts: dict[int | None, Path], desk: Callable[..., Desk]
) -> None:
    one = desk(berts[RANK])
    one.submit(1, words(30))
    one.run()
    frame = one.got[1]
    assert isinstance(frame, Embedded)
    assert (len(frame.vector), frame.n_prompt) == (4, 30)
    (score,) = struct.unpack("<f", frame.vector)
    assert math.isclose(score, float(TinyBert(pooling=RANK).vector(words(30))[0]), abs_tol=2e-3)


def test_embeddings_and_answers_take_turns(tiny: Path, make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(tiny)
    alone = bench.submit(1, prompt_of(20), n_predict=30)
    bench.run()
    settings = ContextSettings(
        n_cells=512, n_seq_max=4, n_batch=512, n_ubatch=512, n_outputs_max=4, n_threads=1
    )
    context = EmbeddingContext(bench.model, settings)
    embedder = Embedder(
        bench.model,
        n_ctx=512,
        ask=lambda: None,
        open_context=lambda: context,
        is_beside=lambda: True,
    )
    embedder.open()
    beside = bench.submit(2, [*prompt_of(20)], n_predict=30)
    embedder.submit(Embed(3, 200), array.array("i", prompt_of(200)))
    n_calls = 0
    while beside.end is None:
        bench.turn()
        n_calls += embedder.step()
    assert n_calls > 5
    assert beside.tokens == alone.tokens
    assert [frame.request_id for frame in embedder.take_frames()] == [3]
    context.close()
