"""Render a conversation with a Go template as Ollama does. Pure, but for the date.

Source: Ollama `template/template.go`, `Execute` and `collate`.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from localrun.errors import TemplateFailed
from localrun.gotemplate.data import messages_of, tools_of
from localrun.gotemplate.execute import Limits, Run
from localrun.gotemplate.functions import FUNCTION_NAMES, Signature, functions_of
from localrun.gotemplate.lexer import HINT
from localrun.gotemplate.nodes import Action, Command, Field, Pipeline, Template
from localrun.gotemplate.parser import parse
from localrun.gotemplate.tree import Tags, cut_behind_response, names_in, thinking_tags, tool_tag
from localrun.gotemplate.values import ANY_MAP, GoError, Map, Value, clean_text, whole_text

if TYPE_CHECKING:
    from localrun.messages import Turn


@dataclass(slots=True)
class _Runner:
    """Runs templates under limits that count for all of them together."""

    functions: Mapping[str, Signature]
    limits: Limits

    def __call__(
        self, template: Template, data: dict[str, Value], *, gives_zero: bool = True
    ) -> str:
        run = Run(template, self.functions, self.limits, gives_zero)
        text = run.text(Map(ANY_MAP, data))
        self.limits = run.limits_left()
        return text


_P = ParamSpec("_P")
_R = TypeVar("_R")
_RESPONSE = Action(Pipeline((Command((Field(("Response",)),)),)))


def _bounded(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Turn a recursion without end into an error of the template."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except RecursionError:
            raise TemplateFailed(
                "the template or what it is given is nested too deeply", hint=HINT
            ) from None

    return call


@_bounded
def check_go(source: str) -> None:
    """Read a template without running it.

    Raises:
        TemplateFailed: If it is not well formed.
    """
    _parsed(source)


@_bounded
def infer_tags(source: str) -> Tags:
    """What a template tells of how its model answers.

    Raises:
        TemplateFailed: If it is not well formed.
    """
    template, names = _parsed(source)
    return Tags(thinking_tags(template), tool_tag(template), names)


@_bounded
def render_go(  # noqa: PLR0913 one keyword for each thing a template can see
    source: str,
    turns: "Sequence[Turn]",
    *,
    tools: Sequence[Mapping[str, object]] = (),
    think: bool | str | None = None,
    suffix: str = "",
    prompt: str = "",
    now: datetime.datetime | None = None,
    limits: Limits | None = None,
) -> str:
    """Render a conversation up to the point where the model goes on.

    Args:
        source: Go template text.
        turns: The conversation. `extra` may hold `thinking`, `images`, `tool_calls`, `tool_name`
            and `tool_call_id`.
        tools: What the model may call, as Ollama's and OpenAI's requests write them.
        think: Whether, or how hard, the model is to reason; None if nobody said.
        suffix: With `prompt`: the text behind the completion; the turns are then not looked at.
        prompt: With `suffix`: the text before the completion.
        now: What time it is; the present one by default.
        limits: How much the template may do.

    Raises:
        TemplateFailed: If the template is not well formed, fails, or exceeds a limit.
    """
    template, names = _parsed(source)
    limits = limits or Limits()
    today = (now or datetime.datetime.now().astimezone()).date()
    data: dict[str, Value] = {
        "Response": "",
        "Think": bool(think),
        "ThinkLevel": think if isinstance(think, str) else "medium" if think else "",
        "IsThinkSet": think is not None,
    }
    run = _Runner(functions_of(today, limits.check_text), limits)
    if prompt and suffix:
        data |= {"Prompt": whole_text(prompt), "Suffix": whole_text(suffix)}
        text = run(template, data)
    elif "messages" in names:
        system, joined = collate(turns)
        data |= {"System": system, "Messages": messages_of(joined), "Tools": tools_of(tools)}
        text = run(template, data)
    else:
        text = _by_turn(template, _split_runs(collate(turns)[1]), data, run)
    return clean_text(text)


@lru_cache(maxsize=32)
def _parsed(source: str) -> tuple[Template, frozenset[str]]:
    """A template, and the names it uses; one that never says where the answer goes gets it last."""
    template = parse(source, FUNCTION_NAMES)
    try:
        names = names_in(template)
    except GoError as error:
        raise TemplateFailed(f"the template's {error}", hint=HINT) from None
    if not names & {"messages", "response"}:
        template = replace(template, root=(*template.root, _RESPONSE))
        names.add("response")
    return template, frozenset(names)


def collate(turns: "Sequence[Turn]") -> tuple[str, "list[Turn]"]:
    """All system texts, and the turns with neighbours of one role joined by a blank line.

    Answers of tools are not joined.
    """
    joined: list[Turn] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role != "tool":
            content = f"{joined[-1].content}\n\n{turn.content}"
            joined[-1] = type(turn)(turn.role, content, joined[-1].extra)
        else:
            joined.append(turn)
    return "\n\n".join(turn.content for turn in turns if turn.role == "system"), joined


def _split_runs(turns: "Sequence[Turn]") -> list[dict[str, Value]]:
    """The values of each run: a new one starts where a field would be overwritten.

    Turns of other roles than these three have no place.
    """
    runs: list[dict[str, Value]] = []
    now = {"System": "", "Prompt": "", "Response": ""}
    for turn in turns:
        is_full = {
            "system": now["Prompt"] or now["Response"],
            "user": now["Response"],
        }.get(turn.role)
        if is_full:
            runs.append({**now})
            now = dict.fromkeys(now, "")
        name = {"system": "System", "user": "Prompt", "assistant": "Response"}.get(turn.role)
        if name:
            now[name] = whole_text(turn.content)
    return [*runs, {**now}]


def _by_turn(
    template: Template, runs: list[dict[str, Value]], data: Mapping[str, Value], run: _Runner
) -> str:
    """Run a template that knows no `.Messages` once a turn.

    The last run ends behind `.Response`; there a missing entry is no value rather than a zero one.
    """
    texts = [run(template, {**data, **values}, gives_zero=True) for values in runs[:-1]]
    last = replace(template, root=cut_behind_response(template.root))
    return "".join([*texts, run(last, {**data, **runs[-1]}, gives_zero=False)])
