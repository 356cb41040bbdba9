"""`run`: one answer to a prompt or to what is piped in, or a conversation."""

import contextlib
import json
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import cast

import click

from localrun.cli.client import Client
from localrun.cli.completion import complete_model
from localrun.cli.connect import connect
from localrun.cli.progress import Progress
from localrun.cli.pull import is_file, pull_model
from localrun.cli.wire import Json, number, record, text
from localrun.config import Settings, load_settings
from localrun.errors import ModelNotFound

_DURATIONS = (
    ("total duration", "total_duration"),
    ("load duration", "load_duration"),
    ("prompt eval duration", "prompt_eval_duration"),
    ("eval duration", "eval_duration"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """What every request of one `run` shares.

    Attributes:
        model: Name on the server.
        fields: `options`, `keep_alive`, `format`, `system`, where given.
        is_verbose: Print the counts and speeds of each answer.
    """

    model: str
    fields: Json = field(default_factory=dict[str, object])
    is_verbose: bool = False


@click.command()
@click.argument("model", required=False, shell_complete=complete_model)
@click.argument("prompt", nargs=-1)
@click.option("--keepalive", metavar="DURATION", help="How long the model stays, such as 5m.")
@click.option("--format", "form", help="json, or a JSON schema.")
@click.option("--system", help="System message.")
@click.option("-o", "--option", "options", multiple=True, metavar="NAME=VALUE",
              help="An option such as temperature=0 or num_ctx=8192; may be repeated.")  # fmt: skip
@click.option("--verbose", is_flag=True, help="Print counts and speeds after an answer.")
@click.option("--nowordwrap", is_flag=True, hidden=True)  # of Ollama; we never wrap
def run(model: str | None, prompt: tuple[str, ...], *, verbose: bool, **flags: object) -> None:
    """Run a model: answer PROMPT and what is piped in, or start a conversation.

    A model that is not on this machine is fetched first. Without MODEL, the best one for this
    machine is proposed.
    """
    flags.pop("nowordwrap")
    settings = load_settings()
    fields = _fields(flags)
    words = _piped() + " ".join(prompt)
    with connect(settings) as client:
        name, capabilities = ensure_model(client, _choose(model, client, settings), settings)
        request = Request(name, fields, verbose)
        is_talk = not words.strip() and sys.stdin.isatty() and sys.stdout.isatty()
        if is_talk and "embedding" not in capabilities:
            from localrun.cli.prompt import talk

            talk(client, request, settings)
        else:
            answer(client, request, words)


def ensure_model(client: Client, model: str, settings: Settings) -> tuple[str, list[str]]:
    """Fetch a model unless the server has it; a file is always read, it may have changed.

    Returns:
        Its name on the server, and its capabilities: `completion` or `embedding` and more.
    """
    from localrun.cli.wire import words

    if is_file(model):
        model = pull_model(client, model, settings)
    try:
        shown = client.call("POST", "/api/show", {"model": model})
    except ModelNotFound:
        model = pull_model(client, model, settings)
        shown = client.call("POST", "/api/show", {"model": model})
    return model, words(shown, "capabilities")


def answer(client: Client, request: Request, prompt: str) -> None:
    """Stream one answer to standard output; an empty prompt only loads the model."""
    body = {"model": request.model, "prompt": prompt, **request.fields}
    with contextlib.closing(client.stream("/api/generate", body)) as records:
        last = print_stream(records)
    if prompt:
        print()
    if request.is_verbose:
        print_counts(last)


def print_stream(records: Iterator[Json]) -> Json:
    """Print the deltas of an answer as they come; a spinner turns until the first one.

    Returns:
        The closing record, with the counts.
    """
    last: Json = {}
    with waiting():
        last = next(records, last)
    while True:
        delta = text(last, "response") or text(record(last, "message"), "content")
        if delta:
            sys.stdout.write(delta)
            sys.stdout.flush()
        if last.get("done") or (following := next(records, None)) is None:
            return last
        last = following


@contextlib.contextmanager
def waiting() -> Generator[None, None, None]:
    """A spinner on a terminal, gone when the block ends."""
    if not sys.stderr.isatty():
        yield
        return
    with Progress() as progress:
        progress.status("")
        try:
            yield
        finally:
            progress.erase()


def print_counts(last: Json) -> None:
    """Counts and speeds of an answer, on standard error; what is 0 is left out."""
    rows = {name: f"{number(last, key) / 1e9:.3f}s" for name, key in _DURATIONS if last.get(key)}
    for name in ("prompt_eval", "eval"):
        count, duration = number(last, f"{name}_count"), number(last, f"{name}_duration")
        title = name.replace("_", " ")
        if count:
            rows[f"{title} count"] = f"{count} token(s)"
        if count and duration:
            rows[f"{title} rate"] = f"{count / duration * 1e9:.2f} tokens/s"
    for name, value in rows.items():
        print(f"{name + ':':<22}{value}", file=sys.stderr)


def _choose(model: str | None, client: Client, settings: Settings) -> str:
    if model:
        return model
    from localrun.cli.propose import choose_model

    return choose_model(client, settings)


def _piped() -> str:
    """What is piped in, with a line break behind it; empty on a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    words = sys.stdin.read().strip()
    return f"{words}\n\n" if words else ""


def _fields(flags: dict[str, object]) -> Json:
    """The flags as fields of a request."""
    options = cast("tuple[str, ...]", flags.pop("options"))
    form = flags.pop("form")
    fields: dict[str, object] = {"keep_alive": flags["keepalive"], "system": flags["system"]}
    fields["options"] = dict(_option(words) for words in options) or None
    if form:
        fields["format"] = "json" if form == "json" else _json(str(form), "--format")
    return {name: value for name, value in fields.items() if value is not None}


def _option(words: str) -> tuple[str, object]:
    name, found, value = words.partition("=")
    if not found:
        raise click.UsageError(f"--option takes NAME=VALUE, not {words!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, [value] if name == "stop" else value


def _json(words: str, flag: str) -> object:
    try:
        return json.loads(words)
    except ValueError as error:
        raise click.UsageError(f"{flag}: {error}") from error
