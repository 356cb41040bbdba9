"""The conversation of `run`: the prompt, its history and its commands."""

import contextlib
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType

from localrun.cli.client import Client
from localrun.cli.run import Request, print_counts, print_stream, waiting
from localrun.cli.wire import Json, record, text
from localrun.config import Settings
from localrun.errors import LocalrunError

_HISTORY_LINES = 100
_QUOTES = '"""'
_HELP = '''\
  /clear          Forget the conversation so far
  /bye            Leave (or Ctrl-D)
  /?, /help       This help

Use """ to begin a message of several lines and """ to end it.
Ctrl-C stops an answer.'''


class _Leave(Exception):
    """The user wants to go."""


def talk(client: Client, request: Request, settings: Settings) -> None:
    """Read messages and print answers until the user leaves; the model is loaded first."""
    with waiting():
        client.call("POST", "/api/generate", {"model": request.model, "stream": False})
    messages: list[Json] = []
    if isinstance(system := request.fields.get("system"), str):
        messages.append({"role": "system", "content": system})
    print("Send a message (/? for help)", file=sys.stderr)
    with _history(settings), contextlib.suppress(_Leave):
        while True:
            _turn(client, request, messages)


def _turn(client: Client, request: Request, messages: list[Json]) -> None:
    message = read_message()
    if message.startswith("/"):
        _obey(message.split()[0], messages)
    elif message.strip():
        messages.append({"role": "user", "content": message})
        _reply(client, request, messages)


def read_message() -> str:
    """Read one message; several lines between triple quotes. Empty after Ctrl-C.

    Raises:
        _Leave: At the end of the input (Ctrl-D).
    """
    try:
        line = input(">>> ")
        if not line.lstrip().startswith(_QUOTES):
            return line
        lines = [line.lstrip().removeprefix(_QUOTES)]
        while not lines[-1].rstrip().endswith(_QUOTES):
            lines.append(input("... "))
        lines[-1] = lines[-1].rstrip().removesuffix(_QUOTES)
        return "\n".join(lines).strip("\n")
    except EOFError:
        print()
        raise _Leave from None
    except KeyboardInterrupt:
        print("\nUse Ctrl + d or /bye to exit.")
        return ""


def _obey(command: str, messages: list[Json]) -> None:
    match command:
        case "/bye" | "/exit":
            raise _Leave
        case "/?" | "/help":
            print(_HELP, file=sys.stderr)
        case "/clear":
            messages[:] = [m for m in messages if text(m, "role") == "system"]
            print("Cleared session context")
        case _:
            print(f"Unknown command '{command}'. Type /? for help")


def _reply(client: Client, request: Request, messages: list[Json]) -> None:
    """Print the answer and remember it, also the part of one that was stopped."""
    fields = {name: value for name, value in request.fields.items() if name != "system"}
    body = {"model": request.model, "messages": messages, **fields}
    said: list[str] = []
    try:
        with contextlib.closing(client.stream("/api/chat", body)) as records:
            last = print_stream(_listen(records, said))
        print("\n")
        if request.is_verbose:
            print_counts(last)
    except KeyboardInterrupt:
        print("\n")
    except LocalrunError as error:
        messages.pop()
        print(f"Error: {error.message}\n{error.hint}".rstrip() + "\n", file=sys.stderr)
        return
    messages.append({"role": "assistant", "content": "".join(said)})


def _listen(records: Iterator[Json], said: list[str]) -> Iterator[Json]:
    for answer in records:
        said.append(text(record(answer, "message"), "content"))
        yield answer


@contextlib.contextmanager
def _history(settings: Settings) -> Generator[None, None, None]:
    """Line editing with the messages of earlier conversations, kept in our directory."""
    readline = _readline()
    if readline is None or settings.no_history:
        yield
        return
    file = settings.home / "history"
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    try:
        yield
    finally:
        readline.set_history_length(_HISTORY_LINES)
        with contextlib.suppress(OSError):
            _make_private(file)
            readline.write_history_file(file)


def _make_private(file: Path) -> None:
    """What people ask is theirs alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)


def _readline() -> ModuleType | None:
    """The line editor; None on Windows, whose terminal has its own."""
    try:
        import readline
    except ImportError:
        return None
    return readline
