"""The Messages API over HTTP, on a runner that says what it is told."""

import json

import pytest

from tests.server.anthropic.test_writer import events, put_together

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"


def body(*pieces, **fields):
    """A request that is answered by these pieces."""
    base = {"model": "tiny", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    order = [f"fake: pieces {json.dumps(pieces)}"] if pieces else []
    return {**base, "stop_sequences": order, **fields}


def test_a_whole_answer(client):
    response = client.post(MESSAGES, json=body("Hel", "lo"))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["request-id"].startswith("req_")
    message = response.json()
    assert message["content"] == [{"type": "text", "text": "Hello"}]
    assert (message["model"], message["stop_reason"]) == ("tiny", "model_context_window_exceeded")
    assert message["usage"]["output_tokens"] == 2
    assert (
        message["usage"]["input_tokens"] == client.post(COUNT, json=body()).json()["input_tokens"]
    )


def test_a_stream(client):
    with client.stream("POST", MESSAGES, json=body("Hel", "lo", stream=True)) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache"
        found = events(response.read())
    assert put_together(found) == [{"type": "text", "text": "Hello"}]
    usage = found[0][1]["message"]["usage"]
    assert usage["input_tokens"] == client.post(COUNT, json=body()).json()["input_tokens"]


def test_counting_loads_nothing(server, client):
    before = server.log()
    n_tokens = client.post(COUNT, json={**body(), "model": "other"}).json()["input_tokens"]
    assert n_tokens > 1
    assert not [line for line in server.log()[len(before) :] if line.startswith("load")]


def test_a_prompt_of_any_length_is_counted_and_not_answered(client):
    long = body(messages=[{"role": "user", "content": "word " * 3000}])
    n_tokens = client.post(COUNT, json=long).json()["input_tokens"]
    response = client.post(MESSAGES, json=long)
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert message == f"prompt is too long: {n_tokens + 1} tokens > 512 maximum"


@pytest.mark.parametrize(
    ("request_body", "status", "kind", "message"),
    [
        ("", 400, "invalid_request_error", "missing request body"),
        ("{}", 400, "invalid_request_error", "model is required"),
        (json.dumps(body(model="nope")), 404, "not_found_error", "model 'nope' not found"),
        (json.dumps(body(top_k=1.5)), 400, "invalid_request_error", None),
        (json.dumps(body(messages=[{"role": "user", "content": [
            {"type": "image", "source": {"type": "base64", "data": "iVBORw0KGgo="}}]}])),
         400, "invalid_request_error", '"tiny" does not support images'),
    ],
)  # fmt: skip
def test_errors_are_said_in_anthropics_form(client, request_body, status, kind, message):
    response = client.post(MESSAGES, content=request_body)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    error = response.json()
    assert (error["type"], error["error"]["type"]) == ("error", kind)
    assert error["request_id"] == response.headers["request-id"]
    assert message in (None, error["error"]["message"])


def test_an_error_in_mid_stream_is_an_event(client):
    request = body(stop_sequences=["fake: fail 2"], stream=True)
    found = events(client.post(MESSAGES, json=request).content)
    assert [name for name, _ in found][-2:] == ["content_block_delta", "error"]
    assert found[-1][1]["error"]["message"] == "the decode failed"


WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
SAID = [
    "<think>\nHm, ", "Rome.\n</think>\n\n", "Let me see.\n", "<tool_call>\n", '{"name": "weather",',
    ' "arguments": {"city": ', '"Rome"}}\n</tool_call>',
]  # fmt: skip


def test_reasoning_words_and_calls_are_blocks_streamed_or_not(client):
    request = body(*SAID, model="thinker", tools=[WEATHER], max_tokens=7)
    whole = client.post(MESSAGES, json=request).json()
    thinking, words, call = whole["content"]
    assert (thinking["type"], thinking["thinking"].strip()) == ("thinking", "Hm, Rome.")
    assert (words["type"], words["text"].strip()) == ("text", "Let me see.")
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "weather", {"city": "Rome"})
    found = events(client.post(MESSAGES, json={**request, "stream": True}).content)
    streamed = put_together(found)
    assert [block["type"] for block in streamed] == ["thinking", "text", "tool_use"]
    assert streamed[0]["thinking"] == thinking["thinking"]
    assert streamed[1]["text"] == words["text"]
    assert json.loads(streamed[2]["json"]) == {"city": "Rome"}
    assert streamed[2]["id"] != call["id"]


def test_what_a_tool_found_is_part_of_the_next_prompt(client):
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}
    turns = [
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    counts = [
        client.post(
            COUNT, json={"model": "thinker", "messages": turns[:n], "tools": [WEATHER]}
        ).json()["input_tokens"]
        for n in (1, 2, 3)
    ]
    assert counts[0] < counts[1] < counts[2]
