"""Answers that are more than text: reasoning, tool calls, formats, log-probabilities, siblings."""

import json
from typing import Any

import pytest

from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny
from tests.server.conftest import THINKER, running

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}},
            "required": ["place"],
        },
    },
}
TINY = "registry.ollama.ai/library/tiny:latest"
CALL = '<tool_call>\n{"name": "weather", "arguments": {"place": "Bergen"}}\n</tool_call>'


def pieces_of(text: str, n: int) -> list[str]:
    """The text in pieces of `n` characters."""
    return [text[at : at + n] for at in range(0, len(text), n)]


def say(client, pieces: list[str], **body):
    """A chat in which the fake runner says these pieces."""
    order = "fake: pieces " + json.dumps(pieces)
    whole = {
        "model": "thinker",
        "messages": [{"role": "user", "content": "hi"}],
        **body,
        "options": {"stop": [order], **body.get("options", {})},
    }
    return client.post("/api/chat", json=whole)


def records(response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def gathered(found: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client has in the end."""
    messages = [record["message"] for record in found]
    return {
        "thinking": "".join(m.get("thinking", "") for m in messages),
        "content": "".join(m["content"] for m in messages),
        "calls": [c["function"] for m in messages for c in m.get("tool_calls", ())],
    }


@pytest.mark.parametrize("n", [1, 3, 1000])
@pytest.mark.parametrize("streams", [True, False])
def test_reasoning_content_and_calls_come_apart(client, n, streams):
    text = f"<think>\nhm\n</think>\n\nLet me see.\n{CALL}"
    found = records(say(client, pieces_of(text, n), tools=[TOOL], stream=streams))
    assert gathered(found) == {
        "thinking": "hm",
        "content": "Let me see.",
        "calls": [{"index": 0, "name": "weather", "arguments": {"place": "Bergen"}}],
    }
    last = found[-1]
    assert (last["done"], last["done_reason"]) == (True, "stop")
    if streams:
        (record,) = [r for r in found if "tool_calls" in r["message"]]
        assert record["done"] is False
        assert record["message"]["content"] == ""
        (call,) = record["message"]["tool_calls"]
        assert len(call["id"]) == 13
        assert call["id"].startswith("call_")


def test_a_call_that_never_ends_is_shown_as_it_was_written(client):
    text = '<tool_call>\n{"name": "weather", "argu'
    found = gathered(records(say(client, [text], tools=[TOOL], think=False)))
    assert found["calls"] == []
    assert found["content"] == text


def test_a_model_that_can_think_does_unless_it_is_told_not_to(client):
    def rendered(**body):
        answer = say(client, [], _debug_render_only=True, **body).json()
        return answer["_debug_info"]["rendered_template"]

    assert rendered() == rendered(think=True) == rendered(think="high")
    assert "<think>\n\n</think>" not in rendered()
    assert rendered(think=False).endswith("<think>\n\n</think>\n\n")


def test_tools_are_in_the_prompt_with_their_keys_in_order(client):
    answer = say(client, [], tools=[TOOL], _debug_render_only=True).json()
    assert json.dumps(TOOL["function"]["parameters"]) in answer["_debug_info"]["rendered_template"]
    assert answer["message"] == {"role": "", "content": ""}
    assert answer["done"] is False


def test_generate_tells_reasoning_apart(client):
    body = {
        "model": "thinker", "prompt": "hi", "stream": False,
        "options": {"stop": ["fake: pieces " + json.dumps(["<think>a", "b</think>", "c"])]},
    }  # fmt: skip
    answer = client.post("/api/generate", json=body).json()
    assert (answer["thinking"], answer["response"]) == ("ab", "c")
    assert list(answer)[:5] == ["model", "created_at", "response", "thinking", "done"]


def test_a_model_without_tools_says_so_in_ollamas_words(client):
    response = client.post(
        "/api/chat",
        json={"model": "tiny", "messages": [{"role": "user", "content": "x"}], "tools": [TOOL]},
    )
    assert response.status_code == 400
    assert (
        response.json()["error"] == "registry.ollama.ai/library/tiny:latest does not support tools"
    )


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
@pytest.mark.parametrize("streams", [True, False])
def test_log_probabilities_stand_beside_their_text(client, path, streams):
    body = {
        "model": "tiny", "prompt": "x", "messages": [{"role": "user", "content": "x"}],
        "logprobs": True, "top_logprobs": 2, "stream": streams,
        "options": {"stop": ['fake: pieces ["é", "", "b"]']},
    }  # fmt: skip
    found = [json.loads(line) for line in client.post(path, json=body).text.splitlines()]
    told = [item for record in found for item in record.get("logprobs", ())]
    assert [item["token"] for item in told] == ["é", "", "b"]
    assert told[0] == {
        "token": "é",
        "logprob": -0.5,
        "bytes": [0xC3, 0xA9],
        "top_logprobs": [
            {"token": "a0", "logprob": -1.0, "bytes": [97, 48]},
            {"token": "a1", "logprob": -2.0, "bytes": [97, 49]},
        ],
    }
    assert len(found) == (3 if streams else 1)


def test_without_alternatives_there_are_only_the_tokens(client):
    found = records(say(client, ["a"], model="tiny", logprobs=True, stream=False))
    assert found[0]["logprobs"] == [{"token": "a", "logprob": -0.5, "bytes": [97]}]
    assert "logprobs" not in records(say(client, ["a"], model="tiny", top_logprobs=3))[0]


@pytest.mark.parametrize("model", ["tiny", "thinker"])
def test_a_format_reaches_the_runner_as_a_grammar(client, server, model):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    for given in ("json", schema):
        assert say(client, ['{"n": 1}'], model=model, format=given).status_code == 200
        assert "grammar" in [line for line in server.log() if line.startswith("submit")][-1]


def test_what_cannot_be_held_is_refused_before_any_load(tmp_path):
    # The window is so wide that the prompt surely fits: the load could begin beside the rendering.
    wide = make_tiny(tmp_path / "wide.gguf", arch="qwen3", n_ctx=8192, chat_template=THINKER)
    store_model(tmp_path / "models", "wide", wide)
    schema = {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    wanted = ({"format": schema}, {"tools": [tool]})
    with running(tmp_path) as server, server.client() as client:
        for body in wanted:
            response = say(client, [], model="wide", **body)
            assert response.status_code == 400
            assert response.json()["error"].startswith("this format cannot be held")
            assert "/nowhere" in response.json()["error"]
            assert not server.rooms.scheduler.has_models
        assert say(client, ["a"], model="wide").status_code == 200
        assert server.rooms.scheduler.has_models


@pytest.mark.parametrize("depth", [100, 250, 420, 900])
def test_a_schema_too_deep_to_be_looked_at_is_refused(client, depth):
    schema = '{"properties": {"a": ' * depth + "{}" + "}}" * depth
    body = f'{{"model": "tiny", "prompt": "x", "stream": false, "format": {schema}}}'
    response = client.post("/api/generate", content=body)
    assert response.status_code in ({200, 400} if depth < 400 else {400})


def test_a_history_that_does_not_fit_loses_whole_turns_and_says_so(client):
    turns = [
        {"role": role, "content": f"{role} says " + "word " * 20}
        for _ in range(12)
        for role in ("user", "assistant")
    ]
    messages = [{"role": "system", "content": "Be kind."}, *turns, {"role": "user", "content": "?"}]
    found = records(say(client, ["ok"], model="tiny", messages=messages))
    assert found[-1]["truncated_messages"] > 0
    assert found[-1]["prompt_eval_count"] <= 512
    whole = say(client, ["ok"], model="tiny", messages=messages, stream=False)
    assert whole.headers["x-localrun-truncated-messages"] == str(found[-1]["truncated_messages"])
    refused = say(client, ["ok"], model="tiny", messages=messages, truncate=False)
    assert refused.status_code == 400
    assert refused.json()["code"] == "prompt_too_long"


def test_a_last_message_that_cannot_fit_is_refused_with_numbers(client):
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": "word " * 600}]
    refused = say(client, [], model="tiny", messages=messages)
    assert refused.status_code == 400
    assert refused.json()["needed"] > refused.json()["available"] == 512


def test_thoughts_that_come_back_are_left_out_of_the_prompt(client):
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nlong\n</think>\n\nb"},
        {"role": "user", "content": "c"},
    ]
    answer = say(client, [], messages=messages, _debug_render_only=True).json()
    assert "long" not in answer["_debug_info"]["rendered_template"]


@pytest.mark.parametrize(
    ("images", "status", "words"),
    [
        (["aGk="], 400, '"tiny" does not support images'),
        (["!!"], 400, "illegal base64 data at input byte 0"),
        (["aGk"], 400, "illegal base64 data at input byte 0"),
        ([], 200, ""),
    ],
)
def test_images_are_refused_where_there_are_no_eyes(client, images, status, words):
    message = {"role": "user", "content": "x", "images": images}
    for path, body in (
        ("/api/chat", {"messages": [message]}),
        ("/api/generate", {"images": images}),
    ):
        response = client.post(path, json={"model": "tiny", "prompt": "x", "stream": False, **body})
        assert response.status_code == status
        if words:
            assert response.json()["error"] == words


def test_a_suffix_needs_a_model_that_can_fill(client):
    body = {"model": "tiny", "prompt": "a", "suffix": "b", "stream": False}
    response = client.post("/api/generate", json=body)
    assert response.status_code == 400
    assert response.json()["error"] == f"{TINY} does not support insert"
    rendered = client.post(
        "/api/generate", json={**body, "model": "filler", "_debug_render_only": True}
    ).json()
    assert rendered["_debug_info"]["rendered_template"] == "<PRE> a <SUF>b <MID>"


@pytest.mark.parametrize(("options", "budget"), [({}, -1), ({"thinking_budget": 7}, 7)])
def test_a_budget_of_the_reasoning_reaches_the_runner(client, server, options, budget):
    assert say(client, ["a"], options=options | {"stop": ['fake: pieces ["a"]']}).status_code == 200
    submits = [line for line in server.log() if line.startswith("submit")]
    assert submits[-1].endswith(f"budget={budget}")
