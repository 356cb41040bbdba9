"""Fetch one file: ranged, parallel, resumable, hashed while it is written, committed at the end.

The only place that fetches bytes. A partial file has a journal (`journal`), so that a process
killed at any point loses little; its content is proved by sha256, which follows the front of what
has arrived without gap. Threads or processes that want the same file share one transfer (`flight`).
"""

import hashlib
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from localrun.errors import BrokenTransfer, LocalrunError
from localrun.store.blobs import Blobs
from localrun.store.crew import Crew
from localrun.store.flight import Flight, Watcher, share
from localrun.store.journal import (
    Journal,
    open_journal,
    read_at,
    read_completed,
)
from localrun.store.origin import Location, Resolve, Wanted
from localrun.store.parts import Carrier, give_up_or_wait
from localrun.store.wire import Observe, Patience, Setback, Wire
from localrun.system.locks import locked

_HASH_BYTES = 1 << 20
_SPAN_BYTES = 64 << 10
_SETTLE_BYTES = 32 << 20
_TICK_S = 0.05
_LAST_WORDS_S = 2.0


def fetch_file(
    wanted: Wanted,
    resolve: Resolve,
    blobs: Blobs,
    watcher: Watcher,
    *,
    patience: Patience | None = None,
    observe: Observe = lambda _point: None,
) -> str:
    """Bring a file into the blobs and return its digest; blocking.

    Who wants a file that is on its way already, in this process or another, shares that transfer.

    Args:
        wanted: The file.
        resolve: Gives its address; called again when a signed address has expired.
        blobs: Where it goes.
        watcher: Told how many of its bytes are here; asked whether to go on. The last one who
            leaves ends the transfer.
        patience: How long to wait for the source.
        observe: Told the points that the transfer passes.

    Raises:
        PullFailed: In the class that says why.
        Cancelled: If the watcher said so.
    """

    def work(flight: Flight) -> str:
        path = blobs.partial(f"{wanted.key}.part")
        journal_path = path.with_suffix(".journal")
        while True:
            if wanted.sha256 and blobs.has(f"sha256:{wanted.sha256}", wanted.size):
                return f"sha256:{wanted.sha256}"
            with locked(path.with_suffix(".lock"), waits=False) as is_ours:
                if is_ours:
                    # Another process may have committed it between our look and our lock.
                    if wanted.sha256 and blobs.has(f"sha256:{wanted.sha256}", wanted.size):
                        return f"sha256:{wanted.sha256}"
                    transfer = _Transfer(wanted, resolve, blobs, patience or Patience(), observe)
                    return transfer.run(path, flight)
            flight.completed = read_completed(journal_path)
            flight.pause(4 * _TICK_S)

    return share(f"{blobs.root}/{wanted.key}", work, watcher)


def read_range(
    location: Location, start: int, size: int, *, patience: Patience | None = None
) -> bytes:
    """Read a few bytes of a file, such as a part of its header.

    Raises:
        PullFailed: If they cannot be had.
    """
    patience = patience or Patience()
    wire = Wire(patience)
    n_tries = 0
    try:
        while True:
            try:
                return _read_span(wire, location, start, size)
            except Setback as setback:
                n_tries += 1
                give_up_or_wait(wire, setback, n_tries, patience)
    finally:
        wire.close()


def _read_span(wire: Wire, location: Location, start: int, size: int) -> bytes:
    with wire.get(location, start, start + size) as answer:
        skip = start if answer.status == 200 else 0
        content, buffer = bytearray(), memoryview(bytearray(_SPAN_BYTES))
        while len(content) < skip + size and (n_bytes := answer.read_into(buffer)):
            content += buffer[:n_bytes]
    return bytes(content[skip : skip + size])


class _Transfer:
    """One file on its way, in the process that holds its lock."""

    def __init__(
        self,
        wanted: Wanted,
        resolve: Resolve,
        blobs: Blobs,
        patience: Patience,
        observe: Observe,
    ) -> None:
        self._wanted, self._resolve, self._blobs = wanted, resolve, blobs
        self._patience, self._observe = patience, observe
        self._wire = Wire(patience)
        self._hash = hashlib.sha256()
        self._n_hashed = 0
        self._error: BaseException | None = None

    def run(self, path: Path, flight: Flight) -> str:
        """Fetch, verify, commit; returns the digest."""
        journal = self._open(path)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            with (
                self._blobs.writing(self._wanted.size),
                os.fdopen(os.open(path, flags, 0o644), "r+b", buffering=0) as file,
            ):
                file.truncate(self._wanted.size)
                self._observe("opened")
                self._fetch_all(file.fileno(), journal, flight)
        finally:
            journal.close()
            self._wire.close()
        self._observe("arrived")
        return self._commit(path)

    def _open(self, path: Path) -> Journal:
        journal = open_journal(path.with_suffix(".journal"), self._wanted.key, self._wanted.size)
        there = path.stat().st_size if path.exists() else 0
        if there < self._wanted.size and any(part.done for part in journal.parts):
            # The journal outlived its file: nothing of it can be believed.
            for part in journal.parts:
                part.done = 0
                journal.record(part)
        try:
            self._blobs.ensure_room(self._wanted.size - journal.completed)
        except LocalrunError:
            journal.close()
            raise
        return journal

    # ── the watch ─────────────────────────────────────────────────────────────────────────────

    def _fetch_all(self, descriptor: int, journal: Journal, flight: Flight) -> None:
        """Run the threads, tell the flight how far they are, and end them all the same way."""
        carrier = Carrier(
            self._wanted, self._resolve, self._wire, journal, self._patience, self._observe
        )
        hasher = self._start(partial(self._follow, descriptor, journal))
        self._start(partial(self._settle, descriptor, journal))
        work = partial(carrier.work, descriptor)
        crew = Crew(carrier.n_left)
        workers: list[threading.Thread] = []
        try:
            while hasher.is_alive():
                flight.completed = journal.completed
                n_new = crew.wanted(flight.completed) - len(workers)
                workers += [self._start(work) for _ in range(n_new)]
                hasher.join(_TICK_S)
                if self._error is not None:
                    raise self._error
                flight.check()
        finally:
            self._wire.break_off()
            for thread in (*workers, hasher):
                thread.join(_LAST_WORDS_S)
        if self._error is not None:
            raise self._error
        flight.completed = journal.completed

    def _start(self, body: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                body()
            except BaseException as error:  # noqa: BLE001 (raised again on the watching thread)
                if self._error is None and not self._wire.cancelled.is_set():
                    self._error = error

        thread = threading.Thread(target=guarded, name="transfer", daemon=True)
        thread.start()
        return thread

    # ── the threads ───────────────────────────────────────────────────────────────────────────

    def _follow(self, descriptor: int, journal: Journal) -> None:
        """Hash what has arrived without gap, until all has."""
        # One buffer for all: a fresh one each time costs as much in page faults as the copy itself.
        index, buffer = 0, memoryview(bytearray(_HASH_BYTES))
        while index < len(journal.parts):
            part = journal.parts[index]
            ready = part.at - self._n_hashed
            if ready >= _HASH_BYTES or (part.is_done and ready):
                n_bytes = read_at(descriptor, buffer[: min(ready, _HASH_BYTES)], self._n_hashed)
                if not n_bytes:
                    raise BrokenTransfer(f"the partial file of {self._wanted.name} was cut short")
                self._hash.update(buffer[:n_bytes])
                self._n_hashed += n_bytes
            elif part.is_done:
                index += 1
                self._observe("part")
            else:
                self._wire.wait(_TICK_S / 10)

    def _settle(self, descriptor: int, journal: Journal) -> None:
        """Have the system write to the disk meanwhile, so that the last sync has little to do."""
        own, settled = os.dup(descriptor), 0
        try:
            while not self._wire.cancelled.wait(_TICK_S):
                if journal.completed - settled >= _SETTLE_BYTES:
                    settled = journal.completed
                    os.fsync(own)
        finally:
            os.close(own)

    # ── the end ───────────────────────────────────────────────────────────────────────────────

    def _commit(self, path: Path) -> str:
        got, journal = self._hash.hexdigest(), path.with_suffix(".journal")
        if self._wanted.sha256 and got != self._wanted.sha256:
            kept = self._blobs.quarantine(path)
            journal.unlink(missing_ok=True)
            raise BrokenTransfer(
                f"{self._wanted.name} arrived with another content than promised (sha256 {got}"
                f" instead of {self._wanted.sha256}); it was set aside as {kept}",
                hint="pull it again; if this comes twice, a proxy, the disk or the memory damages"
                " data. The file set aside may be deleted",
            )
        self._blobs.commit(path, f"sha256:{got}")
        self._observe("renamed")
        journal.unlink(missing_ok=True)
        return f"sha256:{got}"
