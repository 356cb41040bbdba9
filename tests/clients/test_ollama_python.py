"""The `ollama` package, doing what its README shows."""

import json

import ollama
import pytest

FIXED = {"temperature": 0, "seed": 1, "num_predict": 24}
SKY = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture(scope="module")
def client(server):
    return ollama.Client(host=server.url)


def add_two_numbers(a: int, b: int) -> int:
    """
    Add two numbers

    Args:
      a: The first number
      b: The second number

    Returns:
      int: The sum of the two numbers
    """
    return a + b


def test_chat(client, small):
    response = client.chat(model=small, messages=SKY, options=FIXED)
    assert response.message.role == "assistant"
    assert response["message"]["content"] == response.message.content != ""
    assert (response.done, response.done_reason, response.eval_count) == (True, "length", 24)
    assert response.prompt_eval_count > 5
    assert response.total_duration >= response.eval_duration > 0


def test_a_stream_says_the_same_in_pieces(client, small):
    whole = client.chat(model=small, messages=SKY, options=FIXED)
    parts = list(client.chat(model=small, messages=SKY, options=FIXED, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 10
    assert parts[-1].eval_count == 24


def test_generate_with_a_system_prompt_and_raw(client, small):
    response = client.generate(small, "Why is the sky blue?", system="Be brief.", options=FIXED)
    assert response.response
    assert response.context
    raw = client.generate(small, "The capital of France is", raw=True, options=FIXED)
    assert "Paris" in raw.response
    assert raw.prompt_eval_count < response.prompt_eval_count


def test_a_tool_is_called_and_its_answer_used(client, coder):
    messages = [{"role": "user", "content": "What is 12345 plus 67890? Use the tool."}]
    options = {"temperature": 0, "num_predict": 128}
    first = client.chat(coder, messages, tools=[add_two_numbers], options=options)
    (call,) = first.message.tool_calls
    assert call.function.name == "add_two_numbers"
    assert sorted(call.function.arguments.values()) == [12345, 67890]
    assert not first.message.content
    result = add_two_numbers(**call.function.arguments)
    messages += [
        first.message,
        {"role": "tool", "tool_name": call.function.name, "content": str(result)},
    ]
    second = client.chat(coder, messages, tools=[add_two_numbers], options=options)
    assert "80235" in second.message.content.replace(",", "")


def test_a_streamed_tool_call_comes_as_a_whole(client, coder):
    parts = list(
        client.chat(
            coder,
            [{"role": "user", "content": "What is 3 plus 4? Use the tool."}],
            tools=[add_two_numbers],
            options={"temperature": 0, "num_predict": 128},
            stream=True,
        )
    )
    calls = [call for part in parts for call in part.message.tool_calls or ()]
    assert [call.function.name for call in calls] == ["add_two_numbers"]
    assert sorted(calls[0].function.arguments.values()) == [3, 4]
    assert "".join(part.message.content for part in parts) == ""
    assert parts[-1].done


def test_structured_output_follows_its_schema(client, small):
    schema = {
        "type": "object",
        "properties": {
            "country": {"type": "string", "maxLength": 20},
            "n_cities": {"type": "integer"},
        },
        "required": ["country", "n_cities"],
        "additionalProperties": False,
    }
    response = client.chat(
        small,
        [{"role": "user", "content": "Tell me about Canada."}],
        format=schema,
        options={"temperature": 0, "num_predict": 100},
    )
    found = json.loads(response.message.content)
    assert set(found) == {"country", "n_cities"}
    assert isinstance(found["n_cities"], int)


def test_json_mode_gives_json(client, small):
    response = client.chat(
        small,
        [{"role": "user", "content": "Answer in JSON: what is the sky's colour?"}],
        format="json",
        options={"temperature": 0, "num_predict": 200},
    )
    assert response.done_reason == "length" or isinstance(
        json.loads(response.message.content), dict
    )


def test_a_model_that_does_not_think_takes_think_false_and_refuses_true(client, small):
    response = client.chat(small, SKY, think=False, options=FIXED)
    assert response.message.content
    assert not response.message.thinking
    with pytest.raises(ollama.ResponseError, match="does not support thinking") as caught:
        client.chat(small, SKY, think=True, options=FIXED)
    assert caught.value.status_code == 400


def test_embed_takes_one_text_or_many(client, minilm):
    one = client.embed(minilm, "The sky is blue.")
    many = client.embed(minilm, ["The sky is blue.", "Grass is green."])
    assert len(one.embeddings) == 1
    assert len(many.embeddings) == 2
    assert len(one.embeddings[0]) == 384
    assert many.embeddings[0] == pytest.approx(one.embeddings[0], abs=1e-3)
    assert many.prompt_eval_count > one.prompt_eval_count > 0
    old = client.embeddings(minilm, "The sky is blue.")
    assert len(old.embedding) == 384


def test_list_show_and_ps_know_the_model(client, small):
    listed = {model.model: model for model in client.list().models}
    assert listed[small].details.family == "llama"
    assert listed[small].size > 90_000_000
    shown = client.show(small)
    assert "completion" in shown.capabilities
    assert shown.modelinfo["general.architecture"] == "llama"
    assert "FROM" in shown.modelfile
    client.generate(small, "Hi", options={"num_predict": 1})
    assert small in {model.model for model in client.ps().models}


def test_create_copy_and_delete(client, small, server):
    client.create(model="mario", from_=small, system="You are Mario from Super Mario Bros.")
    try:
        assert "SYSTEM You are Mario from Super Mario Bros." in client.show("mario").modelfile
        assert client.chat("mario", SKY, options=FIXED).prompt_eval_count > 5
        assert client.copy("mario", "user/mario").status == "success"
        assert {"mario:latest", "user/mario:latest"} <= server.names()
        assert client.delete("user/mario").status == "success"
    finally:
        client.delete("mario")
    assert not {"mario:latest", "user/mario:latest"} & server.names()


def test_create_tells_how_far_it_is(client, small):
    progress = [part.status for part in client.create("prompted", from_=small, stream=True)]
    client.delete("prompted")
    assert progress[-1] == "success"
    assert len(progress) > 1


def test_what_is_not_there_is_a_response_error(client):
    with pytest.raises(ollama.ResponseError, match="model 'nothing-of-this-name' not found") as one:
        client.chat("nothing-of-this-name", SKY)
    assert one.value.status_code == 404
    with pytest.raises(ollama.ResponseError) as two:
        client.delete("nothing-of-this-name")
    assert two.value.status_code == 404


def test_a_push_without_a_registry_says_so(client, small):
    with pytest.raises(ollama.ResponseError) as caught:
        for _ in client.push("127.0.0.1:9/user/nothing-of-this-name", insecure=True, stream=True):
            pass
    assert str(caught.value)


async def _chat(url, model, *, stream):
    client = ollama.AsyncClient(host=url)
    if not stream:
        return (await client.chat(model, SKY, options=FIXED)).message.content
    parts = [part async for part in await client.chat(model, SKY, options=FIXED, stream=True)]
    return "".join(part.message.content or "" for part in parts)


def test_the_async_client_gives_the_same(server, small):
    import asyncio

    whole = asyncio.run(_chat(server.url, small, stream=False))
    assert whole == asyncio.run(_chat(server.url, small, stream=True)) != ""
