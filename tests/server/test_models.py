"""tags, ps, show, pull, delete over real HTTP, on a store of their own."""

import json
import threading
from dataclasses import replace
from datetime import datetime

import pytest

from localrun.errors import Cancelled, DiskFull
from localrun.server.show import show_model
from localrun.store.pull import PullEvent
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny, shard_paths
from tests.server.conftest import running


@pytest.fixture
def home(tmp_path):
    file = make_tiny(tmp_path / "tiny.gguf", n_ctx=512)
    store_model(
        tmp_path / "models", "tiny", file,
        params={"stop": ["</s>", "<|end|>"], "temperature": 0.5, "num_ctx": 256},
        system='Say "hi".', license="MIT License", messages=[{"role": "user", "content": "hey"}],
    )  # fmt: skip
    return tmp_path


@pytest.fixture
def server(home):
    with running(home) as state:
        yield state


def test_tags_lists_what_is_there_with_every_field_that_clients_read(client):
    (model,) = client.get("/api/tags").json()["models"]
    assert list(model) == [
        "name", "model", "modified_at", "size", "digest", "details", "capabilities"
    ]  # fmt: skip
    assert model["name"] == model["model"] == "tiny:latest"
    assert len(model["digest"]) == 64
    assert datetime.fromisoformat(model["modified_at"]).tzinfo is not None
    assert model["details"] == {
        "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
        "parameter_size": "0.1M", "quantization_level": "F32", "context_length": 512,
        "embedding_length": 64,
    }  # fmt: skip
    assert model["capabilities"] == ["completion"]


def test_an_empty_store_lists_nothing(tmp_path):
    with running(tmp_path) as state, state.client() as client:
        assert client.get("/api/tags").json() == {"models": []}
        assert client.get("/api/ps").json() == {"models": []}


def test_ps_lists_what_is_loaded(client):
    body = {"model": "tiny", "prompt": "x", "stream": False, "keep_alive": -1}
    client.post("/api/generate", json=body)
    (model,) = client.get("/api/ps").json()["models"]
    assert list(model) == [
        "name", "model", "size", "digest", "details", "expires_at", "size_vram",
        "context_length",
    ]  # fmt: skip
    assert (model["size_vram"], model["context_length"]) == (0, 256)
    assert model["size"] > 0
    assert datetime.fromisoformat(model["expires_at"]).year > 2300


def test_show_says_all_about_a_model(client):
    shown = client.post("/api/show", json={"name": "TINY"}).json()
    assert shown["license"] == "MIT License"
    assert shown["system"] == 'Say "hi".'
    assert shown["messages"] == [{"role": "user", "content": "hey"}]
    assert shown["parameters"].splitlines() == [
        'stop                           "</s>"',
        'stop                           "<|end|>"',
        "temperature                    0.5",
        "num_ctx                        256",
    ]
    assert "<|im_start|>" in shown["template"]
    assert shown["details"]["family"] == "llama"
    info = shown["model_info"]
    assert info["llama.attention.layer_norm_rms_epsilon"] == 1e-05
    assert info["llama.context_length"] == 512
    assert info["general.parameter_count"] > 0
    assert info["tokenizer.ggml.tokens"] is None
    assert not {"general.name", "tokenizer.chat_template"} & set(info)
    assert {"name": "token_embd.weight", "type": "F32", "shape": shown["tensors"][0]["shape"]} in (
        shown["tensors"]
    )
    assert shown["capabilities"] == ["completion"]


def test_copilot_is_shown_the_name_that_it_asked_for(client):
    headers = {"user-agent": "GitHubCopilotChat/1.2"}
    shown = client.post("/api/show", json={"model": "TINY"}, headers=headers).json()
    assert shown["model_info"]["general.basename"] == "TINY"


def test_show_prints_a_modelfile(client):
    lines = client.post("/api/show", json={"model": "tiny"}).json()["modelfile"].splitlines()
    assert lines[2:4] == ["# FROM tiny:latest", ""]
    assert lines[4].startswith("FROM /")
    assert 'SYSTEM Say "hi".' in lines
    assert "PARAMETER stop </s>" in lines
    assert "PARAMETER temperature 0.5" in lines
    assert "MESSAGE user hey" in lines


def test_a_verbose_show_has_the_arrays(client):
    body = {"model": "tiny", "verbose": True, "system": "other"}
    shown = client.post("/api/show", json=body).json()
    assert len(shown["model_info"]["tokenizer.ggml.tokens"]) > 100
    assert shown["system"] == "other"


def test_delete_removes_a_model_and_its_files(client, home):
    assert client.request("DELETE", "/api/delete", json={"name": "nope"}).status_code == 404
    bad = client.request("DELETE", "/api/delete", json={"name": "a//b"})
    assert (bad.status_code, bad.json()["error"]) == (400, 'name "a//b" is invalid')
    response = client.request("DELETE", "/api/delete", json={"model": "tiny"})
    assert (response.status_code, response.content) == (200, b"")
    assert client.get("/api/tags").json() == {"models": []}
    assert not list((home / "models" / "blobs").glob("sha256-*"))


def test_the_cli_may_pull_a_local_file(client, home):
    other = make_tiny(home / "own.gguf", seed=5)
    token = (home / "cli-token").read_text()
    response = client.post(
        "/api/pull", json={"model": str(other)}, headers={"x-localrun-local": token}
    )
    assert response.headers["content-type"] == "application/x-ndjson"
    events = [json.loads(line) for line in response.text.splitlines()]
    assert events[0] == {"status": "pulling manifest"}
    assert events[-1]["status"] == "success"
    assert any(e.get("digest", "").startswith("sha256:") and e["completed"] == e["total"]
               for e in events)  # fmt: skip
    assert any("licence" in event["status"] for event in events)  # no bar took its place
    assert len(client.get("/api/tags").json()["models"]) == 2


@pytest.mark.parametrize("token", [None, "", "wrong", "é"])
def test_nobody_else_may(client, home, token):
    headers = {} if token is None else {"x-localrun-local": token.encode("latin-1")}
    other = make_tiny(home / "own.gguf", seed=5)
    response = client.post(
        "/api/pull", json={"model": str(other), "stream": False}, headers=headers
    )
    assert response.status_code in (400, 403)
    assert len(client.get("/api/tags").json()["models"]) == 1


class FakePull:
    """A pull that reports, and then waits, succeeds or fails."""

    def __init__(self, *, waits=False, fails=False):
        self.waits, self.fails = waits, fails
        self.ended = threading.Event()

    def __call__(self, text, *, report, cancelled, **_):
        try:
            self.pull(report, cancelled)
        finally:
            self.ended.set()

    def pull(self, report, cancelled):
        report(PullEvent("pulling manifest"))
        for done in range(101):
            report(PullEvent("pulling 012345", "sha256:012345", 100, done))
        while self.waits:
            if cancelled():
                raise Cancelled("the pull was cancelled")
            threading.Event().wait(0.005)
        if self.fails:
            raise DiskFull("no room on the disk", hint="localrun rm something")
        report(PullEvent("success", name="x:latest", plan=[{"a": 1}]))


def test_a_pull_streams_its_events_in_order(home):
    with running(home, pull=FakePull()) as state, state.client() as client:
        events = [
            json.loads(line)
            for line in client.post("/api/pull", json={"name": "x"}).text.splitlines()
        ]
    bars = [event.get("completed", 0) for event in events if "digest" in event]
    assert events[0] == {"status": "pulling manifest"}
    assert bars == sorted(bars)
    assert bars[-1] == 100
    assert events[-1] == {"status": "success", "plan": [{"a": 1}], "name": "x:latest"}


def test_a_pull_that_is_not_streamed_answers_once(home):
    with running(home, pull=FakePull()) as state, state.client() as client:
        response = client.post("/api/pull", json={"model": "x", "stream": False})
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"status": "success"}


def test_a_pull_that_fails_says_so_at_the_end_or_with_its_status(home):
    error = {"error": "no room on the disk", "code": "disk_full", "hint": "localrun rm something"}
    with running(home, pull=FakePull(fails=True)) as state, state.client() as client:
        streamed = client.post("/api/pull", json={"model": "x"})
        whole = client.post("/api/pull", json={"model": "x", "stream": False})
    assert streamed.status_code == 200
    assert json.loads(streamed.text.splitlines()[-1]) == error
    assert (whole.status_code, whole.json()) == (507, error)


def test_a_client_that_goes_away_ends_its_pull(home):
    fake = FakePull(waits=True)
    with running(home, pull=fake) as state, state.client() as client:
        with client.stream("POST", "/api/pull", json={"model": "x"}) as response:
            next(response.iter_lines())
        assert fake.ended.wait(10.0)


def test_a_running_pull_does_not_hold_up_the_end(home):
    fake = FakePull(waits=True)
    with running(home, pull=fake) as state, state.client() as client:
        with client.stream("POST", "/api/pull", json={"model": "x"}) as response:
            lines = response.iter_lines()
            next(lines)
            state.stop()
            rest = list(lines)[-1]
        assert "shutting down" in rest or "cancelled" in rest
        assert fake.ended.wait(10.0)


def test_a_model_in_shards_is_shown_whole(tmp_path):
    first = make_tiny(tmp_path / "split.gguf", shards=2)
    shards = shard_paths(first)
    whole = make_tiny(tmp_path / "whole.gguf")
    one = store_model(tmp_path / "models", "whole", whole)
    split = replace(one, model_paths=shards)
    shown, expected = (
        json.loads(json.dumps(show_model(model, system="", verbose=True))) for model in (split, one)
    )
    assert len(shards) == 2
    assert sorted(map(str, shown["tensors"])) == sorted(map(str, expected["tensors"]))
    count = "general.parameter_count"
    assert shown["model_info"][count] == expected["model_info"][count]
