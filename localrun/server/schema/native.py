"""Requests of Ollama's native API. Pure.

What is not built yet is refused with a 400 that says so, never ignored.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from localrun.errors import BadRequest, Unsupported
from localrun.messages import Turn
from localrun.server.durations import parse_keep_alive
from localrun.server.schema.decode import Fields, parse_json

_LATER = "not supported by this version of localrun yet"
_THINK_LEVELS = ("high", "medium", "low", "max")
_THINK_WORDS = '"high", "medium", "low", "max", true, or false'


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What every request that runs a model says.

    Attributes:
        model: Name as the client wrote it; the answers repeat it.
        options: As sent, checked where they are merged.
        stream: Answer in records instead of one object.
        keep_alive_s: Stay of the model afterwards; None keeps what holds.
        wants_thinking: `think` is true or a level.
    """

    model: str
    options: Mapping[str, object]
    stream: bool
    keep_alive_s: float | None
    wants_thinking: bool


@dataclass(frozen=True, slots=True)
class GenerateRequest(ModelRequest):
    """POST /api/generate.

    Attributes:
        prompt: Empty only loads, or with a keep-alive of 0 unloads, the model.
        system: Replaces the model's system message; empty keeps it.
        template: Replaces the model's template; empty keeps it.
        context: Tokens of an earlier answer; None without.
        raw: The prompt goes to the model as it is.
        render_only: Answer with the rendered prompt.
    """

    prompt: str
    system: str
    template: str
    context: tuple[int, ...] | None
    raw: bool
    render_only: bool


@dataclass(frozen=True, slots=True)
class ChatRequest(ModelRequest):
    """POST /api/chat. Without messages it loads or unloads, as above."""

    messages: tuple[Turn, ...]
    render_only: bool


@dataclass(frozen=True, slots=True)
class ShowRequest:
    """POST /api/show."""

    model: str
    system: str
    verbose: bool


@dataclass(frozen=True, slots=True)
class PullRequest:
    """POST /api/pull."""

    model: str
    stream: bool


def read_generate(body: bytes) -> GenerateRequest:
    """Read the body of /api/generate.

    Raises:
        BadRequest: If it cannot be understood.
        Unsupported: If it asks for what is not built yet.
    """
    fields = Fields(parse_json(body), "GenerateRequest")
    common = _common(fields)
    context = fields.ints("context")
    request = GenerateRequest(
        **common,  # type: ignore[arg-type]  # the five fields of ModelRequest
        prompt=fields.text("prompt") or "",
        system=fields.text("system") or "",
        template=fields.text("template") or "",
        context=None if context is None else tuple(context),
        raw=fields.flag("raw") or False,
        render_only=fields.flag("_debug_render_only") or False,
    )
    _refuse_later("suffix", fields.text("suffix"))
    _refuse_later("images", fields.array("images", "[]api.ImageData"))
    if request.raw and (request.template or request.system or request.context):
        raise BadRequest("raw mode does not support template, system, or context")
    return request


def read_chat(body: bytes) -> ChatRequest:
    """Read the body of /api/chat. Raises as `read_generate`."""
    fields = Fields(parse_json(body), "ChatRequest")
    common = _common(fields)
    messages = fields.each("messages", "[]api.Message", _read_message)
    _refuse_later("tools", fields.array("tools", "api.Tools"))
    return ChatRequest(
        **common,  # type: ignore[arg-type]  # the five fields of ModelRequest
        messages=tuple(messages),
        render_only=fields.flag("_debug_render_only") or False,
    )


def read_show(body: bytes) -> ShowRequest:
    """Read the body of /api/show."""
    fields = Fields(parse_json(body), "ShowRequest")
    return ShowRequest(_name(fields), fields.text("system") or "", fields.flag("verbose") or False)


def read_pull(body: bytes) -> PullRequest:
    """Read the body of /api/pull."""
    fields = Fields(parse_json(body), "PullRequest")
    stream = fields.flag("stream")
    fields.flag("insecure")  # of the right type; what is fetched is checked by its hash
    return PullRequest(_name(fields), stream is not False)


def read_delete(body: bytes) -> str:
    """The name in the body of /api/delete."""
    return _name(Fields(parse_json(body), "DeleteRequest"))


def _name(fields: Fields) -> str:
    return fields.text("model") or fields.text("name") or ""


def _common(fields: Fields) -> dict[str, object]:
    n_logprobs = fields.count("top_logprobs") or 0
    if not 0 <= n_logprobs <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20")
    _check_format(fields.all.get("format"))
    if fields.flag("logprobs") or n_logprobs:
        raise Unsupported(f'"logprobs" is {_LATER}')
    for name in ("truncate", "shift"):
        fields.flag(name)  # of the right type; a prompt is never cut, and never shifted
    return {
        "model": fields.text("model") or "",
        "options": fields.record("options") or {},
        "stream": fields.flag("stream") is not False,
        "keep_alive_s": parse_keep_alive(fields.all.get("keep_alive")),
        "wants_thinking": _wants_thinking(fields.all.get("think")),
    }


def _check_format(value: object) -> None:
    if value in (None, ""):
        return
    if value == "json" or isinstance(value, dict):
        raise Unsupported(f'"format" is {_LATER}')
    raise BadRequest(
        f'invalid format: {json.dumps(value)}; expected "json" or a valid JSON Schema object'
    )


def _wants_thinking(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    if not isinstance(value, str):
        raise BadRequest(f"think must be a boolean or string ({_THINK_WORDS})")
    if value not in _THINK_LEVELS:
        raise BadRequest(f'invalid think value: "{value}" (must be {_THINK_WORDS})')
    return True


def _refuse_later(name: str, value: object) -> None:
    if value:
        raise Unsupported(f'"{name}" is {_LATER}')


def _read_message(fields: Fields) -> Turn:
    _refuse_later("images", fields.array("images", "[]api.ImageData"))
    extra: dict[str, object] = {}
    for name in ("thinking", "tool_name", "tool_call_id"):
        if (value := fields.text(name)) is not None:
            extra[name] = value
    if (calls := fields.array("tool_calls", "[]api.ToolCall")) is not None:
        extra["tool_calls"] = calls
    return Turn((fields.text("role") or "").lower(), fields.text("content") or "", extra)
