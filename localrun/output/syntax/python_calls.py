"""Calls as Python: `[get_weather(city="Paris"), get_time(zone='CET')]`. Pure."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from localrun.output.calls import Tools
from localrun.output.grammar.rules import BLANK, Rules, listed, quoted
from localrun.output.parameters import parameters_of
from localrun.output.syntax.base import Reading, Syntax
from localrun.output.syntax.json_calls import MAX_NAME
from localrun.output.tape import Steps

_WORD = re.compile(r"[\w.\-]+")


@dataclass(frozen=True, slots=True)
class PythonCalls:
    """A list of calls with named arguments.

    Attributes:
        openers: Markers before the list.
        closers: Markers behind it.
        starts: `[` where the list itself begins an answer; then only known tools are called.
        is_list: Brackets stand around the calls.
        otherwise: Reads what stands behind an opener if that begins with a brace.
    """

    openers: tuple[str, ...] = ()
    closers: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    is_list: bool = True
    otherwise: Syntax | None = None
    sections: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        """See `Syntax`."""
        return (*self.openers, *self.closers)

    def read(self, reading: Reading, opener: str) -> Steps[None]:
        """See `Syntax`."""
        tape = reading.tape
        tape.record(opener)
        yield from tape.blank()
        if self.otherwise is not None and (yield from tape.peek()) == "{":
            yield from self.otherwise.read(reading, tape.recorded())
            return
        bracket = opener == "[" or (yield from tape.literal("["))
        n_calls = 0
        while True:
            yield from tape.blank()
            if n_calls and (yield from tape.one_of((",", ";"))):
                continue
            if bracket and n_calls and (yield from tape.literal("]")):
                bracket = False
                break
            if _WORD.match((yield from tape.peek())) is None:
                break
            if not (yield from self._call(reading, only_known=opener in self.starts)):
                return
            n_calls += 1
            tape.record()
        if not n_calls:
            reading.output.content(tape.recorded())
            return
        yield from reading.closed(self.closers)
        tape.recorded()

    def _call(self, reading: Reading, *, only_known: bool) -> Steps[bool]:
        tape, tools = reading.tape, reading.tools
        name = yield from tape.word(_WORD, MAX_NAME)
        name = tools.known(name.removesuffix(".call"))
        is_call = bool(name) and (not only_known or name in tools)
        if not (is_call and (yield from tape.literal("("))):
            reading.output.content(tape.recorded())
            return False
        call = reading.output.call()
        call.begin(name)
        if (yield from self._arguments(reading, call.arguments)) and call.done():
            tape.recorded()
            return True
        yield from reading.skipped(self.closers)
        call.broken(tape.recorded())
        return False

    def _arguments(self, reading: Reading, write: Callable[[str], None]) -> Steps[bool]:
        """Take `key=value, …)` and write the JSON of it."""
        tape = reading.tape
        separator = "{"
        while True:
            yield from tape.blank()
            if (yield from tape.literal(")")):
                write("{}" if separator == "{" else "}")
                return True
            if separator != "{" and not (yield from tape.literal(",")):
                return False
            yield from tape.blank()
            if (yield from tape.peek()) == ")":
                continue
            key = yield from tape.word(_WORD, MAX_NAME)
            yield from tape.blank()
            if not key or not (yield from tape.literal("=")):
                return False
            write(f"{separator}{json.dumps(key)}: ")
            separator = ", "
            yield from tape.blank()
            if not (yield from reading.value(write)):
                return False

    def bodies(self, rules: Rules, tools: Tools, *, many: bool) -> dict[str, str]:
        """See `Syntax`."""
        one = rules.add("call", " | ".join(self._one(rules, tools, name) for name in tools.names))
        separator = "/, ?/" if self.is_list else BLANK
        more = f" ({separator} {one})*" if many else ""
        body = f'"[" {one}{more} "]"' if self.is_list else f"{one}{more}"
        if self.closers:
            body = f"{body} {BLANK} {quoted(self.closers[0])}"
        if not self.openers:
            return {"": body}
        body = f"{BLANK} {body}"
        if self.otherwise is not None:
            json = self.otherwise.bodies(rules, tools, many=many)
            body = f"({body} | {next(iter(json.values()))})"
        return dict.fromkeys(self.openers, body)

    def _one(self, rules: Rules, tools: Tools, name: str) -> str:
        arguments = [
            (f"{quoted(p.key + '=')} {rules.json(p.schema, is_strict=False)}", p.is_required)
            for p in parameters_of(tools.parameters(name))
        ]
        return rules.add("tool", f'{quoted(name + "(")} {listed(arguments, "/, ?/")} ")"')
