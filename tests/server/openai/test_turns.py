"""Messages and input items as turns."""

import json

import pytest

from localrun.errors import BadRequest
from localrun.messages import Turn
from localrun.server.openai import items
from localrun.server.openai.fields import read_body
from localrun.server.openai.turns import count_images, make_call, read_turns

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}


def turns_of(*messages):
    body = read_body(json.dumps({"messages": messages}).encode(), "ChatCompletionRequest")
    return read_turns(body.inners("messages", "[]openai.Message"))


@pytest.mark.parametrize(
    ("message", "turn"),
    [
        ({"role": "User", "content": "a"}, Turn("user", "a")),
        ({"role": "developer", "content": "a"}, Turn("developer", "a")),
        ({"role": "user", "content": []}, Turn("user", "")),
        ({"role": "assistant", "content": "a", "reasoning_content": "b"},
         Turn("assistant", "a", {"thinking": "b"})),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
         Turn("assistant", "no")),
        ({"role": "assistant", "tool_calls": [CALL]},
         Turn("assistant", "", {"tool_calls": [make_call("c1", "add", {"a": 1})]})),
        ({"role": "tool", "content": [{"type": "text", "text": "2"}], "tool_call_id": "x",
          "name": "add"}, Turn("tool", "2", {"tool_call_id": "x", "tool_name": "add"})),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "data:;base64,AA=="}]},
         Turn("user", "", {"images": ["AA=="]})),
    ],
)  # fmt: skip
def test_a_message_is_one_turn(message, turn):
    assert turns_of(message) == (turn,)


def test_a_tool_s_answer_knows_the_name_of_its_call():
    _, answer = turns_of(
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    )
    assert answer.extra["tool_name"] == "add"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"content": None}, "invalid message content type: <nil>"),
        ({"content": 1}, "invalid message content type: float64"),
        ({"content": ["a"]}, "invalid message format"),
        ({"content": [{"type": "video"}]}, "invalid message format"),
        ({"content": [{"type": "text"}]}, "invalid message format"),
        ({"content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]},
         "image URLs are not currently supported, please use base64 encoded data instead"),
        ({"content": [{"type": "image_url", "image_url": "data:image/gif;base64,AA=="}]},
         "invalid image input"),
        ({"content": [{"type": "image_url", "image_url": "data:;base64,A"}]},
         "invalid image input"),
        ({"content": [{"type": "input_audio"}]}, "invalid input_audio format"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]},
         "invalid tool call arguments"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]},
         "invalid tool call arguments"),
    ],
)  # fmt: skip
def test_a_message_that_cannot_be_understood(message, words):
    with pytest.raises(BadRequest) as caught:
        turns_of({"role": "user"} | message)
    assert caught.value.message == words


def test_images_and_sounds_are_counted():
    sound = {"type": "input_audio", "input_audio": {"data": "AA=="}}
    assert count_images(turns_of({"role": "user", "content": [sound, sound]})) == 2


def item_turns(*values):
    body = read_body(json.dumps({"input": values}).encode(), "ResponsesRequest")
    return items.read_turns(items.read_items(body))


FC = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1}'}
FCO = {"type": "function_call_output", "call_id": "c1", "output": "2"}
ANSWER = Turn("tool", "2", {"tool_call_id": "c1", "tool_name": "add"})
CALLED = [make_call("c1", "add", {"a": 1})]


@pytest.mark.parametrize(
    ("values", "turns"),
    [
        ([{"role": "user", "content": "a"}], [Turn("user", "a")]),
        ([{"role": "user", "content": [{"type": "input_text", "text": "a"},
                                       {"type": "input_text", "text": "b"}]}],
         [Turn("user", "ab")]),
        ([FC, FCO], [Turn("assistant", "", {"tool_calls": CALLED}), ANSWER]),
        ([{"role": "assistant", "content": "w"}, FC],
         [Turn("assistant", "w", {"tool_calls": CALLED})]),
        ([FC, {"role": "assistant", "content": "w"}, FCO],
         [Turn("assistant", "w", {"tool_calls": CALLED}), ANSWER]),
        ([{"type": "reasoning", "encrypted_content": "hm", "summary": []}, FC],
         [Turn("assistant", "", {"thinking": "hm", "tool_calls": CALLED})]),
        ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
          {"role": "assistant", "content": "w"}], [Turn("assistant", "w", {"thinking": "hm"})]),
        ([{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}],
         [Turn("assistant", "", {"thinking": "hm"})]),
        ([{"type": "web_search_call", "id": "w"}], []),
        ([FC | {"namespace": "math"}],
         [Turn("assistant", "", {"tool_calls": [make_call("c1", "math.add", {"a": 1})]})]),
        ([FC, FCO | {"output": [{"type": "input_text", "text": "2"}]}],
         [Turn("assistant", "", {"tool_calls": CALLED}), ANSWER]),
    ],
)  # fmt: skip
def test_items_are_turns(values, turns):
    assert list(item_turns(*values)) == turns


def test_an_item_can_be_listed():
    body = read_body(b'{"input": [{"role": "user", "content": "a", "id": "mine"}]}', "R")
    (item,) = items.read_items(body)
    assert item == {
        "id": "mine",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "a"}],
    }
