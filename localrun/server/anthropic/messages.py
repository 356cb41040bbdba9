"""POST /v1/messages and /v1/messages/count_tokens."""

from localrun.server.answers import Call
from localrun.server.anthropic.errors import AnthropicErrors, new_id
from localrun.server.anthropic.schema import MessagesRequest, read_count_tokens, read_messages
from localrun.server.anthropic.writer import MessageWriter
from localrun.server.ask import Ask
from localrun.server.complete import complete
from localrun.server.prepare import count_tokens as count
from localrun.server.prompts import conversation_prompt


async def messages(call: Call) -> None:
    """POST /v1/messages."""
    _name(call)
    request = read_messages(call.body)
    writer = MessageWriter(request)
    call.answer_id = writer.id
    if request.stream:
        call.headers[b"cache-control"] = b"no-cache"
    await complete(call, _ask(request), writer)


async def count_tokens(call: Call) -> None:
    """POST /v1/messages/count_tokens: by the text worker alone, no weight is read."""
    _name(call)
    n_tokens = await count(call, _ask(read_count_tokens(call.body)))
    await call.json({"input_tokens": n_tokens})


def _name(call: Call) -> None:
    """Give the request its id: in a header, and in what its errors say."""
    request_id = new_id("req_")
    call.headers[b"request-id"] = request_id.encode()
    call.dialect = AnthropicErrors(request_id)


def _ask(request: MessagesRequest) -> Ask:
    return Ask(
        model=request.model,
        prompt=lambda model: conversation_prompt(request.turns, model),
        options=request.options,
        stream=request.stream,
        think=request.think,
        forgives_think=True,
        thinking_budget=request.thinking_budget,
        format=request.format,
        tools=request.tools,
        tool_choice=request.tool_choice,
        parallel_tool_calls=request.parallel_tool_calls,
        # An agent shortens its history by itself when it is told that the prompt is too long;
        # cutting it here would also cost the cached prefix at each turn.
        truncate=False,
        n_images=request.n_images,
    )
