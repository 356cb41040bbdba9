"""Completions, embeddings and models over HTTP."""

import base64
import json
from array import array

import pytest

from tests.server.openai.conftest import says

PATH = "/v1/completions"


def ask(client, prompt="Hi", **fields):
    return client.post(PATH, json={"model": "tiny", "prompt": prompt} | fields)


def chunks(response):
    records = response.text.split("\n\n")
    assert records[-2:] == ["data: [DONE]", ""]
    return [json.loads(record.removeprefix("data: ")) for record in records[:-2]]


def texts(body):
    return [choice["text"] for choice in body["choices"]]


def test_a_whole_completion(client):
    body = ask(client, **says("Hel", "lo")).json()
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["choices"] == [{"text": "Hello", "index": 0, "finish_reason": "stop"}]
    assert body["usage"]["completion_tokens"] == 2


def test_a_streamed_completion(client):
    found = chunks(
        ask(client, stream=True, stream_options={"include_usage": True}, **says("a", "b"))
    )
    choices = [chunk["choices"][0] for chunk in found[:-1]]
    assert [(choice["text"], choice["finish_reason"]) for choice in choices] == [
        ("a", None),
        ("b", None),
        ("", "stop"),
    ]
    assert {chunk["usage"] for chunk in found[:-1]} == {None}
    assert found[-1]["usage"]["completion_tokens"] == 2


def test_a_prompt_goes_through_the_template_unless_it_is_raw(client):
    def prompt(**fields):
        body = ask(client, _debug_render_only=True, **fields).json()
        return body["_debug_info"]["rendered_template"]

    assert prompt() == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert prompt(raw=True) == "Hi"


def test_several_prompts_are_answered_in_their_order(client):
    body = ask(client, ["one", "two"], n=2, echo=True, **says("!")).json()
    assert texts(body) == ["one!", "one!", "two!", "two!"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert body["usage"]["completion_tokens"] == 4


def test_several_streamed_prompts_share_a_stream(client):
    found = chunks(ask(client, ["one", "two"], echo=True, stream=True, **says("!")))
    gathered = ["", ""]
    for chunk in found:
        gathered[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert gathered == ["one!", "two!"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found].count("stop") == 2


def test_one_prompt_that_fails_fails_all(client):
    response = ask(client, ["one", "two", "three"], stop=["fake: fail 1"])
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "the decode failed"


def test_prompts_in_tokens_are_taken_as_they_are_behind_the_model_s_first_token(client):
    tokens = client.post("/api/tokenize", json={"model": "tiny", "text": "hey"}).json()["tokens"]
    body = ask(client, [tokens, tokens], echo=True, **says("!")).json()
    assert [text.strip() for text in texts(body)] == ["hey!", "hey!"]
    assert body["usage"]["prompt_tokens"] == 2 * (1 + len(tokens))


def test_the_best_of_several(client):
    body = ask(client, best_of=3, **says("a", "b")).json()
    assert texts(body) == ["ab"]
    assert "logprobs" not in body["choices"][0]
    assert body["usage"]["completion_tokens"] == 6


def test_log_probabilities_in_the_older_form(client):
    body = ask(client, logprobs=1, **says("é", "b")).json()
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["é", "b"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"a0": -1.0}, {"a0": -1.0}],
        "text_offset": [0, 1],
    }
    found = chunks(ask(client, logprobs=0, stream=True, **says("é", "b")))
    told = [choice["logprobs"] for chunk in found if "logprobs" in (choice := chunk["choices"][0])]
    assert [(item["tokens"], item["text_offset"]) for item in told] == [(["é"], [0]), (["b"], [1])]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [["a"]]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1 << 31]}, "prompt"),
        ({"prompt": {}}, None),
        ({"n": 0}, "n"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"suffix": "x", "prompt": [5]}, "suffix"),
        ({"suffix": "x"}, None),
    ],
)
def test_a_completion_that_cannot_be(client, fields, param):
    response = client.post(PATH, json={"model": "tiny", "prompt": "Hi"} | fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_vectors_as_numbers_and_as_base64(client):
    def embed(value, **fields):
        return client.post("/v1/embeddings", json={"model": "tiny", "input": value} | fields).json()

    body = embed(["a", "b c"])
    assert body["object"] == "list"
    assert [item["index"] for item in body["data"]] == [0, 1]
    assert body["data"][0]["embedding"][:2] == pytest.approx([0.6, 0.8])
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 2
    packed = array(
        "f", base64.b64decode(embed("a", encoding_format="base64")["data"][0]["embedding"])
    )
    assert list(packed) == pytest.approx(body["data"][0]["embedding"])
    assert len(embed([[5, 6], [7, 8]])["data"]) == 2
    assert embed([5, 6], dimensions=2)["data"][0]["embedding"] == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"input": None}, 400, "invalid input"),
        ({"input": []}, 400, "invalid input"),
        ({"input": [1.5]}, 400, "invalid input type"),
        ({"input": 7}, 400, "invalid input type"),
        ({"input": [366]}, 400, "the model has the tokens 0 to 365"),
        ({"encoding_format": "int8"}, 400,
         "Invalid value for 'encoding_format' = int8. Supported values: ['float', 'base64']."),
        ({"model": "nope"}, 404, 'model "nope" not found, try pulling it first'),
    ],
)  # fmt: skip
def test_an_embedding_that_cannot_be(client, fields, status, message):
    response = client.post("/v1/embeddings", json={"model": "tiny", "input": "a"} | fields)
    assert response.status_code == status
    assert response.json()["error"]["message"] == message


def test_models(client):
    body = client.get("/v1/models").json()
    assert {item["id"]: item["owned_by"] for item in body["data"]} == {
        "tiny:latest": "library",
        "thinker:latest": "library",
        "someone/thinker:v2": "someone",
    }
    found = client.get("/v1/models/someone/thinker:v2").json()
    assert (found["id"], found["object"]) == ("someone/thinker:v2", "model")
    assert found in body["data"]
    missing = client.get("/v1/models/nope")
    assert missing.status_code == 404
    assert missing.json()["error"]["message"] == "model 'nope:latest' not found"
    assert client.delete("/v1/models/tiny").status_code == 405
