"""The rules of one grammar while it is put together. Pure.

A marker such as `<tool_call>` is one special token in one vocabulary and plain text in another. A
grammar is held over the text, so both are its text as a string here.
"""

import json
from collections.abc import Mapping, Sequence

from localrun.output.calls import Tools
from localrun.output.grammar.closed import closed
from localrun.output.grammar.schema import held_schema

ANY = "TEXT"
BLANK = "BLANK"

_JSON_OPTIONS = {
    "whitespace_pattern": r"( |\n[ \t]{0,60})?",
    "coerce_one_of": True,
}
"""White space as people and `json.dumps` write it: with more a small model writes it for ever."""


class Rules:
    """Names rules and keeps them in order."""

    def __init__(self) -> None:
        self._bodies: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._attributes: dict[str, str] = {}

    def add(self, stem: str, body: str, attributes: str = "") -> str:
        """A rule or terminal `stem_N`; the same one for the same body. Returns its name."""
        key = (stem, attributes + body)
        if key not in self._names:
            name = f"{stem}_{len(self._bodies)}"
            self._names[key] = name
            self._bodies[name] = body
            self._attributes[name] = attributes
        return self._names[key]

    def named(self, name: str, body: str) -> str:
        """A rule that needs its name in its body."""
        self._bodies[name] = body
        self._attributes[name] = ""
        return name

    def until(self, marker: str) -> str:
        """A rule for any text, up to and with a marker."""
        return self.add("until", f"{ANY} {quoted(marker)}", "[lazy]")

    def json(self, schema: Mapping[str, object], *, is_strict: bool = True) -> str:
        """A rule for JSON that holds to a schema; to what of it can be held if not `is_strict`."""
        options = _JSON_OPTIONS if is_strict else _JSON_OPTIONS | {"lenient": True}
        body = held_schema(closed(schema), is_strict=is_strict) | {"x-guidance": options}
        return self.add("json", f"%json {json.dumps(body, ensure_ascii=False)}")

    def arguments(self, tools: Tools, name: str) -> str:
        """A rule for the arguments of a tool."""
        schema = dict(tools.parameters(name))
        return self.json(schema | {"type": "object"}, is_strict=tools.is_strict(name))

    def text(self, start: str) -> str:
        """The whole grammar; `start` is what its first rule is made of."""
        lines = [
            "%llguidance {}",
            f"start: {start}",
            f"{ANY}: /(.|\\n)*/",
            f"{BLANK}: /[ \\t\\r\\n]{{0,8}}/",
        ]
        for name, body in self._bodies.items():
            lines.append(f"{name}{self._attributes[name]}: {body}")
        return "\n".join(lines) + "\n"


def listed(items: Sequence[tuple[str, bool]], separator: str) -> str:
    """A body for items in order with something between them.

    Args:
        items: A body, and whether it must be there.
        separator: Stands between two items.
    """
    return _first(items, separator) if items else '""'


def _first(items: Sequence[tuple[str, bool]], separator: str) -> str:
    (body, is_required), rest = items[0], items[1:]
    parts = [f"{separator} {b}" if r else f"({separator} {b})?" for b, r in rest]
    whole = " ".join([body, *parts])
    if is_required:
        return whole
    return f"({whole} | {_first(rest, separator)})" if rest else f"({whole})?"


def quoted(text: str) -> str:
    """A text as a string literal."""
    return json.dumps(text, ensure_ascii=False)
