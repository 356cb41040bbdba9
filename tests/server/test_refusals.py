"""What is refused, in which words, with which status."""

import asyncio
import json
import re
import socket

import pytest

from localrun.config import Settings
from localrun.server.answers import Call, Endpoint, Scope
from localrun.server.rooms import make_rooms

NOT_FOUND = {
    "error": "model 'nope' not found", "code": "model_not_found", "hint": "localrun pull nope"
}  # fmt: skip
GENERATE, CHAT = "/api/generate", "/api/chat"


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        (GENERATE, "", 400, "missing request body"),
        (GENERATE, "  \n", 400, "missing request body"),
        (GENERATE, '{"model":', 400, "unexpected EOF"),
        (GENERATE, '{"model":"a', 400, "unexpected EOF"),
        (GENERATE, "x", 400, "invalid character 'x' looking for beginning of value"),
        (GENERATE, "{x}", 400, "invalid character 'x' looking for beginning of object key string"),
        (GENERATE, '{"a" 1}', 400, "invalid character '1' after object key"),
        (GENERATE, '{"a":1 2}', 400, "invalid character '2' after object key:value pair"),
        (GENERATE, "NaN", 400, "invalid character 'N' looking for beginning of value"),
        (GENERATE, "[" * 100_000, 400, "invalid character '[' exceeded max depth"),
        (GENERATE, "[]", 400,
         "json: cannot unmarshal array into Go value of type api.GenerateRequest"),
        (GENERATE, '{"model":1}', 400,
         "json: cannot unmarshal number into Go struct field GenerateRequest.model of type string"),
        (GENERATE, '{"model":"tiny","stream":"no"}', 400,
         "json: cannot unmarshal string into Go struct field GenerateRequest.stream of type bool"),
        (CHAT, '{"model":"tiny","messages":"hi"}', 400,
         ("json: cannot unmarshal string into Go struct field ChatRequest.messages"
          " of type []api.Message")),
        (CHAT, '{"model":"tiny","messages":[{"content":[]}]}', 400,
         ("json: cannot unmarshal array into Go struct field ChatRequest.messages.content"
          " of type string")),
        (CHAT, '{"model":"tiny","messages":["hi"]}', 400,
         ("json: cannot unmarshal string into Go struct field ChatRequest.messages"
          " of type api.Alias")),
        (GENERATE, '{"model":"tiny","images":""}', 400,
         ("json: cannot unmarshal string into Go struct field GenerateRequest.images"
          " of type []api.ImageData")),
        (GENERATE, "null", 404, "model '' not found"),
        (GENERATE, "{}", 404, "model '' not found"),
        (CHAT, "{}", 400, "model is required"),
        ("/api/show", "{}", 400, "model is required"),
        ("/api/pull", "{}", 400, "invalid model name"),
        (GENERATE, '{"model":"nope"}', 404, "model 'nope' not found"),
        (CHAT, '{"model":"nope"}', 404, "model 'nope' not found"),
        ("/api/show", '{"name":"nope"}', 404, "model 'nope:latest' not found"),
        (GENERATE, '{"model":"a//b"}', 400, "invalid model name"),
        (GENERATE, '{"model":"tiny","prompt":"x","raw":true,"system":"s"}', 400,
         "raw mode does not support template, system, or context"),
        (GENERATE, '{"model":"tiny","top_logprobs":21}', 400,
         "top_logprobs must be between 0 and 20"),
        (GENERATE, '{"model":"tiny","keep_alive":"10"}', 400,
         'time: missing unit in duration "10"'),
        (GENERATE, '{"model":"tiny","keep_alive":""}', 400, 'time: invalid duration ""'),
        (GENERATE, '{"model":"tiny","keep_alive":true}', 400, "Unsupported type: 'bool'"),
        (GENERATE, '{"model":"tiny","prompt":"x","options":{"num_ctx":"big"}}', 400,
         'option "num_ctx" must be of type integer'),
        (GENERATE, '{"model":"tiny","prompt":"x","options":{"stop":"a"}}', 400,
         'option "stop" must be of type array'),
        (GENERATE, '{"model":"tiny","think":"x"}', 400,
         'invalid think value: "x" (must be "high", "medium", "low", "max", true, or false)'),
        (GENERATE, '{"model":"tiny","think":1}', 400,
         'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'),
        (GENERATE, '{"model":"tiny","prompt":"x","think":true}', 400,
         '"tiny" does not support thinking'),
        (GENERATE, '{"model":"tiny","prompt":"x","context":[99999999999]}', 400,
         "context holds a number that is no token"),
        (GENERATE, '{"model":"tiny","prompt":"x","format":"yaml"}', 400,
         r'invalid format: "\"yaml\""; expected "json" or a valid JSON Schema object'),
    ],
)  # fmt: skip
def test_a_bad_request_is_answered_in_ollamas_words(client, path, body, status, error):
    response = client.post(path, content=body)
    assert (response.status_code, response.json()["error"]) == (status, error)
    assert response.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    "extra",
    [
        {"think": False}, {"format": ""}, {"format": None}, {"images": []}, {"suffix": ""},
        {"unknown": [1]}, {"options": None}, {"options": {"nonsense": 1, "seed": None}},
        {"truncate": True}, {"keep_alive": -1}, {"keep_alive": "1h30m"}, {"keep_alive": None},
    ],
)  # fmt: skip
def test_what_asks_for_nothing_special_is_fine(client, extra):
    body = {"model": "tiny", "prompt": "x", "stream": False, **extra}
    assert client.post(GENERATE, json=body).status_code == 200


def test_no_tools_are_fine(client):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "tools": []}
    assert client.post(CHAT, json={**body, "stream": False}).status_code == 200


def test_names_of_fields_may_have_any_case_and_the_content_type_does_not_matter(client):
    response = client.post(
        GENERATE,
        content='{"MODEL":"tiny","Prompt":"x","STREAM":false} trailing garbage',
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert response.status_code == 200


def test_odd_characters_are_taken_as_they_are(client):
    body = '{"model":"tiny","stream":false,"raw":true,"prompt":"a\\u0000b\\ud800c\\ud83d\\ude00"}'
    assert client.post(GENERATE, content=body).status_code == 200
    assert client.post(GENERATE, content=b'{"model":"tiny","prompt":"\xff"}').status_code == 200


def test_a_lone_surrogate_in_a_name_is_an_error_not_a_crash(client):
    response = client.post(GENERATE, content='{"model":"\\ud800"}')
    assert (response.status_code, response.json()["error"]) == (400, "invalid model name")


def test_a_body_that_is_too_large_is_refused(client):
    response = client.post(GENERATE, content=b" " * ((32 << 20) + 1))
    assert response.status_code == 413
    assert "32 MiB" in response.json()["error"]


def test_a_missing_model_comes_with_the_command_that_mends_it(client):
    assert client.post(GENERATE, json={"model": "nope"}).json() == NOT_FOUND


@pytest.mark.parametrize(
    ("method", "path", "status", "text", "location"),
    [
        ("GET", "/nothing", 404, "404 page not found", None),
        ("GET", "/api/generate", 405, "405 method not allowed", None),
        ("POST", "/api/tags", 405, "405 method not allowed", None),
        ("HEAD", "/api/ps", 405, "", None),
        ("GET", "/api/tags/", 301, "", "/api/tags"),
        ("POST", "/api/generate/", 307, "", "/api/generate"),
        ("GET", "/api/generate/", 404, "404 page not found", None),
        ("GET", "/api//tags", 307, "", "/api/tags"),
        ("POST", "/api//generate?x=1", 307, "", "/api/generate?x=1"),
        ("GET", "/", 200, "Ollama is running", None),
        ("HEAD", "/", 200, "", None),
        ("HEAD", "/api/version", 200, "", None),
        ("HEAD", "/api/tags", 200, "", None),
    ],
)
def test_paths_and_methods_are_answered_as_ollama_does(
    client, method, path, status, text, location
):
    response = client.request(method, path)
    if location and method == "GET":
        assert f'<a href="{location}">' in response.text
        assert response.headers["content-type"] == "text/html; charset=utf-8"
    else:
        assert response.text == text
    assert response.status_code == status
    assert response.headers.get("location") == location
    if status in (404, 405):
        assert response.headers["content-type"] == "text/plain"


def test_a_wrong_method_is_told_the_right_ones(client):
    assert client.post("/api/tags").headers["allow"] == "HEAD, GET"
    assert client.get("/api/delete").headers["allow"] == "DELETE"


@pytest.mark.parametrize(
    ("line", "status", "allow"),
    [
        (b"FOO /api/tags?x=1 HTTP/1.1", b"405", b"Allow: HEAD, GET"),
        (b"get /v1/models/tiny HTTP/1.1", b"405", b"Allow: GET"),
        (b"BREW /nothing HTTP/1.1", b"404", b"404 page not found"),
        (b"GET /api/tags HTTP/9", b"400", b""),
        (b"\x16\x03\x01 hello", b"400", b""),
    ],
)
def test_a_method_that_nobody_knows_is_told_the_right_ones(server, line, status, allow):
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(line + b"\r\nHost: localhost\r\n\r\n")
        answer = b""
        while data := sock.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert allow in answer


def test_the_server_names_itself(client):
    from localrun import __version__

    response = client.get("/api/version")
    assert response.json() == {"version": __version__}
    assert response.headers["server"] == f"localrun/{__version__}"


async def broken(call: Call) -> None:
    raise ZeroDivisionError("secret detail")


def test_an_unexpected_error_is_one_line_and_no_hung_client(models):
    rooms = make_rooms(Settings(home=models, models=models / "models"))
    sent: list[Scope] = []

    async def receive() -> Scope:
        return {"type": "http.request"} if not sent else {"type": "http.disconnect"}

    async def send(message: Scope) -> None:
        sent.append(message)

    scope = {"method": "POST", "path": GENERATE, "headers": []}
    asyncio.run(Endpoint(broken, rooms)(scope, receive, send))
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"]) == {
        "error": "internal error: ZeroDivisionError", "code": "internal"
    }  # fmt: skip


def test_requests_are_counted_by_their_route_however_many_paths_it_has(client):
    for name in ("one", "two"):
        client.get(f"/v1/models/{name}")
    text = client.get("/metrics").text
    paths = re.findall(r'localrun_requests_total\{path="(/v1/models/.*)"\}', text)
    assert paths == ["/v1/models/{name:path}"]


def test_every_error_is_counted(client):
    client.post(GENERATE, json={"model": "nope"})
    text = client.get("/metrics").text
    assert 'localrun_errors_total{code="model_not_found"}' in text
    assert json.dumps("localrun_budget_bytes")[1:-1] in text
