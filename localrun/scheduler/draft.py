"""A copy of the policy's state while one event is worked in: questions and single changes. Pure."""

from collections.abc import Iterable
from dataclasses import replace

from localrun.errors import LocalrunError
from localrun.scheduler.events import (
    FOREVER,
    Bytes,
    ClearTimer,
    Demand,
    Effect,
    RefuseLease,
    Runner,
    SetTimer,
    StartRunner,
    State,
    Status,
    StopRunner,
    Waiting,
)
from localrun.scheduler.room import fewest_to_go, fits, total_of

_WITH_MODEL = (Status.LOADING, Status.READY)


class Draft:
    """The copy; its values stay frozen, the base state is not touched."""

    def __init__(self, state: State) -> None:
        self._base = state
        self._runners = dict(state.runners)
        self._waiting = dict(state.waiting)
        self._asks = list(state.asks)
        self._next_runner = state.next_runner
        self._clock = state.clock + 1
        self._budget: Bytes = state.budget
        self._closing = state.closing
        self.effects: list[Effect] = []

    def state(self) -> State:
        """The draft as a state."""
        return State(
            limits=self._base.limits,
            budget=self._budget,
            runners=self._runners,
            waiting=self._waiting,
            asks=tuple(self._asks),
            next_runner=self._next_runner,
            clock=self._clock,
            closing=self._closing,
        )

    # ── asking the draft ──────────────────────────────────────────────────────────────────────

    def _runner_of(self, model: str) -> Runner | None:
        for runner in self._runners.values():
            if runner.status in _WITH_MODEL and runner.model == model:
                return runner
        return None

    def _spare(self) -> Runner | None:
        return next((r for r in self._runners.values() if r.status is Status.BARE), None)

    def _waiters_of(self, id_: int) -> list[Waiting]:
        return [w for w in self._waiting.values() if w.runner == id_]

    def _is_unwanted(self, runner: Runner) -> bool:
        """A load whose requests have all gone away."""
        return runner.status is Status.LOADING and not self._waiters_of(runner.id)

    def _may_go(self, runner: Runner) -> bool:
        return runner.is_idle or self._is_unwanted(runner)

    def _n_queued(self) -> int:
        beyond = sum(max(0, len(r.leases) - r.n_slots) for r in self._runners.values())
        return len(self._waiting) + beyond

    def _has_slot(self, demand: Demand) -> bool:
        runner = self._runner_of(demand.model)
        return (
            runner is not None
            and runner.status is Status.READY
            and runner.draining is None
            and meets(runner, demand)
            and len(runner.leases) < runner.n_slots
        )

    # ── changing the draft ────────────────────────────────────────────────────────────────────

    def _change(self, id_: int, **changes: object) -> None:
        self._runners[id_] = replace(self._runners[id_], **changes)  # type: ignore[arg-type]  # of Runner

    def _start_runner(self) -> int:
        id_ = self._next_runner
        self._next_runner += 1
        self._runners[id_] = Runner(id_, used_at=self._clock)
        self.effects.append(StartRunner(id_))
        return id_

    def _stop(self, id_: int) -> None:
        runner = self._runners[id_]
        assert not runner.leases, "a leased runner is never stopped"
        if runner.status is not Status.STOPPING:
            self._clear_timer(id_)
            self._drop_asks(id_)
            self._change(id_, status=Status.STOPPING, draining=None, n_overtaken=0)
            self.effects.append(StopRunner(id_))

    def _drain(self, runner: Runner, request: int) -> None:
        if runner.draining is None or request < runner.draining:
            self._change(runner.id, draining=request)

    def _set_timer(self, id_: int, after_s: float) -> None:
        if after_s < FOREVER:
            self._change(id_, timed=True)
            self.effects.append(SetTimer(id_, after_s))

    def _clear_timer(self, id_: int) -> None:
        if self._runners[id_].timed:
            self._change(id_, timed=False)
            self.effects.append(ClearTimer(id_))

    def _drop_asks(self, id_: int) -> None:
        self._asks = [ask for ask in self._asks if ask.runner != id_]

    def _refuse(self, request: int, error: LocalrunError) -> None:
        self._waiting.pop(request, None)
        self.effects.append(RefuseLease(request, error))

    def _refuse_waiters(self, id_: int, error: LocalrunError) -> None:
        for waiting in self._waiters_of(id_):
            self._refuse(waiting.id, error)

    # ── making room ───────────────────────────────────────────────────────────────────────────

    def _evict_one(self, loaded: list[Runner], request: int) -> None:
        if any(r.status is Status.STOPPING for r in loaded):
            return
        oldest_first = sorted(loaded, key=_last_use)
        if idle := [r for r in oldest_first if self._may_go(r)]:
            self._stop(idle[0].id)
        elif ready := [r for r in oldest_first if r.status is Status.READY]:
            self._drain(ready[0], request)

    def _make_room(self, needs: Bytes, others: Iterable[Runner], request: int) -> None:
        """Stop idle runners if that is enough, else drain leased ones.

        Args:
            needs: What must fit, with whatever cannot be moved for it.
            others: Runners that can; those on their way out count as gone.
            request: For whom.
        """
        stay = sorted((r for r in others if r.status is not Status.STOPPING), key=_last_use)
        busy = [r for r in stay if not self._may_go(r)]
        with_busy = total_of([needs, *(r.held for r in busy)])
        if fits(with_busy, self._budget):
            idle = [r for r in stay if self._may_go(r)]
            for runner in fewest_to_go(with_busy, idle, self._budget):
                self._stop(runner.id)
            return
        for runner in fewest_to_go(needs, busy, self._budget):
            if runner.status is Status.READY:
                self._drain(runner, request)


def meets(runner: Runner, demand: Demand) -> bool:
    """Whether the runner serves the request, now or when its load is done."""
    if runner.demand is None:
        return False
    load = runner.demand.load
    return demand.is_met_by(load, max(runner.n_ctx, load.n_ctx))


def _last_use(runner: Runner) -> int:
    return runner.used_at
