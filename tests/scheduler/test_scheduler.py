"""The scheduler with an in-memory fake of runners: no process, no clock."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from localrun.backends.base import Refused, RunnerEvents
from localrun.errors import Busy, RunnerFailed
from localrun.messages import Load, Loaded, MemoryAsked
from localrun.scheduler.events import Demand, Limits
from localrun.scheduler.scheduler import Scheduler

DEADLINE_S = 10.0


class FakeRunner:
    """Notes what it is told; the test plays its answers."""

    def __init__(self, events: RunnerEvents) -> None:
        self.events = events
        self.told: list[object] = []
        self.gone = asyncio.Event()
        self.pid = 1

    def load(self, load):
        self.told.append(("load", load.paths[0]))

    def answer_memory(self, ask, refused: Refused | None = None):
        self.told.append(("memory", ask, refused))

    def complete(self, job):
        raise AssertionError("the scheduler hands runners out and completes nothing itself")

    def stop(self):
        self.told.append("stop")
        self.exit()

    kill = stop

    def exit(self):
        if not self.gone.is_set():
            self.gone.set()
            self.events.exited(RunnerFailed("gone"))

    async def closed(self, timeout_s):
        await asyncio.wait_for(self.gone.wait(), timeout_s)


class Stage:
    """A scheduler whose runners are fakes."""

    def __init__(self, **limits) -> None:
        self.runners: list[FakeRunner] = []
        self.scheduler = Scheduler(self, budget={"cpu": 100}, limits=Limits(**limits))

    async def __call__(self, events: RunnerEvents) -> Any:
        await asyncio.sleep(0)
        self.runners.append(FakeRunner(events))
        return self.runners[-1]

    def close(self) -> None:
        """Nothing is kept ready."""

    async def until(self, happened: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not happened():  # noqa: ASYNC110 (turns of the loop, not time)
                await asyncio.sleep(0)

    async def load(self, number: int) -> FakeRunner:
        await self.until(lambda: len(self.runners) > number and self.runners[number].told)
        runner = self.runners[number]
        runner.events.loaded(Loaded(512, 512, 2, 512, 300, 0, {"cpu": 40}, 0.1))
        return runner


def demand(model="a", needs=40, keep_alive_s=None):
    return Demand(model, Load((model,), 512, 512, 2, 4), {"cpu": needs}, 0, (), keep_alive_s)


def play(story):
    async def run():
        async with asyncio.timeout(DEADLINE_S):
            await story()

    asyncio.run(run())


def test_a_lease_waits_for_the_load_and_gives_the_runner_back():
    async def story():
        stage = Stage()

        async def use():
            async with stage.scheduler.lease(demand()) as runner:
                assert stage.scheduler.status()[0].n_leases == 1
                return runner

        using = asyncio.create_task(use())
        runner = await stage.load(0)
        assert await using is runner
        assert stage.scheduler.status()[0].n_leases == 0

    play(story)


def test_a_cancelled_wait_leaves_nothing_behind():
    async def story():
        stage = Stage()
        waiting = asyncio.create_task(stage.scheduler.lease(demand()).__aenter__())
        await stage.until(lambda: stage.runners)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert stage.scheduler.n_waiting() == 0

    play(story)


def test_a_wait_that_is_cancelled_in_the_turn_of_its_grant_gives_the_lease_back():
    async def story():
        stage = Stage()
        waiting = asyncio.create_task(stage.scheduler.lease(demand()).__aenter__())
        await stage.load(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert stage.scheduler.status()[0].n_leases == 0

    play(story)


def test_a_process_that_cannot_be_started_fails_the_request():
    class Broken(Stage):
        async def __call__(self, events: RunnerEvents) -> Any:
            raise RunnerFailed("no more processes")

    async def story():
        scheduler = Scheduler(Broken(), budget={"cpu": 100}, limits=Limits())
        with pytest.raises(RunnerFailed, match="no more processes"):
            await scheduler.lease(demand()).__aenter__()
        await scheduler.shutdown()

    play(story)


def test_a_stop_before_the_process_is_there_is_kept_for_it():
    async def story():
        stage = Stage()
        stage.scheduler.expect("a")
        stage.scheduler.close()
        await stage.until(lambda: stage.runners and stage.runners[0].told == ["stop"])

    play(story)


def test_an_expected_model_finds_its_process_started():
    async def story():
        stage = Stage()
        stage.scheduler.expect("a")
        await stage.until(lambda: stage.runners)
        using = asyncio.create_task(stage.scheduler.lease(demand()).__aenter__())
        await stage.load(0)
        await using
        assert len(stage.runners) == 1

    play(story)


def test_memory_is_answered_by_the_policy():
    async def story():
        stage = Stage()
        using = asyncio.create_task(stage.scheduler.lease(demand()).__aenter__())
        await stage.until(lambda: stage.runners and stage.runners[0].told)
        runner = stage.runners[0]
        runner.events.memory_asked(MemoryAsked(1, "load", {"cpu": 60}))
        runner.events.memory_asked(MemoryAsked(2, "context", {"cpu": 60}))
        assert runner.told[1:] == [("memory", 1, None), ("memory", 2, Refused("cpu", 120, 100))]
        assert stage.scheduler.free_beside("b") == {"cpu": 40}
        using.cancel()

    play(story)


def test_a_keep_alive_ends_by_a_timer_and_is_shown_before():
    async def story():
        stage = Stage()
        using = asyncio.create_task(stage.scheduler.lease(demand(keep_alive_s=0.01)).__aenter__())
        runner = await stage.load(0)
        await using
        stage.scheduler.release(1)
        assert stage.scheduler.status()[0].expires_at < float("inf")
        async with asyncio.timeout(DEADLINE_S):
            await runner.gone.wait()
        assert stage.scheduler.status() == []

    play(story)


def test_the_end_stops_leased_runners_too_and_refuses_newcomers():
    async def story():
        stage = Stage()
        using = asyncio.create_task(stage.scheduler.lease(demand()).__aenter__())
        runner = await stage.load(0)
        await using
        await stage.scheduler.shutdown()
        assert "stop" in runner.told
        with pytest.raises(Busy, match="shutting down"):
            await stage.scheduler.lease(demand()).__aenter__()

    play(story)
