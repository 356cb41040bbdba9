"""Tools, how they may be chosen, and the form of an answer, as OpenAI's requests say them. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from localrun.server.openai.errors import InvalidField, UnsupportedField
from localrun.server.openai.fields import Body

Tool: TypeAlias = dict[str, object]
"""`{"type": "function", "function": {"name": …, …}}`, keys in the client's order."""

MAX_TOOLS = 1024
_MODES = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class Tools:
    """What the model may call.

    Attributes:
        tools: Those it may call.
        choice: `auto`, `none`, `required`, or `name:` and a tool's name.
        parallel: More than one call in one answer is wanted.
    """

    tools: tuple[Tool, ...] = ()
    choice: str = "auto"
    parallel: bool = True


def read_tools(body: Body) -> Tools:
    """`tools`, `tool_choice` and `parallel_tool_calls` of a chat.

    Raises:
        BadRequest: If one is malformed, or of a kind that runs elsewhere.
    """
    tools = tuple(_read_tool(tool) for tool in body.inners("tools", "[]api.Tool"))
    return choose(body, tools, _chosen_name)


def _read_tool(body: Body) -> Tool:
    kind = body.text("type") or "function"
    if kind != "function":
        raise UnsupportedField(f'tools of type "{kind}" are not supported', "tools")
    function = body.inner("function", "api.ToolFunction")
    name = function.text("name") if function else None
    if function is None or not name:
        raise InvalidField("a tool has no function.name", "tools")
    function.text("description")
    function.record("parameters")
    given = body.record("function") or {}
    return {"type": "function", "function": given}


def name_of(tool: Tool) -> str:
    """A tool's name."""
    return str(cast("dict[str, object]", tool["function"])["name"])


def choose(
    body: Body, tools: tuple[Tool, ...], named: Callable[[Body], str | Sequence[str] | None]
) -> Tools:
    """The tools by what `tool_choice` leaves of them.

    Args:
        body: The request.
        tools: All its tools.
        named: Reads a choice that is an object: the one tool to be called, or those allowed.

    Raises:
        InvalidField: If the choice is none, or names a tool that is not there.
    """
    if len(tools) > MAX_TOOLS:
        raise InvalidField(f"tools takes at most {MAX_TOOLS} tools", "tools")
    parallel = body.flag("parallel_tool_calls") is not False
    value = body.all.get("tool_choice")
    if value is None:
        return Tools(tools, "auto", parallel)
    if isinstance(value, str):
        if value not in _MODES:
            raise InvalidField(
                f"tool_choice {value!r} is none of {', '.join(_MODES)}", "tool_choice"
            )
        if value == "required" and not tools:
            raise InvalidField("tool_choice is required, and there are no tools", "tool_choice")
        return Tools(tools, value, parallel)
    choice = body.inner("tool_choice", "openai.ToolChoice")
    assert choice is not None
    return _choose_named(choice, tools, named, parallel=parallel)


def _choose_named(
    choice: Body,
    tools: tuple[Tool, ...],
    named: Callable[[Body], str | Sequence[str] | None],
    *,
    parallel: bool,
) -> Tools:
    wanted = named(choice)
    if wanted is None:
        raise InvalidField("tool_choice names no function", "tool_choice")
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    known = {name_of(tool) for tool in tools}
    for name in names:
        if name not in known:
            raise InvalidField(f"tool_choice names {name!r}, which is not in tools", "tool_choice")
    if isinstance(wanted, str):
        return Tools(tools, f"name:{wanted}", parallel)
    mode = read_mode(choice)
    return Tools(tuple(tool for tool in tools if name_of(tool) in names), mode, parallel)


def read_mode(choice: Body) -> str:
    """The mode of a choice of allowed tools."""
    inner = choice.inner("allowed_tools", "openai.AllowedTools") or choice
    mode = inner.text("mode") or "auto"
    if mode not in ("auto", "required"):
        raise InvalidField(
            f"tool_choice: mode {mode!r} is neither auto nor required", "tool_choice"
        )
    return mode


def _chosen_name(choice: Body) -> str | list[str] | None:
    if choice.text("type") == "allowed_tools":
        allowed = choice.inner("allowed_tools", "openai.AllowedTools")
        tools = allowed.inners("tools", "[]api.Tool") if allowed else []
        return [name_of(_read_tool(tool)) for tool in tools]
    function = choice.inner("function", "api.ToolFunction")
    return function.text("name") if function else None


def read_format(form: Body | None, place: str) -> str | dict[str, object] | None:
    """What an answer must match: `json`, a schema, or None for anything.

    Args:
        form: `response_format` of a chat, `text.format` of a response.
        place: Its path, for errors.

    Raises:
        InvalidField: If its type is unknown, or its schema is missing.
    """
    if form is None:
        return None
    kind = (form.text("type") or "text").strip().lower()
    if kind == "text":
        return None
    if kind == "json_object":
        return "json"
    if kind != "json_schema":
        raise InvalidField(
            f"{place}: type {kind!r} is none of text, json_object, json_schema", place
        )
    holder = form.inner("json_schema", "openai.JsonSchema") or form
    schema = holder.record("schema")
    if schema is None:
        raise InvalidField(f"{place} has no schema", place)
    return schema
