"""Modelfiles: read and print. Pure.

`NAME VALUE`, one instruction a line. A value that begins with `"` or with three of them goes on
over lines, until one ends with the same; there are no escapes. Source: Ollama's `parser` package.
Two differences: a control character is dropped and every other one kept (Ollama drops what is not
printable, joiners of Persian and of emoji among it), and CR LF counts as one line.
"""

import codecs
import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, fields

from localrun.errors import BadRequest
from localrun.options import Options

INSTRUCTIONS = (
    "from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter",
    "message", "requires",
)  # fmt: skip
ROLES = ("system", "user", "assistant")
DEPRECATED = frozenset(
    ("penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", "mirostat",
     "mirostat_tau", "mirostat_eta")
)  # fmt: skip
"""Parameters that Ollama once had; they are named in a warning and dropped."""

_KINDS = {
    f.name: f.type.__name__ if isinstance(f.type, type) else str(f.type) for f in fields(Options)
} | {"draft_num_predict": "int"}
_COMMAND_WORDS = (
    'command must be one of "from", "license", "template", "system", "adapter", "draft",'
    ' "renderer", "parser", "parameter", "message", or "requires"'
)
_EOF = "unexpected EOF"
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\r\n]*)*")
_WORD, _SPACES = re.compile(r"[A-Za-z]*"), re.compile(r"[ \t]*")
_KEYS = {"parameter": re.compile(r"[A-Za-z0-9_]*"), "message": _WORD}
_NUMBER = r"(0|[1-9][0-9]*)"
_REST = r"[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*"
_SEMVER = re.compile(rf"v?{_NUMBER}(\.{_NUMBER}(\.{_NUMBER}(-{_REST})?(\+{_REST})?)?)?")
_INT, _FLOAT = re.compile(r"[+-]?[0-9]+"), re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


class BadModelfile(BadRequest):
    """Raised when a Modelfile cannot be read; the sentence is Ollama's."""

    code = "bad_modelfile"


@dataclass(frozen=True, slots=True)
class Command:
    """One instruction.

    Attributes:
        name: One of `INSTRUCTIONS`.
        value: Without its quotes.
        key: Name of a parameter, role of a message; else empty.
    """

    name: str
    value: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Modelfile:
    """The instructions in order."""

    commands: tuple[Command, ...]

    def values(self, name: str) -> list[str]:
        """The values of every instruction of this name."""
        return [command.value for command in self.commands if command.name == name]

    def last(self, name: str) -> str:
        """The value that counts where one is repeated; empty without one."""
        return next(reversed(self.values(name)), "")

    def __str__(self) -> str:
        """The text, one instruction after the other; reading it gives the same Modelfile.

        Except where the language cannot say it: a line of a longer text that ends with three
        quotes, and control characters.
        """
        return "".join(f"{_print(command)}\n" for command in self.commands)


# ── reading ───────────────────────────────────────────────────────────────────────────────────


def parse(content: bytes | str) -> Modelfile:
    """Read a Modelfile; bytes are UTF-8, or what their byte order mark says.

    Raises:
        BadModelfile: If it cannot be read, or has no FROM.
    """
    text = content if isinstance(content, str) else _decode(content)
    commands: list[Command] = []
    at = _end_of(_BLANK, text, 0)
    while at < len(text):
        command, at = _read_command(text, at)
        commands.append(command)
        at = _end_of(_BLANK, text, at)
    if not any(command.name == "from" for command in commands):
        raise BadModelfile("no FROM line", hint="begin with FROM and a model's name or a GGUF file")
    return Modelfile(tuple(commands))


def _decode(content: bytes) -> str:
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    return content.decode("utf-8", "replace")


def _read_command(text: str, start: int) -> tuple[Command, int]:
    """The instruction that begins at `start`, and where its line ends."""
    at = _end_of(_WORD, text, start)
    name = text[start:at].lower()
    if at == len(text):
        raise BadModelfile(_EOF, hint=f"line {_line(text, start)}: {text[start:at]} has no value")
    if text[at] not in " \t" or name not in INSTRUCTIONS:
        raise BadModelfile(f"(line {_line(text, start)}): {_COMMAND_WORDS}")
    key = ""
    if name in _KEYS:
        at = _end_of(_SPACES, text, at)
        end = _end_of(_KEYS[name], text, at)
        key = text[at:end]
        if end == len(text) or text[end] not in " \t":
            what = "a name and a value" if name == "parameter" else "a role and a text"
            hint = f"line {_line(text, start)}: {name.upper()} takes {what}"
            raise BadModelfile(f"{_EOF}: {key}", hint=hint)
        if name == "message" and key not in ROLES:
            raise BadModelfile(
                f"(line {_line(text, start)}): message role must be one of"
                ' "system", "user", or "assistant"'
            )
        at = end
    value, at = _read_value(text, at, start)
    return Command(name, value, key), at


def _read_value(text: str, at: int, start: int) -> tuple[str, int]:
    """The value that begins at `at`, and where its last line ends."""
    begin = _end_of(_SPACES, text, at)
    quote = '"""' if text.startswith('"""', begin) else '"' if text.startswith('"', begin) else ""
    for end in _line_ends(text, begin):
        last = end
        while last > begin and text[last - 1].isspace():
            last -= 1
        if not quote:
            return _kept(text[begin:last]).strip(), end
        if last - begin >= 2 * len(quote) and text.endswith(quote, begin, last):
            return _kept(text[begin + len(quote) : last - len(quote)]), end
    hint = f"line {_line(text, start)}: the text that begins there has no closing {quote}"
    raise BadModelfile(_EOF, hint=hint)


def _line_ends(text: str, begin: int) -> Iterable[int]:
    for found in _LINE_BREAK.finditer(text, begin):
        yield found.start()
    yield len(text)


def _kept(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c for c in text if c in "\n\r\t" or (unicodedata.category(c) != "Cc" and c != "\ufeff")
    )


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _line(text: str, at: int) -> int:
    return 1 + sum(1 for _ in _LINE_BREAK.finditer(text, 0, at))


# ── printing ──────────────────────────────────────────────────────────────────────────────────


def _print(command: Command) -> str:
    if command.name == "from":
        return f"FROM {command.value}"
    words = [command.name.upper(), command.key, quoted(command.value)]
    return " ".join(word for i, word in enumerate(words) if word or i == 2)


def quoted(value: str) -> str:
    """A value as it stands in a Modelfile: in quotes only where it needs them."""
    needs = value != value.strip() or "\n" in value or "\r" in value or value.startswith('"')
    if not needs:
        return value
    return f'"""{value}"""' if '"' in value else f'"{value}"'


# ── what the values mean ──────────────────────────────────────────────────────────────────────


def typed_parameters(modelfile: Modelfile) -> dict[str, object]:
    """The parameters by name with the types that options have; `stop` gathers, else the last wins.

    Deprecated ones are left out.

    Raises:
        BadModelfile: If a name is unknown or a value has another type.
    """
    found: dict[str, object] = {}
    stops: list[str] = []
    for command in modelfile.commands:
        if command.name != "parameter" or command.key in DEPRECATED:
            continue
        if command.key == "stop":
            stops.append(command.value)
            found["stop"] = stops
        else:
            found[command.key] = read_parameter(command.key, command.value)
    return found


def read_parameter(name: str, text: str) -> object:
    """A parameter's value from its text.

    Raises:
        BadModelfile: If there is no such parameter, or the text is no value of it.
    """
    kind = _KINDS.get(name)
    if kind is None:
        raise BadModelfile(f"unknown parameter '{name}'", hint=_near(name))
    if kind.startswith("tuple"):
        return [text]
    word = kind.partition(" ")[0]
    value = _converted(word, text)
    if value is None:
        raise BadModelfile(f"invalid {word} value [{text}]", hint=f"it is the value of {name}")
    return value


def check_requires(text: str) -> str:
    """A version that REQUIRES names, without a leading `v`.

    Raises:
        BadModelfile: If it is no semantic version.
    """
    if not _SEMVER.fullmatch(text):
        raise BadModelfile("requires must be a valid semver (e.g. 0.14.0)")
    return text.removeprefix("v")


def _converted(kind: str, text: str) -> object:
    if kind == "int" and _INT.fullmatch(text) and -(1 << 63) <= int(text) < 1 << 63:
        return int(text)
    if kind == "float" and _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    if kind == "bool" and text in _TRUE + _FALSE:
        return text in _TRUE
    return None


def _near(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, _KINDS, 1)
    return f"did you mean {near[0]}?" if near else ""
