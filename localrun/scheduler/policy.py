"""Who gets a runner, and who must go for it: state and event in, state and effects out. Pure.

What holds after every event:

1. A request that a loaded runner can serve is let in, oldest first. If an older request waits for
   that runner's end, at most `MAX_OVERTAKES` newer ones pass it.
2. The oldest request that needs a load gets it: a spare process or a new one, as soon as its bytes
   fit the budget. All requests of that model wait on the one load, and are let in with it before
   anything may evict it.
3. Room is made by stopping idle runners, least recently used first, and only when that is enough;
   else the leased ones are drained. A runner with a lease is never stopped.
4. A runner that asks for memory comes before new loads. If two ask and block each other, the later
   is refused.
5. Each request ends once: `GrantLease` (then `Released`), or `RefuseLease`, or `Released` while it
   waited.
"""

from dataclasses import replace
from typing import NamedTuple, assert_never

from localrun.errors import Busy, LocalrunError, OutOfMemory, RunnerFailed
from localrun.scheduler.draft import Draft, meets
from localrun.scheduler.events import (
    Ask,
    BudgetMeasured,
    Bytes,
    ClearTimer,
    CloseAsked,
    Demand,
    Effect,
    Event,
    Exited,
    Expected,
    GrantLease,
    GrantMemory,
    Loaded,
    LoadFailed,
    MemoryAsked,
    RefuseMemory,
    Released,
    Requested,
    Runner,
    SendLoad,
    State,
    Status,
    TimerFired,
    UnloadAsked,
    Waiting,
)
from localrun.scheduler.room import fits, peak_of, tightest, total_of

MAX_OVERTAKES = 8
BUSY = "server busy, please try again.  maximum pending requests exceeded"
CLOSING = "the server is shutting down"

_FOR_AN_ASK = 0  # drains on behalf of a runner, older than any request
_WITH_MODEL = (Status.LOADING, Status.READY)


class Decision(NamedTuple):
    """What follows from an event; the effects are carried out in order."""

    state: State
    effects: tuple[Effect, ...]


def decide(state: State, event: Event) -> Decision:
    """Take one event and let everything that it makes possible follow."""
    draft = _Policy(state)
    draft.take(event)
    draft.settle()
    return Decision(draft.state(), tuple(draft.effects))


class _Policy(Draft):
    """The decisions."""

    # ── events ────────────────────────────────────────────────────────────────────────────────

    def take(self, event: Event) -> None:  # noqa: C901, PLR0912 (one line an event)
        match event:
            case Expected(model):
                self._expect(model)
            case Requested(request, demand):
                self._request(request, demand)
            case Released(request):
                self._release(request)
            case Loaded(id_, n_ctx, n_slots, used):
                self._loaded(id_, n_ctx, n_slots, used)
            case LoadFailed(id_, error):
                self._load_failed(id_, error)
            case Exited(id_, error):
                self._exited(id_, error)
            case MemoryAsked():
                self._memory_asked(event)
            case TimerFired(id_):
                self._timer_fired(id_)
            case UnloadAsked(model):
                self._unload(model)
            case BudgetMeasured(budget):
                self._measure(budget)
            case CloseAsked():
                self._close()
            case _:
                assert_never(event)

    def _expect(self, model: str) -> None:
        if self._closing or self._runner_of(model) or self._spare():
            return
        id_ = self._start_runner()
        self._set_timer(id_, self._base.limits.spare_s)

    def _request(self, request: int, demand: Demand) -> None:
        if self._closing:
            self._refuse(request, Busy(CLOSING))
        elif self._n_queued() >= max(1, self._base.limits.max_queue) and not self._has_slot(demand):
            self._refuse(request, Busy(BUSY))
        else:
            self._waiting[request] = Waiting(request, demand)

    def _release(self, request: int) -> None:
        if self._waiting.pop(request, None) is not None:
            return
        for runner in self._runners.values():
            if request in runner.leases:
                self._change(runner.id, leases=runner.leases - {request}, used_at=self._clock)
                return

    def _loaded(self, id_: int, n_ctx: int, n_slots: int, used: Bytes) -> None:
        runner = self._runners.get(id_)
        if runner is None or runner.status is not Status.LOADING or runner.demand is None:
            return
        keep_alive_s = runner.demand.keep_alive_s
        self._change(
            id_,
            status=Status.READY,
            n_ctx=n_ctx,
            n_slots=max(1, n_slots),
            # Peaks count: what was granted stays reserved even where less is in use.
            held=peak_of(runner.held, used),
            used_at=self._clock,
            keep_alive_s=self._base.limits.keep_alive_s if keep_alive_s is None else keep_alive_s,
        )
        self._clear_timer(id_)
        for waiting in self._waiters_of(id_):
            self._waiting[waiting.id] = replace(waiting, runner=None)

    def _load_failed(self, id_: int, error: LocalrunError) -> None:
        if id_ in self._runners:
            self._refuse_waiters(id_, error)
            self._stop(id_)

    def _exited(self, id_: int, error: LocalrunError) -> None:
        if self._runners.pop(id_, None) is not None:
            self._refuse_waiters(id_, error)
            self.effects.append(ClearTimer(id_))
            self._drop_asks(id_)

    def _memory_asked(self, asked: MemoryAsked) -> None:
        runner = self._runners.get(asked.runner)
        if runner is None or runner.status not in _WITH_MODEL:
            return
        total = asked.needs if asked.purpose == "load" else total_of((runner.held, asked.needs))
        self._asks.append(Ask(asked.runner, asked.ask, total, asked.needs))
        if runner.status is Status.LOADING:
            self._clear_timer(runner.id)  # waiting for an eviction is no part of the load's time

    def _timer_fired(self, id_: int) -> None:
        runner = self._runners.get(id_)
        if runner is None or not runner.timed:
            return
        self._change(id_, timed=False)
        if runner.status is Status.LOADING:
            self._refuse_waiters(id_, RunnerFailed("timed out waiting for the model to load"))
        if not runner.leases:
            self._stop(id_)

    def _unload(self, model: str) -> None:
        runner = self._runner_of(model)
        if runner is None:
            return
        if runner.is_idle or self._is_unwanted(runner):
            self._stop(runner.id)
            return
        demand = runner.demand and replace(runner.demand, keep_alive_s=0.0)
        self._change(runner.id, keep_alive_s=0.0, demand=demand)

    def _measure(self, budget: Bytes) -> None:
        held = total_of(runner.held for runner in self._runners.values())
        if fits(held, budget):
            self._budget = dict(budget)

    def _close(self) -> None:
        self._closing = True
        for request in list(self._waiting):
            self._refuse(request, Busy(CLOSING))
        self._waiting.clear()
        for runner in list(self._runners.values()):
            if not runner.leases:
                self._stop(runner.id)

    # ── what follows ──────────────────────────────────────────────────────────────────────────

    def settle(self) -> None:
        self._forget_drains()
        self._serve()
        self._answer_asks()
        self._load_next()
        self._rest()

    def _forget_drains(self) -> None:
        for runner in list(self._runners.values()):
            wanted = runner.draining in self._waiting or (
                runner.draining == _FOR_AN_ASK and self._asks
            )
            if runner.draining is not None and not wanted:
                self._change(runner.id, draining=None, n_overtaken=0)

    def _serve(self) -> None:
        for waiting in list(self._waiting.values()):
            runner = self._runner_of(waiting.demand.model)
            if runner is not None and self._lets_in(runner, waiting):
                self._grant(waiting, runner)

    def _lets_in(self, runner: Runner, waiting: Waiting) -> bool:
        if runner.status is not Status.READY or not meets(runner, waiting.demand):
            return False
        if runner.draining is None or waiting.id <= runner.draining:
            return True
        if runner.n_overtaken >= MAX_OVERTAKES:
            return False
        self._change(runner.id, n_overtaken=runner.n_overtaken + 1)
        return True

    def _grant(self, waiting: Waiting, runner: Runner) -> None:
        del self._waiting[waiting.id]
        self._clear_timer(runner.id)
        keep_alive_s = waiting.demand.keep_alive_s
        self._change(
            runner.id,
            leases=runner.leases | {waiting.id},
            used_at=self._clock,
            keep_alive_s=runner.keep_alive_s if keep_alive_s is None else keep_alive_s,
        )
        self.effects.append(GrantLease(waiting.id, runner.id))

    def _answer_asks(self) -> None:
        while self._asks and self._answer(self._asks[0]):
            pass

    def _answer(self, ask: Ask) -> bool:
        """Say yes or no to the oldest ask, or begin to make room; False while it must wait."""
        others = [r for r in self._runners.values() if r.id != ask.runner]
        if not fits(ask.total, self._budget):
            self._refuse_memory(ask, self._budget)
            return True
        if fits(total_of([ask.total, *(r.held for r in others)]), self._budget):
            self._grant_memory(ask)
            return True
        asking = {a.runner for a in self._asks}
        stuck = [r for r in others if r.id in asking and not self._is_unwanted(r)]
        needs = total_of([ask.total, *(r.held for r in stuck)])
        if fits(needs, self._budget):
            self._make_room(needs, [r for r in others if r not in stuck], _FOR_AN_ASK)
            return False
        # What it lacks is held by runners that wait for memory themselves.
        later = next(a for a in reversed(self._asks) if any(r.id == a.runner for r in stuck))
        self._refuse_memory(later, self._free_for(later))
        return True

    def _grant_memory(self, ask: Ask) -> None:
        self._asks.remove(ask)
        self._change(ask.runner, held=dict(ask.total))
        self.effects.append(GrantMemory(ask.runner, ask.ask))
        if self._runners[ask.runner].status is Status.LOADING:
            self._set_timer(ask.runner, self._base.limits.load_timeout_s)

    def _refuse_memory(self, ask: Ask, available: Bytes) -> None:
        self._asks.remove(ask)
        device = tightest(ask.total, available)
        needed, free = ask.total.get(device, 0), available.get(device, 0)
        self.effects.append(RefuseMemory(ask.runner, ask.ask, device, needed, free))

    def _free_for(self, ask: Ask) -> Bytes:
        others = total_of(r.held for r in self._runners.values() if r.id != ask.runner)
        return {d: max(0, n - others.get(d, 0)) for d, n in self._budget.items()}

    def _load_next(self) -> None:
        for waiting in list(self._waiting.values()):
            if self._asks:
                return
            if waiting.runner is None and not self._seek_runner(waiting):
                return

    def _seek_runner(self, waiting: Waiting) -> bool:
        """Bring a runner on its way; False if it waits for room, which others must not take."""
        runner = self._runner_of(waiting.demand.model)
        if runner is not None and meets(runner, waiting.demand):
            if runner.status is Status.LOADING:
                self._waiting[waiting.id] = replace(waiting, runner=runner.id)
            return True
        if runner is not None and not runner.is_idle and not self._is_unwanted(runner):
            self._drain(runner, waiting.id)  # loaded in a way that cannot serve: reload when idle
            return True
        if runner is not None:
            self._stop(runner.id)
        if not fits(waiting.demand.needs, self._budget):
            self._refuse(waiting.id, _too_big(waiting.demand.needs, self._budget))
            return True
        return self._load(waiting)

    def _load(self, waiting: Waiting) -> bool:
        demand = self._widest(waiting.demand)
        if not self._has_room(demand.needs, waiting.id):
            return False
        spare = self._spare()
        id_ = spare.id if spare else self._start_runner()
        self._clear_timer(id_)
        self._change(id_, status=Status.LOADING, demand=demand, held=dict(demand.needs))
        self.effects.append(SendLoad(id_, demand))
        self._set_timer(id_, self._base.limits.load_timeout_s)
        for other in list(self._waiting.values()):
            if other.demand.model == demand.model and meets(self._runners[id_], other.demand):
                self._waiting[other.id] = replace(other, runner=id_)
        return True

    def _widest(self, demand: Demand) -> Demand:
        """Of the waiting demands that serve this one too, the one with the largest window."""
        found = demand
        for waiting in self._waiting.values():
            other = waiting.demand
            if (
                other.model == demand.model
                and other.load.n_ctx > found.load.n_ctx
                and demand.is_met_by(other.load, other.load.n_ctx)
                and fits(other.needs, self._budget)
            ):
                found = other
        return found

    def _has_room(self, needs: Bytes, request: int) -> bool:
        loaded = [r for r in self._runners.values() if r.demand is not None]
        most = self._base.limits.max_loaded
        if most and len(loaded) >= most:
            self._evict_one(loaded, request)
            return False
        if fits(total_of([needs, *(r.held for r in loaded)]), self._budget):
            return True
        self._make_room(needs, loaded, request)
        return False

    def _rest(self) -> None:
        for runner in list(self._runners.values()):
            if not runner.is_idle or runner.timed:
                continue
            if self._closing or runner.keep_alive_s <= 0:
                self._stop(runner.id)
            else:
                self._set_timer(runner.id, runner.keep_alive_s)


def _too_big(needs: Bytes, budget: Bytes) -> OutOfMemory:
    device = tightest(needs, budget)
    return OutOfMemory(needs.get(device, 0), budget.get(device, 0), device)
