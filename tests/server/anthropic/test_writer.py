"""The events and the messages that are written, put together again by their reader."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.errors import Busy, ModelNotFound, OutOfMemory, PromptTooLong
from localrun.messages import End, Prepared, Turn
from localrun.output.pieces import (
    CallArguments,
    CallBegun,
    CallBroken,
    CallDone,
    Content,
    Thinking,
)
from localrun.server.anthropic.errors import DIALECT, AnthropicErrors
from localrun.server.anthropic.schema import MessagesRequest
from localrun.server.anthropic.writer import MessageWriter
from localrun.server.ask import Answer, Begin

BEGIN = Begin(Prepared(1, bytes(4 * 10), "the prompt"), 0.0)


def writer(**fields):
    return MessageWriter(MessagesRequest("tiny", (Turn("user", "hi"),), max_tokens=9, **fields))


def answer(reason="stop", *, n=3, stop="", n_cached=4, **parts):
    end = End(1, reason, 10, n_cached, n, 0, 0, 0, stop, parts.pop("n_reasoning", 0))
    return Answer(0, BEGIN, end=end, **parts)


def events(*records: bytes):
    """(name, data) of each event; checks the form of the stream on the way."""
    found = []
    text = b"".join(records).decode()
    assert text.endswith("\n\n")
    for record in text.removesuffix("\n\n").split("\n\n"):
        head, data = record.split("\n")
        name = head.removeprefix("event: ")
        fields = json.loads(data.removeprefix("data: "))
        assert fields.pop("type") == name
        found.append((name, fields))
    return found


def put_together(found):
    """The content blocks of a stream, as a client accumulates them."""
    blocks: list[dict[str, Any]] = []
    is_open = False
    for name, data in found:
        match name:
            case "content_block_start":
                assert not is_open
                assert data["index"] == len(blocks)
                blocks.append({**data["content_block"], "json": ""})
                is_open = True
            case "content_block_delta":
                assert is_open
                assert data["index"] == len(blocks) - 1
                delta = data["delta"]
                (field,) = delta.keys() - {"type"}
                assert delta["type"] == {"partial_json": "input_json"}.get(field, field) + "_delta"
                blocks[-1][{"partial_json": "json"}.get(field, field)] += delta[field]
            case "content_block_stop":
                assert is_open
                is_open = False
    assert not is_open
    return [{k: v for k, v in block.items() if k != "json" or v} for block in blocks]


def test_a_stream_of_text():
    w = writer()
    found = events(w.begin(BEGIN), w.text("Hel"), w.text("lo\u2028"), w.end(answer()), w.close(()))
    assert [name for name, _ in found] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta",
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    message = found[0][1]["message"]
    assert message["id"] == w.id
    assert message["usage"] == {
        "input_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "output_tokens": 0,
    }  # fmt: skip
    assert put_together(found) == [{"type": "text", "text": "Hello\u2028"}]
    assert found[-2][1] == {
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {
            "input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4,
            "output_tokens": 3,
        },
    }  # fmt: skip


PIECES = [
    Thinking("Hm"), Thinking(", Rome."), Content("Let me "), Content("see."),
    CallBegun(0, "call_aaaaaaaa", "weather"), CallArguments(0, '{"city":'),
    CallArguments(0, '"Rome"}'), CallDone(0, "call_aaaaaaaa", "weather", {"city": "Rome"}),
    CallBegun(1, "call_bbbbbbbb", "time"), CallDone(1, "call_bbbbbbbb", "time", {"at": "noon"}),
]  # fmt: skip
CALLS = [piece for piece in PIECES if isinstance(piece, CallDone)]


def test_thinking_text_and_calls_are_blocks_in_their_order():
    w = writer()
    found = events(w.pieces(0, PIECES, ()), w.end(answer(calls=CALLS)))
    thinking, *others = put_together(found)
    assert (thinking["thinking"], len(thinking["signature"])) == ("Hm, Rome.", 48)
    assert others == [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "call_aaaaaaaa", "name": "weather", "input": {},
         "json": '{"city":"Rome"}'},
        {"type": "tool_use", "id": "call_bbbbbbbb", "name": "time", "input": {},
         "json": '{"at":"noon"}'},
    ]  # fmt: skip
    assert found[-1][1]["delta"]["stop_reason"] == "tool_use"


def test_arguments_are_sent_as_they_come():
    w = writer()
    w.pieces(0, PIECES[:5], ())
    ((name, data),) = events(w.pieces(0, PIECES[5:6], ()))
    assert (name, data["delta"]["partial_json"]) == ("content_block_delta", '{"city":')


def test_a_call_that_never_became_complete_is_no_call():
    w = writer()
    broken = [*PIECES[4:6], CallBroken(0, 'weather {"city":')]
    found = events(w.pieces(0, broken, ()), w.end(answer("length", n=9)))
    assert put_together(found)[0]["json"] == '{"city":'
    assert found[-1][1]["delta"]["stop_reason"] == "max_tokens"


def test_hidden_thinking_is_signed_and_not_shown():
    w = writer(hides_thinking=True)
    found = events(w.pieces(0, [Thinking("secret"), Content("a")], ()), w.end(answer()))
    assert put_together(found)[0]["thinking"] == ""
    assert put_together(found)[0]["signature"]
    whole = json.loads(w.whole([answer(thinking="secret", content="a")]))
    assert "secret" not in json.dumps([whole, found])


@pytest.mark.parametrize(
    ("given_answer", "reason", "stop"),
    [
        (answer(), "end_turn", None),
        (answer(calls=CALLS), "tool_use", None),
        (answer(stop="END"), "stop_sequence", "END"),
        (answer(stop="</s>"), "end_turn", None),
        (answer("length", n=9), "max_tokens", None),
        (answer("length", n=5), "model_context_window_exceeded", None),
    ],
)
def test_why_it_ended(given_answer, reason, stop):
    w = writer(stop=("END",))
    whole = json.loads(w.whole([given_answer]))
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, stop)
    assert events(w.end(given_answer))[-1][1]["delta"] == {
        "stop_reason": reason, "stop_sequence": stop
    }  # fmt: skip


def test_a_whole_message():
    w = writer()
    whole = json.loads(w.whole([answer(content="a", thinking="b", calls=CALLS[:1], n_reasoning=2)]))
    assert whole.pop("id").startswith("msg_")
    thinking = whole["content"].pop(0)
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "b")
    assert whole == {
        "type": "message", "role": "assistant", "model": "tiny",
        "content": [
            {"type": "text", "text": "a"},
            {"type": "tool_use", "id": "call_aaaaaaaa", "name": "weather",
             "input": {"city": "Rome"}},
        ],
        "stop_reason": "tool_use", "stop_sequence": None,
        "usage": {
            "input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4,
            "output_tokens": 3, "output_tokens_details": {"thinking_tokens": 2},
        },
    }  # fmt: skip
    assert json.loads(w.whole([answer()]))["content"] == []


def test_who_asks_for_a_cached_prompt_is_told_what_was_written():
    usage = json.loads(writer(caches=True).whole([answer()]))["usage"]
    assert [usage[f"{name}input_tokens"] for name in ("", "cache_creation_", "cache_read_")] == [
        0, 6, 4
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (PromptTooLong(300, 200), "invalid_request_error",
         "prompt is too long: 300 tokens > 200 maximum"),
        (ModelNotFound("x"), "not_found_error", "model 'x' not found"),
        (Busy("busy"), "overloaded_error", "busy"),
        (OutOfMemory(1 << 30, 0, "cpu"), "api_error",
         "the model needs 1.0 GiB on cpu and 0.0 GiB are free"),
    ],
)  # fmt: skip
def test_an_error_in_anthropics_form(error, kind, message):
    body = json.loads(AnthropicErrors("req_1").refuse(error))
    assert (body["type"], body["request_id"]) == ("error", "req_1")
    assert (body["error"]["type"], body["error"]["message"]) == (kind, message)
    ((name, data),) = events(DIALECT.break_off(error))
    assert (name, data["error"]["message"]) == ("error", message)
    assert data["request_id"].startswith("req_")


def test_a_model_name_of_anthropic_gets_a_hint():
    body = json.loads(DIALECT.refuse(ModelNotFound("claude-sonnet-5")))
    assert "ANTHROPIC_MODEL" in body["error"]["hint"]


TEXTS = st.text(max_size=5).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))


@given(st.lists(st.builds(Content, TEXTS) | st.builds(Thinking, TEXTS)))
def test_no_word_is_lost_however_the_pieces_come(pieces):
    w = writer()
    blocks = put_together(events(w.pieces(0, pieces, ()), w.end(answer())))
    for cls, field in ((Content, "text"), (Thinking, "thinking")):
        wanted = "".join(piece.text for piece in pieces if isinstance(piece, cls))
        assert "".join(b[field] for b in blocks if b["type"] == field) == wanted
