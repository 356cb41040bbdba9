"""Routes that act on a running answer: have it answer now, read it again, stop it."""

from urllib.parse import parse_qs

from localrun.errors import BadRequest
from localrun.server.answers import STREAM_HEADER, Call
from localrun.server.resume import checked_id, no_stream, play, start_of
from localrun.server.schema.decode import Fields, parse_json
from localrun.server.tape import Tape


async def answer_now(call: Call) -> None:
    """POST /api/answer_now: the model ends its reasoning and answers."""
    fields = Fields(parse_json(call.body), "AnswerNowRequest")
    wanted = fields.text("stream") or ""
    if not wanted:
        raise BadRequest("stream is required")
    if not end_reasoning(call, wanted):
        raise no_stream(wanted[:128])
    await call.json({"stream": wanted, "status": "success"})


async def control(call: Call) -> None:
    """POST /v1/chat/completions/control, as llama-server has it."""
    fields = Fields(parse_json(call.body), "ControlRequest")
    wanted, action = fields.text("id") or "", fields.text("action") or ""
    if not wanted:
        raise BadRequest("missing completion id")
    if action != "reasoning_end":
        raise BadRequest("unknown control action")
    if end_reasoning(call, wanted):
        await call.json({"success": True})
    else:
        await call.json({"success": False, "message": "no such completion is running"})


async def stream(call: Call) -> None:
    """GET /v1/stream/{id}: the bytes of a named stream from `from` on."""
    query: str = call.scope["query_string"].decode("latin-1")
    values = parse_qs(query, keep_blank_values=True, max_num_fields=64)
    start = start_of(values.get("from", [""])[-1])
    await play(call, _tape(call), start)


async def stop_stream(call: Call) -> None:
    """DELETE /v1/stream/{id}: stop the answer and forget its bytes."""
    call.rooms.streams.cancel(_tape(call))
    await call.answer(204, b"")


def end_reasoning(call: Call, wanted: str) -> bool:
    """Have the answer of an id (of its stream or its own) end its reasoning; False if none runs.

    Args:
        call: Who wants it; only answers to the same key are found.
        wanted: The id.
    """
    found = [
        other
        for other in call.rooms.calls
        if other.cache_scope == call.cache_scope
        and wanted in (other.answer_id, other.header(STREAM_HEADER))
    ]
    completions = [completion for other in found for completion in other.completions]
    for completion in completions:
        completion.end_reasoning()
    return bool(completions)


def _tape(call: Call) -> Tape:
    stream_id = checked_id(call.scope["path_params"]["id"])
    tape = call.rooms.streams.find(call.cache_scope, stream_id)
    if tape is None:
        raise no_stream(stream_id)
    return tape


ROUTES = (
    ("POST", "/api/answer_now", answer_now),
    ("POST", "/v1/chat/completions/control", control),
    ("GET", "/v1/stream/{id}", stream),
    ("DELETE", "/v1/stream/{id}", stop_stream),
)
