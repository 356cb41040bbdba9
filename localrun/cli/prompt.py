"""The prompt of a conversation: lines, their history, and who answers them.

prompt_toolkit draws it: it edits lines of any script, pastes several, and is the same on Windows.
"""

import contextlib
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import NestedCompleter
from prompt_toolkit.formatted_text import AnyFormattedText, FormattedText
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from localrun.cli.commands import WORDS, Leave, obey
from localrun.cli.session import Session

_HISTORY_LINES = 100
_QUOTES = '"""'
_TYPED_AHEAD_S = 0.2
_PLACEHOLDER = FormattedText([("fg:ansibrightblack", "Send a message (/? for help)")])


def talk(session: Session) -> None:
    """Read messages and print answers until the user leaves; the model is loaded first."""
    session.load()
    reader = Reader(session)
    with contextlib.suppress(Leave):
        while True:
            message = reader.message()
            if message.startswith("/"):
                obey(session, message)
            elif message.strip():
                session.say(message)


class Reader:
    """Reads messages from the terminal."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._keys = _Keys(session.settings.editor)
        self._prompt: PromptSession[str] = PromptSession(
            history=_MessageHistory(session),
            completer=NestedCompleter.from_nested_dict(dict(WORDS)),
            complete_while_typing=False,
            key_bindings=self._keys.bindings,
            multiline=True,  # Enter is ours: it accepts
            prompt_continuation="... ",
        )

    def message(self) -> str:
        """One message; several lines between triple quotes. Empty after Ctrl-C.

        Raises:
            Leave: At the end of the input (Ctrl-D).
        """
        try:
            lines = [self._line(">>> ", _PLACEHOLDER)]
            while _is_open(lines):
                lines.append(self._line("... "))
        except EOFError:
            raise Leave from None
        except KeyboardInterrupt:
            print("\nUse Ctrl + d or /bye to exit.")
            return ""
        message = "\n".join(lines)
        if message.startswith("/"):
            return message
        whole = message.strip()
        if whole.startswith(_QUOTES):
            return whole.removeprefix(_QUOTES).removesuffix(_QUOTES).strip("\n")
        return message

    def _line(self, mark: str, placeholder: AnyFormattedText = "") -> str:
        self._keys.begin()  # a dumb terminal has no moment of its own
        return self._prompt.prompt(mark, placeholder=placeholder, pre_run=self._keys.begin)


def _is_open(lines: list[str]) -> bool:
    """Whether triple quotes that begin a message, or its argument, have not been closed."""
    words = lines[0].lstrip()
    if not words.startswith(_QUOTES) and not (words.startswith("/") and _QUOTES in words):
        return False
    return "\n".join(lines).count(_QUOTES) % 2 == 1


class _MessageHistory(History):
    """The last messages of all conversations: a JSON string a line, for the user's eyes only."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session, self._file = session, session.settings.home / "history"

    def load_history_strings(self) -> Iterable[str]:
        """The newest first."""
        if not self._session.keeps_history:
            return []
        return reversed(_read(self._file))

    def store_string(self, string: str) -> None:
        """Add one at the end of the file, and keep the file short."""
        if not self._session.keeps_history:
            return
        with contextlib.suppress(OSError):
            kept = [*_read(self._file), string][-_HISTORY_LINES:]
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.touch(mode=0o600)
            lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
            self._file.write_text("".join(lines), encoding="utf-8")


def _read(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [_plain(line) for line in lines]


def _plain(line: str) -> str:
    """A line of the history; older ones are the bare message."""
    try:
        value = cast("object", json.loads(line))
    except ValueError:
        return line
    return value if isinstance(value, str) else line


class _Keys:
    """Enter sends, Ctrl-J breaks the line, Ctrl-C clears it, Ctrl-G opens the editor."""

    def __init__(self, editor: str) -> None:
        self._editor = editor
        self._began_s = 0.0
        self.bindings = KeyBindings()
        self.bindings.add("enter")(self._send)
        self.bindings.add("c-j")(self._break_line)
        self.bindings.add("c-c")(self._clear)
        self.bindings.add("c-g")(self._edit)

    def begin(self) -> None:
        """The prompt begins to read."""
        self._began_s = time.monotonic()

    def _send(self, event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    def _break_line(self, event: KeyPressEvent) -> None:
        # What was typed while nobody read comes at once, its Enter translated by the terminal.
        if time.monotonic() - self._began_s < _TYPED_AHEAD_S:
            self._send(event)
        else:
            event.current_buffer.newline(copy_margin=False)

    def _clear(self, event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    async def _edit(self, event: KeyPressEvent) -> None:
        buffer = event.current_buffer

        def run() -> None:
            buffer.text = _edited(self._editor, buffer.text)
            buffer.cursor_position = len(buffer.text)

        await run_in_terminal(run)


def _edited(editor: str, message: str) -> str:
    """The message as the user's editor leaves it; unchanged if that cannot be run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "message.txt"
        file.write_text(message, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
            return file.read_text(encoding="utf-8", errors="replace").rstrip("\n")
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            print(f"{editor}: {error}", file=sys.stderr)
            return message
