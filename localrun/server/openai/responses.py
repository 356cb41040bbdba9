"""POST /v1/responses and what is kept of it; counts of tokens without an answer."""

from collections.abc import Sequence
from typing import cast
from urllib.parse import parse_qsl

import msgspec

from localrun.errors import NotFound
from localrun.messages import Turn
from localrun.server.answers import Call
from localrun.server.ask import Ask
from localrun.server.complete import complete
from localrun.server.kept import StoredResponse
from localrun.server.openai.chat import check_name, read_chat
from localrun.server.openai.errors import InvalidField, UnsupportedField, reading
from localrun.server.openai.events import ResponseWriter, StreamedWriter
from localrun.server.openai.items import Item, read_turns
from localrun.server.openai.response import Response, ResponseRequest, read_response
from localrun.server.openai.turns import count_images
from localrun.server.prepare import count_tokens
from localrun.server.prompts import conversation_prompt
from localrun.server.wire import dump

_MAX_LISTED = 100
_LISTED = 20


class PreviousMissing(InvalidField):
    """Raised when a response cannot be gone on from: it, or one before it, is no longer kept."""

    code = "previous_response_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Previous response with id '{name}' not found.",
            "previous_response_id",
            hint="send the whole conversation as input",
        )


async def create(call: Call) -> None:
    """POST /v1/responses."""
    request = reading(call, read_response)
    ask = reading(call, lambda _: _ask(call, request))
    check_name(ask)
    response = Response(request.model, request.echoed)

    def keep(made: dict[str, object], output: list[Item]) -> None:
        if request.stores:
            stored = StoredResponse(dump(made), dump(request.items), dump(output), request.previous)
            call.rooms.responses.put(call.cache_scope, response.id, stored)

    kind = StreamedWriter if request.stream else ResponseWriter
    writer = kind(response, request.spaces, keep)
    call.answer_id = response.id
    call.dialect = writer
    if request.stream:
        call.headers[b"cache-control"] = b"no-cache"
    await complete(call, ask, writer)


def _ask(call: Call, request: ResponseRequest) -> Ask:
    turns = _turns(call, request)
    return Ask(
        model=request.model,
        prompt=lambda model: conversation_prompt(turns, model),
        options=request.options,
        stream=request.stream,
        keep_alive_s=request.keep_alive_s,
        think=request.think,
        thinking_budget=request.thinking_budget,
        format=request.format,
        tools=request.tools.tools,
        tool_choice=request.tools.choice,
        parallel_tool_calls=request.tools.parallel,
        truncate=request.truncates,
        n_logprobs=request.n_logprobs,
        logit_bias=request.logit_bias,
        variables=request.variables,
        n_images=count_images(turns),
    )


def _turns(call: Call, request: ResponseRequest) -> tuple[Turn, ...]:
    """The conversation: instructions, what earlier responses hold, the new input."""
    items = [*_earlier(call, request.previous), *request.items]
    turns = read_turns(items)
    if not request.instructions:
        return turns
    return (Turn("system", request.instructions), *turns)


def _earlier(call: Call, name: str) -> list[Item]:
    chain = call.rooms.responses.chain(call.cache_scope, name)
    if chain is None:
        raise PreviousMissing(name)
    return [item for stored in chain for item in (*_items(stored.items), *_items(stored.output))]


def _items(packed: bytes) -> list[Item]:
    return cast("list[Item]", msgspec.json.decode(packed))


async def show(call: Call) -> None:
    """GET /v1/responses/{id}."""
    if _query(call).get("stream") == "true":
        raise UnsupportedField("a stored response is not streamed again", "stream")
    await call.answer(200, _stored(call).response + b"\n")


async def delete(call: Call) -> None:
    """DELETE /v1/responses/{id}."""
    _stored(call)
    name = _name(call)
    call.rooms.responses.pop(call.cache_scope, name)
    await call.answer(200, dump({"id": name, "object": "response", "deleted": True}) + b"\n")


async def input_items(call: Call) -> None:
    """GET /v1/responses/{id}/input_items: all that it answered, earlier responses included."""
    stored = _stored(call)
    items = [*_earlier(call, stored.previous), *_items(stored.items)]
    query = _query(call)
    if query.get("order", "desc") == "desc":
        items.reverse()
    if after := query.get("after"):
        names = [item["id"] for item in items]
        items = items[names.index(after) + 1 :] if after in names else []
    limit = _limit(query.get("limit", ""))
    page = items[:limit]
    await call.answer(200, dump(_page(page, has_more=len(items) > limit)) + b"\n")


def _page(items: Sequence[Item], *, has_more: bool) -> dict[str, object]:
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }


def _limit(text: str) -> int:
    if not text:
        return _LISTED
    if not text.isdecimal() or not 1 <= int(text[:4]) <= _MAX_LISTED:
        raise InvalidField(f"limit must be between 1 and {_MAX_LISTED}", "limit")
    return int(text)


def _name(call: Call) -> str:
    name: str = call.scope["path_params"]["id"]
    return name


def _stored(call: Call) -> StoredResponse:
    stored = call.rooms.responses.get(call.cache_scope, _name(call))
    if stored is None:
        raise NotFound(
            f"Response with id '{_name(call)[:100]}' not found.",
            hint="responses are kept in memory while the server runs, the newest ones",
        )
    return stored


def _query(call: Call) -> dict[str, str]:
    return dict(parse_qsl(call.scope["query_string"].decode("latin-1")))


async def count_response(call: Call) -> None:
    """POST /v1/responses/input_tokens."""
    request = reading(call, read_response)
    await _count(call, reading(call, lambda _: _ask(call, request)))


async def count_chat(call: Call) -> None:
    """POST /v1/chat/completions/input_tokens."""
    await _count(call, reading(call, read_chat).ask)


async def _count(call: Call, ask: Ask) -> None:
    check_name(ask)
    counted = {"object": "response.input_tokens", "input_tokens": await count_tokens(call, ask)}
    await call.answer(200, dump(counted) + b"\n")
