"""Calls as JSON behind a marker: `<tool_call>{"name": …, "arguments": …}</tool_call>`. Pure."""

from dataclasses import dataclass

from localrun.output.calls import Call, Tools, json_object
from localrun.output.grammar.rules import BLANK, Rules, quoted
from localrun.output.lenient import JsonReader, State
from localrun.output.syntax.base import Reading, nowhere
from localrun.output.tape import Steps

_NAMES = frozenset({"name", "tool_name", "function", "tool"})
_ARGUMENTS = frozenset({"arguments", "parameters", "args"})


@dataclass(frozen=True, slots=True)
class JsonCalls:
    """One object, several, or an array of them, between markers.

    Attributes:
        openers: Markers before the first object.
        closers: Markers behind the last one; empty where the format has none.
        name_key: Key of the tool's name in a grammar; empty where the name itself is the key.
        arguments_key: Key of the arguments in a grammar.
        is_array: The format is an array even for one call.
        repeats: Objects may follow each other without an array around them.
        id_key: A key with a running number that the format begins an object with.
    """

    openers: tuple[str, ...]
    closers: tuple[str, ...] = ()
    name_key: str = "name"
    arguments_key: str = "arguments"
    is_array: bool = False
    repeats: bool = False
    id_key: str = ""
    starts: tuple[str, ...] = ()
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
        is_array = yield from tape.literal("[")
        n_calls = 0
        while True:
            yield from tape.blank()
            if is_array and n_calls and (yield from tape.literal("]")):
                break
            char = yield from tape.peek()
            if n_calls and char and char in ",;" and (is_array or self.closers):
                tape.take(tape.at + 1)
                continue
            if char != "{":
                break
            if not (yield from ObjectReader(reading, self.closers, keyed=not self.name_key).read()):
                return
            n_calls += 1
            tape.record()
        if not n_calls:
            reading.output.content(tape.recorded())
            return
        yield from reading.closed(self.closers)
        tape.recorded()

    def bodies(self, rules: Rules, tools: Tools, *, many: bool) -> dict[str, str]:
        """See `Syntax`."""
        one = rules.add(
            "call", " | ".join(self._object(rules, tools, name) for name in tools.names)
        )
        body = f"{one} ({BLANK} {one})*" if self.repeats and many else one
        if self.is_array:
            more = rf' ("," {BLANK} {one})*' if many else ""
            body = f'"[" {BLANK} {one}{more} {BLANK} "]"'
        if self.closers:
            body = f"{body} {BLANK} {quoted(self.closers[0])}"
        return dict.fromkeys(self.openers, f"{BLANK} {body}")

    def _object(self, rules: Rules, tools: Tools, name: str) -> str:
        arguments = rules.arguments(tools, name)
        if not self.name_key:
            return rf'"{{" {quoted(quoted(name))} {_COLON} {arguments} "}}"'
        before = ""
        if self.id_key:
            before = rf'{quoted(quoted(self.id_key))} {_COLON} /"[0-9]{{1,3}}"/ ", " '
        return (
            f'"{{" {before}{quoted(quoted(self.name_key))} {_COLON} {quoted(quoted(name))} '
            f'/, ?/ {quoted(quoted(self.arguments_key))} {_COLON} {arguments} "}}"'
        )


_COLON = "/: ?/"


class ObjectReader:
    """Reads one object that is a call, and tells it."""

    def __init__(
        self,
        reading: Reading,
        closers: tuple[str, ...] = (),
        *,
        only_known: bool = False,
        keyed: bool = False,
    ) -> None:
        self._reading = reading
        self._closers = closers
        self._only_known = only_known
        self._keyed = keyed
        self._call: Call = reading.output.call()
        self._name = ""
        self._depth = 0

    def read(self) -> Steps[bool]:
        """Take the object; False, and its text told otherwise, if it is no whole call.

        The tape records since the object or the marker before it.
        """
        tape, call = self._reading.tape, self._call
        is_read = yield from self._members()
        if is_read and self._name and not call.has_begun and not self._only_known:
            call.begin(self._name)
        if is_read and call.has_begun and call.done():
            tape.recorded()
            return True
        if not call.has_begun:
            self._reading.output.content(tape.recorded())
            return False
        yield from self._reading.skipped(self._closers)
        call.broken(tape.recorded())
        return False

    def _members(self) -> Steps[bool]:
        tape = self._reading.tape
        tape.take(tape.at + 1)
        # Qwen2.5-Coder's own template shows a call as `{{…}}`, and the model copies that.
        is_doubled = not self._depth and (yield from tape.literal("{"))
        while True:
            yield from tape.blank()
            if is_doubled and (yield from tape.literal("}}")):
                return True
            if (yield from tape.literal("}")):
                return True
            if (yield from tape.literal(",")):
                continue
            key = yield from self._reading.string()
            if key is None:
                return False
            yield from tape.blank()
            if not (yield from tape.literal(":")):
                return False
            yield from tape.blank()
            if not (yield from self._member(key)):
                return False

    def _member(self, key: str) -> Steps[bool]:
        char = yield from self._reading.tape.peek()
        if key in _NAMES and char == '"' and not self._name:
            return (yield from self._named())
        if key == "function" and char == "{" and not self._depth:
            self._depth += 1
            return (yield from self._members())
        if key in _ARGUMENTS and not self._call.has_arguments:
            return (yield from self._arguments(char))
        if char == "{" and not self._name and (self._keyed or key in self._reading.tools):
            self._name = self._reading.tools.known(key)
            return (yield from self._arguments(char))
        return (yield from self._other(key))

    def _other(self, key: str) -> Steps[bool]:
        """A member that says nothing about the call; plain JSON may not have it."""
        if self._only_known and key not in _BESIDE:
            return False
        return (yield from self._reading.value(nowhere))

    def _named(self) -> Steps[bool]:
        name = yield from self._reading.string()
        if not name or len(name) > MAX_NAME:
            return False
        self._name = self._reading.tools.known(name)
        if self._only_known and self._name not in self._reading.tools:
            return False
        if not self._only_known or self._call.has_arguments:
            self._call.begin(self._name)
        return True

    def _arguments(self, char: str) -> Steps[bool]:
        if char == "{":
            if self._name and not self._call.has_begun:
                self._call.begin(self._name)
            return (yield from self._reading.value(self._call.arguments))
        if char == '"':
            text = yield from self._reading.string()
            return text is not None and self._spelled(text)
        parts: list[str] = []
        is_value = yield from self._reading.value(parts.append)
        return is_value and parts == ["null"]

    def _spelled(self, text: str) -> bool:
        """The arguments are a string that holds the JSON."""
        arguments = mended_object(text)
        if arguments is None:
            return False
        if self._name and not self._call.has_begun:
            self._call.begin(self._name)
        self._call.arguments(arguments)
        return True


MAX_NAME = 256
_BESIDE = frozenset({"type", "id", "tool_call_id", "index"})


def mended_object(text: str) -> str | None:
    """The JSON of an object, mended where `lenient` can; empty text is an empty object."""
    if not text.strip():
        return "{}"
    reader = JsonReader()
    end = reader.feed(text)
    written = reader.drain()
    if reader.state is not State.DONE or text[end:].strip() or json_object(written) is None:
        return None
    return written
