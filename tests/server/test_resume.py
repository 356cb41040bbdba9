"""Dropped connections that are picked up again, in every dialect."""

import itertools
import json

import pytest

from localrun.server.rooms import Patience
from tests.server.conftest import running
from tests.server.test_codings import PACKERS

_numbers = itertools.count()
PATHS = ["/api/generate", "/api/chat", "/v1/chat/completions", "/v1/messages"]


def request(path, order, **fields):
    """A streamed request that a fake runner answers by an order."""
    stop = [f"fake: {order}"]
    base = {"model": "tiny", "stream": True}
    if path.startswith("/api"):
        base |= {"options": {"stop": stop}}
    else:
        base |= {"stop": stop, "stop_sequences": stop, "max_tokens": 5}
    if path == "/api/generate":
        return {**base, "prompt": "hi", **fields}
    return {**base, "messages": [{"role": "user", "content": "hi"}], **fields}


def named():
    """The header of a fresh stream."""
    return {"x-localrun-stream": f"stream-{next(_numbers)}"}


def again(headers, start):
    return {**headers, "x-localrun-stream-from": str(start)}


def read_some(client, path, body, headers, n_bytes):
    """At least so many bytes of an answer; then the connection is dropped."""
    found = b""
    with client.stream("POST", path, json=body, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["x-localrun-stream"] == headers["x-localrun-stream"]
        for piece in response.iter_raw():
            found += piece
            if len(found) >= n_bytes:
                break
    return found


def n_submits(server):
    return sum("submit" in line for line in server.log())


@pytest.mark.parametrize("path", PATHS)
def test_the_rest_comes_after_a_drop_byte_by_byte(server, client, path):
    body, headers = request(path, 'pieces ["Hel", "lo", " you", "\\u2028", "."]'), named()
    before = n_submits(server)
    first = read_some(client, path, body, headers, 20)
    for lost in (0, 7):
        has = first[: len(first) - lost]
        rest = client.post(path, json=body, headers=again(headers, len(has))).content
        assert has + rest == client.post(path, json=body, headers=headers).content
        assert has + rest == client.get(f"/v1/stream/{headers['x-localrun-stream']}").content
    assert n_submits(server) == before + 1


def test_a_dropped_stream_is_paused_and_loses_nothing(server, client):
    path = "/api/generate"
    body, headers = request(path, "flood 6000"), named()
    has = read_some(client, path, body, headers, 50_000)
    ends = [line for line in server.log() if line.startswith("end ")]
    assert not any(line.endswith(" 6000") for line in ends)
    has += client.post(path, json=body, headers=again(headers, len(has))).content
    records = [json.loads(line) for line in has.splitlines()]
    assert sum(len(record["response"]) for record in records) == 6000 * 1024
    assert records[-1]["done"]


def test_a_whole_answer_can_be_read_again(server, client):
    body, headers = request("/api/chat", 'pieces ["Hello"]', stream=False), named()
    first = client.post("/api/chat", json=body, headers=headers)
    rest = client.post("/api/chat", json=body, headers=again(headers, 10))
    assert first.content[10:] == rest.content
    assert rest.headers["content-length"] == str(len(first.content) - 10)
    assert first.headers["content-type"] == rest.headers["content-type"]


def test_who_comes_later_takes_over(client):
    path = "/v1/messages"
    body, headers = request(path, "flood 6000", max_tokens=50), named()
    with client.stream("POST", path, json=body, headers=headers) as first:
        pieces = first.iter_raw()
        has = next(pieces)
        with client.stream("POST", path, json=body, headers=headers) as second:
            assert next(second.iter_raw()).startswith(has[:500])
            left = b"".join(pieces)
    assert b'"code":"stream_taken"' in left.split(b"\n\n")[-2]


def test_a_stream_can_be_stopped(server, client):
    path = "/api/generate"
    body, headers = request(path, "flood 6000"), named()
    read_some(client, path, body, headers, 1000)
    n_cancels = sum("cancel" in line for line in server.log())
    where = f"/v1/stream/{headers['x-localrun-stream']}"
    assert client.delete(where).status_code == 204
    server.wait_for(lambda: sum("cancel" in line for line in server.log()) > n_cancels)
    assert client.delete(where).status_code == 404
    assert client.get(where).json()["code"] == "not_found"


def test_an_error_is_not_kept(client):
    headers = named()
    body = request("/api/chat", "fail 0", stream=False)
    for _ in range(2):
        assert client.post("/api/chat", json=body, headers=headers).status_code == 500
    assert client.post("/api/chat", json=body, headers=again(headers, 1)).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"x-localrun-stream": "short"}, 400, "8 to 128 characters"),
        ({"x-localrun-stream": "with a space"}, 400, "8 to 128 characters"),
        ({"x-localrun-stream": "x" * 129}, 400, "8 to 128 characters"),
        (again({"x-localrun-stream": "never-seen"}, -1), 400, "no count of bytes"),
        (again({"x-localrun-stream": "never-seen"}, 5), 404, "stream 'never-seen' not found"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_what_cannot_be_resumed_is_refused(client, path, headers, status, words):
    response = client.post(path, json=request(path, "flood 1"), headers=headers)
    assert response.status_code == status
    assert words in response.text


def test_an_id_belongs_to_one_request(client):
    headers = named()
    client.post("/api/chat", json=request("/api/chat", "flood 1"), headers=headers)
    other = client.post("/api/chat", json=request("/api/chat", "flood 2"), headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "stream_taken")


def test_another_key_never_sees_a_stream(models):
    with running(models, api_keys=("one", "two")) as server, server.client() as client:
        headers, path = named(), "/api/chat"
        one, two = ({**headers, "authorization": f"Bearer {key}"} for key in ("one", "two"))
        first = client.post(path, json=request(path, 'pieces ["secret"]'), headers=one).content
        where = f"/v1/stream/{headers['x-localrun-stream']}"
        assert client.get(where, headers=one).content == first
        assert client.get(where, headers=two).status_code == 404
        assert client.delete(where, headers=two).status_code == 404
        same = request(path, 'pieces ["secret"]')
        assert client.post(path, json=same, headers=again(two, 5)).status_code == 404
        assert b"secret" in client.post(path, json=same, headers=two).content
        assert sum("submit" in line for line in server.log()) == 2


def test_who_does_not_come_back_in_time_is_given_up(models):
    patience = Patience(resume_s=0.05)
    with running(models, patience=patience) as server, server.client() as client:
        path, headers = "/api/generate", named()
        read_some(client, path, request(path, "flood 6000"), headers, 1000)
        server.wait_log("cancel")
        where = f"/v1/stream/{headers['x-localrun-stream']}"
        server.wait_for(lambda: client.get(where).status_code == 404)


def test_a_thinking_model_can_be_told_to_answer_now(server, client):
    path, headers = "/api/generate", named()
    body = request(path, "flood 6000")
    with client.stream("POST", path, json=body, headers=headers) as response:
        next(response.iter_raw())
        stream_id = headers["x-localrun-stream"]
        assert client.post("/api/answer_now", json={"stream": stream_id}).status_code == 200
        server.wait_log("end reasoning")
        found = client.post(
            "/v1/chat/completions/control", json={"id": stream_id, "action": "reasoning_end"}
        )
        assert found.json() == {"success": True}


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/api/answer_now", {}, 400, "stream is required"),
        ("/api/answer_now", {"stream": "nobody"}, 404, "stream 'nobody' not found"),
        ("/v1/chat/completions/control", {"action": "reasoning_end"}, 400, "missing completion id"),
        ("/v1/chat/completions/control", {"id": "x"}, 400, "unknown control action"),
        ("/v1/chat/completions/control", {"id": "x", "action": "reasoning_end"}, 200,
         '"success":false'),
    ],
)  # fmt: skip
def test_answer_now_needs_an_answer(client, path, body, status, words):
    response = client.post(path, json=body)
    assert response.status_code == status
    assert words in response.text


@pytest.mark.parametrize("name", ["zstd", "gzip", "deflate"])
@pytest.mark.parametrize("path", PATHS)
def test_compressed_bodies_are_read_on_every_route(client, path, name):
    packed = PACKERS[name](json.dumps(request(path, 'pieces ["Hi"]', stream=False)).encode())
    response = client.post(path, content=packed, headers={"content-encoding": name})
    assert response.status_code == 200
    assert "Hi" in response.text


@pytest.mark.parametrize(
    ("content", "coding", "status"),
    [(b"x", "br", 415), (b"x", "zstd", 400), (bytes(33 << 20), "gzip", 413)],
)
def test_a_body_that_cannot_be_unpacked_is_refused(client, content, coding, status):
    packed = PACKERS[coding](content) if status == 413 else content
    response = client.post("/v1/messages", content=packed, headers={"content-encoding": coding})
    assert response.status_code == status
    assert response.json()["type"] == "error"
