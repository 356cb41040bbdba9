"""`export`: a model as one GGUF file."""

from pathlib import Path

import click

from localrun.cli.completion import complete_model
from localrun.cli.progress import Progress
from localrun.cli.tables import size_text
from localrun.config import load_settings
from localrun.store.adopt.adopted import open_library
from localrun.store.export import export as export_model


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--copy", is_flag=True, help="Write bytes of its own, also on the store's disk.")
def export(model: str, file: Path, *, copy: bool) -> None:
    """Write a model's weights as one GGUF FILE.

    On the store's disk FILE shares its bytes with the store: whoever changes it changes the model;
    --copy makes it independent. The files of a split model are joined.
    """
    found = open_library(load_settings()).find(model)
    with Progress() as progress:

        def tell(n_bytes: int) -> None:
            progress.transfer(
                f"writing {file.name}",
                found.digest,
                found.size_bytes,
                min(n_bytes, found.size_bytes),
            )

        how = export_model(found, file.expanduser(), tell, lambda: False, links=not copy)
    print(f"{how} {found.name.short()} to {file} ({size_text(file.stat().st_size)})")
