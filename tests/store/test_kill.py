"""A process that fetches is killed, at every kind of point; the next one goes on from there."""

import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from localrun.config import child_environment
from localrun.store.journal import read_completed
from tests.fakes.hub import FakeHub, Fault
from tests.store.conftest import SIZE
from tests.store.fetching import child_command, fetch

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
PART = 8 * MIB
CONNECTIONS = 3
POINTS = [
    ("opened", 1),
    ("written", 17),
    ("recorded", 30),
    ("setback", 1),
    ("part", 3),
    ("arrived", 1),
    ("renamed", 1),
]


@pytest.fixture(scope="module")
def environment() -> Mapping[str, str]:
    return child_environment(PYTHONPATH=str(ROOT))


@pytest.mark.parametrize(("point", "nth"), POINTS)
def test_a_kill_costs_at_most_a_mebibyte_a_part(
    point: str,
    nth: int,
    hub: FakeHub,
    tmp_path: Path,
    large: Path,
    environment: Mapping[str, str],
) -> None:
    if point == "setback":
        hub.faults = [Fault("cdn", drop_at=3 * MIB)]
    root, witness = tmp_path / "store", tmp_path / "witness"
    ended = subprocess.run(
        child_command(hub, root, point, nth, witness),
        env=environment,
        cwd=ROOT,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, witness.read_text()) == (-signal.SIGKILL, point)

    kept = _bytes_that_arrived(root, large)
    hub.faults = []
    hub.seen.clear()
    assert fetch(hub.url, root).read_bytes() == large.read_bytes()
    asked = sum(seen.n_bytes for seen in hub.requests("cdn"))
    assert asked <= SIZE - kept + CONNECTIONS * MIB
    assert not list(root.glob("partial/*.part"))


def _bytes_that_arrived(root: Path, large: Path) -> int:
    """The bytes of the partial file that are right, counted from each part's start."""
    if list(root.glob("blobs/sha256-*")):
        return SIZE
    (partial,) = root.glob("partial/*.part")
    got, true = partial.read_bytes(), large.read_bytes()
    n_bytes = 0
    for start in range(0, SIZE, PART):
        end = min(start + PART, SIZE)
        n_bytes += _n_alike(got[start:end], true[start:end])
    assert read_completed(partial.with_suffix(".journal")) <= n_bytes
    return n_bytes


def _n_alike(left: bytes, right: bytes) -> int:
    low, high = 0, len(left)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[:middle] == right[:middle] else (low, middle - 1)
    return low


def test_a_journal_that_outlived_its_file_is_not_believed(
    hub: FakeHub, tmp_path: Path, large: Path, environment: Mapping[str, str]
) -> None:
    subprocess.run(
        child_command(hub, tmp_path, "recorded", 20, tmp_path / "witness"),
        env=environment,
        cwd=ROOT,
        timeout=30,
        check=False,
    )
    (partial,) = tmp_path.glob("partial/*.part")
    partial.unlink()
    assert fetch(hub.url, tmp_path).read_bytes() == large.read_bytes()


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"{}" + b" " * 600])
def test_a_journal_that_cannot_be_read_begins_anew(
    damage: bytes, hub: FakeHub, tmp_path: Path, large: Path, sha256: str
) -> None:
    folder = tmp_path / "partial"
    folder.mkdir()
    (folder / f"sha256-{sha256}.journal").write_bytes(damage)
    (folder / f"sha256-{sha256}.part").write_bytes(b"x" * 100)
    assert fetch(hub.url, tmp_path).read_bytes() == large.read_bytes()
