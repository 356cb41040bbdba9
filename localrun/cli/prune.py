"""`prune`: remove what no model needs."""

import json
import sys

import click

from localrun.cli.tables import size_text, table
from localrun.config import load_settings
from localrun.store.cleaning import ON_DEMAND, clean, find_waste
from localrun.store.library import Library


@click.command()
@click.option("-y", "--yes", is_flag=True, help="Remove it without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; remove only with --yes.")
def prune(*, yes: bool, as_json: bool) -> None:
    """Remove what no model of the store needs.

    That is: parts of pulls that were broken off, files that did not arrive as promised, and files
    without a model. What a running command makes or fetches stays, and so do other programs' files.
    """
    library = Library(load_settings().models)
    waste = find_waste(library)
    total = sum(each.n_bytes for each in waste)
    if as_json:
        freed = clean(library, ages=ON_DEMAND) if yes else 0
        files = [{"path": str(each.path), "size": each.n_bytes} for each in waste]
        print(json.dumps({"files": files, "size": total, "freed": freed}, ensure_ascii=False))
        return
    if not waste:
        print("nothing to remove")
        return
    rows = [(str(each.path.relative_to(library.root)), size_text(each.n_bytes)) for each in waste]
    sys.stdout.write(table(("FILE", "SIZE"), rows))
    if yes or click.confirm(f"Remove {size_text(total)} from {library.root}?", err=True):
        print(f"removed {size_text(clean(library, ages=ON_DEMAND))}")
