"""The clients of npm, doing what their READMEs show."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "node"


def run_node(script, *arguments):
    """Run one of the scripts and give what it printed."""
    own = Path(sys.executable).parent / "node"  # where this machine has none
    node = shutil.which("node") or (str(own) if own.exists() else None)
    if node is None or not (FOLDER / "node_modules").is_dir():
        assert not os.environ.get("CI"), "node and its packages belong to CI"
        pytest.skip("node is missing, or `npm ci` in tests/clients/node was not run")
    done = subprocess.run(
        [node, FOLDER / script, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def ollama(server, small, coder, minilm):
    return run_node("ollama.mjs", server.url, small, coder, minilm)


@pytest.fixture(scope="module")
def openai(server, small):
    return run_node("openai.mjs", server.url, small)


def test_ollama_chats_and_streams_the_same(ollama):
    whole = ollama["chat"]["message"]["content"]
    assert whole
    assert "".join(part["message"]["content"] for part in ollama["parts"]) == whole
    assert [part["done"] for part in ollama["parts"]][-2:] == [False, True]
    assert ollama["chat"]["eval_count"] == ollama["parts"][-1]["eval_count"] == 24


def test_ollama_calls_a_tool(ollama):
    (call,) = ollama["tools"]["message"]["tool_calls"]
    assert call["function"] == {
        "index": 0,
        "name": "add",
        "arguments": {"a": 12345, "b": 67890},
    }


def test_ollama_gives_structured_output(ollama):
    found = json.loads(ollama["structured"]["message"]["content"])
    assert isinstance(found["hot"], bool)


def test_ollama_embeds(ollama):
    assert [len(vector) for vector in ollama["embed"]["embeddings"]] == [384, 384]


def test_ollama_keeps_models(ollama, small):
    assert small in {model["name"] for model in ollama["list"]["models"]}
    assert "completion" in ollama["show"]["capabilities"]
    assert {"node-mario:latest", "node-luigi:latest"} <= set(ollama["names"])
    assert not {"node-mario:latest", "node-luigi:latest"} & set(ollama["after"])


def test_ollama_aborts_a_stream(ollama):
    assert ollama["aborted"] == "AbortError"


def test_ollama_reports_errors(ollama):
    error = ollama["error"]
    assert (error["name"], error["status"]) == ("ResponseError", 404)
    assert "not found" in error["message"]


def test_openai_chats_and_streams_the_same(openai):
    (choice,) = openai["chat"]["choices"]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in openai["chunks"])
    assert text == choice["message"]["content"] != ""
    assert openai["chunks"][-1]["choices"][0]["finish_reason"] == "length"


def test_openai_streams_a_response(openai):
    assert openai["events"][0] == "response.created"
    assert openai["events"][-1] in {"response.completed", "response.incomplete"}
    assert "response.output_text.delta" in openai["events"]


def test_openai_knows_the_error(openai):
    assert openai["error"] == {"status": 404, "isNotFound": True}


def test_anthropic_gives_a_message_and_streams_the_same(openai):
    assert openai["message"]["content"][0]["text"] == openai["streamed"]["content"][0]["text"]
    assert openai["message"]["usage"]["output_tokens"] == 24
    assert openai["streamed"]["stop_reason"] == "max_tokens"
