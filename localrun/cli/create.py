"""`create`: make a model from a Modelfile, its files sent to the server first."""

import sys
from functools import partial
from pathlib import Path
from urllib.parse import quote

import click

from localrun.cli.client import Client, NoServer
from localrun.cli.connect import connect
from localrun.cli.ingredients import Ingredients, gather, hash_file
from localrun.cli.progress import Progress
from localrun.cli.pull import local_headers
from localrun.cli.wire import Json, number, text
from localrun.config import Settings, load_settings
from localrun.errors import BadRequest, LocalrunError, NotFound
from localrun.modelfile import parse
from localrun.names import parse_name

_DEFAULT = "FROM .\n"


@click.command()
@click.argument("model")
@click.option("-f", "--file", "file", metavar="MODELFILE",
              help="The Modelfile, - for standard input [./Modelfile, or FROM .]")  # fmt: skip
@click.option("-q", "--quantize", metavar="TYPE", help="Quantize the weights, such as q4_K_M.")
@click.option("--draft-quantize", metavar="TYPE", help="Quantize the draft model.")
@click.option("--experimental", is_flag=True, hidden=True)  # of Ollama: safetensors as they are
def create(model: str, file: str | None, *, experimental: bool, **types: str | None) -> None:
    """Make a model from a Modelfile.

    FROM names a model, a GGUF file or a folder with one.
    """
    parse_name(model)
    content, folder = _read(file)
    settings = load_settings()
    with connect(settings) as client, Progress() as progress:
        progress.status("gathering model components")
        found = gather(parse(content), folder)
        for warning in found.warnings:
            progress.note(warning)
        _make(client, _body(model, found, types), found, progress, settings)


def _read(file: str | None) -> tuple[bytes, Path]:
    """The Modelfile's content, and the folder where its paths begin."""
    if file == "-":
        return sys.stdin.buffer.read(), Path()
    path = Path(file or "Modelfile")
    try:
        return path.read_bytes(), path.parent
    except FileNotFoundError as error:
        if file is None:
            return _DEFAULT.encode(), Path()
        raise NotFound(f"there is no file {path}", hint="check the path behind -f") from error
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}") from error


def _body(model: str, found: Ingredients, types: dict[str, str | None]) -> dict[str, object]:
    if types["draft_quantize"] and not found.draft_files:
        raise BadRequest("--draft-quantize requires a DRAFT model")
    return {"model": model, **found.fields, **{name: t for name, t in types.items() if t}}


def _make(
    client: Client,
    body: dict[str, object],
    found: Ingredients,
    progress: Progress,
    settings: Settings,
) -> None:
    groups = (
        ("files", found.files),
        ("adapters", found.adapters),
        ("draft_files", found.draft_files),
    )
    for field, paths in groups:
        if paths:
            send = partial(_send, client, progress=progress, settings=settings)
            body[field] = {name: send(path) for name, path in paths.items()}
    done = False
    for event in client.stream("/api/create", body):
        _show(event, progress)
        done = text(event, "status") == "success"
    if not done:
        raise LocalrunError(f"the creation of '{body['model']}' ended early")


def _send(client: Client, file: Path, *, progress: Progress, settings: Settings) -> str:
    """Have the server know a file; returns its digest."""
    try:
        size = file.stat().st_size
        label = f"hashing {file.name}"
        digest = hash_file(file, partial(progress.transfer, label, str(file), size))
    except OSError as error:
        raise BadRequest(f"{file} cannot be read: {error.strerror}") from error
    path = f"/api/blobs/{digest}"
    if client.has(path):
        return digest
    tell = partial(progress.transfer, f"copying file {digest[:19]}", digest, size)
    headers = local_headers(settings)
    headers["X-Localrun-Path"] = quote(str(file.resolve()))
    try:
        client.send_file(path, file, tell, headers=headers)
    except NoServer:
        raise
    except LocalrunError:  # another user's server, or another machine's
        client.send_file(path, file, tell, headers={})
    return digest


def _show(event: Json, progress: Progress) -> None:
    status, total = text(event, "status"), number(event, "total")
    if total:
        digest = text(event, "digest")
        progress.transfer(status, f"{status}{digest}", int(total), int(number(event, "completed")))
    elif status:
        progress.status(status)
    if hint := text(event, "hint"):
        progress.note(hint)
