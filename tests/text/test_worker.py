"""One answer for each request that is begun, whatever it holds."""

from array import array
from collections.abc import Sequence

import pytest

from localrun.errors import Unsupported
from localrun.messages import (
    MAX_FRAME_BYTES,
    CheckGrammar,
    Detokenize,
    Failed,
    Forget,
    Prepare,
    Prepared,
    Started,
    TextAnswer,
    TextRequest,
    Tokenize,
    Turn,
    Vocab,
    decode_text_answer,
    pack_tokens,
)
from localrun.text.chat.conversation import Chat
from localrun.text.chat.templates import Templates
from localrun.text.prompts import Prompts
from localrun.text.tokens import Tokenizer, Vocabularies
from localrun.text.worker import Inbox, Worker
from tests.text.test_tokens import Letters

VOCAB = Vocab("letters", ())
USER = (Turn("user", "hi"),)


def refuse_long(tokenizer: Tokenizer, grammar: str) -> None:
    assert isinstance(tokenizer, Letters)
    if len(grammar) > 20:
        raise Unsupported(f"the grammar cannot be held: {grammar}")


class Exhausted(Letters):
    """Has no memory left."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> "array[int]":
        raise MemoryError


def nested(depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("depth", [50, 400, 980])
@pytest.mark.parametrize(
    "template", ["{{ tools }}", "{{ messages }}", "{{ messages | tojson }}", "x"]
)
def test_deep_values_end_as_an_answer(depth: int, template: str) -> None:
    extra = {"tool_calls": [{"function": {"name": "f", "arguments": nested(depth)}}]}
    said = (*USER, Turn("assistant", "", extra), Turn("tool", "4"), *USER)
    tools = ({"function": nested(depth)},)
    for truncate in (False, True):
        (found,) = answers(
            Prepare(
                *(1, VOCAB, "chat"),
                turns=said,
                template=template,
                tools=tools,
                n_ctx=30,
                truncate=truncate,
            )
        )
        assert isinstance(found, Prepared | Failed)
        assert isinstance(found, Prepared) or found.code in (
            *("prompt_too_long", "template_failed", "bad_request"),
        )


class Verbose(Letters):
    """Makes more of a text than a frame holds."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> "array[int]":
        return array("i", bytes(MAX_FRAME_BYTES))


def answers(*jobs: TextRequest, letters: type[Letters] = Letters) -> list[TextAnswer]:
    """What the worker says to requests that come all at once, beginnings left out."""

    def load(paths: Sequence[str]) -> Letters:
        return letters()

    sent: list[TextAnswer] = []
    worker = Worker(
        Vocabularies(load),
        Prompts(Chat(Templates())),
        refuse_long,
        lambda frame: sent.append(decode_text_answer(frame[4:])),
    )
    inbox = Inbox()
    for job in jobs:
        inbox.put(job)
    forgotten = {job.request_id for job in jobs if isinstance(job, Forget)}
    for _ in range(len({job.request_id for job in jobs} - forgotten)):
        worker.answer(inbox.take())
    return [answer for answer in sent if not isinstance(answer, Started)]


def test_requests_are_answered_in_their_order_and_the_forgotten_not_at_all() -> None:
    jobs = [Tokenize(number, VOCAB, "a", add_special=False) for number in range(4)]
    found = answers(*jobs, Forget(1), Forget(9), Detokenize(5, VOCAB, pack_tokens([107])))
    a = pack_tokens([107])
    assert found == [*(Prepared(number, a, "a") for number in (0, 2, 3)), Prepared(5, a, "a")]


@pytest.mark.parametrize(
    ("grammar", "code"), [('start: "a"', None), ("start: " + "a" * 20, "unsupported")]
)
def test_a_grammar_is_checked_with_the_vocabulary(grammar: str, code: str | None) -> None:
    (found,) = answers(CheckGrammar(1, VOCAB, grammar))
    if code is None:
        assert found == Prepared(1, b"", "")
    else:
        assert isinstance(found, Failed)
        assert (found.code, found.message) == (code, f"the grammar cannot be held: {grammar}")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (r"{{ '\ud800' }}x", "?x"),
        (r"{{ raise_exception('\ud800') }}", "the chat template refuses this conversation: ?"),
        (r"{{ '\ud800'.no.such }}", None),
    ],
)
def test_half_a_surrogate_pair_that_a_template_writes_does_not_end_the_worker(
    template: str, said: str | None
) -> None:
    (found,) = answers(Prepare(1, VOCAB, "chat", turns=USER, template=template))
    assert isinstance(found, Prepared | Failed)
    text = found.text if isinstance(found, Prepared) else found.message
    assert said is None or text == said


def test_a_request_that_needs_too_much_memory_fails_alone() -> None:
    (found,) = answers(Prepare(1, VOCAB, "raw", prompt="x"), letters=Exhausted)
    assert isinstance(found, Failed)
    assert (found.code, found.message) == (
        "bad_request",
        "the text needs more memory than allowed",
    )


def test_an_answer_that_fits_no_frame_is_an_error() -> None:
    (found,) = answers(Prepare(1, VOCAB, "raw", prompt="x"), letters=Verbose)
    assert isinstance(found, Failed)
    assert found.message == "the text is too long for one request"
