"""Pulls of one file at the same time share the work: threads and processes."""

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from localrun.config import child_environment
from localrun.errors import Cancelled, LocalrunError
from localrun.store.flight import Flight, Watcher, share
from tests.fakes.hub import FakeHub, Fault
from tests.store.conftest import SIZE
from tests.store.fetching import child_command, fetch

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


def test_threads_that_want_one_file_fetch_it_once(
    hub: FakeHub, tmp_path: Path, large: Path
) -> None:
    hub.faults = [Fault("cdn", slow_s=0.001, times=99)]
    with ThreadPoolExecutor(4) as pool:
        blobs = list(pool.map(lambda _: fetch(hub.url, tmp_path), range(4)))
    assert {blob.read_bytes() == large.read_bytes() for blob in blobs} == {True}
    assert hub.n_sent == SIZE


def test_the_others_go_on_when_the_first_one_gives_up(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault("cdn", slow_s=0.002, times=99)]
    first_is_gone, second_waits = threading.Event(), threading.Event()
    seen: list[int] = []

    def report(n: int) -> None:
        seen.append(n)
        second_waits.set()

    def first() -> None:
        watcher = Watcher(lambda _: None, second_waits.is_set)
        with pytest.raises(Cancelled):
            fetch(hub.url, tmp_path, watcher)
        first_is_gone.set()

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(first)
        blob = pool.submit(fetch, hub.url, tmp_path, Watcher(report)).result(30)
        running.result(30)
    assert first_is_gone.is_set()
    assert blob.stat().st_size == SIZE
    assert hub.n_sent <= SIZE + 3 * MIB


def test_processes_that_want_one_file_fetch_it_once(
    hub: FakeHub, tmp_path: Path, large: Path
) -> None:
    gate = threading.Event()
    hub.faults = [Fault("cdn", gate=gate, times=99)]
    child = subprocess.Popen(
        child_command(hub, tmp_path, "never", 1, tmp_path / "witness"),
        env=child_environment(PYTHONPATH=str(ROOT)),
        cwd=ROOT,
    )
    seen: list[int] = []

    def report(n: int) -> None:
        seen.append(n)
        if n:  # the one who waits sees the other's progress
            gate.set()

    try:
        _wait_until(lambda: bool(hub.requests("cdn")))
        blob = fetch(hub.url, tmp_path, Watcher(report))
        assert child.wait(30) == 0
    finally:
        child.kill()
    assert blob.read_bytes() == large.read_bytes()
    assert hub.n_sent == SIZE
    assert any(0 < n < SIZE for n in seen)


def test_who_comes_after_an_error_tries_anew() -> None:
    def fails(_: Flight) -> str:
        raise LocalrunError("no")

    for _ in range(2):
        with pytest.raises(LocalrunError, match="no"):
            share("k", fails, Watcher(lambda _: None))
    assert share("k", lambda _: "done", Watcher(lambda _: None)) == "done"


def _wait_until(is_so: object, timeout_s: float = 20.0) -> None:
    assert callable(is_so)
    never = threading.Event()
    for _ in range(int(timeout_s / 0.01)):
        if is_so():
            return
        never.wait(0.01)
    pytest.fail("it never came to that")
