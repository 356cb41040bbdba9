"""Calls as plain JSON, at the start of an answer or a line, or in a code fence. Pure.

Nothing marks them, so only JSON that names a known tool and gives it arguments is a call.
"""

from dataclasses import dataclass

from localrun.output.calls import Tools
from localrun.output.grammar.rules import Rules
from localrun.output.syntax.base import Reading
from localrun.output.syntax.json_calls import JsonCalls, ObjectReader
from localrun.output.tape import Steps

_FENCES = ("```json", "```tool_call", "```tool_code", "```\n{", "```\n[")


@dataclass(frozen=True, slots=True)
class BareJson:
    """See the module.

    Attributes:
        arguments_key: Key of the arguments in a grammar.
    """

    arguments_key: str = "arguments"
    openers: tuple[str, ...] = ("\n{", "\n[", *_FENCES)
    starts: tuple[str, ...] = ("{", "[")
    markers: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()

    def read(self, reading: Reading, opener: str) -> Steps[None]:
        """See `Syntax`."""
        tape = reading.tape
        is_fence = opener.startswith("```")
        if opener[-1:] in {"{", "["}:
            tape.back(1)
            opener = opener[:-1]
        tape.record(opener)
        yield from tape.blank()
        is_array = yield from tape.literal("[")
        n_calls = 0
        while True:
            yield from tape.blank()
            char = yield from tape.peek()
            if char and n_calls and char in ",;":
                tape.take(tape.at + 1)
            elif char != "{":
                break
            elif not (yield from ObjectReader(reading, only_known=True).read()):
                return
            else:
                n_calls += 1
                tape.record()
        yield from self._end(reading, n_calls, "]" if is_array else "", is_fence=is_fence)

    def _end(self, reading: Reading, n_calls: int, bracket: str, *, is_fence: bool) -> Steps[None]:
        """Take what closes the calls; what else has been taken is content."""
        tape = reading.tape
        if not n_calls:
            reading.output.content(tape.recorded())
            return
        text = tape.recorded()
        if bracket and (yield from tape.literal(bracket)):
            text = ""
        if is_fence:
            yield from tape.blank()
            yield from tape.literal("```")
        if text.strip():
            reading.output.content(text)

    def bodies(self, rules: Rules, tools: Tools, *, many: bool) -> dict[str, str]:
        """See `Syntax`."""
        syntax = JsonCalls(("",), arguments_key=self.arguments_key)
        return syntax.bodies(rules, tools, many=many)
