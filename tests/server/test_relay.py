"""Requests that an Ollama daemon answers: passed on as they are, its failures told as ours."""

import json
import socket
import threading

import pytest

from localrun.backends.ollama import Daemon, DaemonLimits
from tests.fakes.daemon import (
    DIE,
    HANG,
    WAIT,
    FakeDaemon,
    Script,
    events,
    fake_daemon,
    ndjson,
    whole,
)
from tests.server.conftest import running

QUICK = DaemonLimits(connect_s=2.0, ask_s=0.2, silence_s=0.1, memory_s=0.0)
TINY = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
THEIRS = {"model": "theirs", "messages": [{"role": "user", "content": "hi"}]}
SAID = {
    "model": "theirs",
    "message": {"role": "assistant", "content": "a <b>\u0085"},
    "done": False,
}
DONE = {"model": "theirs", "message": {"role": "assistant", "content": ""}, "done": True}
NOT_FOUND = whole({"error": "model 'x' not found"}, 404)
CHOSEN = {"x-localrun-backend": "ollama"}


@pytest.fixture(scope="module")
def daemon():
    with fake_daemon() as found:
        yield found


@pytest.fixture(scope="module")
def server(models, daemon):
    with running(models, ollama=f"http://{daemon.address}", daemon_limits=QUICK) as state:
        yield state


@pytest.fixture
def script(daemon):
    """Set the daemon's scripts; the version is always answered."""
    daemon.go_on.clear()
    daemon.gone.clear()
    daemon.asked.clear()
    daemon.hangs = False

    def set_(**scripts) -> FakeDaemon:
        for name, answer in scripts.items():
            daemon.scripts[name] = answer
        return daemon

    before = dict(daemon.scripts)
    yield lambda scripts: set_(**scripts)
    daemon.go_on.set()
    daemon.scripts.clear()
    daemon.scripts.update(before)


def lines(response):
    return [json.loads(line) for line in response.content.split(b"\n") if line]


# ── where a request goes ──────────────────────────────────────────────────────────────────────


def test_a_model_of_ours_is_ours(client, script):
    daemon = script({"POST /api/chat": ndjson(DONE)})
    assert client.post("/api/chat", json=TINY | {"stream": False}).status_code == 200
    assert daemon.paths() == []


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/api/generate", ndjson({"response": "x", "done": True})),
        ("/api/chat", ndjson(SAID, DONE)),
        ("/api/embed", whole({"embeddings": [[1]]})),
        ("/api/embeddings", whole({"embedding": [1]})),
        ("/api/show", whole({"license": "MIT"})),
        ("/v1/chat/completions", events("data: {}", "data: [DONE]")),
        ("/v1/completions", events("data: {}", "data: [DONE]")),
        ("/v1/embeddings", whole({"data": []})),
        ("/v1/responses", events('event: response.completed\ndata: {"x":1}')),
        ("/v1/messages", events('event: message_stop\ndata: {"type":"message_stop"}')),
    ],
)
@pytest.mark.parametrize("how", ["missing", "chosen"])
def test_every_route_passes_through(client, script, path, answer, how):
    daemon = script({f"POST {path}": answer})
    body: dict[str, object] = {"model": "theirs", "input": "hi"}
    if path != "/v1/responses":
        body = THEIRS | {"prompt": "hi", "input": "hi", "max_tokens": 5}
    if how == "chosen":
        body["model"] = "tiny"
    response = client.post(path, json=body, headers=CHOSEN if how == "chosen" else {})
    assert response.status_code == 200
    assert response.headers["content-type"] == answer.content_type
    sent = b"".join(step for step in answer.steps if isinstance(step, bytes))
    assert response.content == sent
    assert daemon.asked[-1].json() == body
    assert daemon.asked[-1].headers["x-localrun-hop"]


def test_unload_and_delete_reach_a_model_that_only_the_daemon_has(client, script):
    gone = ndjson({"model": "theirs", "response": "", "done": True, "done_reason": "unload"})
    daemon = script({"POST /api/generate": gone, "DELETE /api/delete": whole({})})
    unload = client.post("/api/generate", json={"model": "theirs", "keep_alive": 0})
    assert unload.json()["done_reason"] == "unload"
    assert client.request("DELETE", "/api/delete", json={"model": "theirs"}).status_code == 200
    assert daemon.paths() == ["POST /api/generate", "DELETE /api/delete"]


def test_an_empty_answer_stays_empty(client, script):
    script({"POST /api/copy": Script()})
    response = client.post("/api/copy", json={"source": "theirs", "destination": "b"})
    assert (response.status_code, response.content) == (200, b"")


def test_a_model_nobody_has_is_not_found_in_our_words(client, script):
    script({"POST /api/chat": NOT_FOUND})
    response = client.post("/api/chat", json=THEIRS)
    assert response.status_code == 404
    assert response.json()["error"] == "model 'theirs' not found"
    assert "localrun pull" in response.json()["hint"]


@pytest.mark.parametrize("name", ["gpt-oss:cloud", "gpt-oss:120b-cloud"])
def test_nothing_is_sent_to_the_cloud_by_the_way(client, script, name):
    daemon = script({"POST /api/chat": ndjson(DONE)})
    assert client.post("/api/chat", json=THEIRS | {"model": name}).status_code == 404
    assert daemon.paths() == []


def test_what_was_forwarded_once_is_not_forwarded_again(client, script):
    daemon = script({"POST /api/chat": ndjson(DONE), "GET /api/tags": whole({"models": []})})
    for headers in ({"x-localrun-hop": "1"}, {"x-localrun-hop": "1", **CHOSEN}):
        assert client.post("/api/chat", json=THEIRS, headers=headers).status_code == 404
        assert client.get("/api/tags", headers=headers).status_code == 200
    assert daemon.paths() == []


def test_a_server_that_is_its_own_daemon_answers_once(models):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with fake_daemon() as looks_like, running(models, ollama=f"http://127.0.0.1:{port}") as state:
        assert looks_like.port != port
        assert state.rooms is not None
        assert state.rooms.daemon is not None
        state.rooms.daemon = Daemon(state.url)
        with state.client() as client:
            assert client.post("/api/chat", json=THEIRS).status_code == 404
            assert client.post("/api/chat", json=THEIRS, headers=CHOSEN).status_code == 404
            assert state.rooms.counts.calls["/api/chat"] == 4


def test_keys_stay_here(client, script):
    daemon = script({"POST /api/chat": ndjson(DONE)})
    secret = {"authorization": "Bearer k", "x-api-key": "k", "cookie": "k", "user-agent": "me"}
    client.post("/api/chat", json=THEIRS, headers=secret)
    sent = daemon.asked[-1].headers
    assert sent["user-agent"] == "me"
    assert not {"authorization", "x-api-key", "cookie"} & set(sent)


@pytest.mark.parametrize("path", ["/api/pull", "/api/create", "/api/push"])
def test_long_work_is_done_there_only_by_choice(client, script, path):
    daemon = script({f"POST {path}": ndjson({"status": "working"}, {"status": "success"})})
    response = client.post(path, json={"model": "x"}, headers=CHOSEN)
    assert lines(response)[-1] == {"status": "success"}
    assert daemon.paths() == [f"POST {path}"]
    client.post("/api/create", json={"model": "y", "from": "theirs"})
    assert daemon.paths() == [f"POST {path}"]


def test_a_file_is_sent_on_as_it_comes(client, script):
    digest = "sha256:" + "0" * 64
    daemon = script({f"POST /api/blobs/{digest}": whole({})})
    content = b"x" * 300_000
    client.post(f"/api/blobs/{digest}", content=content, headers=CHOSEN)
    assert daemon.asked[-1].body == content


def test_an_unknown_backend_is_refused(client):
    response = client.post("/api/chat", json=TINY, headers={"x-localrun-backend": "vllm"})
    assert response.status_code == 400
    assert "llamacpp, ollama" in response.json()["error"]


# ── lists ─────────────────────────────────────────────────────────────────────────────────────


def test_its_models_are_listed_with_a_mark(client, script):
    tags = [{"name": "theirs:latest"}, {"name": "TINY:latest"}]
    script({
        "GET /api/tags": whole({"models": tags}),
        "GET /api/ps": whole({"models": tags[:1]}),
        "GET /v1/models": whole({"data": [{"id": "theirs:latest"}, {"id": "tiny:latest"}]}),
        "GET /v1/models/theirs": whole({"id": "theirs"}),
    })  # fmt: skip
    found = {m["name"]: m.get("backend") for m in client.get("/api/tags").json()["models"]}
    assert found["theirs:latest"] == "ollama"
    assert found["tiny:latest"] is None
    assert "TINY:latest" not in found
    (loaded,) = [m for m in client.get("/api/ps").json()["models"] if "backend" in m]
    assert loaded == {"name": "theirs:latest", "backend": "ollama"}
    listed = [m["id"] for m in client.get("/v1/models").json()["data"] if "backend" in m]
    assert listed == ["theirs:latest"]
    assert client.get("/v1/models/theirs").json() == {"id": "theirs"}


@pytest.mark.parametrize("answer", [whole([1]), whole({"models": 5}), whole({}, 500), NOT_FOUND])
def test_a_daemon_that_lists_nonsense_hides_nothing_of_ours(client, script, answer):
    script({"GET /api/tags": answer})
    names = {m["name"] for m in client.get("/api/tags").json()["models"]}
    assert "tiny:latest" in names


# ── what goes wrong ───────────────────────────────────────────────────────────────────────────


def test_a_record_is_never_cut_and_a_stream_without_an_end_gets_an_error(client, script):
    half = json.dumps(SAID).encode()[:20]
    script({"POST /api/chat": ndjson(SAID, then=[half, DIE])})
    first, last = lines(client.post("/api/chat", json=THEIRS))
    assert first == SAID
    assert last["code"] == "backend_failed"
    script({"POST /api/chat": ndjson(SAID)})
    first, last = lines(client.post("/api/chat", json=THEIRS))
    assert "ended its answer before it was complete" in last["error"]


@pytest.mark.parametrize(
    ("path", "begin"),
    [("/v1/chat/completions", 'data: {"choices":[]}'), ("/v1/messages", "event: ping\ndata: {}")],
)
def test_an_event_stream_without_an_end_gets_an_error_in_its_dialect(client, script, path, begin):
    script({f"POST {path}": events(begin)})
    text = client.post(path, json=THEIRS | {"stream": True, "max_tokens": 5}).text
    last = text.strip().split("\n\n")[-1]
    error = json.loads(last.partition("data: ")[2])["error"]
    assert "before it was complete" in error["message"]


def test_separators_that_cut_records_are_escaped(client, script):
    raw = json.dumps(SAID, ensure_ascii=False).encode() + b"\n"
    script({"POST /api/chat": ndjson(then=[raw[:50], raw[50:], json.dumps(DONE).encode()])})
    content = client.post("/api/chat", json=THEIRS).content
    assert b"\\u0085" in content
    assert len(content.decode().splitlines()) == 2


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (whole({"error": "model is bad"}, 400), 400, "model is bad"),
        (whole({"error": {"message": "no such field"}}, 400), 400, "no such field"),
        (whole({"error": "queue full"}, 503), 503, "queue full"),
        (whole({"error": "needs more system memory (8 GiB)"}, 500), 507, "more system memory"),
        (whole({"error": "llama runner died"}, 500), 502, "llama runner died"),
        (whole("x", 418), 502, "answered 418"),
        (NOT_FOUND, 404, "model 'tiny' not found"),
    ],
)
def test_a_refusal_ends_as_ours(client, script, answer, status, words):
    script({"POST /api/chat": answer})
    response = client.post("/api/chat", json=TINY, headers=CHOSEN)
    assert response.status_code == status
    assert words in response.json()["error"]


def test_a_refusal_is_said_in_the_dialect_of_the_route(client, script):
    script({"POST /v1/messages": whole({"error": "model is bad"}, 400)})
    body = client.post("/v1/messages", json=TINY | {"max_tokens": 5}, headers=CHOSEN).json()
    assert (body["type"], body["error"]["message"]) == ("error", "model is bad")


def test_a_daemon_too_old_for_a_route_is_said_to_be(client):
    response = client.post("/v1/messages", json=TINY | {"max_tokens": 5}, headers=CHOSEN)
    assert response.status_code == 400
    assert "has no /v1/messages" in response.json()["error"]["message"]
    assert response.json()["error"]["hint"] == "update Ollama"


def test_another_program_at_its_address_is_not_taken_for_it(client, script):
    page = Script([b"<html>"], 200, "text/html")
    script({"POST /api/chat": page})
    response = client.post("/api/chat", json=TINY, headers=CHOSEN)
    assert response.status_code == 502
    assert "is no Ollama" in response.json()["error"]


def test_a_daemon_that_hangs_is_given_up_and_one_that_thinks_is_waited_for(client, script):
    script({"POST /api/chat": ndjson(SAID, then=[HANG])})
    assert lines(client.post("/api/chat", json=THEIRS))[-1]["code"] == "backend_gone"
    daemon = script({"POST /api/chat": ndjson(SAID, then=[WAIT, json.dumps(DONE).encode()])})
    daemon.hangs = False
    timer = threading.Timer(0.4, daemon.go_on.set)
    timer.start()
    assert lines(client.post("/api/chat", json=THEIRS))[-1] == DONE
    assert "GET /api/version" in daemon.paths()
    timer.join()


def test_a_client_that_leaves_takes_its_request_from_the_daemon(client, script):
    daemon = script({"POST /api/chat": ndjson(SAID, then=[WAIT])})
    with client.stream("POST", "/api/chat", json=THEIRS) as response:
        next(response.iter_lines())
    assert daemon.gone.wait(5)


def test_a_daemon_that_falls_away_is_told_and_comes_back_by_itself(models):
    with (
        fake_daemon({"POST /api/chat": ndjson(DONE)}) as daemon,
        running(models, ollama=f"http://{daemon.address}", daemon_limits=QUICK) as state,
        state.client() as client,
    ):
        assert client.get("/health").json()["backends"]["ollama"] == {
            "status": "ok", "address": daemon.address, "version": "0.33.0",
        }  # fmt: skip
        assert lines(client.post("/api/chat", json=THEIRS)) == [DONE]
        daemon.stop()
        missing = client.post("/api/chat", json=THEIRS)
        assert missing.status_code == 404
        assert "cannot be reached" in missing.json()["hint"]
        chosen = client.post("/api/chat", json=TINY, headers=CHOSEN)
        assert (chosen.status_code, chosen.json()["code"]) == (503, "backend_gone")
        assert {m["name"] for m in client.get("/api/tags").json()["models"]} >= {"tiny:latest"}
        health = client.get("/health").json()
        assert (health["status"], health["backends"]["ollama"]["status"]) == ("degraded", "gone")
        assert health["backends"]["ollama"]["last_seen"]
        daemon.start()
        assert lines(client.post("/api/chat", json=THEIRS)) == [DONE]
        assert client.get("/health").json()["status"] == "ok"


def test_without_a_daemon_choosing_it_says_how_to_have_one(models):
    with running(models) as state, state.client() as client:
        response = client.post("/api/chat", json=TINY, headers=CHOSEN)
        assert response.status_code == 503
        assert "LOCALRUN_OLLAMA" in response.json()["hint"]
        health = client.get("/health").json()
        assert health["backends"]["ollama"] == {"status": "off"}
        assert health["text_worker"]["status"] == "ok"
        assert health["scheduler"] == {"status": "ok", "waiting": 0, "runners": []}


# ── choice by settings, and a prompt that was cut ─────────────────────────────────────────────


def test_a_model_goes_where_the_settings_send_it(models, daemon, script):
    script({"POST /api/chat": ndjson(DONE)})
    with running(
        models, ollama=f"http://{daemon.address}", backend="ollama", backends=("other=llamacpp",)
    ) as state:
        body = TINY | {"stream": False, "options": {"num_predict": 1}}
        with state.client() as client:
            assert lines(client.post("/api/chat", json=body)) == [DONE]
            assert (
                client.post("/api/chat", json=body | {"model": "other"}).json()["model"] == "other"
            )


LONG = {"model": "theirs", "messages": [{"role": "user", "content": "word " * 4000}]}


@pytest.mark.parametrize(
    ("n_read", "n_ctx", "is_told"),
    [(90, 4096, True), (4001, 8192, False), (90, 8192, False), (3000, 4096, False)],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_that_was_cut_in_silence_is_told(client, script, n_read, n_ctx, is_told, stream):
    last = DONE | {"prompt_eval_count": n_read}
    script({
        "POST /api/chat": ndjson(SAID, last) if stream else whole(last),
        "GET /api/ps": whole({"models": [{"name": "theirs:latest", "context_length": n_ctx}]}),
    })  # fmt: skip
    found = lines(client.post("/api/chat", json=LONG | {"stream": stream}))[-1]
    assert ("warning" in found) == is_told
    assert {key: value for key, value in found.items() if key != "warning"} == last
    if is_told:
        assert f"read {n_read} tokens" in found["warning"]


def test_the_genuine_error_of_a_stream_is_passed_on(client, script):
    script({"POST /api/chat": ndjson(SAID, {"error": "the runner died"})})
    assert lines(client.post("/api/chat", json=THEIRS))[1:] == [{"error": "the runner died"}]


def test_a_named_stream_can_be_picked_up(client, script):
    script({"POST /api/chat": ndjson(SAID, DONE)})
    headers = {"x-localrun-stream": "relayed-stream-0001"}
    first = client.post("/api/chat", json=THEIRS, headers=headers).content
    again = client.post("/api/chat", json=THEIRS, headers=headers | {"x-localrun-stream-from": "5"})
    assert again.content == first[5:]


def test_a_slow_answer_is_passed_on_as_it_comes(client, script):
    daemon = script({"POST /api/chat": ndjson(SAID, then=[WAIT, json.dumps(DONE).encode()])})
    with client.stream("POST", "/api/chat", json=THEIRS) as response:
        records = response.iter_lines()
        assert json.loads(next(records)) == SAID
        daemon.go_on.set()
        assert json.loads(next(records)) == DONE


@pytest.mark.parametrize("status", ["abc", "", "\0"])
def test_what_is_no_http_is_said_to_have_broken_off(client, script, status):
    script({"POST /api/chat": Script([b"x"], status)})
    response = client.post("/api/chat", json=TINY, headers=CHOSEN)
    assert response.status_code == 502
    assert response.json()["code"] == "backend_failed"
