"""The server that a command talks to: the running one, or a private one for its own length."""

import contextlib
import sys
from collections.abc import Generator
from dataclasses import replace

from localrun.cli.client import Client, NoServer, find_server
from localrun.config import Settings


def find_or_say(settings: Settings) -> Client | None:
    """The running server; None if there is none, and a word to the user if the port is taken."""
    try:
        return find_server(settings)
    except NoServer as foreign:
        print(f"{foreign.message}; going on without it", file=sys.stderr)
        return None


@contextlib.contextmanager
def connect(settings: Settings) -> Generator[Client, None, None]:
    """The running server, or a private one that ends with the block.

    Raises:
        LocalrunError: If a private server cannot be started.
    """
    client = find_or_say(settings)
    if client is not None:
        yield client
        return
    # Only here: what starts a process costs a tenth of `localrun list` to import.
    from localrun.cli.private import private_server

    with private_server() as private:
        yield replace(private, backend=settings.backend)
