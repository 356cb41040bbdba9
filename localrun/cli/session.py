"""A conversation of `run`: what it is held with, and one turn of it."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from localrun.cli.client import Client
from localrun.cli.display import Display
from localrun.cli.run import Request, print_counts, print_stream, waiting
from localrun.cli.wire import Json, record, text
from localrun.config import Settings
from localrun.errors import LocalrunError


@dataclass(slots=True)
class Session:
    """A conversation; the commands of the prompt change it.

    Attributes:
        client: The server.
        settings: Of this process.
        model: Name on the server.
        capabilities: What the model can do.
        system: System message; empty leaves the model's own.
        options: Ollama's options by name.
        form: `json`, a JSON schema, or None.
        think: Whether or how hard to reason; None leaves it to the model.
        keep_alive: Stay of the model, as a request says it; None leaves it to the server.
        is_verbose: Print counts after each answer.
        wraps: Break lines at words.
        hides_thinking: Do not print the reasoning.
        keeps_history: Remember what is typed, for later conversations too.
        messages: The turns so far, system messages aside.
    """

    client: Client
    settings: Settings
    model: str
    capabilities: list[str]
    system: str = ""
    options: dict[str, object] = field(default_factory=dict[str, object])
    form: object = None
    think: object = None
    keep_alive: object = None
    is_verbose: bool = False
    wraps: bool = True
    hides_thinking: bool = False
    keeps_history: bool = True
    messages: list[Json] = field(default_factory=list[Json])

    def load(self) -> None:
        """Bring the model into memory, and show the turns that its author gave it."""
        with waiting():
            body = {"model": self.model, "stream": False}
            self.client.call("POST", "/api/generate", body)

    def fields(self) -> Json:
        """What a request says beside its messages."""
        found = {
            "options": self.options or None,
            "format": self.form,
            "think": self.think,
            "keep_alive": self.keep_alive,
        }
        return {name: value for name, value in found.items() if value is not None}

    def say(self, message: str) -> None:
        """Send a message, print the answer and remember both; Ctrl-C keeps what was said."""
        self.messages.append({"role": "user", "content": message})
        system: list[Json] = [{"role": "system", "content": self.system}] if self.system else []
        messages = system + self.messages
        body = {"model": self.model, "messages": messages, **self.fields()}
        said: list[str] = []
        display = Display(wraps=self.wraps, hides_thinking=self.hides_thinking)
        try:
            with contextlib.closing(self.client.stream("/api/chat", body)) as records:
                last = print_stream(_listen(records, said), display)
        except KeyboardInterrupt:
            display.end_thinking()
            last = dict[str, object]()
        except LocalrunError as error:
            display.end_thinking()
            self.messages.pop()
            print(f"Error: {error.message}\n{error.hint}".rstrip() + "\n", file=sys.stderr)
            return
        print("\n")
        self.messages.append({"role": "assistant", "content": "".join(said)})
        _tell_cut(last)
        if self.is_verbose and last:
            print_counts(last)


def session_of(
    client: Client, settings: Settings, request: Request, capabilities: list[str]
) -> Session:
    """A conversation that begins with the flags of `run`."""
    fields = request.fields
    return Session(
        client,
        settings,
        request.model,
        capabilities,
        system=str(fields.get("system") or ""),
        options=dict(record(request.fields, "options")),
        form=fields.get("format"),
        think=fields.get("think"),
        keep_alive=fields.get("keep_alive"),
        is_verbose=request.is_verbose,
        wraps=request.wraps,
        hides_thinking=request.hides_thinking,
        keeps_history=not settings.no_history,
    )


def _listen(records: Iterator[Json], said: list[str]) -> Iterator[Json]:
    for answer in records:
        said.append(text(record(answer, "message"), "content"))
        yield answer


def _tell_cut(last: Json) -> None:
    """Say that the oldest messages did not fit any more."""
    n_cut = last.get("truncated_messages")
    if n_cut:
        hint = "raise it with /set parameter num_ctx N, or begin anew with /clear"
        print(f"({n_cut} old messages did not fit the context window: {hint})\n", file=sys.stderr)
    if warning := text(last, "warning"):
        print(f"({warning})\n", file=sys.stderr)
