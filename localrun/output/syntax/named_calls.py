"""Calls as a name, a marker and JSON: `[TOOL_CALLS]get_weather[ARGS]{"city": …}`. Pure."""

import re
from dataclasses import dataclass

from localrun.output.calls import Call, Tools
from localrun.output.grammar.braced import braced
from localrun.output.grammar.rules import BLANK, Rules, quoted
from localrun.output.syntax.base import Reading, Syntax
from localrun.output.syntax.json_calls import MAX_NAME
from localrun.output.tape import Steps, markers_of

QUOTES = ('"', "'")
_NAME = re.compile(r"[^\s\[\]{}<>()`\"]+")
_ID = re.compile(r"\s*[\w-]+\s*")


@dataclass(frozen=True, slots=True)
class NamedCalls:
    """One call behind each opener.

    Attributes:
        openers: What a call begins with.
        name_ends: Markers between the name and its arguments; `{` belongs to the arguments.
        closers: Markers behind the arguments.
        before_name: What a grammar puts before the name.
        after_name: What it puts behind the name; the first of `name_ends` if empty.
        id_end: An id of the model's stands before the name, and this between them.
        numbered: A text and a number stand behind the name.
        before_close: What a grammar puts between the arguments and the closer.
        sections: Markers around all calls of an answer.
        quotes: What strings in the arguments stand in.
        otherwise: Reads what stands behind an opener if that begins with a bracket.
    """

    openers: tuple[str, ...]
    name_ends: tuple[str, ...]
    closers: tuple[str, ...] = ()
    before_name: str = ""
    after_name: str = ""
    before_close: str = ""
    id_end: str = ""
    numbered: str = ""
    sections: tuple[str, ...] = ()
    quotes: tuple[str, ...] = QUOTES
    otherwise: Syntax | None = None
    starts: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        """See `Syntax`."""
        return (*self.openers, *self.sections, *self.name_ends, *self.closers, *self.quotes)

    def read(self, reading: Reading, opener: str) -> Steps[None]:
        """See `Syntax`."""
        tape = reading.tape
        tape.record(opener)
        if self.otherwise is not None:
            yield from tape.blank()
            if (yield from tape.peek()) in {"[", "{"}:
                yield from self.otherwise.read(reading, tape.recorded())
                return
        name = yield from self._name(reading)
        if not name:
            reading.output.content(tape.recorded())
            return
        call = reading.output.call()
        call.begin(reading.tools.known(name))
        yield from self._arguments(reading, call)

    def _name(self, reading: Reading) -> Steps[str]:
        """Take the name and the marker behind it; empty if there is none."""
        tape = reading.tape
        parts: list[str] = []
        end = yield from tape.short(markers_of(*self.name_ends), parts.append, MAX_NAME)
        if end == "{":
            tape.back(1)
        if end in self.name_ends[1:] and end != "{":
            end = yield from self._skip_id(reading)
        if not end:
            return ""
        return self._bare("".join(parts))

    def _bare(self, text: str) -> str:
        """The name alone; empty if `text` is none."""
        text = text.strip()
        if self.id_end:
            before, _, text = text.partition(self.id_end)
            if not _ID.fullmatch(before):
                return ""
        text = text.removeprefix(self.before_name)
        if self.numbered:
            name, _, number = text.rpartition(self.numbered)
            text = name if number.isdigit() else text
        return text if _NAME.fullmatch(text) else ""

    def _skip_id(self, reading: Reading) -> Steps[str]:
        """Take an id behind the name and the marker behind it; empty if there is none."""
        parts: list[str] = []
        end = yield from reading.tape.short(markers_of(self.name_ends[0]), parts.append, MAX_NAME)
        return end if _ID.fullmatch("".join(parts)) else ""

    def _arguments(self, reading: Reading, call: Call) -> Steps[None]:
        tape = reading.tape
        yield from tape.blank()
        if (yield from tape.literal("```")):
            yield from tape.literal("json")
            yield from tape.blank()
        is_read = (yield from tape.peek()) == "{"
        if is_read:
            is_read = yield from reading.value(call.arguments, self.quotes)
        else:
            is_read = yield from reading.closed(self.closers)
        if not (is_read and call.done()):
            yield from reading.skipped(self.closers)
            call.broken(tape.recorded())
            return
        yield from tape.blank()
        yield from tape.literal("```")
        yield from reading.closed(self.closers)
        tape.recorded()

    def bodies(self, rules: Rules, tools: Tools, *, many: bool) -> dict[str, str]:
        """See `Syntax`."""
        body = rules.add("call", " | ".join(self._call(rules, tools, name) for name in tools.names))
        if self.before_close:
            body = f"{body} {quoted(self.before_close)}"
        if self.closers:
            body = f"{body} {BLANK} {quoted(self.closers[0])}"
        if not self.sections:
            return dict.fromkeys(self.openers, body)
        one = rules.add("one", f"{quoted(self.openers[0])} {body}")
        more = f" ({BLANK} {one})*" if many else ""
        whole = f"{BLANK} {one}{more} {BLANK} {quoted(self.sections[1])}"
        return {self.sections[0]: whole}

    def _id(self) -> str:
        """The grammar of an id that a model may put behind the name."""
        markers = [end for end in self.name_ends[1:] if end[0] == "["]
        return f"{quoted(markers[0])} /[a-zA-Z0-9]{{9}}/" if markers else ""

    def _call(self, rules: Rules, tools: Tools, name: str) -> str:
        quote, schema = self.quotes[0], tools.parameters(name)
        after = self.after_name or self.name_ends[0]
        parts = [quoted(self.before_name + name)]
        if self.numbered:
            parts.append(f"{quoted(self.numbered)} /[0-9]{{1,3}}/")
        if self.id_end:
            parts.insert(0, rf"/[\w-]{{1,40}}/ {quoted(self.id_end)}")
        if after != "{":
            parts.append(f"({self._id()})? {quoted(after)}" if self._id() else quoted(after))
        if quote == '"':
            parts.append(rules.arguments(tools, name))
        else:
            parts.append(braced(rules, schema, quote))
        return " ".join(parts)
