"""The connections of one transfer: they fetch parts, try again, and give way to a whole body.

Used by `transfer` alone.
"""

import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

from localrun.errors import BrokenTransfer, Offline, RateLimited
from localrun.store.connections import Answer
from localrun.store.journal import RECORD_BYTES, Journal, Part, write_at
from localrun.store.origin import Location, Resolve, Resolved, Wanted
from localrun.store.wire import Observe, Patience, Setback, Wire

_READ_BYTES = 256 << 10
"""One receive and one write; what stays in a core's cache between the two."""


def give_up_or_wait(wire: Wire, setback: Setback, n_tries: int, patience: Patience) -> None:
    """Wait before the next try, as long as the source asks or by our own patience.

    Raises:
        PullFailed: If there were too many tries, or the source asks for too long a wait.
        Cancelled: If the transfer is broken off.
    """
    if n_tries >= patience.tries or setback.wait_s > patience.longest_wait_s:
        raise setback.error
    if n_tries > 1 or not setback.is_expired:
        wire.wait(max(setback.wait_s, patience.backoff(n_tries)))


class _WholeBody(Exception):
    """Raised when the source ignores ranges: one connection reads the body from its start."""


class Carrier:
    """Brings the parts of one file; `work` runs on several threads at once.

    Args:
        wanted: The file.
        resolve: Gives its address; called again when it has expired.
        wire: Over which.
        journal: Its parts; what arrives is recorded there.
        patience: How long to wait for the source.
        observe: Told the points that are passed.
    """

    def __init__(
        self,
        wanted: Wanted,
        resolve: Resolve,
        wire: Wire,
        journal: Journal,
        patience: Patience,
        observe: Observe,
    ) -> None:
        self._wanted, self._resolve_now, self._wire = wanted, resolve, wire
        self._journal, self._patience, self._observe = journal, patience, observe
        self._turn = threading.Lock()
        self._location: Location | None = None
        self._is_whole = threading.Event()
        self._todo = [part for part in reversed(journal.parts) if not part.is_done]

    @property
    def n_left(self) -> int:
        """Parts that nobody has begun with."""
        return len(self._todo)

    def work(self, descriptor: int) -> None:
        """Fetch part after part, as long as there are any."""
        # A descriptor of its own: should this thread outlive the transfer inside a system call,
        # the number cannot belong to another file by then.
        own = os.dup(descriptor)
        try:
            while (part := self._next_part()) is not None:
                self._persist(partial(self._fetch_part, part, own))
        except _WholeBody:
            if self._claim_whole():
                self._persist(partial(self._fetch_whole, own))
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

    def _persist(self, attempt: Callable[[], None]) -> None:
        """Try again after setbacks, until too many came in a row without a byte between them."""
        n_tries, before = 0, self._journal.completed
        while True:
            try:
                attempt()
            except Setback as setback:
                if self._journal.completed > before:
                    n_tries, before = 0, self._journal.completed
                n_tries += 1
                self._observe("setback")
                give_up_or_wait(self._wire, setback, n_tries, self._patience)
            else:
                return

    def _fetch_part(self, part: Part, descriptor: int) -> None:
        if part.is_done:
            return
        with self._answer(part.at, part.end) as answer:
            if answer.status == 200:
                if len(self._journal.parts) > 1 or part.done:
                    raise _WholeBody
            else:
                self._check_range(answer, part)
            self._take(answer, part, descriptor)

    def _take(self, answer: Answer, part: Part, descriptor: int) -> None:
        recorded, buffer = part.done, memoryview(bytearray(_READ_BYTES))
        try:
            while not part.is_done and (n_bytes := answer.read_into(buffer)):
                with part.lock:
                    if self._wire.cancelled.is_set() or self._is_whole.is_set():
                        return
                    piece = buffer[: min(n_bytes, part.size - part.done)]
                    write_at(descriptor, piece, part.at)
                    part.done += len(piece)
                if part.done - recorded >= RECORD_BYTES:
                    self._observe("written")
                    self._journal.record(part)
                    recorded = part.done
                    self._observe("recorded")
        finally:
            self._journal.record(part)
        if not part.is_done and not self._is_whole.is_set():
            raise Setback(BrokenTransfer(f"{self._wanted.name} ended before its end"))

    def _fetch_whole(self, descriptor: int) -> None:
        """Read the body from its start, and take of it what is not here yet."""
        if all(part.is_done for part in self._journal.parts):
            return
        position, buffer = 0, memoryview(bytearray(_READ_BYTES))
        with self._answer(0, self._wanted.size) as answer:
            while n_bytes := answer.read_into(buffer):
                if self._wire.cancelled.is_set():
                    return
                self._place(buffer[:n_bytes], position, descriptor)
                position += n_bytes
        if position < self._wanted.size:
            raise Setback(BrokenTransfer(f"{self._wanted.name} ended before its end"))

    def _place(self, chunk: memoryview, position: int, descriptor: int) -> None:
        end = position + len(chunk)
        for part in self._journal.parts:
            with part.lock:
                if position <= part.at < end and not part.is_done:
                    piece = chunk[part.at - position : part.end - position]
                    write_at(descriptor, piece, part.at)
                    part.done += len(piece)
                    self._journal.record(part)

    # ── the source ────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _answer(self, start: int, end: int) -> Generator[Answer]:
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

    def _check_range(self, answer: Answer, part: Part) -> None:
        given = answer.header("Content-Range").lower()
        expected = f"bytes {part.at}-{part.end - 1}/"
        total = given.removeprefix(expected)
        if not given.startswith(expected) or total not in ("*", str(self._wanted.size)):
            raise BrokenTransfer(
                f"the source of {self._wanted.name} answers with another range ({given!r})",
                hint="pull it again",
            )
