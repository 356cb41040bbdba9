"""Chats over HTTP: real templates and parsers, and a runner that says what it is told."""

import json

import pytest

from tests.server.openai.conftest import ADD, call_text, says

USER = [{"role": "user", "content": "Hi"}]
PATH = "/v1/chat/completions"


def ask(client, model="tiny", messages=USER, **fields):
    return client.post(PATH, json={"model": model, "messages": messages} | fields)


def chunks(response):
    """The chunks of a stream, whose end is marked."""
    assert response.headers["content-type"] == "text/event-stream"
    records = response.text.split("\n\n")
    assert records[-2:] == ["data: [DONE]", ""]
    return [json.loads(record.removeprefix("data: ")) for record in records[:-2]]


def rendered(client, model="thinker", **fields):
    """The prompt of a chat."""
    answer = ask(client, model, _debug_render_only=True, **fields).json()
    return answer["_debug_info"]["rendered_template"]


def test_a_whole_chat(client):
    response = ask(client, **says("Hel", "lo"))
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body["id"].startswith("chatcmpl-")
    assert (body["object"], body["model"]) == ("chat.completion", "tiny")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello"},
            "finish_reason": "stop",
        }
    ]
    usage = body["usage"]
    assert usage["completion_tokens"] == 2
    assert usage["total_tokens"] == usage["prompt_tokens"] + 2
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_a_streamed_chat_names_the_role_once_and_the_reason_alone(client):
    found = chunks(ask(client, stream=True, **says("Hel", "lo")))
    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        {"role": "assistant", "content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, None, "stop"]
    assert len({(chunk["id"], chunk["created"]) for chunk in found}) == 1
    assert not any("usage" in chunk for chunk in found)


def test_a_stream_ends_with_the_usage_where_it_is_asked_for(client):
    options = {"stream_options": {"include_usage": True}}
    found = chunks(ask(client, stream=True, **options, **says("a", "b", "c")))
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["completion_tokens"] == 3


def test_an_empty_completion_still_has_a_role(client):
    found = chunks(ask(client, stream=True, **says()))
    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        {"role": "assistant", "content": ""},
        {},
    ]


def test_reasoning_words_and_a_call(client):
    said = says("<thi", "nk>hm", "m</think>", "Hel", "lo ", *call_text('{"a": 1}'))
    body = ask(client, "thinker", tools=[ADD], **said).json()
    choice = body["choices"][0]
    message = choice["message"]
    assert message["reasoning"] == message["reasoning_content"] == "hmm"
    assert message["content"].strip() == "Hello"
    (call,) = message["tool_calls"]
    assert (call["type"], call["index"]) == ("function", 0)
    assert call["function"]["name"] == "add"
    assert json.loads(call["function"]["arguments"]) == {"a": 1}
    assert choice["finish_reason"] == "tool_calls"


def test_a_streamed_call_has_its_name_first_and_then_its_arguments(client):
    said = says("<think>hm</think>", *call_text('{"a"', ": 1", "}"))
    found = chunks(ask(client, "thinker", tools=[ADD], stream=True, **said))
    deltas = [chunk["choices"][0]["delta"] for chunk in found]
    thoughts = [delta["reasoning"] for delta in deltas if "reasoning" in delta]
    assert "".join(thoughts) == "hm"
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["id"].startswith("call_")
    assert calls[0]["function"] == {"name": "add", "arguments": ""}
    assert not any("id" in call for call in calls[1:])
    arguments = "".join(call["function"]["arguments"] for call in calls)
    assert json.loads(arguments) == {"a": 1}
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_several_completions(client):
    body = ask(client, n=2, **says("a", "b")).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["ab", "ab"]
    assert body["usage"]["completion_tokens"] == 4
    found = chunks(ask(client, n=2, stream=True, **says("a", "b")))
    for index in range(2):
        own = [chunk["choices"][0] for chunk in found if chunk["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in own) == "ab"
        assert own[-1]["finish_reason"] == "stop"


def test_log_probabilities(client):
    body = ask(client, logprobs=True, top_logprobs=1, **says("é", "b")).json()
    first, _ = body["choices"][0]["logprobs"]["content"]
    assert first == {
        "token": "é",
        "logprob": -0.5,
        "bytes": [0xC3, 0xA9],
        "top_logprobs": [{"token": "a0", "logprob": -1, "bytes": [97, 48]}],
    }
    found = chunks(ask(client, logprobs=True, stream=True, **says("a", "b")))
    told = [
        item["token"]
        for chunk in found
        for item in chunk["choices"][0].get("logprobs", {"content": []})["content"]
    ]
    assert told == ["a", "b"]


def test_either_limit_of_the_length(client):
    for fields in ({"max_tokens": 2}, {"max_completion_tokens": 2, "max_tokens": 9}):
        choice = ask(client, **fields).json()["choices"][0]
        assert choice["message"]["content"] == "t0 t1 "
        assert choice["finish_reason"] == "length"


def test_the_texts_of_a_message_are_one_turn(client):
    content = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    prompt = rendered(client, messages=[{"role": "user", "content": content}])
    assert prompt == "<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n"


def test_a_conversation_with_calls_and_reasoning_is_rendered(client):
    call = {"id": "c1", "function": {"name": "add", "arguments": '{"a":1}'}}
    messages = [
        *USER,
        {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]
    assert rendered(client, messages=messages, tools=[ADD]) == (
        "<tools>add</tools><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        '<think>hm</think><tool_call>add{"a": 1}</tool_call><|im_end|>\n'
        "<|im_start|>tool\n2<|im_end|>\n<|im_start|>assistant\n"
    )


def test_no_tool_is_shown_where_none_may_be_called(client):
    assert "<tools>" not in rendered(client, tools=[ADD], tool_choice="none")


def test_allowed_tools_are_the_only_ones(client):
    other = {"type": "function", "function": {"name": "sub"}}
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "sub"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    prompt = rendered(client, tools=[ADD, other], tool_choice=choice)
    assert prompt.startswith("<tools>sub</tools><|im_start|>")


def test_a_history_that_does_not_fit_loses_its_oldest_turns_and_says_so(client):
    messages = [{"role": "user", "content": "word " * 50}, *USER] * 12
    response = ask(client, messages=messages, options={"num_ctx": 512}, **says("ok"))
    n_dropped = int(response.headers["x-localrun-truncated-messages"])
    assert n_dropped > 0
    assert response.json()["usage"]["truncated_messages"] == n_dropped
    error = ask(client, messages=messages, options={"num_ctx": 512}, truncate=False)
    assert error.status_code == 400
    assert error.json()["error"]["code"] == "context_length_exceeded"


def test_a_stream_that_breaks_off_says_why(client):
    response = ask(client, stream=True, stop=["fake: fail 1"])
    first, last, end = response.text.split("\n\n")
    assert json.loads(first.removeprefix("data: "))["choices"][0]["delta"]["content"] == "t0 "
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("api_error", "runner_failed")
    assert error["message"] == "the decode failed"
    assert end == ""


def test_tokens_are_counted_without_an_answer(server, client):
    fields = {"model": "someone/thinker:v2", "messages": USER}
    before = server.log()
    counted = client.post(f"{PATH}/input_tokens", json=fields).json()
    assert counted["object"] == "response.input_tokens"
    assert server.log() == before
    usage = client.post(PATH, json=fields | says("ok")).json()["usage"]
    assert counted["input_tokens"] == usage["prompt_tokens"]


IMAGE = [{"type": "image_url", "image_url": {"url": "data:;base64,AAAA"}}]


@pytest.mark.parametrize(
    ("fields", "status", "kind", "code", "message"),
    [
        ({"model": "nope"}, 404, "not_found_error", "model_not_found", "model 'nope' not found"),
        ({"model": ""}, 400, "invalid_request_error", None, "model is required"),
        ({"messages": []}, 400, "invalid_request_error", None, "[] is too short - 'messages'"),
        ({"messages": [{"role": "user", "content": IMAGE}]}, 400, "invalid_request_error",
         "unsupported", '"tiny" does not support images'),
        ({"tools": [ADD]}, 400, "invalid_request_error", "unsupported",
         "registry.ollama.ai/library/tiny:latest does not support tools"),
        ({"reasoning_effort": "high"}, 400, "invalid_request_error", "unsupported",
         '"tiny" does not support thinking'),
        ({"stop": [1]}, 400, "invalid_request_error", "invalid_value",
         "invalid type for 'stop' field: float64"),
        ({"logit_bias": {"366": 1}}, 400, "invalid_request_error", None, None),
        ({"temperature": "x"}, 400, "invalid_request_error", None,
         ("json: cannot unmarshal string into Go struct field ChatCompletionRequest.temperature"
          " of type float64")),
    ],
)  # fmt: skip
def test_a_refusal_has_openai_s_form(client, fields, status, kind, code, message):
    response = client.post(PATH, json={"model": "tiny", "messages": USER} | fields)
    assert response.status_code == status
    assert response.headers["content-type"].startswith("application/json")
    error = response.json()["error"]
    assert (error["type"], error["code"]) == (kind, code)
    assert "param" in error
    assert message is None or error["message"] == message
