"""Put values into a format as Go's `Sprintf` does. Pure.

Source: Go `fmt/print.go`, `doPrintf`.
"""

import re
from collections.abc import Sequence
from typing import Protocol

from localrun.gotemplate.format import Flags
from localrun.gotemplate.printing import Printer, print_value
from localrun.gotemplate.values import Nothing, Value, type_of

_TOO_LARGE = 1_000_000
"""Go refuses a width or precision above this."""


_MAX_DIGITS = 8
_NUMBER = re.compile(r"[0-9]+")
_INDEX = re.compile(r"\[([^\]]*)\]")


class Budget(Protocol):
    """Says no to a text that is too long."""

    def __call__(self, n_chars: int, /) -> None:
        """Raise if a text may not have so many characters."""


def sprintf(template: str, args: Sequence[Value], budget: Budget) -> str:
    """The values put into a format; what does not fit is said in the text, as in Go."""
    return _Format(template, args, budget).run()


class _Format:
    """One run over a format."""

    def __init__(self, template: str, args: Sequence[Value], budget: Budget) -> None:
        self.template, self.args, self.budget = template, args, budget
        self.at, self.n_used = 0, 0
        self.is_reordered, self.is_index_good, self.is_behind_index = False, True, False
        self.pieces: list[str] = []
        self.n_chars = 0

    def run(self) -> str:
        while (start := self.template.find("%", self.at)) >= 0:
            self._add(self.template[self.at : start])
            self.at = start + 1
            self._directive()
        self._add(self.template[self.at :])
        if not self.is_reordered and self.n_used < len(self.args):
            extra = ", ".join(_typed(one) for one in self.args[self.n_used :])
            self._add(f"%!(EXTRA {extra})")
        return "".join(self.pieces)

    def _add(self, text: str) -> None:
        self.n_chars += len(text)
        self.budget(self.n_chars)
        self.pieces.append(text)

    def _directive(self) -> None:
        self.is_index_good, self.is_behind_index = True, False
        flags = self._flags()
        self._index()
        self._width(flags)
        self._precision(flags)
        if not self.is_behind_index:
            self._index()
        if self.at >= len(self.template):
            self._add("%!(NOVERB)")
            return
        verb = self.template[self.at]
        self.at += 1
        self._add(self._printed(verb, flags))

    def _printed(self, verb: str, flags: Flags) -> str:
        if verb == "%":
            return "%"
        if not self.is_index_good:
            return f"%!{verb}(BADINDEX)"
        if self.n_used >= len(self.args):
            return f"%!{verb}(MISSING)"
        if verb == "v":
            flags.go_syntax, flags.sharp = flags.sharp, False
            flags.names_fields, flags.plus = flags.plus, False
        value = self.args[self.n_used]
        self.n_used += 1
        self.budget(self.n_chars + (flags.width or 0) + (flags.precision or 0))
        printer = Printer(flags)
        return printer.bad(value, verb) if verb == "w" else printer.arg(value, verb)

    def _flags(self) -> Flags:
        flags = Flags()
        while (char := self.template[self.at : self.at + 1]) and char in "#0+- ":
            flags.sharp |= char == "#"
            flags.zero |= char == "0"
            flags.plus |= char == "+"
            flags.minus |= char == "-"
            flags.space |= char == " "
            self.at += 1
        return flags

    def _width(self, flags: Flags) -> None:
        if self.template.startswith("*", self.at):
            self.at += 1
            flags.width = self._integer_argument()
            if flags.width is None:
                self._add("%!(BADWIDTH)")
            elif flags.width < 0:
                flags.width, flags.minus, flags.zero = -flags.width, True, False
            self.is_behind_index = False
            return
        flags.width = self._number()
        if self.is_behind_index and flags.width is not None:
            self.is_index_good = False

    def _precision(self, flags: Flags) -> None:
        if not self.template.startswith(".", self.at) or self.at + 1 >= len(self.template):
            return
        self.at += 1
        self.is_index_good = self.is_index_good and not self.is_behind_index
        self._index()
        if not self.template.startswith("*", self.at):
            flags.precision = self._number() or 0
            return
        self.at += 1
        flags.precision = self._integer_argument()
        if flags.precision is None or flags.precision < 0:
            flags.precision = None
            self._add("%!(BADPREC)")
        self.is_behind_index = False

    def _number(self) -> int | None:
        match = _NUMBER.match(self.template, self.at)
        if match is None:
            return None
        if int(match[0][:8]) // 10 > _TOO_LARGE or len(match[0].lstrip("0")) > _MAX_DIGITS:
            self.at = len(self.template)  # Go reads no further than a number it cannot take.
            return None
        self.at = match.end()
        return int(match[0])

    def _integer_argument(self) -> int | None:
        if self.n_used >= len(self.args):
            return None
        value = self.args[self.n_used]
        self.n_used += 1
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return int(value) if is_integer and abs(value) <= _TOO_LARGE else None  # type: ignore[arg-type]  # an int by the test before

    def _index(self) -> None:
        """Take `[n]`, the number of the argument to use next."""
        if not self.template.startswith("[", self.at):
            self.is_behind_index = False
            return
        self.is_reordered = True
        match = _INDEX.match(self.template, self.at)
        is_number = match is not None and _NUMBER.fullmatch(match[1]) is not None
        self.at = match.end() if match else self.at + 1
        index = int(match[1][:8]) - 1 if match is not None and is_number else -1
        if 0 <= index < len(self.args):
            self.n_used = index
        else:
            self.is_index_good = False
        self.is_behind_index = is_number


def _typed(value: Value) -> str:
    if isinstance(value, Nothing):
        return "<nil>"
    return f"{type_of(value).name}={print_value(value)}"
