"""Grammars over a vocabulary, and the log-probabilities of a row."""

import ctypes
import json
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localrun.errors import EngineMissing, GrammarFailed, Unsupported
from localrun.llama import Context, Matcher, Scores, TokenTable, Vocabulary, check_grammar
from localrun.llama.guidance import ConstraintInit, Guidance, check_abi
from tests.fakes.tinygguf import N_VOCAB, make_tiny

IM_START = 3
LETTERS = range(262, 356)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vocabulary]:
    path = make_tiny(tmp_path_factory.mktemp("vocab") / "tiny.gguf")
    vocabulary = Vocabulary.load([str(path)])
    yield vocabulary
    vocabulary.close()


@pytest.fixture(scope="module")
def table(vocabulary: Vocabulary) -> Iterator[TokenTable]:
    table = TokenTable(vocabulary, pause=lambda: None)
    yield table
    table.close()


class Row:
    """A context with one row of logits."""

    def __init__(self, logits: "np.ndarray | None" = None) -> None:
        self.scores = np.zeros(N_VOCAB, np.float32) if logits is None else logits

    def logits(self, row: int) -> "memoryview[float]":
        return memoryview(cast(Any, self.scores))

    @property
    def allowed(self) -> set[int]:
        return set(np.flatnonzero(np.isfinite(self.scores)).tolist())


def allowed(matcher: Matcher) -> set[int]:
    row = Row()
    matcher.hold(cast(Context, row), 0)
    return row.allowed


def test_only_what_may_come_next_keeps_its_score(vocabulary: Vocabulary, table: TokenTable) -> None:
    matcher = Matcher(table, 'start: "he" "!"')
    pieces = {vocabulary.piece(t, render_special=True) for t in allowed(matcher)}
    assert pieces == {b"h", b"he"}, "the byte token of h is read as that byte too"
    he = next(t for t in allowed(matcher) if vocabulary.piece(t, render_special=True) == b"he")
    matcher.accept(he)
    assert {vocabulary.piece(t, render_special=True) for t in allowed(matcher)} == {b"!"}
    assert not matcher.is_complete
    matcher.accept(next(iter(allowed(matcher))))
    assert matcher.is_complete
    assert all(vocabulary.is_end(t) for t in allowed(matcher))
    matcher.close()


def test_scores_of_allowed_tokens_stay_as_they_are(table: TokenTable) -> None:
    logits = np.random.default_rng(0).standard_normal(N_VOCAB).astype(np.float32)
    for lark in ('start: "he"', "start: /(.|\\n)+/"):  # few allowed, and most
        row = Row(logits.copy())
        matcher = Matcher(table, lark)
        matcher.hold(cast(Context, row), 0)
        kept = sorted(row.allowed)
        assert 0 < len(kept) < N_VOCAB
        assert (row.scores[kept] == logits[kept]).all()
        matcher.close()


@settings(max_examples=12, deadline=None)  # each asks for every token of every step
@given(data=st.data())
def test_allows_says_what_hold_leaves(table: TokenTable, data: st.DataObject) -> None:
    matcher = Matcher(table, 'start: "[" (/[0-9]{1,3}/ ",")* "<|im_start|>"? "]"', (IM_START,))
    while not matcher.is_complete:
        left = allowed(matcher)
        assert left == {t for t in range(N_VOCAB) if matcher.allows(t)}
        matcher.accept(data.draw(st.sampled_from(sorted(left))))
    matcher.close()


@pytest.mark.parametrize(
    ("preserved", "lark", "expected"),
    [
        ((), 'start: "<|im_start|>"', False),
        ((IM_START,), 'start: "<|im_start|>"', True),
        ((), "start: <|im_start|>", True),
        ((IM_START,), "start: <|im_start|>", True),
        ((), "start: /(.|\\n)+/", False),
        ((IM_START,), "start: /(.|\\n)+/", True),
    ],
)
def test_special_token_is_named_and_spelled_only_where_it_is_text(
    table: TokenTable, preserved: tuple[int, ...], lark: str, expected: bool
) -> None:
    matcher = Matcher(table, lark, preserved)
    assert (IM_START in allowed(matcher)) is expected
    assert matcher.allows(IM_START) is expected
    if expected:
        matcher.accept(IM_START)
    else:
        with pytest.raises(GrammarFailed, match="left its grammar"):
            matcher.accept(IM_START)
    matcher.close()


def test_wrong_token_breaks_the_matcher_for_good_and_says_so(table: TokenTable) -> None:
    matcher = Matcher(table, 'start: "a" "b"')
    with pytest.raises(GrammarFailed, match="left its grammar"):
        matcher.accept(LETTERS[-1])
    with pytest.raises(GrammarFailed, match="cannot be held any further"):
        allowed(matcher)
    matcher.close()


GOOD = [
    'start: "a"',
    "start: <|im_start|> /[a-z]*/",
    f"start: <[{IM_START}]>",
    "start: %json " + json.dumps({"type": "object", "properties": {"é": {"type": "string"}}}),
    '%llguidance {}\nstart: head TEXT\nTEXT: /(.|\\n)*/\nhead[lazy]: TEXT "</think>"\n',
]
BAD = [
    ('start: "a', "lexer error"),
    ("begin: x", "start"),
    ("start: <|nobody|>", "unknown special token"),
    (f"start: <[{N_VOCAB + 500}]>", "range"),
    ('start: %json {"type": "object", "properties": {"a": false}, "required": ["a"]}', "Unsat"),
    ('start: %json {"type": "string", "pattern": "("}', "regex parse error"),
    ('start: "a\0"', "NUL"),
]


@pytest.mark.parametrize("lark", GOOD)
def test_check_agrees_with_a_matcher_on_good_grammars(
    vocabulary: Vocabulary, table: TokenTable, lark: str
) -> None:
    check_grammar(vocabulary, lark)
    Matcher(table, lark).close()


@pytest.mark.parametrize(("lark", "words"), BAD)
def test_check_agrees_with_a_matcher_on_bad_ones_and_gives_the_reason(
    vocabulary: Vocabulary, table: TokenTable, lark: str, words: str
) -> None:
    for hold in (lambda: check_grammar(vocabulary, lark), lambda: Matcher(table, lark)):
        with pytest.raises(Unsupported, match="this format cannot be held") as caught:
            hold()
        assert words in caught.value.message
        assert "verbose" not in caught.value.message


def test_table_gives_the_interpreter_away_while_it_is_made(vocabulary: Vocabulary) -> None:
    pauses: list[float] = []
    done = threading.Event()

    def make() -> None:
        TokenTable(vocabulary, pause=lambda: pauses.append(time.monotonic())).close()
        done.set()

    threading.Thread(target=make).start()
    assert done.wait(10)
    assert len(pauses) >= 1


def test_foreign_library_is_refused() -> None:
    def fill(init: Any, tokenizer: object) -> None:
        ctypes.cast(init, ctypes.POINTER(ConstraintInit)).contents.limits.max_items_in_row = 1999

    low = SimpleNamespace(llg_constraint_init_set_defaults=fill)
    with pytest.raises(EngineMissing, match="max_items_in_row is 1999, not 2000"):
        check_abi(Guidance(low, low))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    n_vocab=st.sampled_from([1, 63, 64, 65, 366, 5000]),
    n_top=st.integers(0, 20),
    is_coarse=st.booleans(),
)
def test_scores_are_a_softmax_and_its_largest(
    seed: int, n_vocab: int, n_top: int, is_coarse: bool
) -> None:
    logits = np.random.default_rng(seed).standard_normal(n_vocab).astype(np.float32) * 8
    if is_coarse:  # many equal ones
        logits = np.round(logits)
    scores = Scores(cast(Context, Row(logits)), 0, n_top)
    exact = logits.astype(np.float64)
    exact = exact - exact.max() - np.log(np.exp(exact - exact.max()).sum())
    assert len(scores.top) == min(n_top, n_vocab)
    expected = np.sort(exact)[::-1][: len(scores.top)]
    np.testing.assert_allclose([logprob for _, logprob in scores.top], expected, atol=1e-4)
    for token, logprob in scores.top:
        assert abs(logprob - exact[token]) < 1e-4
    assert len({token for token, _ in scores.top}) == len(scores.top)
    assert abs(scores.logprob(n_vocab // 2) - exact[n_vocab // 2]) < 1e-4
