"""What OpenAI's requests say, field by field."""

import json

import pytest

from localrun.errors import BadRequest
from localrun.options import Options, merge_options
from localrun.server.openai.chat import read_chat
from localrun.server.openai.errors import DIALECT, InvalidField, UnsupportedField
from localrun.server.openai.fields import read_body

USER = {"role": "user", "content": "Hi"}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("add", "sub")]


def ask_of(**fields):
    body = {"model": "m", "messages": [USER]} | fields
    return read_chat(json.dumps(body).encode()).ask


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {"temperature": 1.0, "top_p": 1.0}),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
        ({"max_tokens": 5}, {"num_predict": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"num_predict": 7}),
        ({"seed": 3, "stop": "x"}, {"seed": 3, "stop": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop": ["x", "y"]}),
        ({"frequency_penalty": 1, "presence_penalty": -1},
         {"frequency_penalty": 1.0, "presence_penalty": -1.0}),
        ({"options": {"temperature": 0.2, "num_ctx": 64}}, {"temperature": 0.2, "num_ctx": 64}),
        ({"options": {"temperature": 0.2}, "temperature": 0.3}, {"temperature": 0.3}),
        ({"top_k": 5, "min_p": 0.1, "num_ctx": 64}, {"top_k": 5, "min_p": 0.1, "num_ctx": 64}),
        ({"Temperature": 0.25}, {"temperature": 0.25}),
    ],
)  # fmt: skip
def test_fields_become_options(fields, options):
    found = ask_of(**fields).options
    assert found == {"temperature": 1.0, "top_p": 1.0} | options
    merge_options(Options(), found)  # all of them are known, and of the right type


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({}, "n_logprobs", -1),
        ({"logprobs": True}, "n_logprobs", 0),
        ({"logprobs": True, "top_logprobs": 3}, "n_logprobs", 3),
        ({"top_logprobs": 3}, "n_logprobs", 3),
        ({"reasoning_effort": "none"}, "think", False),
        ({"reasoning_effort": "minimal"}, "think", "low"),
        ({"reasoning_effort": "xhigh"}, "think", "max"),
        ({"reasoning": {"effort": "high"}, "reasoning_effort": "low"}, "think", "high"),
        ({"thinking_budget": 0}, "thinking_budget", 0),
        ({"response_format": {"type": "text"}}, "format", None),
        ({"response_format": {"type": "json_object"}}, "format", "json"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"a": 0.5}}}},
         "format", {"a": 0.5}),
        ({"tools": TOOLS}, "tool_choice", "auto"),
        ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice", "required"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "sub"}}},
         "tool_choice", "name:sub"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls", False),
        ({"logit_bias": {"5": -100, "6": 0.5}}, "logit_bias", {5: -100.0, 6: 0.5}),
        ({"n": 3}, "n", 3),
        ({"keep_alive": "2m"}, "keep_alive_s", 120.0),
        ({"chat_template_kwargs": {"a": True}}, "variables", {"a": True}),
        ({"truncate": False}, "truncate", False),
        ({"user": "u", "metadata": {}, "store": True, "service_tier": "x"}, "n", 1),
    ],
)  # fmt: skip
def test_fields_become_an_ask(fields, name, value):
    assert getattr(ask_of(**fields), name) == value


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": {"1": True}}, "logit_bias"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias"),
        ({"reasoning_effort": "most"}, "reasoning_effort"),
        ({"reasoning": {"effort": "most"}}, "reasoning.effort"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "maybe", "tools": TOOLS}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "mul"}}, "tools": TOOLS},
         "tool_choice"),
        ({"tool_choice": {"type": "function"}, "tools": TOOLS}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools"),
        ({"stop": 5}, "stop"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_used_is_named(fields, param):
    with pytest.raises(InvalidField) as caught:
        ask_of(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"functions": TOOLS},
        {"function_call": "auto"},
        {"modalities": ["text", "audio"]},
        {"web_search_options": {"a": 1}},
        {"tools": [{"type": "custom", "custom": {"name": "x"}}]},
    ],
)
def test_what_would_be_ignored_is_refused_with_its_name(fields):
    with pytest.raises(UnsupportedField, match=next(iter(fields)).split("_")[0]):
        ask_of(**fields)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "EOF"),
        (b" \n", "EOF"),
        (b"[]", "json: cannot unmarshal array into Go value of type openai.R"),
        (b"{", "unexpected EOF"),
    ],
)
def test_a_body_that_is_no_object_is_refused_in_go_s_words(body, message):
    with pytest.raises(BadRequest) as caught:
        read_body(body, "R")
    assert caught.value.message == message


def test_an_error_names_its_field_and_keeps_its_hint():
    error = UnsupportedField("no audio", "audio", hint="read")
    assert json.loads(DIALECT.refuse(error)) == {
        "error": {
            "message": "no audio",
            "type": "invalid_request_error",
            "param": "audio",
            "code": "unsupported_parameter",
            "hint": "read",
        }
    }
