"""The `openai` package, doing what its README shows."""

import json

import openai
import pytest

SKY = [{"role": "user", "content": "Why is the sky blue?"}]
FUNCTION = {
    "name": "get_weather",
    "description": "Get the current weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Name of the city"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
WEATHER = {"type": "function", "function": FUNCTION}
ASK_WEATHER = [{"role": "user", "content": "What is the weather in Paris? Use the tool."}]


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def fixed(model, n=24):
    return {"model": model, "temperature": 0, "seed": 1, "max_tokens": n}


def test_chat(client, small):
    done = client.chat.completions.create(messages=SKY, **fixed(small))
    assert done.object == "chat.completion"
    (choice,) = done.choices
    assert choice.finish_reason == "length"
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert done.usage.completion_tokens == 24
    assert done.usage.total_tokens == done.usage.prompt_tokens + 24


def test_a_stream_says_the_same_and_ends_with_usage(client, small):
    whole = client.chat.completions.create(messages=SKY, **fixed(small))
    chunks = list(
        client.chat.completions.create(
            messages=SKY, stream=True, stream_options={"include_usage": True}, **fixed(small)
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons == [None] * (len(reasons) - 1) + ["length"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert not chunks[-1].choices
    assert chunks[-1].usage == whole.usage


def test_a_tool_is_called_and_its_answer_used(client, coder):
    first = client.chat.completions.create(
        messages=ASK_WEATHER, tools=[WEATHER], **fixed(coder, 128)
    )
    (choice,) = first.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.id
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"].startswith("Paris")
    second = client.chat.completions.create(
        messages=[
            *ASK_WEATHER,
            choice.message,
            {"role": "tool", "tool_call_id": call.id, "content": "18 degrees and sunny"},
        ],
        **fixed(coder, 64),
    )
    assert "18" in second.choices[0].message.content


def test_a_required_tool_is_called_in_a_stream(client, coder):
    chunks = list(
        client.chat.completions.create(
            messages=[{"role": "user", "content": "Rome"}],
            tools=[WEATHER],
            tool_choice="required",
            stream=True,
            **fixed(coder, 128),
        )
    )
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert deltas[0].function.name == "get_weather"
    assert {delta.index for delta in deltas} == {0}
    arguments = "".join(delta.function.arguments or "" for delta in deltas)
    assert set(json.loads(arguments)) == {"city"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_response_format_is_followed(client, small):
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "day": {"enum": ["Friday", "Saturday"]},
        },
        "required": ["name", "day"],
        "additionalProperties": False,
    }
    done = client.chat.completions.create(
        messages=[{"role": "user", "content": "Alice goes to a fair on Friday."}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "event", "schema": schema, "strict": True},
        },
        **fixed(small, 100),
    )
    found = json.loads(done.choices[0].message.content)
    assert set(found) == {"name", "day"}
    assert found["day"] in {"Friday", "Saturday"}


def test_stop_strings_and_log_probabilities(client, small):
    done = client.chat.completions.create(
        messages=SKY, stop=["blue"], logprobs=True, top_logprobs=2, **fixed(small)
    )
    assert "blue" not in done.choices[0].message.content
    tokens = done.choices[0].logprobs.content
    assert tokens
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)


def test_legacy_completions(client, small):
    done = client.completions.create(prompt="The capital of France is", **fixed(small, 8))
    assert done.object == "text_completion"
    assert done.choices[0].text
    assert done.usage.completion_tokens == 8


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_embeddings(client, minilm, encoding_format):
    found = client.embeddings.create(
        model=minilm,
        input=["The sky is blue.", "Grass is green."],
        encoding_format=encoding_format,
    )
    assert [one.index for one in found.data] == [0, 1]
    assert found.usage.prompt_tokens == found.usage.total_tokens > 0
    if encoding_format == "float":
        assert all(len(one.embedding) == 384 for one in found.data)


def test_the_default_embedding_has_floats(client, minilm):
    # The client asks for base64 on its own and decodes it.
    found = client.embeddings.create(model=minilm, input="The sky is blue.")
    assert len(found.data[0].embedding) == 384
    assert sum(value * value for value in found.data[0].embedding) == pytest.approx(1, abs=1e-3)


def test_models(client, small):
    listed = {model.id: model for model in client.models.list()}
    assert listed[small].object == "model"
    assert client.models.retrieve(small).id == small
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing-of-this-name")


def test_responses(client, small):
    done = client.responses.create(
        model=small,
        instructions="Be brief.",
        input="Why is the sky blue?",
        temperature=0,
        max_output_tokens=24,
    )
    assert done.object == "response"
    assert done.output_text
    assert done.usage.output_tokens == 24
    assert (done.status, done.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_a_response_streams_its_events_in_order(client, small):
    events = list(
        client.responses.create(
            model=small, input="Say hello.", temperature=0, max_output_tokens=16, stream=True
        )
    )
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] in {"response.completed", "response.incomplete"}
    order = [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert [kind for kind in dict.fromkeys(kinds) if kind in order] == order
    text = "".join(event.delta for event in events if event.type == order[2])
    assert text == events[-1].response.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_response_goes_on_from_the_one_before(client, small):
    first = client.responses.create(model=small, input="My name is Ada.", max_output_tokens=8)
    second = client.responses.create(
        model=small,
        input="What is my name?",
        previous_response_id=first.id,
        temperature=0,
        max_output_tokens=16,
    )
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens + 8


def test_a_response_calls_a_function(client, coder):
    done = client.responses.create(
        model=coder,
        input="What is the weather in Paris? Use the tool.",
        tools=[{"type": "function", **FUNCTION, "strict": True}],
        temperature=0,
        max_output_tokens=128,
    )
    (call,) = [item for item in done.output if item.type == "function_call"]
    assert call.name == "get_weather"
    assert json.loads(call.arguments)["city"].startswith("Paris")


def test_errors_are_of_the_clients_classes(client, small):
    with pytest.raises(openai.NotFoundError, match="nothing-of-this-name"):
        client.chat.completions.create(messages=SKY, model="nothing-of-this-name")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=small, messages=[{"role": "user", "content": 5}])
