"""`bundle create` and `bundle import`: models for a machine without a network."""

from pathlib import Path

import click

from localrun.cli.completion import complete_model
from localrun.cli.progress import Progress
from localrun.cli.tables import size_text
from localrun.config import load_settings
from localrun.store.adopt.adopted import open_library
from localrun.store.bundle import create_bundle, import_bundle

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.group()
def bundle() -> None:
    """Carry models to a machine without a network."""


@bundle.command()
@_file
@click.argument("models", nargs=-1, required=True, shell_complete=complete_model)
def create(file: Path, models: tuple[str, ...]) -> None:
    """Write models into a new tar FILE."""
    library = open_library(load_settings())
    found = [library.find(name) for name in dict.fromkeys(models)]
    with Progress() as progress:

        def tell(digest: str, total: int, completed: int) -> None:
            progress.transfer(f"writing {digest[7:19]}", digest, total, completed)

        create_bundle(found, library, file, tell, lambda: False)
    print(f"{len(found)} models in {file} ({size_text(file.stat().st_size)})")


@bundle.command(name="import")
@_file
@click.option("--replace", is_flag=True, help="Models of the same names may go.")
def import_(file: Path, *, replace: bool) -> None:
    """Take the models of a FILE into the store; everything is checked against its hash."""
    library = open_library(load_settings())
    with Progress() as progress:

        def tell(digest: str, total: int, completed: int) -> None:
            progress.transfer(f"reading {digest[7:19]}", digest, total, completed)

        models = import_bundle(file, library, tell, lambda: False, replaces=replace)
    for model in models:
        print(f"imported {model.name.short()}")
