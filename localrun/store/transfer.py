"""Fetch one file: ranged, parallel, resumable, hashed while it is written, committed at the end.

The only place that fetches bytes. A partial file has a journal (`journal`), so that a process
killed at any point loses little; its content is proved by sha256, which follows the front of what
has arrived without gap. Threads or processes that want the same file share one transfer (`flight`).
"""

import hashlib
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2

from localrun.errors import BrokenTransfer, LocalrunError, Offline, RateLimited
from localrun.store.blobs import Blobs
from localrun.store.crew import Crew
from localrun.store.flight import Flight, Watcher, share
from localrun.store.journal import (
    RECORD_BYTES,
    Journal,
    Part,
    open_journal,
    read_at,
    read_completed,
    write_at,
)
from localrun.store.origin import Location
from localrun.store.wire import Observe, Patience, Setback, Wire
from localrun.system.locks import locked

_HASH_BYTES = 1 << 20
_SETTLE_BYTES = 64 << 20
_TICK_S = 0.05
_LAST_WORDS_S = 2.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch.

    Attributes:
        name: What to call it in messages.
        size: Bytes, as listed.
        sha256: 64 hex digits; empty where the source does not say.
        etag: Names the content where there is no `sha256`.
    """

    name: str
    size: int
    sha256: str = ""
    etag: str = ""

    @property
    def key(self) -> str:
        """Names the content, on the disk too."""
        if self.sha256:
            return f"sha256-{self.sha256}"
        return f"etag-{hashlib.sha256(self.etag.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a file is now, and what is there."""

    location: Location
    size: int
    sha256: str = ""
    etag: str = ""


Resolve = Callable[[], Resolved]


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
                _give_up_or_wait(wire, setback, n_tries, patience)
    finally:
        wire.close()


def _read_span(wire: Wire, location: Location, start: int, size: int) -> bytes:
    with wire.get(location, start, start + size) as answer:
        skip = start if answer.status_code == 200 else 0
        content = bytearray()
        for chunk in answer.iter_raw():
            content += chunk
            if len(content) >= skip + size:
                break
    return bytes(content[skip : skip + size])


def _give_up_or_wait(wire: Wire, setback: Setback, n_tries: int, patience: Patience) -> None:
    if n_tries >= patience.tries or setback.wait_s > patience.longest_wait_s:
        raise setback.error
    if n_tries > 1 or not setback.is_expired:
        wire.wait(max(setback.wait_s, patience.backoff(n_tries)))


class _WholeBody(Exception):
    """Raised when the source ignores ranges: one connection reads the body from its start."""


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
        self._wanted, self._resolve_now, self._blobs = wanted, resolve, blobs
        self._patience, self._observe = patience, observe
        self._wire = Wire(patience)
        self._hash = hashlib.sha256()
        self._n_hashed = 0
        self._error: BaseException | None = None
        self._turn = threading.Lock()
        self._location: Location | None = None
        self._is_whole = threading.Event()
        self._todo: list[Part] = []

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
        self._todo = [part for part in reversed(journal.parts) if not part.is_done]
        hasher = self._start(partial(self._follow, descriptor, journal))
        self._start(partial(self._settle, descriptor, journal))
        work = partial(self._work, descriptor, journal)
        crew = Crew(len(self._todo))
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
        index = 0
        while index < len(journal.parts):
            part = journal.parts[index]
            ready = part.at - self._n_hashed
            if ready >= _HASH_BYTES or (part.is_done and ready):
                content = read_at(descriptor, min(ready, _HASH_BYTES), self._n_hashed)
                if not content:
                    raise BrokenTransfer(f"the partial file of {self._wanted.name} was cut short")
                self._hash.update(content)
                self._n_hashed += len(content)
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

    def _work(self, descriptor: int, journal: Journal) -> None:
        """Fetch part after part, as long as there are any."""
        # A descriptor of its own: should this thread outlive the transfer inside a system call,
        # the number cannot belong to another file by then.
        own = os.dup(descriptor)
        try:
            while (part := self._next_part()) is not None:
                self._persist(partial(self._fetch_part, part, own, journal), journal)
        except _WholeBody:
            if self._claim_whole():
                self._persist(partial(self._fetch_whole, own, journal), journal)
        finally:
            os.close(own)

    def _next_part(self) -> Part | None:
        with self._turn:
            return self._todo.pop() if self._todo and not self._is_whole.is_set() else None

    def _claim_whole(self) -> bool:
        """Whether this thread is the one that reads the whole body."""
        with self._turn:
            is_first = not self._is_whole.is_set()
            self._is_whole.set()
            return is_first

    def _persist(self, attempt: Callable[[], None], journal: Journal) -> None:
        """Try again after setbacks, until too many came in a row without a byte between them."""
        n_tries, before = 0, journal.completed
        while True:
            try:
                attempt()
            except Setback as setback:
                if journal.completed > before:
                    n_tries, before = 0, journal.completed
                n_tries += 1
                self._observe("setback")
                _give_up_or_wait(self._wire, setback, n_tries, self._patience)
            else:
                return

    def _fetch_part(self, part: Part, descriptor: int, journal: Journal) -> None:
        if part.is_done:
            return
        with self._answer(part.at, part.end) as answer:
            if answer.status_code == 200:
                if len(journal.parts) > 1 or part.done:
                    raise _WholeBody
            else:
                self._check_range(answer, part)
            self._take(answer, part, descriptor, journal)

    def _take(self, answer: httpx2.Response, part: Part, descriptor: int, journal: Journal) -> None:
        recorded = part.done
        try:
            for chunk in answer.iter_raw():
                with part.lock:
                    if self._wire.cancelled.is_set() or self._is_whole.is_set():
                        return
                    piece = memoryview(chunk)[: part.size - part.done]
                    write_at(descriptor, piece, part.at)
                    part.done += len(piece)
                if part.done - recorded >= RECORD_BYTES:
                    self._observe("written")
                    journal.record(part)
                    recorded = part.done
                    self._observe("recorded")
        finally:
            journal.record(part)
        if not part.is_done and not self._is_whole.is_set():
            raise Setback(BrokenTransfer(f"{self._wanted.name} ended before its end"))

    def _fetch_whole(self, descriptor: int, journal: Journal) -> None:
        """Read the body from its start, and take of it what is not here yet."""
        if all(part.is_done for part in journal.parts):
            return
        position = 0
        with self._answer(0, self._wanted.size) as answer:
            for chunk in answer.iter_raw():
                if self._wire.cancelled.is_set():
                    return
                self._place(chunk, position, descriptor, journal)
                position += len(chunk)
        if position < self._wanted.size:
            raise Setback(BrokenTransfer(f"{self._wanted.name} ended before its end"))

    @staticmethod
    def _place(chunk: bytes, position: int, descriptor: int, journal: Journal) -> None:
        end = position + len(chunk)
        for part in journal.parts:
            with part.lock:
                if position <= part.at < end and not part.is_done:
                    piece = memoryview(chunk)[part.at - position : part.end - position]
                    write_at(descriptor, piece, part.at)
                    part.done += len(piece)
                    journal.record(part)

    # ── the source ────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _answer(self, start: int, end: int) -> Generator[httpx2.Response]:
        location = self._resolve()
        try:
            with self._wire.get(location, start, end) as answer:
                yield answer
        except Setback as setback:
            with self._turn:
                # Others may have resolved it again meanwhile; theirs stays.
                if setback.is_expired and self._location is location:
                    self._location = None
            raise

    def _resolve(self) -> Location:
        """The file's address; asked again after it expired, and then it must be the same file."""
        with self._turn:
            if self._location is None:
                found = self._ask()
                same = found.size == self._wanted.size and (
                    found.sha256 == self._wanted.sha256 or not self._wanted.sha256
                )
                if not same or (not self._wanted.sha256 and found.etag != self._wanted.etag):
                    raise BrokenTransfer(
                        f"{self._wanted.name} has changed at the source", hint="pull it again"
                    )
                self._location = found.location
            return self._location

    def _ask(self) -> Resolved:
        try:
            return self._resolve_now()
        except RateLimited as error:
            raise Setback(error, wait_s=error.retry_after_s) from error
        except Offline as error:
            raise Setback(error) from error

    def _check_range(self, answer: httpx2.Response, part: Part) -> None:
        given = answer.headers.get("Content-Range", "").lower()
        expected = f"bytes {part.at}-{part.end - 1}/"
        total = given.removeprefix(expected)
        if not given.startswith(expected) or total not in ("*", str(self._wanted.size)):
            raise BrokenTransfer(
                f"the source of {self._wanted.name} answers with another range ({given!r})",
                hint="pull it again",
            )

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
