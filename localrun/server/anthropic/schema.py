"""Requests of Anthropic's Messages API. Pure.

Read as Ollama reads them, with Go's words for a wrong type, and with what Ollama leaves aside:
`tool_choice`, `budget_tokens`, `output_config.format`, documents and search results.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from localrun.errors import BadRequest, Unsupported
from localrun.messages import Turn
from localrun.server.anthropic.blocks import read_turns, text_of_system
from localrun.server.schema.decode import Fields, kind_of, parse_json, plain

_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "max"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_CACHE_CONTROL = b'"cache_control"'


@dataclass(frozen=True, slots=True)
class MessagesRequest:
    """POST /v1/messages, and without the answer's part POST /v1/messages/count_tokens.

    Attributes:
        model: Name as the client wrote it.
        turns: The conversation, the system prompt first.
        n_images: Images among the turns.
        options: In Ollama's names.
        max_tokens: Of the answer.
        stop: Strings that end it, in the client's order.
        stream: Answer in events.
        think: Whether, or how hard, to reason; None leaves it to the model.
        thinking_budget: Reasoning tokens at most; negative for no limit.
        hides_thinking: The reasoning is not to be shown.
        format: A JSON schema that the answer must fit.
        tools: In OpenAI's form, as templates know them.
        tool_choice: As in `Ask`.
        parallel_tool_calls: More than one call in one answer is wanted.
        caches: The client asks for its prompt to be cached; it always is.
    """

    model: str
    turns: tuple[Turn, ...]
    n_images: int = 0
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    max_tokens: int = 0
    stop: tuple[str, ...] = ()
    stream: bool = False
    think: bool | str | None = None
    thinking_budget: int = -1
    hides_thinking: bool = False
    format: Mapping[str, object] | None = None
    tools: tuple[Mapping[str, object], ...] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    caches: bool = False


def read_messages(body: bytes) -> MessagesRequest:
    """Read the body of POST /v1/messages.

    Raises:
        BadRequest: If it cannot be understood.
        Unsupported: If it asks for what runs on Anthropic's machines only.
    """
    return _read(body, counts_only=False)


def read_count_tokens(body: bytes) -> MessagesRequest:
    """Read the body of POST /v1/messages/count_tokens. Raises as `read_messages`."""
    return _read(body, counts_only=True)


def _read(body: bytes, *, counts_only: bool) -> MessagesRequest:
    fields = Fields(plain(parse_json(body)), "MessagesRequest")
    model = fields.text("model") or ""
    max_tokens = fields.count("max_tokens") or 0
    messages = fields.array("messages", "[]anthropic.MessageParam") or []
    if not model:
        raise BadRequest("model is required")
    if max_tokens <= 0 and not counts_only:
        raise BadRequest("max_tokens is required and must be positive")
    if not messages:
        raise BadRequest("messages is required")
    turns, n_images = read_turns(messages)
    if system := text_of_system(fields.all.get("system")):
        turns = (Turn("system", system), *turns)
    tools = tuple(_read_tool(tool) for tool in fields.array("tools", "[]anthropic.Tool") or ())
    choice, is_parallel = _tool_choice(fields, tools)
    think, budget, is_hidden = _thinking(fields)
    stop = _strings(fields, "stop_sequences")
    return MessagesRequest(
        model=model,
        turns=turns,
        n_images=n_images,
        options=_options(fields, max_tokens, stop),
        max_tokens=max_tokens,
        stop=stop,
        stream=fields.flag("stream") or False,
        think=think,
        thinking_budget=budget,
        hides_thinking=is_hidden,
        format=_format(fields),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=is_parallel,
        caches=_CACHE_CONTROL in body,
    )


def _options(fields: Fields, max_tokens: int, stop: tuple[str, ...]) -> dict[str, object]:
    """Of sampling only what the request names: the model's own values hold otherwise."""
    found: dict[str, object] = {"num_predict": max_tokens}
    for name in ("temperature", "top_p"):
        value = fields.all.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(name, value, "float64")
        found[name] = float(value)
    if (top_k := fields.count("top_k")) is not None:
        found["top_k"] = top_k
    if stop:
        found["stop"] = list(stop)
    return found


def _strings(fields: Fields, name: str) -> tuple[str, ...]:
    values = fields.array(name, "[]string") or []
    for value in values:
        if not isinstance(value, str):
            raise _wrong(name, value, "string")
    return tuple(cast("list[str]", values))


def _part(fields: Fields, name: str, go_type: str) -> Fields:
    """An object inside the request; empty if absent."""
    return Fields(fields.all.get(name), "MessagesRequest", f"{name}.", go_type)


def _thinking(fields: Fields) -> tuple[bool | str | None, int, bool]:
    """Whether to think (or how hard), the budget, and whether to hide it."""
    thinking = _part(fields, "thinking", "anthropic.ThinkingConfig")
    output = _part(fields, "output_config", "anthropic.OutputConfig")
    kind = thinking.text("type") or ""
    effort = _EFFORTS.get((output.text("effort") or "").strip().lower())
    budget = thinking.count("budget_tokens")
    decided = {"enabled": True, "disabled": False}.get(kind)
    is_hidden = thinking.text("display") == "omitted"
    if kind != "enabled" or budget is None:
        budget = -1
    elif budget < 0:
        raise BadRequest("thinking.budget_tokens must not be negative")
    return effort if decided is None else decided, budget, is_hidden


def _format(fields: Fields) -> Mapping[str, object] | None:
    output = _part(fields, "output_config", "anthropic.OutputConfig")
    value = output.record("format") or fields.record("output_format")
    if value is None:
        return None
    schema = value.get("schema")
    if value.get("type") != "json_schema" or not isinstance(schema, dict):
        raise BadRequest('output_config.format must be {"type": "json_schema", "schema": {…}}')
    return cast("dict[str, object]", schema)


def _tool_choice(fields: Fields, tools: tuple[Mapping[str, object], ...]) -> tuple[str, bool]:
    choice = _part(fields, "tool_choice", "anthropic.ToolChoice")
    kind, name = choice.text("type") or "auto", choice.text("name") or ""
    is_parallel = not choice.flag("disable_parallel_tool_use")
    if kind == "tool":
        if name not in {cast("dict[str, object]", tool["function"])["name"] for tool in tools}:
            raise BadRequest(f"tool_choice names the tool {name!r}, which is not among tools")
        return f"name:{name}", is_parallel
    if kind not in _CHOICES:
        raise BadRequest(f"tool_choice.type must be auto, any, tool or none, not {kind!r}")
    if kind == "any" and not tools:
        raise BadRequest("tool_choice any needs tools")
    return _CHOICES[kind], is_parallel


def _read_tool(value: object) -> Mapping[str, object]:
    fields = Fields(value, "MessagesRequest", "tools.", "anthropic.Tool")
    kind, name = fields.text("type") or "custom", fields.text("name") or ""
    if kind != "custom":
        raise Unsupported(
            f"the tool type {kind!r} runs on Anthropic's machines and is not supported here",
            hint="declare it as a custom tool with an input_schema",
        )
    if not name:
        raise BadRequest("a tool needs a name")
    schema = fields.all.get("input_schema")
    if not isinstance(schema, dict | None):
        raise BadRequest(f'invalid input_schema for tool "{name}": it must be an object')
    function: dict[str, object] = {"name": name}
    if description := fields.text("description"):
        function["description"] = description
    function["parameters"] = schema or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def _wrong(name: str, value: object, go_type: str) -> BadRequest:
    return BadRequest(
        f"json: cannot unmarshal {kind_of(value)} into Go struct field"
        f" MessagesRequest.{name} of type {go_type}"
    )
