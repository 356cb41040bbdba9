"""The grammars of answers that are made of messages: harmony and recipients. Pure."""

from localrun.output.grammar.rules import ANY, BLANK, Rules, quoted
from localrun.output.grammar.wanted import Wanted

_MESSAGE = "<|message|>"
_NEXT = "<|start|>assistant"
_NO_MARKER = r"/([^<]|<+[^<|])*<*/"


def harmony(wanted: Wanted) -> str:
    """What gpt-oss may write: any reasoning, then the format, or calls, or words."""
    rules = Rules()
    before = _before(rules, wanted)
    final = quoted(f"<|channel|>final{_MESSAGE}")
    answers: list[str] = []
    tools = wanted.callable
    if tools:
        calls = (
            f"{quoted(name)} {_CALL_END} {rules.arguments(tools, name)} {BLANK}"
            for name in tools.names
        )
        call = rules.add("call", " | ".join(calls))
        answers.append(f"{quoted('<|channel|>commentary to=functions.')} {call}")
    if wanted.format is not None:
        schema = wanted.schema
        answers.append(f"({final} | {_FINAL_JSON}) {rules.json(schema)}")
    elif not wanted.must_call:
        answers.append(f"{final} {ANY}")
    return rules.text(f"{before} ({' | '.join(answers)})")


_CALL_END = f'(" " {quoted("<|constrain|>json")} | {quoted(" json")})? {quoted(_MESSAGE)}'
_FINAL_JSON = quoted(f"<|channel|>final <|constrain|>json{_MESSAGE}")


def _before(rules: Rules, wanted: Wanted) -> str:
    """Reasoning, and words before a call."""
    text = rules.add("text", f"{_NO_MARKER} {quoted('<|end|>')}", "[lazy]")
    end = f"{text} {quoted(_NEXT)}"
    heads = [quoted(f"<|channel|>analysis{_MESSAGE}")]
    if wanted.callable and wanted.format is None and not wanted.must_call:
        heads.append(quoted(f"<|channel|>commentary{_MESSAGE}"))
    more = f"(({' | '.join(heads)}) {end})*"
    return f"{end} {more}" if wanted.is_open else more


def recipients(wanted: Wanted) -> str:
    """What functionary 3.2 may write behind the `>>>` of its prompt."""
    rules = Rules()
    answers: list[str] = []
    tools = wanted.callable
    words = quoted("all\n")
    if tools:
        calls = (
            rf"{quoted(name + chr(10))} {rules.arguments(tools, name)}" for name in tools.names
        )
        call = rules.add("call", " | ".join(calls))
        more = f'({BLANK} ">>>" {call})*' if wanted.many else ""
        first = (
            ""
            if wanted.must_call or wanted.format is not None
            else f"({words} {rules.until('>>>')})?"
        )
        answers.append(f"{first} {call} {more} {BLANK}".strip())
    if wanted.format is not None:
        answers.append(f"{words} {rules.json(wanted.schema)}")
    elif not wanted.must_call:
        answers.append(f"{words} {ANY}")
    return rules.text(f"({' | '.join(answers)})")
