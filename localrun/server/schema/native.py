"""Requests of Ollama's native API. Pure."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from localrun.errors import BadRequest
from localrun.messages import Turn
from localrun.server.durations import parse_keep_alive
from localrun.server.schema.decode import Fields, parse_json, plain

_THINK_LEVELS = ("high", "medium", "low", "max")
_THINK_WORDS = '"high", "medium", "low", "max", true, or false'
_MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """What every request that runs a model says.

    Attributes:
        model: Name as the client wrote it; the answers repeat it.
        options: As sent, checked where they are merged.
        stream: Answer in records instead of one object.
        keep_alive_s: Stay of the model afterwards; None keeps what holds.
        think: Whether, or how hard, to reason; None leaves it to the model.
        format: `json`, a JSON schema, or None.
        truncate: Drop the oldest turns of a history that does not fit.
        n_logprobs: Alternatives told with each token; negative tells no log-probabilities.
        render_only: Answer with the rendered prompt.
        n_images: Images that came along.
    """

    model: str
    options: Mapping[str, object]
    stream: bool
    keep_alive_s: float | None
    think: bool | str | None
    format: str | Mapping[str, object] | None
    truncate: bool
    n_logprobs: int
    render_only: bool
    n_images: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest(ModelRequest):
    """POST /api/generate.

    Attributes:
        prompt: Empty only loads, or with a keep-alive of 0 unloads, the model.
        suffix: Text behind the completion; empty without.
        system: Replaces the model's system message; empty keeps it.
        template: Replaces the model's template; empty keeps it.
        context: Tokens of an earlier answer; None without.
        raw: The prompt goes to the model as it is.
    """

    prompt: str
    suffix: str
    system: str
    template: str
    context: tuple[int, ...] | None
    raw: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest(ModelRequest):
    """POST /api/chat. Without messages it loads or unloads, as above."""

    messages: tuple[Turn, ...]
    tools: tuple[dict[str, object], ...]


@dataclass(frozen=True, slots=True)
class ShowRequest:
    """POST /api/show."""

    model: str
    system: str
    verbose: bool


@dataclass(frozen=True, slots=True)
class PullRequest:
    """POST /api/pull; the last three are for registries."""

    model: str
    stream: bool
    insecure: bool = False
    username: str = ""
    password: str = field(default="", repr=False)


def read_generate(body: bytes) -> GenerateRequest:
    """Read the body of /api/generate.

    Raises:
        BadRequest: If it cannot be understood.
    """
    fields = Fields(parse_json(body), "GenerateRequest")
    common = _common(fields)
    context = fields.ints("context")
    return GenerateRequest(
        **common,  # type: ignore[arg-type]  # the fields of ModelRequest
        n_images=len(_images(fields)),
        prompt=fields.text("prompt") or "",
        suffix=fields.text("suffix") or "",
        system=fields.text("system") or "",
        template=fields.text("template") or "",
        context=None if context is None else tuple(context),
        raw=fields.flag("raw") or False,
    )


def read_chat(body: bytes) -> ChatRequest:
    """Read the body of /api/chat. Raises as `read_generate`."""
    fields = Fields(parse_json(body), "ChatRequest")
    common = _common(fields)
    n_images = 0

    def read_message(message: Fields) -> Turn:
        nonlocal n_images
        n_images += len(_images(message))
        return _read_message(message)

    fields.array("messages", "[]api.Message")
    messages = fields.each("messages", "[]api.Alias", read_message)  # Go's name inside its decoder
    return ChatRequest(
        **common,  # type: ignore[arg-type]  # the fields of ModelRequest
        n_images=n_images,
        messages=tuple(messages),
        tools=_tools(fields),
    )


def read_show(body: bytes) -> ShowRequest:
    """Read the body of /api/show."""
    fields = Fields(parse_json(body), "ShowRequest")
    fields.record("options")  # of the right type; Ollama shows nothing of it
    fields.text("template")
    return ShowRequest(_name(fields), fields.text("system") or "", fields.flag("verbose") or False)


def read_pull(body: bytes) -> PullRequest:
    """Read the body of /api/pull."""
    fields = Fields(parse_json(body), "PullRequest")
    stream = fields.flag("stream")
    return PullRequest(
        _name(fields),
        stream is not False,
        fields.flag("insecure") or False,
        fields.text("username") or "",
        fields.text("password") or "",
    )


def read_delete(body: bytes) -> str:
    """The name in the body of /api/delete."""
    return _name(Fields(parse_json(body), "DeleteRequest"))


def _name(fields: Fields) -> str:
    return fields.text("model") or fields.text("name") or ""


def _common(fields: Fields) -> dict[str, object]:
    n_top = fields.count("top_logprobs") or 0
    if not 0 <= n_top <= _MAX_TOP_LOGPROBS:
        raise BadRequest("top_logprobs must be between 0 and 20")
    fields.flag("shift")  # of the right type; a full window ends the answer
    return {
        "model": fields.text("model") or "",
        "options": fields.record("options") or {},
        "stream": fields.flag("stream") is not False,
        "keep_alive_s": parse_keep_alive(fields.all.get("keep_alive")),
        "think": read_think(fields.all.get("think")),
        "format": read_format(fields.all.get("format")),
        "truncate": fields.flag("truncate") is not False,
        "n_logprobs": n_top if fields.flag("logprobs") else -1,
        "render_only": fields.flag("_debug_render_only") or False,
    }


def read_format(value: object) -> str | Mapping[str, object] | None:
    """The `format` of a request.

    Raises:
        BadRequest: If it is neither `json` nor a schema, in Ollama's words.
    """
    if value in (None, ""):
        return None
    if value == "json":
        return "json"
    if isinstance(value, dict):
        return cast("dict[str, object]", plain(cast("object", value)))
    given = json.dumps(json.dumps(value, ensure_ascii=False), ensure_ascii=False)
    raise BadRequest(f'invalid format: {given}; expected "json" or a valid JSON Schema object')


def read_think(value: object) -> bool | str | None:
    """The `think` of a request.

    Raises:
        BadRequest: If it is neither a boolean nor a level, in Ollama's words.
    """
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise BadRequest(f"think must be a boolean or string ({_THINK_WORDS})")
    if value not in _THINK_LEVELS:
        raise BadRequest(f'invalid think value: "{value}" (must be {_THINK_WORDS})')
    return value


def _images(fields: Fields) -> list[object]:
    """The images, each of which must be base64: nothing can look at them yet, but count them."""
    found = fields.array("images", "[]api.ImageData") or []
    for image in found:
        if not isinstance(image, str | None):
            raise fields.wrong("images", image, "api.ImageData")
        if image and (at := _first_bad_byte(image)) is not None:
            raise BadRequest(f"illegal base64 data at input byte {at}")
    return found


_BASE64 = re.compile(r"[A-Za-z0-9+/\r\n]*")


def _first_bad_byte(text: str) -> int | None:
    """Where Go's decoder of base64 stops; None if it does not."""
    try:
        base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except ValueError:
        found = _BASE64.match(text)
        at = found.end() if found else 0
        return at if at < len(text) else len(text) - len(text) % 4
    return None


def _tools(fields: Fields) -> tuple[dict[str, object], ...]:
    """The tools as they were written, but for what is no tool."""
    tools = fields.array("tools", "api.Tools") or []
    fields.each("tools", "[]api.Tool", _check_tool, "Tool")
    return tuple(cast("dict[str, object]", plain(tool or {})) for tool in tools)


def _check_tool(fields: Fields) -> None:
    fields.text("type")
    function = fields.part("function", "api.ToolFunction", "ToolFunction")
    function.text("name")
    function.text("description")
    parameters = function.part("parameters", "api.ToolFunctionParameters", "ToolFunctionParameters")
    parameters.text("type")
    parameters.texts("required")
    parameters.record("properties")


def _read_message(fields: Fields) -> Turn:
    extra: dict[str, object] = {}
    for name in ("thinking", "tool_name", "tool_call_id"):
        if (value := fields.text(name)) is not None:
            extra[name] = value
    calls = fields.each("tool_calls", "[]api.ToolCall", _read_call)
    if calls:
        extra["tool_calls"] = calls
    return Turn((fields.text("role") or "").lower(), fields.text("content") or "", extra)


def _read_call(fields: Fields) -> dict[str, object]:
    function = fields.part("function", "api.ToolCallFunction")
    function.count("index")
    arguments = function.all.get("arguments")
    if not isinstance(arguments, dict | None):
        raise BadRequest("Value looks like object, but can't find closing '}' symbol")
    call: dict[str, object] = {
        "type": "function",
        "function": {
            "name": function.text("name") or "",
            "arguments": plain(cast("object", arguments or {})),
        },
    }
    if call_id := fields.text("id"):
        call = {"id": call_id, **call}
    return call
