"""The policy: a table of decisions, and one property over random lives."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localrun.errors import Busy, OutOfMemory, RunnerFailed
from localrun.messages import Load
from localrun.scheduler.events import (
    BudgetMeasured,
    ClearTimer,
    CloseAsked,
    Demand,
    Effect,
    Event,
    Exited,
    Expected,
    GrantLease,
    GrantMemory,
    Limits,
    Loaded,
    LoadFailed,
    MemoryAsked,
    RefuseLease,
    RefuseMemory,
    Released,
    Requested,
    SendLoad,
    SetTimer,
    StartRunner,
    State,
    Status,
    StopRunner,
    TimerFired,
    UnloadAsked,
)
from localrun.scheduler.policy import BUSY, MAX_OVERTAKES, decide


def demand(model="a", *, needs=40, n_ctx=2048, wants=None, fixed=(), keep_alive_s=None):
    load = Load((f"/{model}",), n_ctx, n_ctx, 2, 4, **dict(fixed))
    return Demand(model, load, {"cpu": needs}, wants or 0, tuple(fixed), keep_alive_s)


class Life:
    """Feeds events and keeps every effect."""

    def __init__(self, budget=100, **limits):
        self.state = State(limits=Limits(**limits), budget={"cpu": budget})
        self.effects: list[Effect] = []

    def feed(self, *events: Event) -> list[Effect]:
        fresh: list[Effect] = []
        for event in events:
            self.state, effects = decide(self.state, event)
            fresh += effects
        self.effects += fresh
        return fresh

    def load(self, request, demand_, *, n_slots=2):
        """Request a model and load it; returns the runner's number."""
        runner = next(
            e.runner for e in self.feed(Requested(request, demand_)) if type(e) is SendLoad
        )
        self.feed(Loaded(runner, demand_.load.n_ctx, n_slots, demand_.needs))
        return runner


def test_a_first_request_starts_and_loads_a_runner_and_is_let_in_when_it_is_ready():
    life = Life()
    first = life.feed(Requested(1, demand()))
    assert [type(e) for e in first] == [StartRunner, SendLoad, SetTimer]
    assert life.feed(Loaded(1, 2048, 2, {"cpu": 40})) == [ClearTimer(1), GrantLease(1, 1)]


def test_an_expected_request_starts_a_process_which_its_load_then_uses():
    life = Life()
    assert life.feed(Expected("a")) == [StartRunner(1), SetTimer(1, 30.0)]
    assert life.feed(Expected("a")) == []
    assert [type(e) for e in life.feed(Requested(1, demand()))] == [ClearTimer, SendLoad, SetTimer]


def test_a_spare_process_that_nobody_wants_goes():
    life = Life()
    life.feed(Expected("a"))
    assert life.feed(TimerFired(1)) == [StopRunner(1)]


def test_requests_for_one_model_share_one_load():
    life = Life()
    life.feed(Requested(1, demand()))
    assert life.feed(Requested(2, demand()), Requested(3, demand())) == []
    assert [e for e in life.feed(Loaded(1, 2048, 2, {})) if type(e) is GrantLease] == [
        GrantLease(1, 1), GrantLease(2, 1), GrantLease(3, 1)
    ]  # fmt: skip


def test_an_idle_runner_goes_when_its_keep_alive_ends():
    life = Life()
    runner = life.load(1, demand(keep_alive_s=7.0))
    assert life.feed(Released(1)) == [SetTimer(runner, 7.0)]
    assert life.feed(TimerFired(runner)) == [StopRunner(runner)]


def test_a_keep_alive_of_zero_ends_the_runner_with_its_last_lease():
    life = Life()
    runner = life.load(1, demand(keep_alive_s=0.0))
    assert life.feed(Released(1)) == [StopRunner(runner)]


def test_a_runner_that_stays_for_ever_has_no_timer():
    life = Life()
    life.load(1, demand(keep_alive_s=float("inf")))
    assert life.feed(Released(1)) == []


def test_a_new_request_stops_the_keep_alive_timer():
    life = Life()
    runner = life.load(1, demand())
    life.feed(Released(1))
    assert life.feed(Requested(2, demand())) == [ClearTimer(runner), GrantLease(2, runner)]


def test_room_is_made_by_the_runner_that_was_used_least_recently():
    life = Life()
    a, b = life.load(1, demand("a")), life.load(2, demand("b"))
    life.feed(Released(2), Released(1))
    assert StopRunner(b) in life.feed(Requested(3, demand("c")))
    third = life.feed(Exited(b, RunnerFailed("gone")))
    assert [type(e) for e in third] == [ClearTimer, StartRunner, SendLoad, SetTimer]
    assert life.state.runners[a].status is Status.READY


def test_a_leased_runner_is_drained_and_goes_when_its_lease_ends():
    life = Life()
    a = life.load(1, demand("a", needs=80))
    assert life.feed(Requested(2, demand("b", needs=80))) == []
    assert life.feed(Released(1)) == [StopRunner(a)]
    assert SendLoad(2, demand("b", needs=80)) in life.feed(Exited(a, RunnerFailed("gone")))


def test_newer_requests_pass_a_waiting_one_a_few_times_only():
    life = Life()
    life.load(1, demand("a", needs=80))
    life.feed(Requested(2, demand("b", needs=80)))
    passed = [
        life.feed(Requested(n, demand("a", needs=80))) for n in range(3, 3 + MAX_OVERTAKES + 3)
    ]
    assert [bool(effects) for effects in passed] == [True] * MAX_OVERTAKES + [False] * 3


def test_idle_runners_stay_while_their_going_would_not_be_enough():
    life = Life()
    life.load(1, demand("a", needs=70))
    b = life.load(2, demand("b", needs=30))
    life.feed(Released(2))
    assert life.feed(Requested(3, demand("c", needs=90))) == []
    assert life.state.runners[b].status is Status.READY


def test_a_model_larger_than_everything_is_refused_at_once():
    life = Life()
    (refused,) = life.feed(Requested(1, demand(needs=101)))
    assert isinstance(refused, RefuseLease)
    assert isinstance(refused.error, OutOfMemory)


def test_a_larger_window_reloads_the_runner_when_it_is_idle():
    life = Life()
    runner = life.load(1, demand(n_ctx=2048, needs=70))
    wider = demand(n_ctx=8192, wants=8192, needs=70)
    assert life.feed(Requested(2, wider)) == []
    assert life.feed(Released(1)) == [StopRunner(runner)]
    assert SendLoad(2, wider) in life.feed(Exited(runner, RunnerFailed("gone")))


def test_a_smaller_window_is_served_as_it_is():
    life = Life()
    runner = life.load(1, demand(n_ctx=8192))
    assert life.feed(Requested(2, demand(n_ctx=512, wants=512))) == [GrantLease(2, runner)]


def test_of_waiting_demands_the_widest_that_serves_all_is_loaded():
    life = Life()
    life.load(1, demand("z", needs=90))
    wide = demand("a", n_ctx=8192, wants=8192)
    life.feed(Requested(2, demand("a", n_ctx=512, wants=512)), Requested(3, wide), Released(1))
    assert SendLoad(2, wide) in life.feed(Exited(1, RunnerFailed("gone")))


def test_a_full_queue_is_told_in_the_words_that_clients_know():
    life = Life(max_queue=2)
    life.feed(Requested(1, demand()), Requested(2, demand()))
    (refused,) = life.feed(Requested(3, demand()))
    assert isinstance(refused, RefuseLease)
    assert str(refused.error) == BUSY


def test_requests_beyond_the_slots_of_a_loaded_model_count_as_queued():
    life = Life(max_queue=2)
    life.load(1, demand(), n_slots=1)
    effects = life.feed(*(Requested(n, demand()) for n in (2, 3, 4)))
    assert [type(e) for e in effects] == [GrantLease, GrantLease, RefuseLease]


def test_a_failed_load_fails_its_waiters_only():
    life = Life()
    life.feed(Requested(1, demand("a")), Requested(2, demand("a")), Requested(3, demand("b")))
    error = RunnerFailed("bad file")
    effects = life.feed(LoadFailed(1, error))
    assert [e for e in effects if type(e) is RefuseLease] == [
        RefuseLease(1, error), RefuseLease(2, error)
    ]  # fmt: skip
    assert 3 in life.state.waiting


def test_a_process_that_dies_while_loading_fails_its_waiters():
    life = Life()
    error = RunnerFailed("signal 9")
    life.feed(Requested(1, demand()))
    assert RefuseLease(1, error) in life.feed(Exited(1, error))
    assert not life.state.runners


def test_a_load_that_takes_too_long_is_ended():
    life = Life(load_timeout_s=5.0)
    life.feed(Requested(1, demand()))
    effects = life.feed(TimerFired(1))
    assert [type(e) for e in effects] == [RefuseLease, StopRunner]


def test_an_unload_waits_for_the_leases():
    life = Life()
    runner = life.load(1, demand())
    assert life.feed(UnloadAsked("a")) == []
    assert life.feed(Released(1)) == [StopRunner(runner)]


def test_memory_that_fits_is_granted_and_counts():
    life = Life()
    life.feed(Requested(1, demand(needs=40)))
    assert GrantMemory(1, 1) in life.feed(MemoryAsked(1, 1, "load", {"cpu": 60}))
    assert life.state.held("cpu") == 60


def test_memory_that_never_fits_is_refused_with_the_device():
    life = Life()
    life.feed(Requested(1, demand()))
    assert RefuseMemory(1, 7, "cpu", 140, 100) in life.feed(MemoryAsked(1, 7, "load", {"cpu": 140}))


def test_memory_waits_for_an_eviction():
    life = Life()
    a = life.load(1, demand("a", needs=50))
    life.feed(Released(1), Requested(2, demand("b", needs=40)))
    assert StopRunner(a) in life.feed(MemoryAsked(2, 1, "load", {"cpu": 70}))
    assert GrantMemory(2, 1) in life.feed(Exited(a, RunnerFailed("gone")))


def test_of_two_that_block_each_other_the_later_is_refused():
    life = Life()
    life.feed(Requested(1, demand("a", needs=50)), Requested(2, demand("b", needs=50)))
    life.feed(MemoryAsked(1, 1, "load", {"cpu": 70}))
    effects = life.feed(MemoryAsked(2, 1, "load", {"cpu": 60}))
    assert RefuseMemory(2, 1, "cpu", 60, 50) in effects


def test_a_runner_that_grows_keeps_what_it_has_and_gets_more():
    life = Life()
    runner = life.load(1, demand(needs=40))
    assert GrantMemory(runner, 2) in life.feed(MemoryAsked(runner, 2, "context", {"cpu": 20}))
    assert life.state.held("cpu") == 60


def test_closing_refuses_who_waits_and_stops_who_is_idle():
    life = Life()
    a, b = life.load(1, demand("a")), life.load(2, demand("b"))
    life.feed(Released(2), Requested(3, demand("c", needs=90)))
    effects = life.feed(CloseAsked())
    assert StopRunner(b) in effects
    assert StopRunner(a) not in effects
    assert [type(e.error) for e in effects if type(e) is RefuseLease] == [Busy]
    assert life.feed(Released(1)) == [StopRunner(a)]


def test_a_limit_on_loaded_models_evicts_although_memory_is_left():
    life = Life(max_loaded=1)
    a = life.load(1, demand("a", needs=10))
    life.feed(Released(1))
    assert StopRunner(a) in life.feed(Requested(2, demand("b", needs=10)))


def test_a_demand_that_its_own_load_does_not_meet_is_a_mistake():
    with pytest.raises(ValueError, match="met by its own load"):
        demand(n_ctx=512, wants=1024)


def test_a_budget_below_what_is_held_is_ignored():
    life = Life()
    life.load(1, demand(needs=40))
    life.feed(BudgetMeasured({"cpu": 30}))
    assert life.state.budget == {"cpu": 100}


class World:
    """Plays scheduler, runners and clients to the policy, and checks after each event."""

    def __init__(self, limits: Limits):
        self.state = State(limits=limits, budget={"cpu": 100, "gpu": 60})
        self.endings: dict[int, str] = {}
        self.leases: dict[int, int] = {}
        self.loading: dict[int, Demand] = {}
        self.asks: set[tuple[int, int]] = set()
        self.granted: dict[int, dict[str, int]] = {}
        self.alive: set[int] = set()
        self.stopping: set[int] = set()
        self.timers: set[int] = set()
        self.next_request = 1
        self.next_ask = 1

    def feed(self, event: Event) -> None:
        leased = set(self.leases.values())
        self.state, effects = decide(self.state, event)
        for effect in effects:
            self.take(effect, leased)
        for device, n_bytes in self.state.budget.items():
            assert self.state.held(device) <= n_bytes

    def take(self, effect: Effect, leased: set[int]) -> None:  # noqa: C901 (one line an effect)
        match effect:
            case StartRunner(runner):
                self.alive.add(runner)
            case SendLoad(runner, demand_):
                assert runner in self.alive
                self.loading[runner] = demand_
            case StopRunner(runner):
                assert runner not in self.leases.values()
                assert runner not in self.stopping
                self.stopping.add(runner)
                self.loading.pop(runner, None)
                self.asks = {ask for ask in self.asks if ask[0] != runner}
            case GrantLease(request, runner):
                self.end(request, "granted")
                assert runner in self.alive - self.stopping
                self.leases[request] = runner
            case RefuseLease(request, _):
                self.end(request, "refused")
            case GrantMemory(runner, ask) | RefuseMemory(runner, ask, _, _, _):
                self.asks.remove((runner, ask))
            case SetTimer(runner, _):
                self.timers.add(runner)
            case ClearTimer(runner):
                self.timers.discard(runner)

    def end(self, request: int, how: str) -> None:
        assert request not in self.endings
        self.endings[request] = how

    def request(self, model: str, cpu: int, gpu: int, n_ctx: int, wants: bool) -> None:
        load = Load((model,), n_ctx, n_ctx, 2, 4)
        needs = {"cpu": cpu, "gpu": gpu}
        number = self.next_request
        self.next_request += 1
        self.feed(Requested(number, Demand(model, load, needs, n_ctx if wants else 0)))

    def waiting(self) -> list[int]:
        return [n for n in range(1, self.next_request) if n not in self.endings]

    def release(self, request: int) -> None:
        if request in self.leases:
            del self.leases[request]
        else:
            self.end(request, "withdrawn")
        self.feed(Released(request))

    def exit(self, runner: int) -> None:
        self.alive.discard(runner)
        self.stopping.discard(runner)
        self.loading.pop(runner, None)
        self.asks = {ask for ask in self.asks if ask[0] != runner}
        for request in [r for r, on in self.leases.items() if on == runner]:
            del self.leases[request]
        self.feed(Exited(runner, RunnerFailed("gone")))

    def ask(self, runner: int, purpose, cpu: int, gpu: int) -> None:
        self.asks.add((runner, self.next_ask))
        self.next_ask += 1
        self.feed(MemoryAsked(runner, self.next_ask - 1, purpose, {"cpu": cpu, "gpu": gpu}))

    def loaded(self, runner: int) -> None:
        demand_ = self.loading.pop(runner)
        self.feed(Loaded(runner, demand_.load.n_ctx, 2, {}))

    def play(self, choice: tuple[str, int, str, int, int, int, bool]) -> None:  # noqa: C901, PLR0912 (one line a kind)
        kind, pick, model, cpu, gpu, n_ctx, flag = choice
        match kind:
            case "request":
                self.request(model, cpu, gpu, n_ctx, flag)
            case "expect":
                self.feed(Expected(model))
            case "unload":
                self.feed(UnloadAsked(model))
            case "release" if pool := [*self.leases, *self.waiting()]:
                self.release(pool[pick % len(pool)])
            case "loaded" if pool := self.quiet_loads():
                self.loaded(pool[pick % len(pool)])
            case "ask" if pool := self.quiet_loads():
                self.ask(pool[pick % len(pool)], "load", cpu, gpu)
            case "grow" if pool := sorted(set(self.leases.values())):
                self.ask(pool[pick % len(pool)], "context", cpu // 2, gpu // 2)
            case "fail" if self.loading:
                runner = sorted(self.loading)[pick % len(self.loading)]
                self.loading.pop(runner)
                self.feed(LoadFailed(runner, RunnerFailed("no")))
            case "exit" if self.stopping:
                self.exit(sorted(self.stopping)[pick % len(self.stopping)])
            case "crash" if self.alive:
                self.exit(sorted(self.alive)[pick % len(self.alive)])
            case "timer" if self.timers:
                runner = sorted(self.timers)[pick % len(self.timers)]
                self.timers.discard(runner)
                self.feed(TimerFired(runner))
            case _:
                pass

    def quiet_loads(self) -> list[int]:
        asking = {runner for runner, _ in self.asks}
        return sorted(set(self.loading) - asking)

    def finish(self) -> None:
        """Let everything that is under way come to its end; no request may be left over."""
        for _ in range(400):
            if not self.waiting() and not self.leases:
                return
            for runner in list(self.stopping):
                self.exit(runner)
            for runner in self.quiet_loads():
                if runner in self.loading:
                    self.loaded(runner)
            for request in list(self.leases):
                self.release(request)
        raise AssertionError(f"stranded: {self.waiting()} in {self.state}")


choices = st.tuples(
    st.sampled_from(
        ["request"] * 5 + ["release"] * 3 + ["loaded"] * 3 + ["exit"] * 3
        + ["expect", "unload", "ask", "grow", "fail", "crash", "timer"]
    ),
    st.integers(0, 50),
    st.sampled_from("abcd"),
    st.integers(0, 110),
    st.integers(0, 60),
    st.sampled_from([512, 2048, 8192]),
    st.booleans(),
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(
    st.lists(choices, max_size=60),
    st.builds(Limits, max_queue=st.integers(0, 20), max_loaded=st.integers(0, 3)),
)
def test_no_request_is_stranded_no_memory_over_committed_and_no_leased_runner_evicted(
    story, limits
):
    world = World(replace(limits, keep_alive_s=5.0))
    for choice in story:
        world.play(choice)
    world.finish()
    assert set(world.endings) == set(range(1, world.next_request))
