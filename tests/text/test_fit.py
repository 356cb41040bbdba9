"""What is left of a history that does not fit: the newest turns, whole, as many as go in."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.errors import PromptTooLong, TemplateFailed
from localrun.messages import Turn
from localrun.text.fit import History, fewest_dropped

CALL = {"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}


def turns_of(roles: str) -> tuple[Turn, ...]:
    """`s`ystem, `u`ser, `a`ssistant, `c`all, `t`ool; each with its number as content."""
    names = {"s": "system", "d": "developer", "u": "user", "a": "assistant", "c": "assistant"}
    return tuple(
        Turn(names.get(role, "tool"), str(at), CALL if role == "c" else {})
        for at, role in enumerate(roles)
    )


def ways(roles: str, *, begins_with_question: bool = False) -> list[str]:
    """What is left in each way to cut, by the numbers of the turns."""
    history = History(turns_of(roles), begins_with_question=begins_with_question)
    return ["".join(turn.content for turn in history.kept(n)) for n in history.cuts]


@pytest.mark.parametrize(
    ("roles", "left"),
    [
        ("u", ["0"]),
        ("uau", ["012", "12", "2"]),
        ("suau", ["0123", "023", "03"]),
        ("dusau", ["01234", "0234", "024"]),
        ("uctau", ["01234", "1234", "34", "4"]),
        ("ucttau", ["012345", "12345", "45", "5"]),
        ("uauct", ["01234", "1234", "234", "34"]),
        ("uauctt", ["012345", "12345", "2345", "345"]),
        ("uaua", ["0123", "123", "23"]),
        ("uactua", ["012345", "12345", "2345", "45"]),
        ("tt", ["01"]),
        ("sss", ["012"]),
    ],
)
def test_system_turns_the_last_message_and_calls_with_results_stay(
    roles: str, left: list[str]
) -> None:
    assert ways(roles) == left


@pytest.mark.parametrize(
    ("roles", "left"),
    [("uauau", ["01234", "234", "4"]), ("uuau", ["0123", "123", "3"]), ("uact", ["0123", "23"])],
)
def test_where_a_template_wants_it_what_is_left_begins_with_a_question(
    roles: str, left: list[str]
) -> None:
    assert ways(roles, begins_with_question=True) == left


def counter(
    history: History, *, refused: Sequence[int] = ()
) -> tuple[list[int], Callable[[int], int]]:
    measured: list[int] = []

    def measure(n_dropped: int) -> int:
        measured.append(n_dropped)
        if n_dropped in refused:
            raise TemplateFailed("it begins with an answer")
        return sum(7 + len(turn.content) for turn in history.kept(n_dropped))

    return measured, measure


def long_history(n_turns: int, n_chars: int = 100) -> History:
    roles = ("user", "assistant")
    return History([Turn(roles[at % 2], "x" * n_chars) for at in range(n_turns)])


def test_a_long_history_is_cut_with_few_renderings() -> None:
    history = long_history(2001)
    measured, measure = counter(history)
    n_dropped = fewest_dropped(history, measure, 10_700, n_whole=None)
    assert n_dropped == 1901
    assert len(measured) <= 6


def test_a_way_that_the_template_refuses_is_left_aside() -> None:
    history = long_history(11)
    _, measure = counter(history, refused=(3, 4, 5))
    assert fewest_dropped(history, measure, 8 * 107, n_whole=11 * 107) == 6


def test_a_template_that_refuses_all_that_is_shorter_is_the_error() -> None:
    history = long_history(11)
    _, measure = counter(history, refused=range(1, 11))
    with pytest.raises(TemplateFailed, match="begins with an answer"):
        fewest_dropped(history, measure, 107, n_whole=11 * 107)


def test_what_cannot_fit_says_the_least_that_it_needs() -> None:
    history = long_history(11)
    _, measure = counter(history)
    with pytest.raises(PromptTooLong) as caught:
        fewest_dropped(history, measure, 106, n_whole=11 * 107)
    assert (caught.value.needed, caught.value.available) == (108, 107)


@given(
    lengths=st.lists(st.integers(0, 500), min_size=2, max_size=40),
    roles=st.data(),
    limit=st.integers(1, 5000),
    knows_whole=st.booleans(),
)
def test_no_turn_goes_that_could_stay(
    lengths: list[int], roles: st.DataObject, limit: int, knows_whole: bool
) -> None:
    chosen = roles.draw(
        st.lists(
            st.sampled_from(["system", "user", "assistant", "tool"]),
            min_size=len(lengths),
            max_size=len(lengths),
        )
    )
    turns = [Turn(role, "x" * n) for role, n in zip(chosen, lengths, strict=True)]
    history = History(turns)
    _, measure = counter(history)
    counts = {n: measure(n) for n in history.cuts}
    whole = counts[0]
    if whole <= limit:
        return
    fitting = [n for n, count in counts.items() if count <= limit]
    n_whole = whole if knows_whole else None
    if fitting:
        assert fewest_dropped(history, measure, limit, n_whole=n_whole) == min(fitting)
    else:
        with pytest.raises(PromptTooLong):
            fewest_dropped(history, measure, limit, n_whole=n_whole)
