"""Answers of messages whose header says what each is for: harmony and recipients. Pure."""

import re
from collections.abc import Callable

from localrun.output.calls import Tools, new_call_id
from localrun.output.parser import StepsParser
from localrun.output.syntax.base import nowhere
from localrun.output.syntax.json_calls import MAX_NAME
from localrun.output.tape import Steps, markers_of

MESSAGE, START, END = "<|message|>", "<|start|>", "<|end|>"
HARMONY_MARKERS = (START, "<|channel|>", MESSAGE, END, "<|call|>", "<|return|>", "<|constrain|>")
_HEADER_BEGINS = ("<|channel|>", START, MESSAGE, "<|constrain|>", "to=")
_BODY_ENDS = markers_of(END, "<|call|>", "<|return|>", START)
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_HEADER_WORDS = re.compile(
    r"<\|\w+\|>(?:\s*(?:analysis|commentary|final|json|code))?|\b(?:to=\S+|assistant|json|code)"
)
_MAX_HEADER = 512


class HarmonyParser(StepsParser):
    """Reads what gpt-oss writes: `<|channel|>analysis<|message|>…<|end|><|start|>assistant…`."""

    def __init__(
        self, tools: Tools, prompt_text: str, new_id: Callable[[], str] = new_call_id
    ) -> None:
        self._given = prompt_text[-_MAX_HEADER:].rpartition(START + "assistant")[2]
        super().__init__(tools, new_id)

    def run(self) -> Steps[None]:
        """Read the whole completion."""
        header, end = self._given, ""
        while True:
            if MESSAGE not in header:
                header += yield from self._header(is_begun=end == START)
            end = yield from self._body(header)
            header = ""
            if not end:
                self.reading.output.end()
                return

    def _header(self, *, is_begun: bool) -> Steps[str]:
        """Take a header with its end; empty, and what stood there is content, if it is none."""
        tape, output = self.reading.tape, self.reading.output
        tape.record()
        yield from tape.blank(None if is_begun else output.content)
        begun = START if is_begun else (yield from tape.one_of(_HEADER_BEGINS))
        if not begun:
            tape.recorded()
            return ""
        parts = [begun]
        end = MESSAGE
        if begun != MESSAGE:
            end = yield from tape.short(markers_of(MESSAGE), parts.append, _MAX_HEADER)
        text = tape.recorded()
        if not end and not tape.ended:
            output.content(text)
            return ""
        output.border()
        output.content(_HEADER_WORDS.sub("", text))
        return "".join(parts)

    def _body(self, header: str) -> Steps[str]:
        """Take one message with the marker that ends it; return that."""
        tape, output = self.reading.tape, self.reading.output
        recipient = _RECIPIENT.search(header)
        name = recipient.group(1) if recipient else "assistant"
        if name != "assistant" and self.reading.tools:
            return (yield from self._call(header, name))
        channels = _CHANNEL.findall(header)
        is_thinking = name == "assistant" and channels[-1:] == ["analysis"]
        return (
            yield from tape.until(_BODY_ENDS, output.thinking if is_thinking else output.content)
        )

    def _call(self, header: str, name: str) -> Steps[str]:
        reading, tape = self.reading, self.reading.tape
        tape.record(header)
        call = reading.output.call()
        call.begin(reading.tools.known(name))
        yield from tape.blank()
        is_read = (yield from tape.peek()) == "{" and (yield from reading.value(call.arguments))
        is_done = is_read and call.done()
        if is_done:
            tape.recorded()
        end = yield from tape.until(_BODY_ENDS, reading.output.content if is_done else nowhere)
        if not is_done:
            call.broken(tape.recorded())
        return end


class RecipientParser(StepsParser):
    """Reads what functionary 3.2 writes: `>>>all` and words, `>>>get_weather` and JSON."""

    def __init__(
        self, tools: Tools, prompt_text: str, new_id: Callable[[], str] = new_call_id
    ) -> None:
        self._is_begun = prompt_text.rstrip().endswith(RECIPIENT)
        super().__init__(tools, new_id)

    def run(self) -> Steps[None]:
        """Read the whole completion."""
        tape, output = self.reading.tape, self.reading.output
        end = RECIPIENT if self._is_begun else (yield from tape.until(_NEXT, output.content))
        while end:
            end = yield from self._message()
        output.end()

    def _message(self) -> Steps[str]:
        """Take one message and the marker behind it; return that."""
        reading, tape, output = self.reading, self.reading.tape, self.reading.output
        tape.record(RECIPIENT)
        parts: list[str] = []
        found = yield from tape.short(_LINE, parts.append, MAX_NAME)
        name = "".join(parts).strip()
        is_call = bool(found and reading.tools) and name != "all"
        if is_call and name not in reading.tools:
            is_call = (yield from tape.peek()) == "{"
        if not is_call:
            text = tape.recorded()
            output.border()
            if name != "all":
                output.content(text.removeprefix(RECIPIENT))
            return (yield from tape.until(_NEXT, output.content))
        call = output.call()
        call.begin(name)
        yield from tape.blank()
        is_done = (yield from reading.value(call.arguments)) and call.done()
        if is_done:
            tape.recorded()
            return (yield from tape.until(_NEXT, output.content))
        end = yield from tape.until(_NEXT, nowhere)
        call.broken(tape.recorded())
        return end


RECIPIENT = ">>>"
_NEXT, _LINE = markers_of(RECIPIENT), markers_of("\n")
