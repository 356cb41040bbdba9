"""`list`, `ps`, `show`, `stop` and `rm`."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from localrun.cli.client import Client, need_server
from localrun.cli.completion import complete_model
from localrun.cli.connect import connect, find_or_say
from localrun.cli.tables import processor_text, size_text, table, time_text, until_text
from localrun.cli.wire import Json, array, number, record, text, words
from localrun.config import Settings, load_settings
from localrun.errors import LocalrunError, ModelNotFound

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_model = click.argument("model", shell_complete=complete_model)


@click.command(name="list")
@click.argument("prefix", required=False, default="")
@_as_json
def list_(prefix: str, *, as_json: bool) -> None:
    """List the models on this machine, the newest first."""
    settings = load_settings()
    client = find_or_say(settings)
    if client is not None:
        models = array(client.get("/api/tags"), "models")
    elif as_json:
        with connect(settings) as client:
            models = array(client.get("/api/tags"), "models")
    else:
        models = _stored(settings)
    if as_json:
        _print_json(_named(models, prefix))
    else:
        sys.stdout.write(models_table(models, prefix))


def models_table(models: list[Json], prefix: str = "") -> str:
    """The table of `list`: the models of `/api/tags` whose names begin with `prefix`."""
    now = datetime.now(UTC)
    rows = [
        (*_identity(model), time_text(text(model, "modified_at"), now), *_marks(model))
        for model in _named(models, prefix)
    ]
    return _marked_table(("NAME", "ID", "SIZE", "MODIFIED"), rows)


def _marked_table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table whose cells after the heads are marks, with a column only where there is one."""
    marks: tuple[str, ...] = ("BACKEND", "ADOPTED FROM")
    for index in reversed(range(len(heads), len(heads) + len(marks))):
        if not any(row[index] for row in rows if index < len(row)):
            rows = [(*row[:index], *row[index + 1 :]) for row in rows]
            marks = (*marks[: index - len(heads)], *marks[index - len(heads) + 1 :])
    return table((*heads, *marks), rows)


def _marks(model: Json) -> tuple[str, str]:
    """What runs a model, and whose its files are, where these are not ours."""
    return text(model, "backend"), text(record(model, "details"), "adopted")


def _named(models: list[Json], prefix: str) -> list[Json]:
    return [m for m in models if text(m, "name").lower().startswith(prefix.lower())]


def _identity(model: Json) -> tuple[str, str, str]:
    """What every table of models begins with."""
    name, digest = text(model, "name"), text(model, "digest")[:12]
    return name, digest, size_text(number(model, "size"))


def _stored(settings: Settings) -> list[Json]:
    """What the table shows of each model, read from the store: that needs no server."""
    from localrun.store.adopt.adopted import open_library

    return [
        {
            "name": model.name.short(),
            "digest": model.digest,
            "size": model.size_bytes,
            "modified_at": model.modified_at.isoformat(),
            "details": {"adopted": model.adopted},
        }
        for model in open_library(settings).list()
    ]


@click.command()
@click.argument("prefix", required=False, default="")
@_as_json
def ps(prefix: str, *, as_json: bool) -> None:
    """List the models in memory."""
    models = _named(array(need_server(load_settings()).get("/api/ps"), "models"), prefix)
    if as_json:
        _print_json(models)
        return
    now = datetime.now(UTC)
    rows = [
        (
            *_identity(model),
            processor_text(number(model, "size"), number(model, "size_vram")),
            str(int(number(model, "context_length")) or "-"),
            until_text(text(model, "expires_at"), now),
            *_marks(model),
        )
        for model in models
    ]
    heads = ("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")
    sys.stdout.write(_marked_table(heads, rows))


@click.command()
@_model
@click.option("--license", "license", is_flag=True, help="Print the licence only.")
@click.option("--modelfile", is_flag=True, help="Print the Modelfile only.")
@click.option("--parameters", is_flag=True, help="Print the parameters only.")
@click.option("--system", is_flag=True, help="Print the system message only.")
@click.option("--template", is_flag=True, help="Print the template only.")
@click.option("-v", "--verbose", is_flag=True, help="Print the metadata and the tensors too.")
@_as_json
def show(model: str, *, verbose: bool, as_json: bool, **parts: bool) -> None:
    """Show what a model is."""
    wanted = [name for name, is_wanted in parts.items() if is_wanted]
    if len(wanted) > 1:
        raise click.UsageError(
            "only one of '--license', '--modelfile', '--parameters', '--system', or '--template'"
            " can be specified"
        )
    with connect(load_settings()) as client:
        shown = client.call("POST", "/api/show", {"model": model, "verbose": verbose})
    if as_json:
        _print_json(shown)
    elif wanted:
        part = text(shown, wanted[0])
        # A system message and a template are printed to the byte, to be piped on.
        is_whole = wanted[0] in ("system", "template") or part.endswith("\n")
        sys.stdout.write(part if is_whole else f"{part}\n")
    else:
        sys.stdout.write(describe(shown, verbose=verbose))


@click.command()
@_model
def stop(model: str) -> None:
    """Unload a model from memory; running answers are finished first."""
    client = need_server(load_settings())
    try:
        unload(client, model)
    except ModelNotFound as error:
        raise LocalrunError(f"couldn't find model {model!r} to stop") from error


@click.command()
@click.argument("models", nargs=-1, required=True, shell_complete=complete_model)
def rm(models: tuple[str, ...]) -> None:
    """Remove models, and the files that no other model uses."""
    with connect(load_settings()) as client:
        for model in models:
            client.call("DELETE", "/api/delete", {"model": model})
            print(f"deleted '{model}'")


def unload(client: Client, model: str) -> None:
    """Ask the server to unload a model. Raises `ModelNotFound` if there is none."""
    body: Json = {"model": model, "keep_alive": 0, "stream": False}
    client.call("POST", "/api/generate", body)


def describe(shown: Json, *, verbose: bool = False) -> str:
    """The answer of `/api/show` in sections, as people know them."""
    sections = {
        "Model": _model_rows(shown),
        "Capabilities": [(word, "") for word in words(shown, "capabilities")],
        "Projector": _projector_rows(record(shown, "projector_info")),
        "Parameters": _parameter_rows(text(shown, "parameters")),
        "System": [(line, "") for line in _first_lines(text(shown, "system"))],
        "License": [(line, "") for line in _first_lines(text(shown, "license"))],
    }
    if verbose:
        facts = record(shown, "model_info")
        sections["Metadata"] = [(key, _short(value)) for key, value in sorted(facts.items())]
        sections["Tensors"] = [
            (text(tensor, "name"), f"{text(tensor, 'type')}  {tensor.get('shape')}")
            for tensor in array(shown, "tensors")
        ]
    return "".join(_section(title, rows) for title, rows in sections.items() if rows)


def _model_rows(shown: Json) -> list[tuple[str, str]]:
    facts, details = record(shown, "model_info"), record(shown, "details")
    architecture = text(facts, "general.architecture") or text(details, "family")
    context = number(facts, f"{architecture}.context_length")
    embedding = number(facts, f"{architecture}.embedding_length")
    rows = [
        ("architecture", architecture),
        ("parameters", text(details, "parameter_size")),
        ("context length", str(int(context)) if context else ""),
        ("embedding length", str(int(embedding)) if embedding else ""),
        ("quantization", text(details, "quantization_level")),
        ("requires", text(shown, "requires")),
        ("adopted from", text(details, "adopted")),
    ]
    return [row for row in rows if row[1]]


def _projector_rows(facts: Json) -> list[tuple[str, str]]:
    """What reads images or sounds for the model."""
    architecture = text(facts, "general.architecture")
    figures = (
        ("parameters", "general.parameter_count"),
        ("embedding length", f"{architecture}.vision.embedding_length"),
        ("dimensions", f"{architecture}.vision.projection_dim"),
    )
    rows = [(name, str(int(number(facts, key)) or "")) for name, key in figures]
    return [row for row in (("architecture", architecture), *rows) if row[1]]


def _parameter_rows(lines: str) -> list[tuple[str, str]]:
    pairs = [line.split(maxsplit=1) for line in lines.splitlines()]
    return [(pair[0], pair[1] if len(pair) > 1 else "") for pair in pairs if pair]


def _first_lines(words: str) -> list[str]:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return [*lines[:2], "..."] if len(lines) > 2 else lines


def _short(value: object) -> str:
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return words if len(words) <= 80 else f"{words[:77]}..."


def _section(title: str, rows: list[tuple[str, str]]) -> str:
    width = max(len(row[0]) for row in rows)
    lines = "".join(f"    {name.ljust(width)}    {value}".rstrip() + "\n" for name, value in rows)
    return f"  {title}\n{lines}\n"


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))
