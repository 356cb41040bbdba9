"""The grammar of a whole answer: reasoning, then the format, or calls, or free text. Pure."""

from collections.abc import Sequence

from localrun.output.grammar.rules import ANY, BLANK, Rules, quoted
from localrun.output.grammar.wanted import Wanted
from localrun.output.parser import Style


def compose(style: Style, wanted: Wanted) -> str:
    """The grammar; empty where everything is allowed."""
    rules = Rules()
    if not wanted.holds:
        return ""
    calls = _calls(style, rules, wanted) if wanted.callable else ""
    if wanted.must_call:
        answer = calls
    elif wanted.format is not None:
        answer = _either([_formatted(style, rules, wanted), calls])
    else:
        answer = _free(style, rules, wanted)
    if not answer:
        return ""
    return rules.text(f"{_reasoning(style, rules, wanted)} {answer}".strip())


def _reasoning(style: Style, rules: Rules, wanted: Wanted) -> str:
    if not style.reasoning_end:
        return ""
    end = rules.until(style.reasoning_end)
    if wanted.format is not None:  # before a format there is white space here or nowhere
        end = f"{end} {BLANK}"
    if wanted.is_open:
        return end
    return f"({BLANK} {quoted(style.reasoning_start)} {end})?" if wanted.reasons else ""


def _formatted(style: Style, rules: Rules, wanted: Wanted) -> str:
    body = rules.json(wanted.schema)
    if len(style.wrappers) > 1:
        start, end = (quoted(text) for text in style.wrappers[:2])
        body = f"({BLANK} {start} {BLANK})? {body} ({BLANK} {end})?"
    return f"{body} {_ends(style)}"


def _ends(style: Style) -> str:
    """Markers that may stand behind everything."""
    wrappers = " | ".join(quoted(text) for text in style.wrappers)
    return f"({wrappers})? ({wrappers})?" if wrappers else ""


def _calls(style: Style, rules: Rules, wanted: Wanted) -> str:
    """One call, or some, and nothing else."""
    if not style.syntaxes:
        return ""
    bodies = style.syntaxes[0].bodies(rules, wanted.callable, many=wanted.many)
    opener, body = next(iter(bodies.items()))
    call = f"{quoted(opener)} {body}" if opener else body
    calls = f"({BLANK} {call})+" if wanted.many else f"{BLANK} {call}"
    return f"{calls} {BLANK} {_ends(style)}"


def _free(style: Style, rules: Rules, wanted: Wanted) -> str:
    """Any text, in which every call that begins must be one."""
    if not style.syntaxes:
        return ""
    calls = [
        f"{rules.until(opener)} {body}"
        for syntax in style.syntaxes
        if syntax.markers
        for opener, body in syntax.bodies(rules, wanted.callable, many=wanted.many).items()
        if opener
    ]
    if not calls:
        return ""
    one = _either(calls)
    return f"({one})* {ANY}" if wanted.many else f"(({one}) {BLANK} {_ends(style)} | {ANY})"


def _either(choices: Sequence[str]) -> str:
    choices = [choice for choice in choices if choice]
    return " | ".join(choices) if len(choices) < 2 else f"({' | '.join(choices)})"
