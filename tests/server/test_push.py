"""push and pull with a registry, over real HTTP and through the command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localrun.config import child_environment
from tests.fakes.registry import PASSWORD, USER, FakeRegistry
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny
from tests.server.conftest import ROOT, running


@pytest.fixture(scope="module")
def fake():
    with FakeRegistry() as fake:
        yield fake


@pytest.fixture(scope="module")
def server(fake, tmp_path_factory):
    home = tmp_path_factory.mktemp("push")
    tiny = make_tiny(home / "tiny.gguf")
    store_model(home / "models", f"{fake.host}/me/own", tiny, system="Be kind.")
    with running(home) as state:
        yield state


def records(answer) -> list[dict[str, Any]]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_model_goes_to_a_registry_and_comes_back(client, fake):
    name = f"{fake.host}/me/own"
    sent = records(client.post("/api/push", json={"name": name}))
    assert [sent[0]["status"], sent[-2]["status"], sent[-1]["status"]] == [
        "retrieving manifest", "pushing manifest", "success",
    ]  # fmt: skip
    bars = [record for record in sent if "digest" in record]
    assert all(bar["status"] == f"pushing {bar['digest'][7:19]}" for bar in bars)

    before = client.get("/api/tags").json()["models"][0]["digest"]
    client.request("DELETE", "/api/delete", json={"model": name})
    got = records(client.post("/api/pull", json={"model": name}))
    assert (got[0], got[-1]) == (
        {"status": "pulling manifest"}, {"status": "success", "name": f"{name}:latest"},
    )  # fmt: skip
    assert client.get("/api/tags").json()["models"][0]["digest"] == before
    quiet = client.post("/api/push", json={"model": name, "stream": False})
    assert quiet.json() == {"status": "success"}


def test_a_push_that_cannot_be_says_why(client, fake):
    assert client.post("/api/push", json={}).json()["error"] == "model is required"
    said = records(client.post("/api/push", json={"model": "none"}))
    assert [record.get("status") for record in said[:2]] == [
        "retrieving manifest", "couldn't retrieve manifest",
    ]  # fmt: skip
    assert said[-1]["error"] == "model 'none' not found"
    plain = records(client.post("/api/push", json={"model": "http://example.com/me/own"}))
    assert plain[-1]["error"] == "insecure protocol http"


def test_the_password_is_asked_for_and_never_shown(server, fake, tmp_path: Path):
    fake.auth, fake.anonymous = "bearer", False
    env = child_environment(
        LOCALRUN_HOME=str(tmp_path),
        LOCALRUN_HOST=f"127.0.0.1:{server.port}",
        PYTHONPATH=str(ROOT),
        PYTHONUTF8="1",
    )

    def call(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "localrun", *arguments],
            input=stdin, capture_output=True, text=True, encoding="utf-8", env=env, timeout=30,
            check=False,
        )  # fmt: skip

    name = f"{fake.host}/me/own"
    refused = call("push", name)
    assert refused.returncode == 1
    assert "you are not authorized to push to this namespace" in refused.stderr
    done = call("push", name, "--username", USER, stdin=f"{PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"You can find your model at:\n\n\t{name}:latest\n")
    assert PASSWORD not in done.stdout + done.stderr
