"""Where a completion reasons: found in any cut of its text."""

from hypothesis import given
from hypothesis import strategies as st

from localrun.messages import Reasoning, pack_tokens
from localrun.runner.reasoning import ReasoningTrack

START, END = "<think>", "</think>"


def track(*, is_open: bool = False, budget: int = -1, start: str = START) -> ReasoningTrack:
    return ReasoningTrack(Reasoning(is_open, start, END, pack_tokens([7, 8]), budget))


def inside(text: str, *, is_open: bool) -> bool:
    """Whether a text ends inside the reasoning, by looking at it as a whole."""
    while True:
        at = text.find(END if is_open else START)
        if at < 0:
            return is_open
        text = text[at + len(END if is_open else START) :]
        is_open = not is_open


pieces = st.lists(
    st.sampled_from(
        ["<", "think", ">", "</", "</think>", "<think>", "a", "é", "<thi", "nk>", "😀"]
    ),
    max_size=30,
)


@given(words=pieces, is_open=st.booleans(), cuts=st.lists(st.integers(1, 5), max_size=60))
def test_markers_are_found_however_the_bytes_are_cut(
    words: list[str], is_open: bool, cuts: list[int]
) -> None:
    text = "".join(words)
    found = track(is_open=is_open)
    data, n_fed = text.encode(), 0
    for n in [*cuts, len(data)]:
        found.feed(data[:n])
        data, n_fed = data[n:], n_fed + 1
    assert found.is_open == inside(text, is_open=is_open)
    assert 0 <= found.n_tokens <= n_fed


def test_tokens_inside_are_counted_and_the_budget_ends_it() -> None:
    found = track(budget=2)
    for piece in (b"so ", b"<think>", b"hm"):
        found.feed(piece)
        assert not found.must_close
    found.feed(b" well")
    assert (found.n_tokens, found.must_close, list(found.closing)) == (2, True, [7, 8])
    found.feed(b"</think>")
    assert (found.is_open, found.must_close, found.n_tokens) == (False, False, 3)


def test_asking_counts_only_while_it_reasons() -> None:
    found = track()
    found.ask_to_close()
    found.feed(b"<think>")
    assert not found.must_close
    found.ask_to_close()
    assert found.must_close
    found.closed()
    assert (found.is_open, found.must_close) == (False, False)


def test_used_budget_closes_a_second_reasoning_at_once() -> None:
    found = track(is_open=True, budget=1)
    for piece in (b"a", b"</think>", b"b"):
        found.feed(piece)
    assert not found.must_close
    found.feed(b"<think>")
    assert found.must_close


def test_without_closing_tokens_or_markers_nothing_is_closed() -> None:
    silent = ReasoningTrack(Reasoning(True, "", "", b"", 0))
    silent.feed(b"a")
    assert (silent.must_close, silent.is_open, silent.n_tokens) == (False, True, 1)
    shut = track(start="")
    shut.feed(b"<think>")
    assert not shut.is_open
