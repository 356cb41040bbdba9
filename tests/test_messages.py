"""messages: what crosses a process border comes out as it went in."""

import contextlib
from array import array

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun import messages as m
from localrun.errors import OutOfMemory, PromptTooLong, error_classes

TEXT = st.text(max_size=20).map(lambda s: s.encode("utf-8", "replace").decode())
IDS = st.integers(0, 2**53)
COUNTS = st.dictionaries(TEXT, st.integers(0, 2**53), max_size=3)

RUNNER_REQUESTS = st.one_of(
    st.builds(m.Load, st.lists(TEXT, max_size=2).map(tuple), *[st.integers(0, 2**31)] * 4),
    st.builds(m.MemoryGranted, IDS),
    st.builds(m.Tokens, IDS, st.binary(max_size=40)),
    st.builds(m.Submit, IDS, IDS, TEXT, st.builds(m.Sampling), st.lists(TEXT).map(tuple)),
    st.builds(m.Cancel, IDS),
    st.builds(m.Credit, IDS, IDS),
    st.builds(m.AskStats),
)
RUNNER_ANSWERS = st.one_of(
    st.builds(m.RunnerReady, IDS, TEXT),
    st.builds(m.MemoryAsked, IDS, st.sampled_from(["load", "context"]), COUNTS),
    st.builds(m.LoadFailed, TEXT, TEXT, TEXT),
    st.builds(
        m.Step,
        st.lists(
            st.builds(m.Delta, IDS, TEXT, st.lists(st.integers(0, 2**31)).map(tuple)), max_size=3
        ).map(tuple),
    ),
    st.builds(m.Failed, IDS, TEXT, TEXT, TEXT, COUNTS),
)


@given(RUNNER_REQUESTS)
def test_runner_request_comes_out_as_it_went_in(message: m.RunnerRequest) -> None:
    frame = m.encode(message)
    assert int.from_bytes(frame[:4], "little") == len(frame) - 4
    assert m.decode_runner_request(frame[4:]) == message


@given(RUNNER_ANSWERS)
def test_runner_answer_comes_out_as_it_went_in(message: m.RunnerAnswer) -> None:
    assert m.decode_runner_answer(m.encode(message)[4:]) == message


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=50))
def test_tokens_survive_packing(tokens: list[int]) -> None:
    packed = m.pack_tokens(tokens)
    assert len(packed) == 4 * len(tokens)
    assert m.unpack_tokens(packed) == array("i", tokens)


@given(st.binary(max_size=60))
def test_noise_is_a_decode_error_and_nothing_else(noise: bytes) -> None:
    with contextlib.suppress(msgspec.MsgspecError):
        m.decode_runner_request(noise)


@pytest.mark.parametrize("code", sorted(error_classes()))
def test_error_of_every_code_crosses_with_its_sentence(code: str) -> None:
    error = m.error_of(code, "the sentence", "the hint")
    assert type(error) is error_classes()[code]
    assert (error.message, error.hint) == ("the sentence", "the hint")


@pytest.mark.parametrize("error", [PromptTooLong(9, 4, 8), OutOfMemory(2, 1, "cpu")])
def test_error_keeps_its_facts_over_the_border(error: PromptTooLong | OutOfMemory) -> None:
    sent = m.failed(7, error)
    assert (sent.request_id, sent.code, sent.hint) == (7, error.code, error.hint)
    assert sent.facts == error.facts()
