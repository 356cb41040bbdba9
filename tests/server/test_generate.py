"""/api/generate and /api/chat over real HTTP."""

import json
import socket
from typing import Any

import pytest


def records(response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.split("\n") if line]


def ask(client, **body):
    return client.post("/api/generate", json={"model": "tiny", "prompt": "hello", **body})


def test_a_stream_has_ollamas_records_with_their_keys_in_order(client):
    response = ask(client)
    assert response.headers["content-type"] == "application/x-ndjson"
    *deltas, last = records(response)
    assert [d["response"] for d in deltas] == ["t0 ", "t1 ", "t2 ", "t3 ", "t4 "]
    assert all(list(d) == ["model", "created_at", "response", "done"] for d in deltas)
    assert list(last) == [
        "model", "created_at", "response", "done", "done_reason", "context", "total_duration",
        "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
        "eval_duration",
    ]  # fmt: skip
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "stop")
    assert last["eval_count"] == 5
    assert last["prompt_eval_duration"] == 2_000_000
    assert last["created_at"].endswith("Z")
    assert last["context"][-5:] == [201, 202, 203, 204, 205]
    assert len(last["context"]) == last["prompt_eval_count"] + 5


def test_one_object_has_the_whole_text(client):
    response = ask(client, stream=False, options={"num_predict": 2})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    body = response.json()
    assert (body["response"], body["done_reason"]) == ("t0 t1 ", "length")


def test_a_chat_streams_messages(client):
    response = client.post(
        "/api/chat", json={"model": "tiny", "messages": [{"role": "User", "content": "hi"}]}
    )
    *deltas, last = records(response)
    assert deltas[0]["message"] == {"role": "assistant", "content": "t0 "}
    assert last["message"] == {"role": "assistant", "content": ""}
    assert list(last)[:5] == ["model", "created_at", "message", "done", "done_reason"]
    assert "context" not in last


def test_the_model_in_the_answer_is_as_the_client_wrote_it(client):
    assert ask(client, model="TINY:latest", stream=False).json()["model"] == "TINY:latest"


@pytest.mark.parametrize("which", [0, 1, 2])
def test_texts_survive_and_separators_are_escaped(client, which):
    from tests.fakes.runner import TEXTS

    response = ask(client, options={"stop": [f"fake: texts {which}"]})
    texts = list(TEXTS.values())[which]
    assert "".join(r["response"] for r in records(response)) == "".join(texts)
    assert not {"\u0085", "\u2028", "\u2029"} & set(response.text)
    if which == 1:
        assert "天空" in response.text


def test_a_raw_prompt_gets_no_template_and_no_context(client):
    raw = ask(client, raw=True, prompt="hello", stream=False).json()
    templated = ask(client, stream=False).json()
    assert raw["prompt_eval_count"] < templated["prompt_eval_count"]
    assert "context" not in raw


def test_a_context_comes_before_the_new_prompt(client):
    first = ask(client, stream=False).json()
    second = ask(client, stream=False, context=first["context"]).json()
    n = first["prompt_eval_count"]
    assert second["context"][: n + 5] == first["context"]
    assert second["prompt_eval_count"] > n + 5


def test_system_and_template_change_the_prompt(client):
    def rendered(**body):
        answer = ask(client, _debug_render_only=True, **body).json()
        return answer["_debug_info"]["rendered_template"]

    assert "Be brief" in rendered(system="Be brief")
    assert rendered(template="<<{{ .Prompt }}>>") == "<<hello>>"
    assert rendered(template="{% for m in messages %}[{{ m.content }}]{% endfor %}") == "[hello]"
    assert "Be brief." in rendered(model="other")


def test_an_empty_prompt_loads_and_a_keep_alive_of_zero_unloads(client, server):
    loaded = client.post("/api/generate", json={"model": "tiny"})
    assert loaded.headers["content-type"] == "application/json; charset=utf-8"
    assert {**loaded.json(), "created_at": ""} == {
        "model": "tiny", "created_at": "", "response": "", "done": True, "done_reason": "load"
    }  # fmt: skip
    (listed,) = client.get("/api/ps").json()["models"]
    assert (listed["name"], listed["context_length"]) == ("tiny:latest", 512)
    unloaded = client.post("/api/generate", json={"model": "tiny", "keep_alive": 0}).json()
    assert unloaded["done_reason"] == "unload"
    server.wait_for(lambda: client.get("/api/ps").json() == {"models": []})


def test_a_chat_without_messages_loads_and_unloads(client):
    loaded = client.post("/api/chat", json={"model": "tiny", "messages": []}).json()
    assert loaded["message"] == {"role": "assistant", "content": ""}
    assert loaded["done_reason"] == "load"
    unloaded = client.post("/api/chat", json={"model": "tiny", "keep_alive": "0"}).json()
    assert unloaded["done_reason"] == "unload"


def test_a_model_that_is_not_loaded_can_be_unloaded(client):
    body = {"model": "other", "keep_alive": 0}
    assert client.post("/api/generate", json=body).json()["done_reason"] == "unload"


def test_a_prompt_that_does_not_fit_is_refused_before_any_load(client, server):
    client.post("/api/generate", json={"model": "other", "keep_alive": 0})
    n_loads = sum("load" in line for line in server.log())
    response = ask(client, model="other", prompt="hello " * 300)
    assert response.status_code == 400
    body = response.json()
    assert body["code"] == "prompt_too_long"
    assert body["needed"] > body["available"] == body["trained"] == 512
    assert "512" in body["hint"]
    assert sum("load" in line for line in server.log()) == n_loads


def test_a_small_window_says_how_to_raise_it(client):
    body = ask(client, options={"num_ctx": 8}).json()
    assert body["available"] == 8
    assert f"num_ctx={body['needed']}" in body["hint"]


def test_a_smaller_window_is_served_without_a_reload(client, server):
    ask(client, stream=False)
    n_loads = sum("load " in line for line in server.log())
    assert ask(client, stream=False, options={"num_ctx": 100}).status_code == 200
    assert sum("load " in line for line in server.log()) == n_loads
    assert "n_ctx=100" in server.log()[-2]


def test_other_settings_of_a_load_reload_the_idle_runner(client, server):
    ask(client, stream=False)
    n_loads = sum("load " in line for line in server.log())
    assert ask(client, stream=False, options={"num_batch": 64}).status_code == 200
    assert sum("load " in line for line in server.log()) == n_loads + 1


def test_a_disconnect_cancels_the_request(client, server):
    n_cancels = sum("cancel" in line for line in server.log())
    with client.stream(
        "POST",
        "/api/generate",
        json={"model": "tiny", "prompt": "x", "options": {"stop": ["fake: stall 2"]}},
    ) as response:
        lines = response.iter_lines()
        next(lines), next(lines)
    server.wait_for(lambda: sum("cancel" in line for line in server.log()) > n_cancels)
    server.wait_for(lambda: not server.rooms.calls)


def test_a_disconnect_cancels_a_request_that_is_not_streamed(server):
    def count(word):
        return sum(word in line for line in server.log())

    n_cancels, n_stalls = count("cancel"), count("stall")
    body = json.dumps(
        {"model": "tiny", "prompt": "x", "stream": False, "options": {"stop": ["fake: stall 2"]}}
    ).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        head = (
            f"POST /api/generate HTTP/1.1\r\nHost: x.local\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        sock.sendall(head.encode() + body)
        server.wait_for(lambda: count("stall") > n_stalls)
    server.wait_for(lambda: count("cancel") > n_cancels)


def test_a_slow_client_pauses_itself_only(client, server):
    body = json.dumps(
        {"model": "tiny", "prompt": "x", "options": {"stop": ["fake: flood 20000"]}}
    ).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        head = (
            f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        sock.sendall(head.encode() + body)
        sock.recv(1000)
        for _ in range(3):
            assert ask(client, stream=False).json()["response"] == "t0 t1 t2 t3 t4 "
        assert not any(line.endswith(" 20000") for line in server.log())
        assert server.rooms.calls
    server.wait_for(lambda: not server.rooms.calls)


def test_a_flood_reaches_a_client_that_reads(client):
    response = ask(client, stream=False, options={"stop": ["fake: flood 500"]})
    assert response.json()["response"] == "x" * 500 * 1024


def test_an_error_in_the_middle_is_the_last_record(client):
    response = ask(client, options={"stop": ["fake: fail 2"]})
    assert response.status_code == 200
    *deltas, last = records(response)
    assert len(deltas) == 2
    assert last == {"error": "the decode failed", "code": "runner_failed"}


def test_an_error_before_the_first_text_has_its_status(client):
    response = ask(client, options={"stop": ["fake: fail 0"]})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.json()["error"] == "the decode failed"


def test_a_crash_tells_its_last_words_and_the_next_request_is_answered(client):
    *_, last = records(ask(client, options={"stop": ["fake: crash 1"]}))
    assert last["code"] == "runner_failed"
    assert "CUDA error: device is on fire" in last["error"]
    assert "signal 9" in last["error"]
    assert ask(client, stream=False).status_code == 200
