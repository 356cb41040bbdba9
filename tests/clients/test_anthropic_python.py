"""The `anthropic` package, doing what its README shows."""

import anthropic
import pytest

FIXED = {"extra_body": {"temperature": 0}}
"""The client no longer names this parameter; the API still has it."""
SKY = [{"role": "user", "content": "Why is the sky blue?"}]
WEATHER = {
    "name": "get_weather",
    "description": "Get the current weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Name of the city"}},
        "required": ["city"],
    },
}
ASK_WEATHER = [{"role": "user", "content": "What is the weather in Paris? Use the tool."}]


@pytest.fixture(scope="module")
def client(server):
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)


def test_a_message(client, small):
    message = client.messages.create(
        model=small, max_tokens=24, messages=SKY, **FIXED, system="Be brief."
    )
    assert (message.type, message.role) == ("message", "assistant")
    (block,) = message.content
    assert block.type == "text"
    assert block.text
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 24
    assert message.usage.input_tokens > 5


def test_a_stream_has_the_events_of_the_protocol(client, small):
    kinds = []
    with client.messages.stream(model=small, max_tokens=24, messages=SKY, **FIXED) as stream:
        kinds += [event.type for event in stream]
        final = stream.get_final_message()
    own = [kind for kind in kinds if kind.startswith(("message", "content"))]
    assert own[:2] == ["message_start", "content_block_start"]
    assert own[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(own[2:-3]) == {"content_block_delta"}
    whole = client.messages.create(model=small, max_tokens=24, messages=SKY, **FIXED)
    assert final.content[0].text == whole.content[0].text
    assert final.usage.output_tokens == 24
    assert final.stop_reason == "max_tokens"


def test_text_stream(client, small):
    with client.messages.stream(model=small, max_tokens=12, messages=SKY, **FIXED) as stream:
        pieces = list(stream.text_stream)
        assert "".join(pieces) == stream.get_final_text()
    assert len(pieces) > 4


def test_a_stop_sequence_is_told(client, small):
    message = client.messages.create(
        model=small,
        max_tokens=60,
        messages=[{"role": "user", "content": "Why is the sky blue?"}],
        stop_sequences=["is"],
        **FIXED,
    )
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "is")
    assert all("is" not in block.text for block in message.content)


def test_a_tool_is_used_and_its_result_read(client, coder):
    first = client.messages.create(
        model=coder, max_tokens=128, messages=ASK_WEATHER, tools=[WEATHER], **FIXED
    )
    assert first.stop_reason == "tool_use"
    (use,) = [block for block in first.content if block.type == "tool_use"]
    assert use.name == "get_weather"
    assert use.input["city"].startswith("Paris")
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "18 degrees and sunny"}
    second = client.messages.create(
        model=coder,
        max_tokens=64,
        messages=[
            *ASK_WEATHER,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result]},
        ],
        **FIXED,
    )
    assert second.stop_reason == "end_turn"
    assert "18" in second.content[0].text


def test_a_forced_tool_is_used_in_a_stream(client, coder):
    with client.messages.stream(
        model=coder,
        max_tokens=128,
        messages=[{"role": "user", "content": "Rome"}],
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
        **FIXED,
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert "input_json" in kinds
    (use,) = [block for block in final.content if block.type == "tool_use"]
    assert (use.name, set(use.input)) == ("get_weather", {"city"})


def test_tokens_are_counted_as_they_are_charged(client, small):
    counted = client.messages.count_tokens(model=small, messages=SKY)
    message = client.messages.create(model=small, max_tokens=1, messages=SKY)
    usage = message.usage
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert counted.input_tokens == usage.input_tokens + cached


def test_errors_are_of_the_clients_classes(client, small):
    with pytest.raises(anthropic.NotFoundError, match="nothing-of-this-name"):
        client.messages.create(model="nothing-of-this-name", max_tokens=1, messages=SKY)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model=small, max_tokens=0, messages=SKY)
