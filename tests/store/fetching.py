"""How the tests of this folder fetch: small patience, and everything counted."""

import sys
from pathlib import Path
from typing import Any

from localrun.store.blobs import Blobs
from localrun.store.flight import Watcher
from localrun.store.sources.hub import Hub
from localrun.store.transfer import fetch_file
from localrun.store.wire import Patience
from tests.fakes.hub import FakeHub

QUICK = Patience(connect_s=2.0, stall_s=0.2, tries=3, backoff_s=0.01, longest_wait_s=1.0)
FILE = "m-Q8_0.gguf"


def fetch(
    url: str, root: Path, watcher: Watcher | None = None, token: str | None = None, **more: Any
) -> Path:
    """Fetch the large file of `me/r` and return its blob's path."""
    hub = Hub(url, token=token or False, pause_s=0.01)
    listing = hub.list_files("me/r")
    wanted = hub.wanted("me/r", listing.commit, listing.files[0])
    blobs = Blobs(root)
    digest = fetch_file(
        wanted,
        lambda: hub.resolve("me/r", listing.commit, FILE),
        blobs,
        watcher or Watcher(lambda _: None),
        **{"patience": QUICK, **more},
    )
    return blobs.path(digest)


def child_command(hub: FakeHub, root: Path, point: str, nth: int, witness: Path) -> list[str]:
    """The command of a process that fetches the same file and kills itself (`fetch_child`)."""
    repo = hub.repos["me/r"]
    sha256, size = repo.sha256(FILE), repo.files[FILE].stat().st_size
    hub.by_sha[sha256] = repo.files[FILE]
    module = [sys.executable, "-m", "tests.store.fetch_child"]
    address = [f"{hub.cdn_url}/lfs/{sha256}", sha256, str(size)]
    return [*module, *address, str(root), point, str(nth), str(witness)]
