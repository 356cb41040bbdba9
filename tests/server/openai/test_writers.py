"""The records of all writers: whatever a model says, in whatever pieces, arrives whole."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from localrun.messages import End, Logprob, Prepared
from localrun.output.pieces import (
    CallArguments,
    CallBegun,
    CallBroken,
    CallDone,
    Content,
    Piece,
    Thinking,
)
from localrun.server.ask import Answer, Begin
from localrun.server.openai.chunks import chat_logprobs, usage_of
from localrun.server.openai.events import ResponseWriter
from localrun.server.openai.response import Response
from localrun.server.openai.texts import Shape, TextWriter
from localrun.server.openai.writers import ChatWriter

BEGIN = Begin(Prepared(0, b"\0" * 40, "prompt", n_dropped=2), 0.0)
WORDS = st.text(min_size=1, max_size=6)


def answer(index=0, reason="stop", **fields) -> Answer:
    found = Answer(index, BEGIN, **fields)
    found.end = End(0, reason, 10, 4 - index, 3, 0.0, 0.0, 0.0, n_reasoning=1)
    return found


@st.composite
def said(draw) -> list[Piece]:
    """What a parser makes of an answer, calls one after the other."""
    pieces: list[Piece] = []
    for index in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(["add", "a.b"]))
        pieces += [Content(text) for text in draw(st.lists(WORDS, max_size=2))]
        pieces += [Thinking(text) for text in draw(st.lists(WORDS, max_size=2))]
        pieces.append(CallBegun(index, f"call_{index}", name))
        arguments = {"x": draw(WORDS)}
        text = json.dumps(arguments, ensure_ascii=False)
        cut = draw(st.integers(0, len(text)))
        streams = draw(st.booleans())
        if streams:
            parts = [text[:cut], text[cut:]]
            pieces += [CallArguments(index, part) for part in parts if part]
        pieces.append(CallDone(index, f"call_{index}", name, arguments))
    return [*pieces, *(Content(text) for text in draw(st.lists(WORDS, max_size=2)))]


def joined(pieces, kind) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, kind))


def calls_in(pieces) -> list[tuple[str, str, object]]:
    return [(p.id, p.name, dict(p.arguments)) for p in pieces if isinstance(p, CallDone)]


def records(data: bytes):
    found = data.decode().split("\n\n")
    assert found.pop() == ""
    lines = [record.split("\n")[-1] for record in found]
    return [json.loads(line.removeprefix("data: ")) for line in lines if line != "data: [DONE]"]


@settings(max_examples=40, deadline=None)
@given(said())
def test_a_stream_of_chunks_holds_all_that_was_said(pieces):
    writer = ChatWriter("m")
    data = b"".join(writer.pieces(0, [piece], ()) for piece in pieces)
    found = records(data + writer.end(answer()) + writer.close([answer()]))
    deltas = [chunk["choices"][0]["delta"] for chunk in found]
    assert [at for at, delta in enumerate(deltas) if "role" in delta] == [0]
    assert "".join(delta.get("content", "") for delta in deltas) == joined(pieces, Content)
    assert "".join(delta.get("reasoning", "") for delta in deltas) == joined(pieces, Thinking)
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                calls[call["index"]] = [call["id"], call["function"]["name"], ""]
            calls[call["index"]][2] += call["function"]["arguments"]
    made = [(name, tool, json.loads(text)) for name, tool, text in calls.values()]
    assert made == calls_in(pieces)


@settings(max_examples=40, deadline=None)
@given(said(), st.sampled_from(["stop", "length"]))
def test_the_events_of_a_response_hold_all_that_was_said(pieces, reason):
    kept = []
    spaces = {"a.b": ("a", "b")}
    writer = ResponseWriter(Response("m", {}), spaces, lambda *both: kept.append(both))
    data = b"".join(writer.pieces(0, [piece], ()) for piece in pieces)
    data += writer.end(answer(reason=reason)) + writer.close([answer(reason=reason)])
    found = records(writer.begin(BEGIN) + data)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    added = [e["item"]["id"] for e in found if e["type"] == "response.output_item.added"]
    done = [e["item"] for e in found if e["type"] == "response.output_item.done"]
    output = found[-1]["response"]["output"]
    assert [item["id"] for item in output] == added
    assert sorted(added) == sorted(item["id"] for item in done)
    assert all(item in done for item in output)
    for item in output:
        own = [event for event in found if event.get("item_id") == item["id"]]
        deltas = "".join(event["delta"] for event in own if event["type"].endswith(".delta"))
        assert deltas == text_of(item)
    shown, whole = words_of(output), joined(pieces, Content)
    assert whole.startswith(shown)
    assert not whole[len(shown) :].strip()  # blanks behind a call
    calls = [
        (item["call_id"], item.get("namespace", ""), item["name"], json.loads(item["arguments"]))
        for item in output
        if item["type"] == "function_call"
    ]
    assert calls == [
        (name, *(spaces.get(tool, ("", tool))), arguments)
        for name, tool, arguments in calls_in(pieces)
    ]
    assert found[-1]["type"] == f"response.{'incomplete' if reason == 'length' else 'completed'}"
    ((_, stored),) = kept
    assert [item["id"] for item in stored] == added


def text_of(item) -> str:
    if item["type"] == "message":
        return "".join(part["text"] for part in item["content"])
    if item["type"] == "reasoning":
        return item["encrypted_content"]
    return item["arguments"]


def words_of(output) -> str:
    return "".join(text_of(item) for item in output if item["type"] == "message")


def test_a_call_that_broke_keeps_what_was_said_of_it():
    pieces: list[Piece] = [
        CallBegun(0, "call_0", "add"),
        CallArguments(0, '{"x"'),
        CallBroken(0, "<raw>"),
    ]
    found = records(ChatWriter("m").pieces(0, pieces, ()))
    assert "<raw>" not in json.dumps(found)
    never_shown = records(ChatWriter("m").pieces(0, [CallBroken(0, "<raw>")], ()))
    assert never_shown[0]["choices"][0]["delta"]["content"] == "<raw>"
    writer = ResponseWriter(Response("m", {}), {}, lambda *_: None)
    data = writer.pieces(0, pieces, ()) + writer.end(answer()) + writer.close([answer()])
    (item,) = records(data)[-1]["response"]["output"]
    assert (item["status"], item["arguments"]) == ("incomplete", '{"x"')


def test_the_hot_path_writes_what_the_other_does():
    first, second = ChatWriter("m"), ChatWriter("m")
    texts = ["a", "\u2028é", '"\\']
    plain = records(b"".join(first.text(text) for text in texts))
    parted = records(b"".join(second.pieces(0, [Content(text)], ()) for text in texts))
    assert [c["choices"] for c in plain] == [c["choices"] for c in parted]


def test_the_prompt_counts_once_and_is_cached_as_far_as_for_the_first():
    assert usage_of([answer(0), answer(1)]) == {
        "prompt_tokens": 10,
        "completion_tokens": 6,
        "total_tokens": 16,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
        "truncated_messages": 2,
    }


def test_a_token_that_is_no_text_by_itself_keeps_its_bytes():
    (told,) = json.loads(chat_logprobs([Logprob(b"\xc3", float("-inf"))]))["content"]
    assert told == {"token": "\ufffd", "logprob": -9999, "bytes": [0xC3], "top_logprobs": []}


def test_the_likeliest_completions_are_shown():
    shape = Shape.make("m", n=1, includes_usage=False, tells_logprobs=False)
    both = [
        answer(at, content=text, logprobs=[Logprob(b"x", number)])
        for at, (text, number) in enumerate([("worse", -2.0), ("better", -1.0)])
    ]
    (choice,) = TextWriter(shape).choices(both)
    assert (choice["text"], choice["index"]) == ("better", 0)


def test_reasoning_is_not_lost_in_a_text_completion():
    shape = Shape.make("m", n=1, includes_usage=False, tells_logprobs=False)
    writer = TextWriter(shape)
    found = records(writer.pieces(0, [Thinking("hm"), Content("a")], ()))
    assert [chunk["choices"][0].get("reasoning") for chunk in found] == ["hm", None]
    assert writer.choices([answer(thinking="hm", content="a")])[0]["reasoning"] == "hm"
