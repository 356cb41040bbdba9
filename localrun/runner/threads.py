"""How many threads a step uses: as many as the machine really gives us. Pure.

The threads of a step meet at a barrier some hundred times, and spin while they wait. Where another
program takes the core of one of them, all wait for it: two threads beside one busy core fall from
182 to 76 tokens a second with steps of 168 ms, while one thread gives 164 with steps of 10 ms. So a
thread that is not given its core is dropped, and taken back when a core idles.
"""

from collections.abc import Callable
from dataclasses import dataclass

_WINDOW_S = 0.3
"""Time of steps that is judged together: a passing disturbance is not worth a thread."""
_LOST_CORES = 0.35
"""Cores that may be missing; beyond, one thread is too many. A busy neighbour takes half a core."""
_LOOK_S = 0.25
_IDLE_CORES = 0.75
"""Cores that must idle before a thread is taken back."""


@dataclass(slots=True)
class Threads:
    """The number of threads, from what steps took.

    Attributes:
        n_max: Threads on a quiet machine.
        idle_core_seconds: Reads the idle time of all cores together; None where it is not told.
        n: Threads of the next step.
    """

    n_max: int
    idle_core_seconds: Callable[[], float | None]
    n: int = 0
    _wall_s: float = 0.0
    _cpu_s: float = 0.0
    _looked_s: float = 0.0
    _idle_s: float | None = None

    def __post_init__(self) -> None:
        self.n = self.n_max

    def observe(self, wall_s: float, cpu_s: float, now_s: float) -> int:
        """Learn from one step and return the threads of the next.

        Args:
            wall_s: Time that the step took.
            cpu_s: CPU time of the whole process in it.
            now_s: When it ended, on any monotonic clock.
        """
        self._wall_s += wall_s
        self._cpu_s += cpu_s
        if self._wall_s >= _WINDOW_S:
            lost = self.n - self._cpu_s / self._wall_s
            self._wall_s = self._cpu_s = 0.0
            if lost > _LOST_CORES and self.n > 1:
                self.n -= 1
                self._idle_s = self.idle_core_seconds()
                self._looked_s = now_s
        if self.n < self.n_max and now_s - self._looked_s >= _LOOK_S:
            self._look(now_s)
        return self.n

    def _look(self, now_s: float) -> None:
        """Take a thread back if a core has idled since the last look."""
        idle_s = self.idle_core_seconds()
        before, since = self._idle_s, now_s - self._looked_s
        self._idle_s, self._looked_s = idle_s, now_s
        if idle_s is None:
            # Nobody tells: try, and lose the thread again if its core is still taken.
            self.n += since >= _LOOK_S
        elif before is not None and (idle_s - before) / since >= _IDLE_CORES:
            self.n += 1
            self._wall_s = self._cpu_s = 0.0
