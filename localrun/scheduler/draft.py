"""A copy of the policy's state while one event is worked in: questions and single changes. Pure."""

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


def meets(runner: Runner, demand: Demand) -> bool:
    """Whether the runner serves the request, now or when its load is done."""
    if runner.demand is None:
        return False
    load = runner.demand.load
    return demand.is_met_by(load, max(runner.n_ctx, load.n_ctx))
