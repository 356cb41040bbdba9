"""`adopt`: run the models of other programs' folders where they lie."""

import json
import sys
from pathlib import Path

import click

from localrun.cli.tables import size_text, table
from localrun.config import load_settings
from localrun.errors import LocalrunError, SourceMissing
from localrun.store.adopt.adopted import Adopted, Adoption, open_adopted, open_library


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def adopt(paths: tuple[Path, ...], *, as_json: bool) -> None:
    """List and run models of other programs where they lie.

    PATHS are Ollama's store, the Hub's cache, LM Studio's folder, any folder of GGUF files or one
    such file; without any, those of this user that are there. Nothing is copied, and nothing in
    them is ever written or removed: `localrun rm` takes such a model off our list only.
    """
    settings = load_settings()
    adopted = open_adopted(settings)
    adoptions = [adopted.adopt(path) for path in paths] if paths else _adopt_known(adopted)
    ours = {model.name.key for model in open_library(settings).list() if not model.adopted}
    if as_json:
        shown = [_to_json(adoption, ours) for adoption in adoptions]
        print(json.dumps(shown, ensure_ascii=False, indent=2))
        return
    _print(adoptions, ours)
    for _, reason in adopted.damaged():
        print(f"not listed: {reason}", file=sys.stderr)


def _adopt_known(adopted: Adopted) -> list[Adoption]:
    """All folders of this user; one without a model is no failure."""
    adoptions: list[Adoption] = []
    for place in adopted.known():
        try:
            adoptions.append(adopted.adopt(place.path))
        except SourceMissing as error:
            print(f"{error.message}", file=sys.stderr)
    if not adoptions:
        raise LocalrunError(
            "no other program's models were found", hint="localrun adopt PATH  names a folder"
        )
    return adoptions


def _print(adoptions: list[Adoption], ours: set[tuple[str, str, str, str]]) -> None:
    rows = [
        (
            model.name.short(),
            size_text(model.size_bytes),
            _remark(adoption, is_hidden=model.name.key in ours),
        )
        for adoption in adoptions
        for model in adoption.models
    ]
    sys.stdout.write(table(("NAME", "SIZE", "ADOPTED FROM"), rows))
    for adoption in adoptions:
        for path, reason in adoption.skipped:
            print(f"left out: {path}: {reason}", file=sys.stderr)


def _remark(adoption: Adoption, *, is_hidden: bool) -> str:
    hidden = "  (hidden: the store has a model of this name)" if is_hidden else ""
    return f"{adoption.place.path}{hidden}"


def _to_json(adoption: Adoption, ours: set[tuple[str, str, str, str]]) -> dict[str, object]:
    return {
        "path": str(adoption.place.path),
        "kind": adoption.place.kind,
        "models": [
            {
                "name": model.name.short(),
                "digest": model.digest,
                "size": model.size_bytes,
                "files": [str(path) for path in model.model_paths],
                "is_hidden": model.name.key in ours,
            }
            for model in adoption.models
        ],
        "skipped": [{"path": str(path), "reason": reason} for path, reason in adoption.skipped],
    }
