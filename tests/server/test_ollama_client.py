"""The `ollama` package against our server, with the real small model."""

import asyncio
import json
import subprocess
import sys
from datetime import datetime

import httpx2
import ollama
import pytest

from localrun.config import child_environment
from tests.server.conftest import DEADLINE_S, ROOT

MODEL = "smollm2:135m"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def url(real_home):
    """The address of a server of its own, as a user starts it."""
    code = (
        "from localrun.config import load_settings\n"
        "from localrun.server.app import serve\n"
        "settings = load_settings(overrides={'port': 0})\n"
        "serve(settings, ready=lambda address: print(address, flush=True))\n"
    )
    env = child_environment(PYTHONPATH=str(ROOT), LOCALRUN_HOME=str(real_home))
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    yield process.stdout.readline().decode().strip()
    process.terminate()
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0


@pytest.fixture
def client(url):
    found = ollama.Client(url)
    yield found
    found._client.close()


OPTIONS = {"temperature": 0, "num_predict": 12, "seed": 1}


def test_generate_streams_what_it_answers_whole(client):
    records = list(client.generate(MODEL, "Why is the sky blue?", stream=True, options=OPTIONS))
    *deltas, last = records
    text = "".join(r.response for r in records)
    assert all(not r.done for r in deltas)
    assert (last.done, last.done_reason, last.eval_count) == (True, "length", 12)
    assert last.prompt_eval_count > 5
    assert last.total_duration >= last.eval_duration > 0
    assert len(text.split()) >= 5
    whole = client.generate(MODEL, "Why is the sky blue?", options=OPTIONS)
    assert whole.response == text
    assert whole.eval_count == 12


def test_chat_remembers_its_turns(client):
    turns = [{"role": "user", "content": "My name is Ada. Say hello."}]
    first = client.chat(MODEL, turns, options=OPTIONS)
    assert first.message.role == "assistant"
    turns += [first.message, {"role": "user", "content": "What is my name?"}]
    records = list(client.chat(MODEL, turns, stream=True, options=OPTIONS))
    assert records[-1].done
    assert records[-1].prompt_eval_count > first.prompt_eval_count
    assert "".join(r.message.content for r in records)


def test_the_async_client_runs_several_at_once(url):
    async def story():
        client = ollama.AsyncClient(url)
        try:
            answers = await asyncio.gather(
                *(client.generate(MODEL, f"Count to {n}.", options=OPTIONS) for n in range(3, 7))
            )
            stream = await client.generate(MODEL, "Say hi.", stream=True, options=OPTIONS)
            records = [record async for record in stream]
        finally:
            await client._client.aclose()
        assert all(answer.response and answer.done for answer in answers)
        assert records[-1].done

    asyncio.run(story())


def test_list_show_and_ps_parse(client):
    client.generate(MODEL, keep_alive="10m")
    (listed,) = [m for m in client.list().models if m.model == MODEL]
    assert listed.size > 90_000_000
    assert listed.details.quantization_level == "Q4_1"
    shown = client.show(MODEL)
    assert shown.modelinfo["llama.context_length"] == 8192
    assert "completion" in shown.capabilities
    assert "<|im_start|>" in shown.template
    (loaded,) = client.ps().models
    assert (loaded.model, loaded.digest) == (MODEL, listed.digest)
    assert loaded.expires_at > datetime.now(loaded.expires_at.tzinfo)
    assert client.generate(MODEL, keep_alive=0).done_reason == "unload"


def test_pull_reports_progress_and_ends_with_success(client):
    events = list(client.pull(MODEL, stream=True))
    assert events[0].status == "pulling manifest"
    assert events[-1].status == "success"
    bars = [event for event in events if event.digest]
    assert bars
    assert bars[-1].completed == bars[-1].total
    assert client.pull(MODEL).status == "success"


def test_errors_are_the_clients_own(client):
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as caught:
        client.generate("nope", "x")
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found"):
        client.delete("nope")
    with pytest.raises(ollama.ResponseError, match=r"needs \d+ tokens"):
        client.generate(MODEL, "hello " * 100, options={"num_ctx": 50})


@pytest.mark.parametrize("prompt", ["Why is the sky blue?", "为什么天空是蓝色的"])
def test_the_readmes_curl_line_is_answered(url, prompt):
    body = json.dumps({"model": MODEL, "prompt": prompt, "options": OPTIONS}, ensure_ascii=False)
    done = subprocess.run(
        ["curl", "-sS", f"{url}/api/generate", "-d", body], capture_output=True, check=True
    )
    records = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert records[-1]["done"]
    assert "".join(record["response"] for record in records)


def test_a_cold_model_answers_its_first_request(url):
    with httpx2.Client(base_url=url, timeout=60) as client:
        client.post("/api/generate", json={"model": MODEL, "keep_alive": 0})
        body = {"model": MODEL, "prompt": "hi", "stream": False, "options": OPTIONS}
        answer = client.post("/api/generate", json=body).json()
    assert answer["load_duration"] > 0
    assert answer["response"]
