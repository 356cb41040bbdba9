"""Think x format x tools x stream x family: drawn under the grammar, read by the parser."""

import json
import re
from typing import Any

import jsonschema
import pytest

from localrun.output.pieces import CallBroken, CallDone
from tests.output.formats import FEW, FORMATS, TOOLS, WEATHER_SCHEMA, Format
from tests.output.holding import walk
from tests.output.reading import broken, calls, content, is_coherent, read

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "kind": {"enum": ["a", "é", "</think>"]},
        "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["n", "kind"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, Any] = {"get_weather": WEATHER_SCHEMA, "now": {"type": "object"}}
WANTED: dict[str, dict[str, Any]] = {
    "json": {"format": "json"},
    "schema": {"format": SCHEMA},
    "required": {"format": None, "tools": TOOLS, "tool_choice": "required"},
    "one call": {
        "format": None,
        "tools": TOOLS,
        "tool_choice": "name:get_weather",
        "parallel_tool_calls": False,
    },
    "schema or call": {"format": SCHEMA, "tools": TOOLS},
}


def check(fmt: Format, wanted: str, *, think: bool, seed: int) -> None:
    asked = WANTED[wanted]
    is_open = think and bool(fmt.prompt_open)
    prompt = fmt.prompt_open if is_open else fmt.prompt
    grammar = fmt.family.grammar(**asked, is_open=is_open, think=think)
    head = _head(fmt, is_open=is_open) if think else ""
    text = walk(grammar, seed, head, likes=marks(fmt))
    for size in (1, 7, len(text) + 1):
        tools, is_formatted = asked.get("tools", ()), asked["format"] is not None
        pieces = read(fmt.family, text, size, prompt, tools, is_formatted)
        assert is_coherent(pieces), text
        assert not broken(pieces), text
        _hold(wanted, content(pieces), calls(pieces), text)


def _head(fmt: Format, *, is_open: bool) -> str:
    """The reasoning, which nothing holds: it is scripted, the rest is drawn."""
    thought = fmt.thought or ""
    return "Hm." + thought.partition("Hm.")[2] if is_open else thought


def _hold(wanted: str, words: str, called: list[tuple[str, Any]], text: str) -> None:
    for name, arguments in called:
        jsonschema.validate(arguments, SCHEMAS[name])
    if wanted == "required":
        assert called, text
        assert not words.strip(), text
    elif wanted == "one call":
        assert [name for name, _ in called] == ["get_weather"], text
    elif not called:
        value = json.loads(words)
        jsonschema.validate(value, SCHEMA if wanted != "json" else {"type": "object"})


def marks(fmt: Format) -> list[str]:
    """The marks in a family's own calls."""
    return re.findall(
        r"<\|close\|>\w+<\|sep\|>|(?:\]<\]minimax\[>\[)?<[^<>]+>",
        (fmt.thought or "") + (fmt.two or fmt.one),
    )


def ids(fmt: Format) -> str:
    return f"{fmt.name}-{fmt.one[:14]}"


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("fmt", FEW[::3], ids=ids)
def test_what_is_drawn_under_a_grammar_is_read_as_what_was_wanted(fmt, wanted) -> None:
    for think in (True, False):
        check(fmt, wanted, think=think, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("fmt", FORMATS, ids=ids)
def test_whole_matrix_holds(fmt, think, wanted) -> None:
    for seed in range(20):
        check(fmt, wanted, think=think, seed=seed)


@pytest.mark.parametrize("fmt", FEW, ids=ids)
def test_free_answer_is_read_as_a_call_wherever_its_grammar_holds_one(fmt: Format) -> None:
    """Text that a grammar lets pass is never told as a broken call, once it is over."""
    grammar = fmt.family.grammar(format=None, tools=TOOLS)
    if not grammar:
        return
    start = (fmt.thought or "") + fmt.one[: len(fmt.one) // 2]
    text = walk(grammar, 3, start, marks(fmt)) if fmt.name not in {"llama3", "llama4"} else fmt.one
    pieces = read(fmt.family, text, 3, fmt.prompt)
    assert [type(p) for p in pieces if isinstance(p, CallDone | CallBroken)].count(CallBroken) == 0
    assert calls(pieces)
