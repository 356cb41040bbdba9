"""plan_step: what one decode call is given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.runner.plan import Chunk, Limits, Pending, plan_step

WORK = st.builds(
    lambda past, pending, decoding: (past, 1 if decoding else pending, decoding),
    st.integers(0, 2000),
    st.integers(1, 700),
    st.booleans(),
)


def prompt(key: int, n_past: int, n_pending: int) -> Pending:
    return Pending(key, n_past, n_pending, is_decoding=False)


def answer(key: int) -> Pending:
    return Pending(key, 9, 1, is_decoding=True)


def test_running_answer_goes_before_an_earlier_prompt() -> None:
    chunks = plan_step([prompt(0, 0, 3), answer(1)], Limits(8, 8, 8))
    assert chunks == [Chunk(1, 1, wants_logits=True), Chunk(0, 3, wants_logits=True)]


@pytest.mark.parametrize(
    ("n_past", "n_pending", "budget", "expected"),
    [
        (0, 100, 32, 32),
        (0, 100, 40, 32),
        (10, 100, 32, 22),
        (31, 100, 32, 1),
        (0, 20, 32, 20),
        (0, 32, 32, 32),
        (64, 1000, 200, 192),
    ],
)
def test_chunks_end_on_absolute_multiples_of_a_power_of_two(
    n_past: int, n_pending: int, budget: int, expected: int
) -> None:
    (chunk,) = plan_step([prompt(0, n_past, n_pending)], Limits(512, budget, 8))
    assert chunk.n_tokens == expected
    assert chunk.wants_logits == (expected == n_pending)


def test_short_tails_of_several_prompts_share_a_step() -> None:
    chunks = plan_step([prompt(k, 400, 12) for k in range(7)], Limits(2048, 128, 8))
    assert [c.n_tokens for c in chunks] == [12] * 7


def test_rows_with_logits_stay_within_their_limit() -> None:
    chunks = plan_step([answer(0), answer(1), prompt(2, 0, 4)], Limits(64, 64, 2))
    assert sum(c.wants_logits for c in chunks) == 2
    assert [c.key for c in chunks] == [0, 1]


@given(st.lists(WORK, max_size=12), st.integers(1, 600), st.integers(1, 600), st.integers(1, 16))
def test_batch_is_never_overfull_nor_idle_while_work_waits(
    works: list[tuple[int, int, bool]], n_batch: int, n_prefill: int, n_outputs: int
) -> None:
    pending = [Pending(k, *work) for k, work in enumerate(works)]
    chunks = plan_step(pending, Limits(n_batch, n_prefill, n_outputs))
    by_key = {p.key: p for p in pending}
    assert sum(c.n_tokens for c in chunks) <= n_batch
    assert sum(c.n_tokens for c in chunks if not by_key[c.key].is_decoding) <= n_prefill
    assert sum(c.wants_logits for c in chunks) <= n_outputs
    assert all(0 < c.n_tokens <= by_key[c.key].n_pending for c in chunks)
    assert all(c.wants_logits == (c.n_tokens == by_key[c.key].n_pending) for c in chunks)
    assert len({c.key for c in chunks}) == len(chunks)
    assert bool(chunks) == bool(pending)
