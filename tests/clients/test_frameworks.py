"""Frameworks and programs on top of the clients: langchain, litellm, llm."""

import subprocess
import sys

import litellm
import pytest
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

SKY = "Why is the sky blue?"


def multiply(a: int, b: int) -> int:
    """Multiply two integers."""
    return a * b


@pytest.fixture(params=["ollama", "openai"])
def chat_model(request, server):
    """A chat model of langchain, over either API."""

    def make(model, n=24):
        if request.param == "ollama":
            return ChatOllama(
                model=model, base_url=server.url, temperature=0, seed=1, num_predict=n
            )
        return ChatOpenAI(
            model=model,
            base_url=f"{server.url}/v1",
            api_key="none",
            temperature=0,
            seed=1,
            max_tokens=n,
            max_retries=0,
        )

    return make


def test_langchain_invokes_and_streams_the_same(chat_model, small):
    chat = chat_model(small)
    message = chat.invoke([("system", "Be brief."), ("human", SKY)])
    assert message.content
    assert message.usage_metadata["output_tokens"] == 24
    pieces = [chunk.content for chunk in chat.stream([("system", "Be brief."), ("human", SKY)])]
    assert "".join(pieces) == message.content
    assert len(pieces) > 10


def test_langchain_binds_tools(chat_model, coder):
    chat = chat_model(coder, 128).bind_tools([multiply])
    message = chat.invoke("What is 12 times 34? Use the tool.")
    (call,) = message.tool_calls
    assert call["name"] == "multiply"
    assert sorted(call["args"].values()) == [12, 34]


def test_langchain_gives_structured_output(chat_model, small):
    schema = {
        "title": "Person",
        "description": "A person",
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    chat = chat_model(small, 100).with_structured_output(schema, method="json_schema")
    found = chat.invoke("Ada is 36 years old.")
    assert set(found) == {"name", "age"}
    assert isinstance(found["age"], int)


def test_langchain_embeds_the_same_over_both(server, minilm):
    ours = OllamaEmbeddings(model=minilm, base_url=server.url)
    theirs = OpenAIEmbeddings(
        model=minilm,
        base_url=f"{server.url}/v1",
        api_key="none",
        check_embedding_ctx_length=False,
    )
    texts = ["The sky is blue.", "Grass is green."]
    for one, two in zip(ours.embed_documents(texts), theirs.embed_documents(texts), strict=True):
        assert one == pytest.approx(two, abs=1e-3)


@pytest.mark.parametrize("provider", ["ollama", "ollama_chat", "openai"])
def test_litellm_completes_and_streams(server, small, provider):
    where = f"{server.url}/v1" if provider == "openai" else server.url
    asked = {
        "model": f"{provider}/{small}",
        "messages": [{"role": "user", "content": SKY}],
        "api_base": where,
        "api_key": "none",
        "temperature": 0,
        "max_tokens": 16,
    }
    done = litellm.completion(**asked)
    assert done.choices[0].message.content
    assert done.usage.completion_tokens == 16
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in litellm.completion(stream=True, **asked)
        if chunk.choices
    ]
    assert "".join(pieces) == done.choices[0].message.content
    assert len(pieces) > 5


def test_litellm_speaks_to_the_messages_api(server, small):
    done = litellm.completion(
        model=f"anthropic/{small}",
        messages=[{"role": "user", "content": SKY}],
        api_base=server.url,
        api_key="none",
        max_tokens=8,
    )
    assert done.choices[0].message.content
    assert done.usage.completion_tokens == 8


def test_litellm_embeds(server, minilm):
    found = litellm.embedding(
        model=f"ollama/{minilm}", input=["The sky is blue."], api_base=server.url
    )
    assert len(found.data[0]["embedding"]) == 384


def llm(environment, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "llm", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def test_llm_lists_asks_and_embeds(python_environment, small, minilm):
    listed = llm(python_environment, "ollama", "models")
    assert small in listed
    answer = llm(
        python_environment, "-m", f"ollama/{small}", "--no-log", SKY, "-o", "num_predict", "16",
        "-o", "temperature", "0",
    )  # fmt: skip
    assert len(answer.split()) > 4
    vector = llm(python_environment, "embed", "-m", f"ollama/{minilm}", "-c", "The sky is blue.")
    assert vector.count(",") == 383
