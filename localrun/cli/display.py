"""An answer as it is printed: wrapped at words on a terminal, its reasoning set apart."""

import json
import shutil
import sys
import unicodedata
from typing import TextIO

from localrun.cli.wire import Json, array, record, text

_GREY, _PLAIN = "\x1b[90m", "\x1b[0m"
_MARGIN = 5
_FENCE = "```"


class Wrapper:
    """Breaks lines between words for a terminal, while the words come. Pure.

    A word that crosses the edge is taken back and written on the next line. Code between fences is
    left as it is, for whoever copies it.

    Args:
        width: Columns; 0 never breaks.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._column = 0
        self._line = self._word = ""
        self._is_code = False

    def feed(self, text: str) -> str:
        """What to write for more text, with codes that take a word back."""
        if not self._width:
            return text
        return "".join(map(self._put, text))

    def _put(self, letter: str) -> str:
        if letter == "\n":
            self._is_code ^= self._line.lstrip().startswith(_FENCE)
            self._column, self._line, self._word = 0, "", ""
            return letter
        self._line += letter
        columns = _columns(letter)
        self._column += columns
        broken = ""
        if self._column > self._width and not self._is_code and letter != " ":
            broken = self._break(columns)
        # Between two wide letters, as Chinese is written, a line may break as well.
        self._word = "" if letter == " " or columns > 1 else self._word + letter
        return broken + letter

    def _break(self, columns: int) -> str:
        word = self._word if sum(map(_columns, self._word)) + columns < self._width else ""
        taken = sum(map(_columns, word))
        self._column = taken + columns
        return (f"\x1b[{taken}D\x1b[K" if taken else "") + "\n" + word


def _columns(letter: str) -> int:
    if unicodedata.combining(letter) or letter in "\u200b\u200d\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


class Display:
    """Prints the records of one answer.

    Args:
        out: Where to.
        wraps: Break lines at words, where `out` is a terminal.
        hides_thinking: Leave the reasoning out.
    """

    def __init__(
        self, out: TextIO | None = None, *, wraps: bool = True, hides_thinking: bool = False
    ) -> None:
        self._out = out or sys.stdout
        self._is_terminal = self._out.isatty()
        width = shutil.get_terminal_size().columns - _MARGIN if self._is_terminal and wraps else 0
        self._wrapper = Wrapper(max(width, 0))
        self._hides_thinking = hides_thinking
        self._is_thinking = False

    def show(self, answer: Json) -> None:
        """Print what a record of `/api/generate` or `/api/chat` brings."""
        message = record(answer, "message") or answer
        thinking = "" if self._hides_thinking else text(message, "thinking")
        content = text(message, "content") or text(message, "response")
        calls = array(message, "tool_calls")
        if thinking:
            self._think(thinking)
        if content or calls:
            self.end_thinking()
        if content:
            self._write(content)
        for call in calls:
            self._write(_call_line(call))

    def end_thinking(self) -> None:
        """Close the reasoning, if it is open."""
        if self._is_thinking:
            self._is_thinking = False
            self._write("\n...done thinking.\n\n")
            self._colour(_PLAIN)

    def _think(self, words: str) -> None:
        if not self._is_thinking:
            self._is_thinking = True
            self._colour(_GREY)
            self._write("Thinking...\n")
        self._write(words)

    def _write(self, words: str) -> None:
        self._out.write(self._wrapper.feed(words))
        self._out.flush()

    def _colour(self, code: str) -> None:
        if self._is_terminal:
            self._out.write(code)
            self._out.flush()


def _call_line(call: Json) -> str:
    """A tool that the model calls; there is none here, so that is all there is to show."""
    function = record(call, "function")
    arguments = json.dumps(function.get("arguments"), ensure_ascii=False)
    return f"Model called a non-existent function '{text(function, 'name')}()' with {arguments}\n"
