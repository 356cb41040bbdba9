"""What a response is asked for, and the object that it is. Pure."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from localrun.server.ask import Answer
from localrun.server.openai.chunks import new_id, truncated
from localrun.server.openai.errors import InvalidField, UnsupportedField
from localrun.server.openai.fields import (
    MAX_TOP_LOGPROBS,
    Body,
    read_biases,
    read_body,
    read_keep_alive,
    read_name,
    read_options,
    read_think,
    read_variables,
    refuse_fields,
)
from localrun.server.openai.items import Item, qualified, read_items
from localrun.server.openai.tools import Tool, Tools, choose, read_format

_REFUSED: Mapping[str, str] = {
    "background": "leave it out and stream the response",
    "conversation": "use previous_response_id",
    "prompt": "send the prompt's text as instructions and input",
    "context_management": "shorten the input, or send truncation: auto",
}
_LOGPROBS = "message.output_text.logprobs"


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """POST /v1/responses.

    Attributes:
        model: Name as the client wrote it.
        instructions: The system's turn, in front of everything; empty without.
        items: Input, without that of earlier responses.
        previous: Id of the response to go on from; empty without.
        tools: What may be called, and how.
        spaces: From a tool's name, as the model sees it, to its namespace and its own name.
        options: In Ollama's names.
        think: Whether, or how hard, to reason; None leaves it to the model.
        thinking_budget: Reasoning tokens at most; negative for no limit.
        format: What the text must match.
        n_logprobs: Alternatives told with each token; negative for none.
        logit_bias: Token id → what is added to its logit.
        variables: Further variables of the chat template.
        truncates: Drop the oldest turns if they do not fit.
        stream: Answer in events.
        keep_alive_s: Stay of the model afterwards.
        stores: Keep the response for later ones.
        echoed: Fields of the request that stand in the response.
    """

    model: str
    instructions: str
    items: tuple[Item, ...]
    previous: str
    tools: Tools
    spaces: Mapping[str, tuple[str, str]]
    options: Mapping[str, object]
    think: bool | str | None
    thinking_budget: int
    format: str | dict[str, object] | None
    n_logprobs: int
    logit_bias: Mapping[int, float]
    variables: Mapping[str, object]
    truncates: bool
    stream: bool
    keep_alive_s: float | None
    stores: bool
    echoed: Mapping[str, object] = field(default_factory=dict[str, object])


def read_response(data: bytes) -> ResponseRequest:
    """Read the body of /v1/responses.

    Raises:
        BadRequest: If it cannot be understood, or asks for what nobody here does.
    """
    body = read_body(data, "ResponsesRequest")
    name = read_name(body)
    items = tuple(read_items(body))
    refuse_fields(body, _REFUSED)
    tools, spaces, shown = _read_tools(body)
    form = body.inner("text", "openai.ResponsesText")
    form = form.inner("format", "openai.ResponsesTextFormat") if form else None
    budget = body.count("thinking_budget")
    options = read_options(body, ("max_output_tokens",), {"temperature": 1.0})
    request = ResponseRequest(
        model=name,
        instructions=body.text("instructions") or "",
        items=items,
        previous=body.text("previous_response_id") or "",
        tools=tools,
        spaces=spaces,
        options=options,
        think=read_think(body),
        thinking_budget=-1 if budget is None else budget,
        format=read_format(form, "text.format"),
        n_logprobs=_read_n_logprobs(body),
        logit_bias=read_biases(body),
        variables=read_variables(body),
        truncates=_read_truncation(body) == "auto",
        stream=bool(body.flag("stream")),
        keep_alive_s=read_keep_alive(body),
        stores=body.flag("store") is not False,
        echoed=_echoed(body, options, shown),
    )
    if not (items or request.previous or request.instructions):
        raise InvalidField("input is missing", "input")
    return request


def _read_truncation(body: Body) -> str:
    value = body.text("truncation") or "disabled"
    if value not in ("auto", "disabled"):
        raise InvalidField("truncation must be auto or disabled", "truncation")
    return value


def _read_n_logprobs(body: Body) -> int:
    include = body.array("include", "[]string") or []
    n_top = body.whole("top_logprobs", 0, MAX_TOP_LOGPROBS) or 0
    return n_top if n_top or _LOGPROBS in include else -1


def _read_tools(body: Body) -> tuple[Tools, dict[str, tuple[str, str]], list[object]]:
    """The tools, their namespaces, and those of the request that stand in the response.

    A search of the web is dropped, and so not shown: agents declare it to every server and go on
    without it.
    """
    tools: list[Tool] = []
    spaces: dict[str, tuple[str, str]] = {}
    shown: list[object] = []
    given = body.array("tools", "[]openai.ResponsesTool") or []
    for tool, item in zip(body.inners("tools", "[]openai.ResponsesTool"), given, strict=True):
        if (tool.text("type") or "").startswith("web_search"):
            continue
        shown.append(item)
        tools += _read_tool(tool, "", spaces)
    return choose(body, tuple(tools), _chosen), spaces, shown


def _read_tool(tool: Body, space: str, spaces: dict[str, tuple[str, str]]) -> list[Tool]:
    kind = tool.text("type") or "function"
    name = tool.text("name")
    if kind == "namespace":
        inner = qualified(space, name or "")
        members = tool.inners("tools", "[]openai.ResponsesTool")
        return [found for member in members for found in _read_tool(member, inner, spaces)]
    if kind != "function":
        hint = "declare it as a function" if kind == "custom" else ""
        raise UnsupportedField(f'tools of type "{kind}" are not supported', "tools", hint=hint)
    if not name:
        raise InvalidField("a tool has no name", "tools")
    function: dict[str, object] = {"name": qualified(space, name)}
    if description := tool.text("description"):
        function["description"] = description
    if (parameters := tool.record("parameters")) is not None:
        function["parameters"] = parameters
    if space:
        spaces[qualified(space, name)] = space, name
    return [{"type": "function", "function": function}]


def _chosen(choice: Body) -> str | list[str] | None:
    kind = choice.text("type")
    if kind == "allowed_tools":
        return [_chosen_name(tool) for tool in choice.inners("tools", "[]openai.ResponsesTool")]
    if kind == "function":
        return _chosen_name(choice)
    raise UnsupportedField(f'tool_choice of type "{kind}" is not supported', "tool_choice")


def _chosen_name(choice: Body) -> str:
    return qualified(choice.text("namespace") or "", choice.text("name") or "")


def _echoed(
    body: Body, options: Mapping[str, object], tools: Sequence[object]
) -> dict[str, object]:
    """The response's fields that say what was asked for, in Ollama's order."""
    text = body.record("text") or {}
    choice = body.all.get("tool_choice")
    user = body.text("user")
    return {
        "previous_response_id": body.text("previous_response_id") or None,
        "instructions": body.text("instructions") or None,
        "tools": list(tools),
        "tool_choice": "auto" if choice is None else choice,
        "truncation": body.text("truncation") or "disabled",
        "parallel_tool_calls": body.flag("parallel_tool_calls") is not False,
        "text": {**text, "format": text.get("format") or {"type": "text"}},
        "top_p": options.get("top_p", 1.0),
        "presence_penalty": options.get("presence_penalty", 0.0),
        "frequency_penalty": options.get("frequency_penalty", 0.0),
        "top_logprobs": body.count("top_logprobs") or 0,
        "temperature": options["temperature"],
        "reasoning": _echoed_reasoning(body),
        "max_output_tokens": body.count("max_output_tokens"),
        "max_tool_calls": body.count("max_tool_calls"),
        "store": body.flag("store") is not False,
        "background": False,
        "service_tier": "default",
        "metadata": body.record("metadata") or {},
        "safety_identifier": body.text("safety_identifier"),
        "prompt_cache_key": body.text("prompt_cache_key"),
        **({"user": user} if user else {}),
    }


def _echoed_reasoning(body: Body) -> dict[str, object] | None:
    given = body.record("reasoning") or {}
    return {"effort": None, "summary": None, **given} if given else None


@dataclass(slots=True)
class Response:
    """The object that a response is, while it comes about.

    Attributes:
        id: Its name.
        model: Name as the client wrote it.
        echoed: What was asked for.
        created_at: Unix time.
    """

    model: str
    echoed: Mapping[str, object]
    id: str = field(default_factory=lambda: new_id("resp_"))
    created_at: int = field(default_factory=lambda: int(time.time()))

    def begun(self) -> dict[str, object]:
        """Nothing has come yet."""
        return self._object("in_progress", [], None)

    def failed(self, output: Sequence[Item], code: str, message: str) -> dict[str, object]:
        """It broke off."""
        found = self._object("failed", output, None)
        return {**found, "error": {"code": code, "message": message}}

    def ended(self, output: Sequence[Item], answer: Answer) -> dict[str, object]:
        """It is complete, or as long as it may be."""
        if answer.finished.reason == "length":
            found = self._object("incomplete", output, usage_of(answer))
            return {**found, "incomplete_details": {"reason": "max_output_tokens"}}
        found = self._object("completed", output, usage_of(answer))
        return {**found, "completed_at": int(time.time())}

    def _object(
        self, status: str, output: Sequence[Item], usage: Mapping[str, object] | None
    ) -> dict[str, object]:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": None,
            "status": status,
            "incomplete_details": None,
            "model": self.model,
            "output": output,
            "error": None,
            "usage": usage,
            **self.echoed,
        }


def usage_of(answer: Answer) -> dict[str, object]:
    """The tokens of a response."""
    end = answer.finished
    n_new = end.n_prompt - end.n_cached
    usage: dict[str, object] = {
        "input_tokens": end.n_prompt,
        "output_tokens": end.n_completion,
        "total_tokens": end.n_prompt + end.n_completion,
        "input_tokens_details": {"cached_tokens": end.n_cached, "cache_write_tokens": n_new},
        "output_tokens_details": {"reasoning_tokens": end.n_reasoning},
    }
    return usage | truncated((answer,))
