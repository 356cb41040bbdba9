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
from localrun.cli.display import Display
from localrun.cli.progress import Progress
from localrun.cli.pull import is_file, pull_model
from localrun.cli.wire import Json, number, text
from localrun.config import BACKENDS, Settings, load_settings
from localrun.errors import ModelNotFound

_DURATIONS = (
    ("total duration", "total_duration"),
    ("load duration", "load_duration"),
    ("prompt eval duration", "prompt_eval_duration"),
    ("eval duration", "eval_duration"),
)
_THINK: dict[str, object] = {
    "true": True, "false": False, "low": "low", "medium": "medium", "high": "high", "max": "max",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """What every request of one `run` shares.

    Attributes:
        model: Name on the server.
        fields: `options`, `keep_alive`, `format`, `system`, `think`, where given.
        is_verbose: Print the counts and speeds of each answer.
        wraps: Break lines at words, on a terminal.
        hides_thinking: Do not print the reasoning.
    """

    model: str
    fields: Json = field(default_factory=dict[str, object])
    is_verbose: bool = False
    wraps: bool = True
    hides_thinking: bool = False


class _Run(click.Command):
    """`--think` alone takes no word of the prompt for its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line."""
        return super().parse_args(ctx, ["--think=true" if a == "--think" else a for a in args])


@click.command(cls=_Run)
@click.argument("model", required=False, shell_complete=complete_model)
@click.argument("prompt", nargs=-1)
@click.option("--keepalive", metavar="DURATION", help="How long the model stays, such as 5m.")
@click.option("--format", "form", help="json, or a JSON schema.")
@click.option("--system", help="System message.")
@click.option("-o", "--option", "options", multiple=True, metavar="NAME=VALUE",
              help="An option such as temperature=0 or num_ctx=8192; may be repeated.")  # fmt: skip
@click.option("--think", type=click.Choice(list(_THINK)), metavar="[=LEVEL]",
              help="Reason first: true, false, low, medium, high or max.")  # fmt: skip
@click.option("--hidethinking", is_flag=True, help="Do not print the reasoning.")
@click.option("--verbose", is_flag=True, help="Print counts and speeds after an answer.")
@click.option("--nowordwrap", is_flag=True, help="Do not break lines at words on a terminal.")
@click.option("--dimensions", type=click.IntRange(min=1), help="Of an embedding model's vector.")
@click.option("--truncate/--no-truncate", default=None, help="Cut a text that an embedding model"
              " cannot hold (default), or fail.")  # fmt: skip
@click.option("--backend", type=click.Choice(BACKENDS), help="What runs the model.")
@click.option("--insecure", is_flag=True, help="Fetch from a registry without TLS.")
def run(model: str | None, prompt: tuple[str, ...], **flags: object) -> None:
    """Run a model: answer PROMPT and what is piped in, or start a conversation.

    A model that is not on this machine is fetched first. Without MODEL, the best one for this
    machine is proposed.
    """
    settings = load_settings(overrides={"backend": flags.pop("backend")})
    fields = _fields(flags)
    words = _piped() + " ".join(prompt)
    with connect(settings) as client:
        wanted = _choose(model, client, settings)
        name, capabilities = ensure_model(
            client, wanted, settings, is_insecure=bool(flags["insecure"])
        )
        request = Request(
            name,
            fields,
            is_verbose=bool(flags["verbose"]),
            wraps=not flags["nowordwrap"],
            hides_thinking=bool(flags["hidethinking"]),
        )
        if "embedding" in capabilities and "completion" not in capabilities:
            _embed(client, name, words, flags)
        elif not words.strip() and sys.stdin.isatty() and sys.stdout.isatty():
            from localrun.cli.prompt import talk
            from localrun.cli.session import session_of

            talk(session_of(client, settings, request, capabilities))
        else:
            answer(client, request, words)


def _embed(client: Client, model: str, words: str, flags: Json) -> None:
    """Print a text's vector as one line of JSON."""
    if not words.strip():
        raise click.UsageError(
            f"{model} turns texts into vectors: localrun run {model} 'your text here'"
        )
    fields = {name: flags[name] for name in ("dimensions", "truncate") if flags[name] is not None}
    shown = client.call("POST", "/api/embed", {"model": model, "input": words.strip(), **fields})
    vectors = shown.get("embeddings")
    print(json.dumps(cast("list[object]", vectors)[0] if vectors else []))


def ensure_model(
    client: Client, model: str, settings: Settings, *, is_insecure: bool = False
) -> tuple[str, list[str]]:
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
        model = pull_model(client, model, settings, is_insecure=is_insecure)
        shown = client.call("POST", "/api/show", {"model": model})
    return model, words(shown, "capabilities")


def answer(client: Client, request: Request, prompt: str) -> None:
    """Stream one answer to standard output; an empty prompt only loads the model."""
    body = {"model": request.model, "prompt": prompt, **request.fields}
    display = Display(wraps=request.wraps, hides_thinking=request.hides_thinking)
    with contextlib.closing(client.stream("/api/generate", body)) as records:
        last = print_stream(records, display)
    if prompt:
        print()
    if warning := text(last, "warning"):
        print(warning, file=sys.stderr)
    if request.is_verbose:
        print_counts(last)


def print_stream(records: Iterator[Json], display: Display) -> Json:
    """Print the deltas of an answer as they come; a spinner turns until the first one.

    Returns:
        The closing record, with the counts.
    """
    last: Json = {}
    with waiting():
        last = next(records, last)
    while True:
        display.show(last)
        if last.get("done") or (following := next(records, None)) is None:
            display.end_thinking()
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
    if flags["think"] is not None:
        fields["think"] = _THINK[str(flags["think"])]
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
