"""One piece of work that several threads want: done once, watched by all, ended by the last.

Processes share by the file lock of the work itself (`transfer`).
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from localrun.store.wire import cancelled

_TICK_S = 0.06
_GOODBYE_S = 5.0


@dataclass(frozen=True, slots=True)
class Watcher:
    """Someone who waits for bytes; both are called on the waiting thread, many times a second.

    Attributes:
        report: Told how many bytes are here.
        is_cancelled: Whether to give up.
    """

    report: Callable[[int], None]
    is_cancelled: Callable[[], bool] = lambda: False


class Flight:
    """The work under way.

    Attributes:
        completed: Bytes that are here; set by the work, read by who waits.
    """

    def __init__(self) -> None:
        self.completed = 0
        self._n_waiting = 0
        self._is_ended = threading.Event()
        self._is_dropped = threading.Event()
        self._digest = ""
        self._error: BaseException | None = None

    # ── for the work ──────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        """End the work if nobody wants it any more.

        Raises:
            Cancelled: If so.
        """
        self.pause(0.0)

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than somebody wants the work.

        Raises:
            Cancelled: If nobody does any more.
        """
        if self._is_dropped.wait(seconds):
            raise cancelled()

    def run(self, work: Callable[["Flight"], str]) -> None:
        """Do the work and keep how it ended; on a thread of its own."""
        try:
            self._digest = work(self)
        except BaseException as error:  # noqa: BLE001 (raised again in every waiting thread)
            self._error = error

    def end(self) -> None:
        """Let everyone go on who waits."""
        self._is_ended.set()

    # ── for who waits ─────────────────────────────────────────────────────────────────────────

    def join(self) -> None:
        """Count one more who waits; under the registry's lock."""
        self._n_waiting += 1

    def leave(self) -> bool:
        """Count one less; True if the work was dropped by this. Under the registry's lock."""
        self._n_waiting -= 1
        if self._n_waiting or self._is_ended.is_set():
            return False
        self._is_dropped.set()
        return True

    def wait(self, seconds: float) -> bool:
        """Wait for the end at most so long; True if it has come."""
        return self._is_ended.wait(seconds)

    def result(self) -> str:
        """The digest that the work returned, or its error raised."""
        if self._error is not None:
            raise self._error
        return self._digest


_flights: dict[str, Flight] = {}
_registry = threading.Lock()


def share(key: str, work: Callable[[Flight], str], watcher: Watcher) -> str:
    """Do `work` once for everyone in this process who asks for `key` while it is under way.

    Args:
        key: Names the work.
        work: Runs on a thread of its own; returns a digest.
        watcher: Told `Flight.completed`, asked whether to give up.

    Raises:
        Cancelled: If this caller gives up; the work ends when its last caller does.
        Exception: Whatever the work raised.
    """
    flight = _join(key, work)
    try:
        while not flight.wait(_TICK_S):
            watcher.report(flight.completed)
            if watcher.is_cancelled():
                raise cancelled()
    finally:
        _leave(key, flight)
    digest = flight.result()
    watcher.report(flight.completed)
    return digest


def _join(key: str, work: Callable[[Flight], str]) -> Flight:
    with _registry:
        flight = _flights.get(key)
        if flight is None:
            flight = _flights[key] = Flight()
            threading.Thread(
                target=_fly, args=(key, flight, work), name="flight", daemon=True
            ).start()
        flight.join()
        return flight


def _fly(key: str, flight: Flight, work: Callable[[Flight], str]) -> None:
    flight.run(work)
    with _registry:
        if _flights.get(key) is flight:
            del _flights[key]
        flight.end()


def _leave(key: str, flight: Flight) -> None:
    with _registry:
        is_dropped = flight.leave()
        if is_dropped and _flights.get(key) is flight:
            # Who asks from now on starts anew, and waits for the file's lock until this ends.
            del _flights[key]
    if is_dropped:
        flight.wait(_GOODBYE_S)
