"""One piece of work that several threads want: done once, watched by all, ended by the last.

Processes share by the file lock of the work itself (`transfer`).
"""

# ruff: noqa: SLF001 (a flight and its functions are one)

import threading
from collections.abc import Callable
from dataclasses import dataclass

from localrun.store.wire import cancelled

_TICK_S = 0.06


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
    """The work under way; `completed` is set by it and read by who waits."""

    def __init__(self) -> None:
        self.completed = 0
        self._n_waiting = 0
        self._is_ended = threading.Event()
        self._is_dropped = threading.Event()
        self._digest = ""
        self._error: BaseException | None = None

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


_flights: dict[str, Flight] = {}
_lock = threading.Lock()


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
        while not flight._is_ended.wait(_TICK_S):
            watcher.report(flight.completed)
            if watcher.is_cancelled():
                raise cancelled()
    finally:
        _leave(key, flight)
    return _result(flight, watcher)


def _join(key: str, work: Callable[[Flight], str]) -> Flight:
    with _lock:
        flight = _flights.get(key)
        if flight is None:
            flight = _flights[key] = Flight()
            threading.Thread(
                target=_run, args=(key, flight, work), name="flight", daemon=True
            ).start()
        flight._n_waiting += 1
        return flight


def _run(key: str, flight: Flight, work: Callable[[Flight], str]) -> None:
    try:
        flight._digest = work(flight)
    except BaseException as error:  # noqa: BLE001 (raised again in every waiting thread)
        flight._error = error
    finally:
        with _lock:
            if _flights.get(key) is flight:
                del _flights[key]
        flight._is_ended.set()


def _leave(key: str, flight: Flight) -> None:
    with _lock:
        flight._n_waiting -= 1
        is_last = flight._n_waiting == 0 and not flight._is_ended.is_set()
        if is_last:
            flight._is_dropped.set()
            # Who asks from now on starts anew, and waits for the file's lock until we are gone.
            _flights.pop(key, None)
    if is_last:
        flight._is_ended.wait(5.0)


def _result(flight: Flight, watcher: Watcher) -> str:
    if flight._error is not None:
        raise flight._error
    watcher.report(flight.completed)
    return flight._digest
