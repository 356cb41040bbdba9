"""Pace: prompt tokens that fit a step's time budget."""

from hypothesis import given
from hypothesis import strategies as st

from localrun.runner.pace import Pace


def learned(decode_s: float, prefill_s: float) -> Pace:
    pace = Pace()
    for _ in range(20):
        pace.observe(1, 0, decode_s)
        pace.observe(1, 32, decode_s + 32 * prefill_s)
    return pace


def test_first_step_beside_an_answer_is_careful() -> None:
    assert Pace().prefill_tokens(1) <= 16


def test_budget_follows_the_measured_speed() -> None:
    slow, quick = learned(0.010, 0.005), learned(0.010, 0.0005)
    assert 14 <= slow.prefill_tokens(1) <= 20
    assert 150 <= quick.prefill_tokens(1) <= 200


def test_prompts_alone_get_a_larger_step() -> None:
    pace = learned(0.010, 0.005)
    assert pace.prefill_tokens(0) > pace.prefill_tokens(1)


def test_prefill_goes_on_even_when_decode_alone_is_over_the_budget() -> None:
    assert learned(0.5, 0.01).prefill_tokens(1) == 8


@given(
    st.lists(st.tuples(st.integers(0, 16), st.integers(0, 512), st.floats(1e-6, 10)), max_size=50),
    st.integers(0, 16),
)
def test_budget_stays_within_its_bounds(steps: list[tuple[int, int, float]], n_decode: int) -> None:
    pace = Pace()
    for step in steps:
        pace.observe(*step)
    assert 8 <= pace.prefill_tokens(n_decode) <= 512
