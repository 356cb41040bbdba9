"""Responses over HTTP: their events, and what is kept of them."""

import json

import pytest

from tests.server.openai.conftest import FUNCTION, call_text, says

PATH = "/v1/responses"
TOOL = {"type": "function", **FUNCTION}


def ask(client, value="Hi", model="tiny", said=(), **fields):
    fields = {"model": model, "input": value, "options": says(*said) if said else {}} | fields
    return client.post(PATH, json=fields)


def events(response):
    """The events of a stream: numbered without a gap, each named as its data says."""
    assert response.headers["content-type"] == "text/event-stream"
    records = response.text.split("\n\n")
    assert records.pop() == ""
    found = []
    for number, record in enumerate(records):
        name, data = record.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
        assert found[-1]["sequence_number"] == number
    return found


def test_a_whole_response(client):
    body = ask(client, said=["Hel", "lo"], metadata={"a": "b"}).json()
    assert body["id"].startswith("resp_")
    assert (body["object"], body["status"], body["model"]) == ("response", "completed", "tiny")
    (message,) = body["output"]
    assert message["content"] == [
        {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
    ]
    assert body["usage"]["output_tokens"] == 2
    assert body["metadata"] == {"a": "b"}
    assert body["completed_at"] >= body["created_at"]


def test_a_streamed_response_has_its_events_in_order(client):
    said = ["<think>hm", "m</think>", "Hel", "lo", *call_text('{"a"', ": 1}")]
    found = events(ask(client, model="thinker", said=said, tools=[TOOL], stream=True))
    kinds = [event["type"].removeprefix("response.") for event in found]
    assert [kind for at, kind in enumerate(kinds) if kind != kinds[at - 1]] == [
        "created", "in_progress",
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
        "reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    response = found[-1]["response"]
    assert response["output"] == done
    reasoning, message, call = done
    assert reasoning["encrypted_content"] == reasoning["summary"][0]["text"] == "hmm"
    assert message["content"][0]["text"] == "Hello"
    assert (call["name"], json.loads(call["arguments"])) == ("add", {"a": 1})


def test_a_response_that_is_cut_by_its_length_is_incomplete(client):
    body = ask(client, max_output_tokens=2).json()
    assert (body["status"], body["completed_at"]) == ("incomplete", None)
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert body["output"][0]["status"] == "incomplete"
    found = events(ask(client, max_output_tokens=2, stream=True))
    assert found[-1]["type"] == "response.incomplete"
    assert found[-1]["response"]["output"][0]["status"] == "incomplete"


def test_a_response_goes_on_from_an_earlier_one(client):
    first = ask(client, "One", said=["1"], instructions="Count.").json()
    fields = {"previous_response_id": first["id"], "instructions": "Go on."}
    second = ask(client, "Two", said=["2"], **fields).json()
    assert second["previous_response_id"] == first["id"]
    path = f"{PATH}/{second['id']}"
    assert client.get(path).json() == second
    listed = client.get(f"{path}/input_items", params={"order": "asc"}).json()
    said = [(item["role"], item["content"][0]["text"]) for item in listed["data"]]
    assert said == [("user", "One"), ("assistant", "1"), ("user", "Two")]
    whole = [{"role": role, "content": text} for role, text in said]
    counted = client.post(
        "/v1/chat/completions/input_tokens",
        json={"model": "tiny", "messages": [{"role": "system", "content": "Go on."}, *whole]},
    ).json()
    assert second["usage"]["input_tokens"] == counted["input_tokens"]


def test_input_items_come_in_pages(client):
    value = [{"role": "user", "content": str(at)} for at in range(5)]
    name = ask(client, value, said=["ok"]).json()["id"]

    def page(**query):
        body = client.get(f"{PATH}/{name}/input_items", params=query).json()
        return [item["content"][0]["text"] for item in body["data"]], body

    assert page()[0] == ["4", "3", "2", "1", "0"]
    texts, body = page(order="asc", limit=2)
    assert (texts, body["has_more"]) == (["0", "1"], True)
    texts, body = page(order="asc", limit=3, after=body["last_id"])
    assert (texts, body["has_more"]) == (["2", "3", "4"], False)
    assert client.get(f"{PATH}/{name}/input_items", params={"limit": 0}).status_code == 400


def test_a_response_can_be_forgotten(client):
    name = ask(client, said=["ok"]).json()["id"]
    assert client.delete(f"{PATH}/{name}").json() == {
        "id": name,
        "object": "response",
        "deleted": True,
    }
    assert client.get(f"{PATH}/{name}").status_code == 404
    error = ask(client, previous_response_id=name).json()["error"]
    assert (error["code"], error["param"]) == (
        "previous_response_not_found",
        "previous_response_id",
    )


def test_a_response_that_is_not_to_be_stored_is_not(client):
    body = ask(client, said=["ok"], store=False).json()
    assert body["store"] is False
    assert client.get(f"{PATH}/{body['id']}").status_code == 404


def test_a_broken_stream_ends_with_a_failed_response(client):
    found = events(ask(client, stream=True, options={"stop": ["fake: fail 1"]}))
    error, failed = found[-2:]
    assert (error["type"], error["message"]) == ("error", "the decode failed")
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"]["code"] == "server_error"


def test_functions_of_a_namespace_come_back_with_it(client):
    space = {"type": "namespace", "name": "math", "tools": [TOOL]}
    said = [text.replace('"add"', '"math.add"') for text in call_text('{"a": 1}')]
    search = {"type": "web_search"}
    body = ask(client, model="thinker", said=said, tools=[space, search]).json()
    (call,) = body["output"]
    assert (call["namespace"], call["name"]) == ("math", "add")
    assert body["tools"] == [space]


def test_tokens_are_counted_without_an_answer(client):
    counted = client.post(f"{PATH}/input_tokens", json={"model": "tiny", "input": "Hi"}).json()
    assert counted["object"] == "response.input_tokens"
    usage = ask(client, said=["ok"]).json()["usage"]
    assert counted["input_tokens"] == usage["input_tokens"]


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"input": 1}, "input", "input must be a string or array"),
        ({"input": None}, "input", "input is missing"),
        ({"input": [1]}, "input[0]", "input[0]: is no object"),
        ({"input": [{}]}, "input[0]", "input[0]: input item missing required 'type' field"),
        ({"input": [{"type": "x"}]}, "input[0]", 'input[0]: unknown input item type: "x"'),
        ({"input": [{"role": "user", "content": [{"type": "x"}]}]}, "input[0]",
         "input[0]: content[0]: unknown content type: x"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0]",
         "file inputs are not currently supported"),
        ({"background": True}, "background", "background is not supported"),
        ({"conversation": "c"}, "conversation", "conversation is not supported"),
        ({"tools": [{"type": "custom"}]}, "tools", 'tools of type "custom" are not supported'),
        ({"truncation": "x"}, "truncation", "truncation must be auto or disabled"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format", "text.format has no schema"),
    ],
)  # fmt: skip
def test_a_response_that_cannot_be(client, fields, param, message):
    response = client.post(PATH, json={"model": "tiny", "input": "Hi"} | fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["message"]) == (param, message)
