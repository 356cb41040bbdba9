"""Calls as tags, one for each argument: `<function=f><parameter=city>Paris</parameter>`. Pure."""

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localrun.output.calls import Call, Tools
from localrun.output.grammar.rules import BLANK, Rules, quoted
from localrun.output.parameters import Parameter, parameters_of
from localrun.output.shapes import object_in
from localrun.output.syntax.base import Reading, Syntax
from localrun.output.syntax.json_calls import MAX_NAME
from localrun.output.tape import Steps, markers_of
from localrun.output.typed import typed, types_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_CDATA, _CDATA_END = "<![CDATA[", "]]>"
_NAME = re.compile(r"\s*([^\s<>\"=]+)\s*")
_STRING = frozenset({"string"})


@dataclass(frozen=True, slots=True)
class Tags:
    """The markers of one call.

    Attributes:
        call: Before the name; empty where the name stands right behind the opener.
        call_name_end: Behind the name; empty where an argument or the end follows at once.
        call_end: Behind the last argument.
        key: Before the name of an argument.
        key_end: Behind it.
        value: Ends what stands between that and the value; empty where nothing does.
        call_id: Stands, with a number and `value` behind it, between the name and the arguments.
        value_end: Behind the value; `{}` in it is the name of the argument.
    """

    call: str
    call_name_end: str
    call_end: str
    key: str
    key_end: str
    value: str
    value_end: str
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class TaggedCalls:
    """Tags of calls, one after the other, between markers.

    Attributes:
        tags: The markers of one call.
        openers: Of a section of calls, or of each call; also `tags.call`, for a model that forgets.
        closers: Of the same.
        string_sign: Text before a value that says that it is a string and not JSON.
        json_sign: Text before one that is JSON, with `{}` for its type.
        otherwise: Reads what stands behind an opener if that begins with a brace.
    """

    tags: Tags
    openers: tuple[str, ...]
    closers: tuple[str, ...] = ()
    string_sign: str = ""
    json_sign: str = ""
    otherwise: Syntax | None = None
    starts: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        """See `Syntax`."""
        t = self.tags
        ends = (t.call_end, t.key, t.key_end, t.value, t.value_end)
        return (*self.openers, *self.closers, t.call, *ends)

    def read(self, reading: Reading, opener: str) -> Steps[None]:
        """See `Syntax`."""
        tape, tags = reading.tape, self.tags
        begun = not tags.call or opener == tags.call
        tape.record(opener)
        if self.otherwise is not None and not begun:
            yield from tape.blank()
            if (yield from tape.peek()) == "{":
                yield from self.otherwise.read(reading, tape.recorded())
                return
        n_calls = 0
        while begun or (yield from self._begins(reading)):
            if not (yield from CallReader(self, reading).read()):
                return
            n_calls, begun = n_calls + 1, False
            tape.record()
            if not tags.call:
                break
        if not n_calls:
            reading.output.content(tape.recorded())
            return
        yield from reading.closed(self.closers)
        tape.recorded()

    def _begins(self, reading: Reading) -> Steps[bool]:
        yield from reading.tape.blank()
        return (yield from reading.tape.literal(self.tags.call))

    def bodies(self, rules: Rules, tools: Tools, *, many: bool) -> dict[str, str]:
        """See `Syntax`."""
        calls = rules.add(
            "call", " | ".join(self._call(rules, tools, name) for name in tools.names)
        )
        head = f"{BLANK} {quoted(self.tags.call)}" if self.tags.call else ""
        one = rules.add("one", f"{head} {calls} {BLANK} {quoted(self.tags.call_end)}".strip())
        body = one
        if self.tags.call and many:
            body = f"{one} ({one})*"
        if self.closers:
            body = f"{body} {BLANK} {quoted(self.closers[0])}"
        alone = f"{calls} {BLANK} {quoted(self.tags.call_end)}"
        return {o: alone if o == self.tags.call else body for o in self.openers}

    def _call(self, rules: Rules, tools: Tools, name: str) -> str:
        tags = self.tags
        parts = [quoted(name + tags.call_name_end + tags.call_id)]
        if tags.call_id:
            parts.append(f"/[0-9]{{1,3}}/ {quoted(chr(34) + tags.value)}")
        for parameter in parameters_of(tools.parameters(name)):
            argument = rules.add("argument", self._argument(rules, parameter))
            parts.append(argument if parameter.is_required else f"({argument})?")
        return rules.add("tool", " ".join(parts))

    def _argument(self, rules: Rules, parameter: Parameter) -> str:
        """The grammar of one argument."""
        tags = self.tags
        kind = min(parameter.types, default="object").replace("integer", "number")
        sign = self.string_sign if parameter.is_text else self.json_sign.format(kind)
        head = f"{BLANK} {quoted(tags.key + parameter.key + tags.key_end + sign)}"
        if tags.value:
            head = f"{head} {BLANK} {quoted(tags.value)}"
        end = tags.value_end.format(parameter.key)
        if parameter.choices:
            value = "(" + " | ".join(map(quoted, parameter.choices)) + ")"
        elif parameter.is_text:
            return f"{head} {rules.until(end)}"
        else:
            value = rules.json(parameter.schema, is_strict=False)
        return f"{head} {BLANK} {value} {BLANK} {quoted(end)}"


class CallReader:
    """Reads one call behind `Tags.call`, and tells it."""

    def __init__(self, syntax: TaggedCalls, reading: Reading) -> None:
        self._syntax, self._tags = syntax, syntax.tags
        self._reading = reading
        self._call = reading.output.call()
        self._schema: Mapping[str, object] = {}
        self._separator = "{"

    def read(self) -> Steps[bool]:
        """Take the call with its end.

        Returns:
            False, and its text told otherwise, if it is no whole call.
        """
        tape, tools = self._reading.tape, self._reading.tools
        name = yield from self._name()
        if not name:
            self._reading.output.content(tape.recorded())
            return False
        name = tools.known(name)
        self._schema = tools.parameters(name)
        self._call.begin(name)
        if (yield from self._arguments()):
            self._call.arguments("{}" if self._separator == "{" else "}")
            if self._call.done():
                tape.recorded()
                return True
        ends = self._syntax.closers or (self._tags.call_end,)
        yield from self._reading.skipped(ends)
        self._call.broken(tape.recorded())
        return False

    def _name(self) -> Steps[str]:
        tags = self._tags
        if tags.call_name_end:
            text = yield from self._short((tags.call_name_end,))
            if text and tags.call_id and not (yield from self._short((tags.value,))):
                return ""
        else:
            text = yield from self._reading.tape.word(_UNTIL_TAG, MAX_NAME)
        found = _NAME.fullmatch(text)
        return found.group(1) if found else ""

    def _arguments(self) -> Steps[bool]:
        tape, tags = self._reading.tape, self._tags
        while True:
            yield from tape.blank()
            marker = yield from tape.one_of((tags.call_end, tags.key))
            if marker == tags.call_end:
                return True
            if not marker or not (yield from self._argument()):
                return False

    def _argument(self) -> Steps[bool]:
        tags = self._tags
        key = yield from self._short((tags.key_end,))
        key = key.strip()
        sign = (yield from self._short((tags.value,))) if tags.value and key else ""
        if not key:
            return False
        self._call.arguments(f"{self._separator}{json.dumps(key, ensure_ascii=False)}: ")
        self._separator = ", "
        return (yield from self._value(key, sign))

    def _value(self, key: str, sign: str) -> Steps[bool]:
        tape, end = self._reading.tape, self._tags.value_end.format(key)
        if (yield from tape.literal(_CDATA)):
            end = _CDATA_END + end
        types = self._types(key, sign)
        if types == _STRING:
            text = StringText(self._call)
            found = yield from tape.until(markers_of(end), text.write)
            text.end()
            return bool(found)
        parts: list[str] = []
        found = yield from tape.until(markers_of(end), parts.append)
        self._call.arguments(typed(unwrapped("".join(parts)), types))
        return bool(found)

    def _types(self, key: str, sign: str) -> frozenset[str]:
        if self._syntax.string_sign and self._syntax.string_sign.strip() in sign:
            return _STRING
        properties = object_in(self._schema.get("properties")) or {}
        types = types_of(properties.get(key), self._schema)
        return types - _STRING if sign.strip() else types

    def _short(self, ends: tuple[str, ...]) -> Steps[str]:
        """Take a short text and the marker behind it; empty if that does not come."""
        parts: list[str] = []
        found = yield from self._reading.tape.short(markers_of(*ends), parts.append, MAX_NAME)
        return "".join(parts) if found else ""


class StringText:
    """Writes the text of a string argument as JSON while it comes.

    A line break at both ends belongs to the tags.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._is_begun = self._is_wrapped = False
        self._held = ""

    def write(self, text: str) -> None:
        """More of the text."""
        if not self._is_begun:
            self._is_begun, self._is_wrapped = True, text.startswith("\n")
            self._call.arguments('"')
            text = text[1:] if self._is_wrapped else text
        text = self._held + text
        self._held = "\n" if self._is_wrapped and text.endswith("\n") else ""
        kept = text[:-1] if self._held else text
        self._call.arguments(json.dumps(kept, ensure_ascii=False)[1:-1])

    def end(self) -> None:
        """The text is over."""
        self._call.arguments('"' if self._is_begun else '""')


def unwrapped(text: str) -> str:
    """Without the line breaks that belong to the tags."""
    return text[1:].removesuffix("\n") if text.startswith("\n") else text


_UNTIL_TAG = re.compile(r"[^<]+")
