"""What every way of writing tool calls offers. Pure."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from localrun.output.calls import Output, Tools
from localrun.output.grammar.rules import Rules
from localrun.output.lenient import JsonReader, State
from localrun.output.tape import Steps, Tape, markers_of


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader of calls works on.

    Attributes:
        tape: The model's text.
        output: Where pieces go.
        tools: What may be called.
    """

    tape: Tape
    output: Output
    tools: Tools

    def value(
        self, write: Callable[[str], None], quotes: tuple[str, ...] = ('"', "'")
    ) -> Steps[bool]:
        """Take one JSON value and write it as it comes; False where it is none."""
        tape = self.tape
        reader = JsonReader(quotes)
        while True:
            tape.take(reader.feed(tape.text, tape.at))
            if tape.ended:
                reader.finish()
            if text := reader.drain():
                write(text)
            if reader.state in {State.DONE, State.FAILED}:
                return reader.state is State.DONE
            yield

    def closed(self, closers: Sequence[str]) -> Steps[bool]:
        """Take the marker that ends a call, and brackets too many; False if it is missing."""
        tape = self.tape
        yield from tape.blank()
        while closers:
            if (yield from tape.one_of(closers)):
                return True
            if (yield from tape.peek()) not in _CLOSERS:
                return False
            tape.take(tape.at + 1)
            yield from tape.blank()
        return True

    def string(self) -> Steps[str | None]:
        """Take one JSON string and return what it says; None where it is none."""
        parts: list[str] = []
        if (yield from self.tape.peek()) not in {'"', "'"}:
            return None
        if not (yield from self.value(parts.append)):
            return None
        text: str = json.loads("".join(parts))
        return text

    def skipped(self, closers: Sequence[str]) -> Steps[None]:
        """Take everything up to the marker that ends a call which cannot be read, or to the end."""
        yield from self.tape.until(markers_of(*closers), nowhere)


class Syntax(Protocol):
    """One way of writing calls."""

    @property
    def openers(self) -> tuple[str, ...]:
        """Texts that a call, or a section of calls, begins with."""
        ...

    @property
    def starts(self) -> tuple[str, ...]:
        """The same, but only where an answer begins."""
        ...

    @property
    def sections(self) -> tuple[str, ...]:
        """Markers around all calls of an answer that say nothing more."""
        ...

    @property
    def markers(self) -> tuple[str, ...]:
        """All texts of the syntax that are special tokens in some vocabulary."""
        ...

    def read(self, reading: Reading, opener: str) -> Steps[None]:
        """Read what stands behind `opener`, and tell its calls.

        What is no call after all is told as content, `opener` included.
        """
        ...

    def bodies(self, rules: Rules, tools: Tools, *, many: bool) -> dict[str, str]:
        """What a grammar allows behind an opener.

        Args:
            rules: Gets the rules.
            tools: Those that may be called.
            many: More than one call may stand in one section.

        Returns:
            Opener → what follows it; the first is the one that a held model is led to.
        """
        ...


_CLOSERS = {"}", "]"}


def nowhere(_: str) -> None:
    """What has been taken is in the record of the tape."""
