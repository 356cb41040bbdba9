"""The deterministic lane: one request alone in a context of its own, on fixed chunks.

In a shared pool a greedy text depends on its neighbours: the attention kernel changes with the
number of queries and with the highest used cell, and chunk shapes move logits. Here the pool is
emptied before each request, chunks and threads never vary, so the same prompt, options and seed
give the same bytes whether the server is idle or busy, just started or warm.
"""

from collections.abc import Callable

from localrun.runner.lane import Lane, Prefix
from localrun.runner.sequence import Sequence

SOLO_CHUNK = 32
"""Prompt tokens of a step; small, so that running answers beside it are not held up."""


class SoloLane:
    """Opens its context at the first deterministic request, after the scheduler's yes.

    Args:
        ask: Sends the question for memory; called once until `answered`.
        open_lane: Makes the lane; called after a yes.
    """

    def __init__(self, ask: Callable[[], None], open_lane: Callable[[], Lane]) -> None:
        self._ask, self._open = ask, open_lane
        self._lane: Lane | None = None
        self._is_asking = False

    @property
    def running(self) -> list[Sequence]:
        """The one sequence that runs here, or none."""
        return self._lane.running if self._lane is not None else []

    def lanes(self) -> tuple[Lane, ...]:
        """The lane, once it is open."""
        return () if self._lane is None else (self._lane,)

    def take(self, sequence: Sequence) -> bool:
        """Admit a sequence if the lane is open and empty; asks for memory if it is not open."""
        if self._lane is None:
            if not self._is_asking:
                self._is_asking = True
                self._ask()
            return False
        if self._lane.running:
            return False
        self._lane.clear()
        self._lane.admit(sequence, Prefix())
        return True

    def answered(self, *, granted: bool) -> None:
        """The scheduler's answer; a no lets the next request ask again."""
        self._is_asking = False
        if granted:
            self._lane = self._open()
