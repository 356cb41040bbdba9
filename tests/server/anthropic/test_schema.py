"""What a request of the Messages API means, and what is wrong with one."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localrun.errors import BadRequest, LocalrunError, Unsupported
from localrun.messages import Turn
from localrun.server.anthropic.schema import read_count_tokens, read_messages

TOOL = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    "cache_control": {"type": "ephemeral"},
}
PIXEL = "iVBORw0KGgo="


def request(*messages, **fields):
    base = {"model": "tiny", "max_tokens": 9, "messages": messages or [user("hi")]}
    return read_messages(json.dumps({**base, **fields}).encode())


def user(content):
    return {"role": "user", "content": content}


def assistant(*blocks):
    return {"role": "assistant", "content": list(blocks)}


def text(value):
    return {"type": "text", "text": value}


CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}
TURN_OF_CALL = {"id": "toolu_1", "function": {"name": "weather", "arguments": {"city": "Rome"}}}


@pytest.mark.parametrize(
    ("message", "turns"),
    [
        (user("hi"), [Turn("user", "hi")]),
        (user([text("a"), text("b")]), [Turn("user", "ab")]),
        (user(""), [Turn("user", "")]),
        (user(None), [Turn("user", "")]),
        ({"role": "SYSTEM", "content": "s"}, [Turn("system", "s")]),
        (assistant({"type": "thinking", "thinking": "hm", "signature": "x"}, text("a")),
         [Turn("assistant", "a", {"thinking": "hm"})]),
        (assistant({"type": "redacted_thinking", "data": "x"}, text("a")),
         [Turn("assistant", "a")]),
        (assistant(text("Let me see."), CALL),
         [Turn("assistant", "Let me see.", {"tool_calls": [TURN_OF_CALL]})]),
        (user([text("and?"), {"type": "tool_result", "tool_use_id": "t", "content": "sunny"}]),
         [Turn("tool", "sunny", {"tool_call_id": "t"}), Turn("user", "and?")]),
        (user([{"type": "tool_result", "tool_use_id": "t", "is_error": True,
                "content": [text("no "), text("way")]}]),
         [Turn("tool", "no way", {"tool_call_id": "t"})]),
        (user([{"type": "tool_result", "tool_use_id": "t"}]),
         [Turn("tool", "", {"tool_call_id": "t"})]),
        (user([{"type": "image", "source": {"type": "base64", "data": PIXEL}}, text("?")]),
         [Turn("user", "?", {"images": [PIXEL]})]),
        (user([{"type": "document", "title": "T", "source": {"type": "text", "data": "d"}}]),
         [Turn("user", "T\nd\n")]),
        (user([{"type": "document", "source": {"type": "content", "content": [text("d")]}}]),
         [Turn("user", "d\n")]),
        (user([{"type": "search_result", "title": "T", "source": "s", "content": [text("c")]}]),
         [Turn("user", "T\ns\nc\n")]),
        (user([{"type": "something_new", "text": "x"}, text("a")]), [Turn("user", "a")]),
    ],
)  # fmt: skip
def test_each_block_becomes_what_templates_know(message, turns):
    assert list(request(message).turns) == turns


def test_a_result_carries_the_name_of_its_tool():
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}
    turns = request(user("Rome?"), assistant(CALL), user([result])).turns
    assert turns[-1] == Turn("tool", "sunny", {"tool_call_id": "toolu_1", "tool_name": "weather"})


@pytest.mark.parametrize("system", ["Be brief.", [text("Be "), text("brief.")]])
def test_the_system_prompt_comes_first(system):
    assert request(system=system).turns == (Turn("system", "Be brief."), Turn("user", "hi"))


def test_only_what_the_request_names_is_an_option():
    assert request().options == {"num_predict": 9}
    found = request(temperature=1, top_p=0.5, top_k=3, stop_sequences=["a", "b"])
    assert found.options == {
        "num_predict": 9, "temperature": 1.0, "top_p": 0.5, "top_k": 3, "stop": ["a", "b"]
    }  # fmt: skip
    assert found.stop == ("a", "b")


@pytest.mark.parametrize(
    ("fields", "think", "budget", "is_hidden"),
    [
        ({}, None, -1, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True, 1024, False),
        ({"thinking": {"type": "enabled"}}, True, -1, False),
        ({"thinking": {"type": "disabled", "budget_tokens": 5}}, False, -1, False),
        ({"thinking": {"type": "adaptive"}}, None, -1, False),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, None, -1, True),
        ({"output_config": {"effort": "xhigh"}}, "high", -1, False),
        ({"output_config": {"effort": "max"}, "thinking": {"type": "adaptive"}}, "max", -1, False),
        ({"output_config": {"effort": "low"}, "thinking": {"type": "enabled"}}, True, -1, False),
        ({"output_config": {"effort": "huge"}}, None, -1, False),
    ],
)
def test_how_hard_to_think(fields, think, budget, is_hidden):
    found = request(**fields)
    assert (found.think, found.thinking_budget, found.hides_thinking) == (think, budget, is_hidden)


@pytest.mark.parametrize(
    ("choice", "found", "is_parallel"),
    [
        (None, "auto", True),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto", False),
        ({"type": "any"}, "required", True),
        ({"type": "tool", "name": "weather"}, "name:weather", True),
        ({"type": "none"}, "none", True),
    ],
)
def test_tools_and_their_choice(choice, found, is_parallel):
    asked = request(tools=[TOOL], tool_choice=choice)
    assert (asked.tool_choice, asked.parallel_tool_calls) == (found, is_parallel)
    (tool,) = asked.tools
    function = {"name": "weather", "description": "The weather of a city."}
    assert tool == {
        "type": "function", "function": function | {"parameters": TOOL["input_schema"]}
    }  # fmt: skip


def test_a_schema_for_the_answer():
    schema = {"type": "object", "properties": {"n": {"type": "number", "minimum": 0.5}}}
    wanted = {"type": "json_schema", "schema": schema}
    assert request(output_config={"format": wanted}).format == schema
    assert request(output_format=wanted).format == schema
    assert type(request(output_format=wanted).format["properties"]["n"]["minimum"]) is float


def test_counting_needs_no_length_of_the_answer():
    body = json.dumps({"model": "tiny", "messages": [user("hi")], "tools": [TOOL]}).encode()
    assert read_count_tokens(body).turns == (Turn("user", "hi"),)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": ""}, "model is required"),
        ({"max_tokens": 0}, "max_tokens is required and must be positive"),
        ({"max_tokens": None}, "max_tokens is required and must be positive"),
        ({"messages": []}, "messages is required"),
        ({"max_tokens": "9"}, "cannot unmarshal string into Go struct field .*max_tokens"),
        ({"messages": "hi"}, r"MessagesRequest.messages of type \[\]anthropic.MessageParam"),
        ({"messages": ["hi"]}, "cannot unmarshal string .* of type anthropic.MessageParam"),
        ({"messages": [user(5)]}, r"messages.0.content must be a string or an array, not number"),
        ({"messages": [user(["x"])]}, "cannot unmarshal string .* of type anthropic.ContentBlock"),
        ({"messages": [user([text(5)])]}, "ContentBlock.text of type string"),
        ({"messages": [{"role": "boss", "content": ""}]}, "messages.0.role must be one of"),
        ({"messages": [assistant(CALL | {"id": ""})]}, "tool_use block missing required 'id'"),
        ({"messages": [assistant(CALL | {"name": ""})]}, "tool_use block missing required 'name'"),
        ({"messages": [assistant(CALL | {"input": "x"})]}, "input of tool_use toolu_1 must be an"),
        ({"messages": [user([{"type": "image"}])]}, "invalid image source"),
        ({"messages": [user([{"type": "image", "source": {"type": "url"}}])]},
         "invalid image source type: url. Only base64 images are supported."),
        ({"messages": [user([{"type": "image", "source": {"type": "base64", "data": "x"}}])]},
         "invalid base64 image data"),
        ({"messages": [user([{"type": "tool_result", "content": 5}])]}, "content of a tool_result"),
        ({"system": 5}, "system must be a string or an array of text blocks"),
        ({"temperature": "hot"}, "MessagesRequest.temperature of type float64"),
        ({"stop_sequences": [5]}, "MessagesRequest.stop_sequences of type string"),
        ({"tools": [{}]}, "a tool needs a name"),
        ({"tools": [{"name": "a", "input_schema": "x"}]}, 'invalid input_schema for tool "a"'),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type must be auto, any, tool or none"),
        ({"tool_choice": {"type": "any"}}, "tool_choice any needs tools"),
        ({"tool_choice": {"type": "tool", "name": "x"}}, "names the tool 'x', which is not among"),
        ({"thinking": {"type": "enabled", "budget_tokens": -1}}, "must not be negative"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format must be"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused(fields, words):
    with pytest.raises(BadRequest, match=words):
        request(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"messages": [user([{"type": "document", "source": {"type": "url", "url": "u"}}])]},
    ],
)
def test_what_runs_elsewhere_only_is_refused(fields):
    with pytest.raises(Unsupported, match="not supported"):
        request(**fields)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
BLOCK_TYPES = ["text", "image", "tool_use", "tool_result", "document", "thinking"]
BLOCK_FIELDS = ("text", "source", "id", "name", "input", "content", "thinking")
BLOCKS = st.fixed_dictionaries(
    {"type": st.sampled_from(BLOCK_TYPES)}, optional=dict.fromkeys(BLOCK_FIELDS, JSON)
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.just("user") | JSON, "content": st.lists(BLOCKS, max_size=3) | JSON}
    ),
    min_size=1,
    max_size=3,
)
OTHERS = (
    "system", "tools", "tool_choice", "thinking", "stop_sequences", "output_config", "temperature"
)  # fmt: skip


@settings(max_examples=30)
@given(MESSAGES, st.just(1) | JSON, st.dictionaries(st.sampled_from(OTHERS), JSON))
def test_any_body_is_read_or_refused(messages, max_tokens, fields):
    refusals: list[int] = []
    try:
        request(*messages, max_tokens=max_tokens, **fields)
    except LocalrunError as error:
        refusals.append(error.status)
    assert not refusals or 400 <= refusals[0] < 500
