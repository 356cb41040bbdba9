"""GET /api/explain: why prompts were not read from the cache."""

from urllib.parse import parse_qs

from localrun.errors import BadRequest
from localrun.server.answers import Call
from localrun.server.trail import MAX_REQUESTS, SETTINGS, Request
from localrun.server.wire import local_time_of


def why(request: Request) -> str:
    """In one sentence, how much of a prompt came from the cache and why not more."""
    broken = request.broken
    if request.n_dropped:
        return f"{request.n_dropped} old messages were left out, as the history did not fit"
    if request.earlier is None:
        return "there was no earlier prompt of this model"
    if broken is not None:
        place = broken.role if broken.role == SETTINGS else f"{broken.role} {broken.index}"
        is_gone = not (broken.now or broken.at)
        what = "is gone" if is_gone else f"differs from character {broken.at} on"
        return f"{place} {what}"
    if request.n_cached < min(request.earlier, request.n_prompt) * 0.8:
        return "the messages agree; their cells had to make room, or the model was loaded anew"
    return "it goes on from an earlier prompt"


def report(request: Request) -> dict[str, object]:
    """A request as clients get it."""
    found: dict[str, object] = {
        "model": request.model,
        "answered_at": local_time_of(request.answered_s),
        "prompt_tokens": request.n_prompt,
        "cached_tokens": request.n_cached,
        "why": why(request),
    }
    if request.earlier is not None:
        found["earlier_prompt_tokens"] = request.earlier
    if request.n_dropped:
        found["truncated_messages"] = request.n_dropped
    if (broken := request.broken) is not None:
        found["broken"] = {
            "role": broken.role,
            "index": broken.index,
            "character": broken.at,
            "was": broken.was,
            "now": broken.now,
        }
    return found


async def explain(call: Call) -> None:
    """GET /api/explain: the last requests and the first message that broke each prefix."""
    query: str = call.scope["query_string"].decode("latin-1")
    values = parse_qs(query, keep_blank_values=True, max_num_fields=64)
    n_text = values.get("n", [""])[-1] or str(MAX_REQUESTS)
    if not (n_text.isascii() and n_text.isdecimal() and len(n_text) < 10):
        raise BadRequest("n must be a count of requests")
    model = values.get("model", [""])[-1]
    found = call.rooms.trail.last(call.cache_scope, model, int(n_text))
    await call.json({"requests": [report(request) for request in found]})


ROUTES = (("GET", "/api/explain", explain),)
