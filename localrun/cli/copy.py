"""`cp`."""

import click

from localrun.cli.completion import complete_model
from localrun.cli.connect import connect
from localrun.config import load_settings


@click.command()
@click.argument("source", shell_complete=complete_model)
@click.argument("destination")
def cp(source: str, destination: str) -> None:
    """Give a model a second name; its files are shared."""
    with connect(load_settings()) as client:
        body = {"source": source, "destination": destination}
        client.call("POST", "/api/copy", body)
    print(f"copied '{source}' to '{destination}'")
