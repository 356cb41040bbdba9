"""The short way of a record: from the runner's frame to the client's socket, with no task between.

Waking a task for each token of each stream is two thirds of what a token costs the server. Where
uvicorn's response is a chunked one that has begun, and its client is not behind, a record is
written into the transport as `RequestResponseCycle.send` would do it.
"""

from typing import Protocol, cast


class _Transport(Protocol):
    def write(self, data: bytes, /) -> None: ...


class _Flow(Protocol):
    write_paused: bool


class _Cycle(Protocol):
    """What is used of uvicorn's `RequestResponseCycle`; its two kinds have it in common."""

    transport: _Transport
    flow: _Flow
    disconnected: bool
    response_complete: bool
    chunked_encoding: bool | None


_NEEDED = ("transport", "flow", "disconnected", "response_complete", "chunked_encoding")


class Express:
    """Writes records of a response that has begun, straight into its transport."""

    __slots__ = ("_cycle", "_flow", "_write")

    def __init__(self, cycle: _Cycle) -> None:
        self._cycle, self._flow, self._write = cycle, cycle.flow, cycle.transport.write

    @property
    def is_open(self) -> bool:
        """Whether `write` may be called now; else the record has to go the ordinary way."""
        cycle = self._cycle
        return not (self._flow.write_paused or cycle.disconnected or cycle.response_complete)

    def write(self, record: bytes) -> None:
        """Write one chunk."""
        self._write(b"%x\r\n%b\r\n" % (len(record), record))


def express_of(send: object) -> Express | None:
    """The short way behind an ASGI `send`; None if there is none.

    Args:
        send: uvicorn's own, of a response that has begun.
    """
    owner: object = getattr(send, "__self__", None)
    if not all(hasattr(owner, name) for name in _NEEDED):
        return None
    cycle = cast("_Cycle", owner)
    return Express(cycle) if cycle.chunked_encoding is True else None
