"""The grammar of a whole answer: reasoning, then the format, or calls, or free text. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from localrun.output.calls import Tools
from localrun.output.grammar.rules import ANY, BLANK, Rules
from localrun.output.parser import Style


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an answer has to be.

    Attributes:
        format: `json`, a JSON schema, or None.
        tools: What may be called.
        tool_choice: `auto`, `none`, `required`, or `name:` and a tool's name.
        many: More than one call is wanted.
        is_open: The prompt ends inside the reasoning.
        reasons: The model may reason first.
    """

    format: str | Mapping[str, object] | None
    tools: Tools
    tool_choice: str = "auto"
    many: bool = True
    is_open: bool = False
    reasons: bool = True

    @property
    def callable(self) -> Tools:
        """The tools that the choice leaves."""
        choice = self.tool_choice
        if choice == "none":
            return Tools(())
        return (
            self.tools.only(choice.removeprefix("name:"))
            if choice.startswith("name:")
            else self.tools
        )

    @property
    def must_call(self) -> bool:
        """Words are no answer."""
        return self.tool_choice not in {"auto", "none"} and bool(self.callable)


def compose(style: Style, wanted: Wanted) -> str:
    """The grammar; empty where everything is allowed."""
    rules = Rules()
    if wanted.format is None and not wanted.callable:
        return ""
    calls = _calls(style, rules, wanted) if wanted.callable else ""
    if wanted.must_call:
        answer = calls
    elif wanted.format is not None:
        answer = _either([_formatted(style, rules, wanted.format), calls])
    else:
        answer = _free(style, rules, wanted)
    if not answer:
        return ""
    return rules.text(f"{_reasoning(style, rules, wanted)} {answer}".strip())


def _reasoning(style: Style, rules: Rules, wanted: Wanted) -> str:
    if not style.reasoning_end:
        return ""
    end = rules.until(style.reasoning_end)
    if wanted.is_open:
        return end
    return f"({BLANK} {rules.marker(style.reasoning_start)} {end})?" if wanted.reasons else ""


def _formatted(style: Style, rules: Rules, format: str | Mapping[str, object]) -> str:  # noqa: A002 - the field's name
    schema: Mapping[str, object] = {"type": "object"} if isinstance(format, str) else format
    body = f"{BLANK} {rules.json(schema)} {BLANK}"
    if len(style.wrappers) > 1:
        start, end = (rules.marker(text) for text in style.wrappers[:2])
        body = f"({BLANK} {start})? {body} ({end})?"
    return body


def _calls(style: Style, rules: Rules, wanted: Wanted) -> str:
    """One call, or some, and nothing else."""
    if not style.syntaxes:
        return ""
    bodies = style.syntaxes[0].bodies(rules, wanted.callable, many=wanted.many)
    opener, body = next(iter(bodies.items()))
    call = f"{rules.marker(opener)} {body}" if opener else body
    return f"({BLANK} {call})+ {BLANK}" if wanted.many else f"{BLANK} {call} {BLANK}"


def _free(style: Style, rules: Rules, wanted: Wanted) -> str:
    """Any text, in which every call that begins must be one."""
    if not style.syntaxes:
        return ""
    bodies = style.syntaxes[0].bodies(rules, wanted.callable, many=wanted.many)
    calls = [f"{rules.until(opener)} {body}" for opener, body in bodies.items() if opener]
    if not calls:
        return ""
    one = _either(calls)
    return f"({one})* {ANY}" if wanted.many else f"(({one}) {BLANK} | {ANY})"


def _either(choices: Sequence[str]) -> str:
    choices = [choice for choice in choices if choice]
    return " | ".join(choices) if len(choices) < 2 else f"({' | '.join(choices)})"
