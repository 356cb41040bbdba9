"""Carries out what the policy decides: starts and stops runners, lets requests in, keeps timers.

All state is touched on the event loop only, so there is no lock. Nothing polls: every event comes
from a request, a runner or a timer.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import assert_never

from localrun.backends.base import Refused, Runner, StartRunner
from localrun.errors import LocalrunError
from localrun.messages import Loaded, MemoryAsked
from localrun.scheduler import events as ev
from localrun.scheduler.events import Bytes, Demand, Limits, State, Status
from localrun.scheduler.policy import decide

_log = logging.getLogger("localrun.scheduler")
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class RunnerStatus:
    """A runner with a model, for display.

    Attributes:
        model: Digest of the weights.
        status: Where its life stands.
        n_ctx: Tokens a sequence may hold; as demanded while it loads.
        held: Bytes granted to it, per device.
        n_leases: Requests that use it.
        expires_at: Unix time in seconds when it goes if nobody uses it; `inf` for never.
    """

    model: str
    status: Status
    n_ctx: int
    held: Bytes
    n_leases: int
    expires_at: float


class Lease:
    """A request's claim on a runner: `async with scheduler.lease(demand) as runner`.

    Attributes:
        demand: What the runner must be.
    """

    def __init__(self, scheduler: "Scheduler", demand: Demand) -> None:
        self._scheduler, self.demand = scheduler, demand
        self._request = 0
        self._granted: asyncio.Future[Runner] | None = None

    def begin(self) -> None:
        """Ask for the runner now, and wait for it later."""
        if self._granted is None:
            self._request, self._granted = self._scheduler.request(self.demand)

    async def __aenter__(self) -> Runner:
        """Wait for the runner.

        Raises:
            LocalrunError: If the request is refused or its load fails.
        """
        self.begin()
        assert self._granted is not None
        try:
            return await self._granted
        except asyncio.CancelledError:
            self.release()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Give the claim back."""
        self.release()

    def release(self) -> None:
        """Give the claim back, if it was made and not given back yet."""
        granted, self._granted = self._granted, None
        if granted is None:
            return
        if granted.done() and not granted.cancelled():
            granted.exception()  # a refusal that nobody is left to read
        self._scheduler.release(self._request)


class _Box:
    """One runner of the policy: its process as soon as there is one, and what waits for it."""

    def __init__(self, id_: int, owner: "Scheduler") -> None:
        self.id, self._owner = id_, owner
        self.runner: Runner | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.starting: asyncio.Task[None] | None = None
        self._orders: list[Callable[[Runner], None]] = []

    async def start(self, start_runner: StartRunner) -> None:
        try:
            self.runner = await start_runner(self)
        except LocalrunError as error:
            self._owner.feed(ev.Exited(self.id, error))
            return
        orders, self._orders = self._orders, []
        for order in orders:
            order(self.runner)

    def order(self, order: Callable[[Runner], None]) -> None:
        """Do it now, or as soon as the process is there."""
        if self.runner is None:
            self._orders.append(order)
        else:
            order(self.runner)

    # ── RunnerEvents ──────────────────────────────────────────────────────────────────────────

    def loaded(self, loaded: Loaded) -> None:
        self._owner.feed(ev.Loaded(self.id, loaded.n_ctx, loaded.n_slots, loaded.used_bytes))

    def load_failed(self, error: LocalrunError) -> None:
        self._owner.feed(ev.LoadFailed(self.id, error))

    def memory_asked(self, asked: MemoryAsked) -> None:
        self._owner.feed(ev.MemoryAsked(self.id, asked.ask_id, asked.purpose, asked.need_bytes))

    def exited(self, error: LocalrunError) -> None:
        self._owner.feed(ev.Exited(self.id, error))


class Scheduler:
    """Owns the runners and their memory. All methods are called on the event loop."""

    def __init__(self, start_runner: StartRunner, *, budget: Bytes, limits: Limits) -> None:
        self._start_runner = start_runner
        self._state = State(limits=limits, budget=budget)
        self._boxes: dict[int, _Box] = {}
        self._granted: dict[int, asyncio.Future[Runner]] = {}
        self._expires: dict[int, float] = {}
        self._next_request = 1
        self._inbox: list[ev.Event] = []
        self._is_feeding = False
        self._emptied = asyncio.Event()
        self._emptied.set()

    # ── for requests ──────────────────────────────────────────────────────────────────────────

    def expect(self, model: str) -> None:
        """A request for this model is being prepared: have a bare process ready for its load."""
        self.feed(ev.Expected(model))

    def lease(self, demand: Demand) -> Lease:
        """A claim on a runner that meets the demand; entered, it waits for the load."""
        return Lease(self, demand)

    def request(self, demand: Demand) -> tuple[int, asyncio.Future[Runner]]:
        """Ask for a runner; used by `Lease`. The number is to be given back by `release`."""
        request = self._next_request
        self._next_request += 1
        granted = self._granted[request] = asyncio.get_running_loop().create_future()
        self.feed(ev.Requested(request, demand))
        return request, granted

    def release(self, request: int) -> None:
        """The request is over, or no longer waits."""
        self._granted.pop(request, None)
        self.feed(ev.Released(request))

    # ── for the server ────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> State:
        """What the policy knows; for display and planning, not for decisions."""
        return self._state

    def loaded_window(self, model: str) -> int:
        """Tokens that a sequence may hold on the model's runner; 0 if it is not loaded."""
        for runner in self._state.runners.values():
            if runner.model == model and runner.status is Status.READY:
                return runner.n_ctx
        return 0

    def free_beside(self, model: str) -> dict[str, int]:
        """Bytes per device that other models' runners leave."""
        others = [r for r in self._state.runners.values() if r.model != model]
        return {
            device: max(0, n_bytes - sum(r.held.get(device, 0) for r in others))
            for device, n_bytes in self._state.budget.items()
        }

    @property
    def has_models(self) -> bool:
        """Whether any runner holds memory."""
        return any(any(r.held.values()) for r in self._state.runners.values())

    def measured(self, budget: Bytes) -> None:
        """The budget was measured anew; ignored if it is below what is held."""
        self.feed(ev.BudgetMeasured(budget))

    def unload(self, model: str) -> None:
        """Let the model go as soon as nobody uses it; unknown models are ignored."""
        self.feed(ev.UnloadAsked(model))

    def status(self) -> list[RunnerStatus]:
        """The runners with a model, those that are on their way out left out."""
        now = time.time()
        return [
            RunnerStatus(
                runner.model,
                runner.status,
                runner.n_ctx or (runner.demand.load.n_ctx if runner.demand else 0),
                runner.held,
                len(runner.leases),
                self._expires.get(runner.id, now + runner.keep_alive_s),
            )
            for runner in self._state.runners.values()
            if runner.status in (Status.LOADING, Status.READY)
        ]

    def n_waiting(self) -> int:
        """Requests without a runner."""
        return len(self._state.waiting)

    def close(self) -> None:
        """Let nobody in any more; idle runners go now, the others with their last lease."""
        self.feed(ev.CloseAsked())

    async def shutdown(self, *, kill: bool = False) -> None:
        """Close, end every runner whatever it does, and wait until all are gone."""
        self.close()
        for box in list(self._boxes.values()):
            box.order(_kill if kill else _stop)
        waits = [box.runner.closed(_STOP_S) for box in self._boxes.values() if box.runner]
        await asyncio.gather(*waits)
        await self._emptied.wait()

    # ── events in, effects out ────────────────────────────────────────────────────────────────

    def feed(self, event: ev.Event) -> None:
        """Take an event; what an effect causes at once is taken after it, never inside it."""
        self._inbox.append(event)
        if self._is_feeding:
            return
        self._is_feeding = True
        try:
            while self._inbox:
                taken = self._inbox.pop(0)
                if isinstance(taken, ev.Exited):
                    self._forget(taken.runner)
                self._state, effects = decide(self._state, taken)
                for effect in effects:
                    self._carry_out(effect)
        finally:
            self._is_feeding = False

    def _carry_out(self, effect: ev.Effect) -> None:
        match effect:
            case ev.GrantLease() | ev.RefuseLease():
                self._answer(effect)
            case ev.SetTimer(id_, after_s):
                self._set_timer(id_, after_s)
            case ev.ClearTimer(id_):
                self._clear_timer(id_)
            case ev.StartRunner(id_):
                self._start(id_)
            case ev.SendLoad() | ev.StopRunner() | ev.GrantMemory() | ev.RefuseMemory():
                self._order(effect)
            case _:
                assert_never(effect)

    def _answer(self, effect: ev.GrantLease | ev.RefuseLease) -> None:
        granted = self._granted.pop(effect.request, None)
        if granted is None or granted.done():
            return  # its client is gone; `release` follows
        if isinstance(effect, ev.RefuseLease):
            granted.set_exception(effect.error)
            return
        runner = self._boxes[effect.runner].runner
        assert runner is not None, "leases are on loaded runners"
        granted.set_result(runner)

    def _start(self, id_: int) -> None:
        box = self._boxes[id_] = _Box(id_, self)
        self._emptied.clear()
        box.starting = asyncio.get_running_loop().create_task(box.start(self._start_runner))

    def _order(
        self, effect: ev.SendLoad | ev.StopRunner | ev.GrantMemory | ev.RefuseMemory
    ) -> None:
        box = self._boxes[effect.runner]
        match effect:
            case ev.SendLoad(_, demand):
                _log.info("loading %s with a window of %d", demand.model[:19], demand.load.n_ctx)
                box.order(lambda runner: runner.load(demand.load))
            case ev.StopRunner():
                box.order(_stop)
            case ev.GrantMemory(_, ask):
                box.order(lambda runner: runner.answer_memory(ask))
            case ev.RefuseMemory(_, ask, device, needed, free):
                refused = Refused(device, needed, free)
                box.order(lambda runner: runner.answer_memory(ask, refused))
            case _:
                assert_never(effect)

    def _set_timer(self, id_: int, after_s: float) -> None:
        self._clear_timer(id_)
        loop = asyncio.get_running_loop()
        self._expires[id_] = time.time() + after_s
        self._boxes[id_].timer = loop.call_later(after_s, self.feed, ev.TimerFired(id_))

    def _clear_timer(self, id_: int) -> None:
        self._expires.pop(id_, None)
        box = self._boxes.get(id_)
        if box is not None and box.timer is not None:
            box.timer.cancel()
            box.timer = None

    def _forget(self, id_: int) -> None:
        self._clear_timer(id_)
        self._boxes.pop(id_, None)
        if not self._boxes:
            self._emptied.set()


def _stop(runner: Runner) -> None:
    runner.stop()


def _kill(runner: Runner) -> None:
    runner.kill()
