"""Threads: as many as the machine gives."""

from hypothesis import given
from hypothesis import strategies as st

from localrun.runner.threads import Threads


class Machine:
    """Cores of which others take some; tells how long they idle."""

    def __init__(self, n_cores: int) -> None:
        self.n_cores, self.taken, self.now_s, self.idle_s = n_cores, 0.0, 0.0, 0.0

    def idle(self) -> float:
        return self.idle_s

    def run(self, threads: Threads, seconds: float, step_s: float = 0.01) -> None:
        """Steps for a while: a thread whose core is shared gets half of it."""
        end = self.now_s + seconds
        while self.now_s < end:
            over = max(0.0, threads.n + self.taken - self.n_cores)
            self.now_s += step_s
            self.idle_s += step_s * max(0.0, self.n_cores - threads.n - self.taken)
            threads.observe(step_s, step_s * (threads.n - over / 2), self.now_s)


def test_quiet_machine_keeps_all_threads() -> None:
    machine = Machine(4)
    threads = Threads(4, machine.idle)
    machine.run(threads, 3)
    assert threads.n == 4


def test_thread_without_a_core_is_dropped_soon_and_taken_back_after() -> None:
    machine = Machine(2)
    threads = Threads(2, machine.idle)
    machine.taken = 1
    machine.run(threads, 0.5)
    assert threads.n == 1
    machine.run(threads, 5)
    assert threads.n == 1, "a thread came back while its core was taken"
    machine.taken = 0
    machine.run(threads, 1)
    assert threads.n == 2


def test_small_neighbour_costs_no_thread() -> None:
    machine = Machine(2)
    threads = Threads(2, machine.idle)
    machine.taken = 0.5
    machine.run(threads, 3)
    assert threads.n == 2


def test_passing_disturbance_costs_no_thread() -> None:
    machine = Machine(2)
    threads = Threads(2, machine.idle)
    for _ in range(20):
        machine.taken = 1
        machine.run(threads, 0.05)
        machine.taken = 0
        machine.run(threads, 0.2)
    assert threads.n == 2


def test_machine_that_does_not_tell_is_tried_again() -> None:
    threads = Threads(2, lambda: None)
    threads.observe(1.0, 1.0, 1.0)
    assert threads.n == 1
    threads.observe(0.01, 0.01, 1.1)
    assert threads.n == 1
    threads.observe(0.01, 0.01, 1.5)
    assert threads.n == 2


@given(
    st.integers(1, 16),
    st.lists(st.tuples(st.floats(1e-6, 5), st.floats(0, 50)), max_size=60),
)
def test_number_stays_within_its_bounds(n_max: int, steps: list[tuple[float, float]]) -> None:
    threads, now_s, idle_s = Threads(n_max, lambda: idle_s), 0.0, 0.0
    for wall_s, cpu_s in steps:
        now_s, idle_s = now_s + wall_s, idle_s + cpu_s
        assert 1 <= threads.observe(wall_s, cpu_s, now_s) <= n_max
