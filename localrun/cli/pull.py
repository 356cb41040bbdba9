"""`pull`, and the progress of a pull that other commands need too."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from localrun.cli.client import Client
from localrun.cli.completion import complete_source
from localrun.cli.connect import connect
from localrun.cli.progress import Progress
from localrun.cli.tables import size_text, table
from localrun.cli.wire import Json, array, number, text
from localrun.config import Settings, load_settings
from localrun.errors import PullFailed, SourceMissing


@click.command()
@click.argument("name", shell_complete=complete_source)
@click.option("--insecure", is_flag=True, help="Fetch from a registry without TLS.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's records, one a line.")
def pull(name: str, *, insecure: bool, as_json: bool) -> None:
    """Fetch a model.

    NAME is a name of the catalog (llama3.2, qwen3:4b), a repository of the Hub (hf.co/user/repo,
    hf.co/user/repo:Q4_K_M), a model of a registry (ollama.com/library/llama3.2,
    registry.example/user/model:tag) or a local .gguf file.
    """
    settings = load_settings()
    with connect(settings) as client:
        if as_json:
            for event in _events(client, name, settings, is_insecure=insecure):
                print(json.dumps(event, ensure_ascii=False), flush=True)
        else:
            pull_model(client, name, settings, is_insecure=insecure)


def pull_model(client: Client, name: str, settings: Settings, *, is_insecure: bool = False) -> str:
    """Fetch a model through the server and show the progress.

    Args:
        client: The server.
        name: Any name that the server knows, or a local file.
        settings: Of this process.
        is_insecure: A registry may be spoken to without TLS.

    Returns:
        The name under which it is now here.

    Raises:
        LocalrunError: What the server said.
    """
    stored, done = name, False
    with Progress() as progress:
        for event in _events(client, name, settings, is_insecure=is_insecure):
            _show(event, progress)
            done = text(event, "status") == "success"
            stored = text(event, "name") or stored
        if done and stored.removesuffix(":latest") != name.removesuffix(":latest"):
            progress.note(f"stored as {stored}")
    if not done:
        raise PullFailed(
            f"the pull of '{name}' ended early", hint=f"localrun pull {name}  goes on from there"
        )
    return stored


def _events(client: Client, name: str, settings: Settings, *, is_insecure: bool) -> Iterator[Json]:
    headers: dict[str, str] = {}
    if is_file(name):
        name = str(Path(name).expanduser().resolve())
        headers = local_headers(settings)
    body: dict[str, object] = {"model": name, **({"insecure": True} if is_insecure else {})}
    return client.stream("/api/pull", body, headers=headers)


def is_file(name: str) -> bool:
    """Whether a name means a GGUF file on this machine.

    Raises:
        SourceMissing: If it is the path of one that is not there.
    """
    if not name.lower().endswith(".gguf"):
        return False
    path = Path(name).expanduser()
    if path.is_file():
        return True
    if path.is_absolute() or name.startswith((".", "~")):
        raise SourceMissing(f"there is no file {path}", hint="check the path")
    return False


def local_headers(settings: Settings) -> dict[str, str]:
    """What proves to the server that we may read this user's files."""
    try:
        token = (settings.home / "cli-token").read_text("ascii").strip()
    except (OSError, ValueError):
        token = ""
    return {"X-Localrun-Local": token}


def _show(event: Json, progress: Progress) -> None:
    status, digest, total = text(event, "status"), text(event, "digest"), number(event, "total")
    if total:  # a local file has no digest until it is read
        progress.transfer(status, digest or status, int(total), int(number(event, "completed")))
    elif status and not digest:
        progress.status(status)
    rows = array(event, "plan")
    if len(rows) > 1:
        progress.note(plan_table(rows))
    if hint := text(event, "hint"):
        progress.note(hint)


def plan_table(rows: list[Json]) -> str:
    """Every candidate of a choice, the chosen one marked, each with its reason."""
    pairs = [(text(row, "quantization"), text(row, "label")) for row in rows]
    names = short_names(pairs)
    cells = [
        (
            "★" if row.get("is_chosen") else " ",
            name,
            size_text(number(row, "n_bytes")),
            text(row, "reason"),
        )
        for row, name in zip(rows, names, strict=True)
    ]
    return table(("", "QUANTIZATION", "SIZE", "VERDICT"), cells)


def short_names(pairs: list[tuple[str, str]]) -> list[str]:
    """The quantization where it tells candidates apart, else the label: (quantization, label)."""
    kinds = [quantization for quantization, _ in pairs]
    return [
        quantization if quantization and kinds.count(quantization) == 1 else label
        for quantization, label in pairs
    ]
