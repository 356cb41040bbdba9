"""How many connections a transfer should have: more, as long as more of them bring more.

One is the cheapest where it fills the line; a far server gives each connection only a share of it.
"""

from collections.abc import Callable
from time import monotonic

_MOST = 8
_LOOK_S = 0.4
_WORTH_IT = 1.1
_PATIENT_LOOKS = 3


class Crew:
    """Decides by measured speed; asked every few hundredths of a second.

    Args:
        n_parts: Parts that are left; no more connections than these.
        clock: Seconds that only grow.
    """

    def __init__(self, n_parts: int, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._most = min(_MOST, n_parts)
        self._wanted = min(1, self._most)
        self._looked_at, self._completed = clock(), -1
        self._best_rate = 0.0
        self._n_flat = 0

    def wanted(self, completed: int) -> int:
        """How many connections there should be now that `completed` bytes are here."""
        now = self._clock()
        if self._completed < 0:
            self._looked_at, self._completed = now, completed
        elif self._n_flat < _PATIENT_LOOKS and now - self._looked_at >= _LOOK_S:
            self._look(now, completed)
        return self._wanted

    def _look(self, now: float, completed: int) -> None:
        rate = (completed - self._completed) / (now - self._looked_at)
        self._looked_at, self._completed = now, completed
        if rate > self._best_rate * _WORTH_IT:
            self._best_rate, self._n_flat = rate, 0
            self._wanted = min(2 * self._wanted, self._most)
        elif self._best_rate:
            # A new connection to a far server takes a while to bring anything.
            self._n_flat += 1
