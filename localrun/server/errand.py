"""Long work of the store in a thread, with the events that it reports sent as records.

When the client goes away or the server stops, the work is asked to stop.
"""

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, TypeAlias

from localrun.errors import LocalrunError
from localrun.server.answers import PLAIN_JSON, Call
from localrun.server.wire import dump

if TYPE_CHECKING:
    from collections.abc import Callable

    from localrun.store.pull import PullEvent

Work: TypeAlias = "Callable[[Callable[[PullEvent], None], Callable[[], bool]], object]"
"""Called in a thread with what to report to, and what asks whether to stop; may raise."""


async def run_errand(call: Call, work: Work, *, stream: bool) -> None:
    """Do the work and answer: its events as records, or that it was a success.

    What the work raises is its last record, or the answer: without a charset, as Ollama's.
    """
    errand = _Errand(call)
    try:
        await errand.run(work, call if stream else None)
    except LocalrunError as error:
        if call.has_begun:
            raise
        call.rooms.counts.failed(error.code)
        await call.answer(error.status, call.dialect.refuse(error), PLAIN_JSON)
        return
    if stream:
        await call.finish()
    else:
        await call.json({"status": "success"}, PLAIN_JSON)


class _Errand:
    """One piece of work and its events."""

    def __init__(self, call: Call) -> None:
        self._rooms = call.rooms
        self._cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._events: list[PullEvent] = []
        self._news = asyncio.Event()

    async def run(self, work: Work, call: Call | None) -> None:
        """Do the work; with a call, send it the events."""
        done = self._loop.run_in_executor(self._rooms.pulls, work, self._report, self._is_cancelled)
        done.add_done_callback(lambda _: self._news.set())
        try:
            while self._events or not done.done():
                if not self._events:
                    await self._news.wait()
                    self._news.clear()
                events, self._events = self._events, []
                if call is not None:
                    for event in events:
                        await call.write(event_record(event))
            await done
        finally:
            self._cancelled.set()
            done.add_done_callback(_read_error)

    def _is_cancelled(self) -> bool:
        return self._cancelled.is_set() or self._rooms.closing.is_set()

    def _report(self, event: "PullEvent") -> None:
        """Called in the thread. The work itself asks whether to stop."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._take, event)

    def _take(self, event: "PullEvent") -> None:
        """Keep the event; of a slow client's bars only the newest state is kept."""
        events = self._events
        last = events[-1] if events else None
        if last and last.total and (last.status, last.digest) == (event.status, event.digest):
            events[-1] = event
        else:
            events.append(event)
        self._news.set()


def event_record(event: "PullEvent") -> bytes:
    """An event as a record of a stream; fields that say nothing are left out."""
    fields: dict[str, object] = {
        "digest": event.digest,
        "total": event.total,
        "completed": event.completed,
        "plan": event.plan,
        "hint": event.hint,
        "name": event.name,
    }
    return dump({"status": event.status} | {k: v for k, v in fields.items() if v}) + b"\n"


def _read_error(work: "asyncio.Future[object]") -> None:
    """Work whose client is gone ends with an error that nobody wants."""
    if not work.cancelled():
        work.exception()
