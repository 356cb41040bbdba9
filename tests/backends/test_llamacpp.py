"""The runner's handle against a real child that only plays a runner."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from localrun.backends.base import Job
from localrun.backends.llamacpp import LlamaRunner, StartLlama
from localrun.config import child_environment
from localrun.errors import BadModelFile, LocalrunError, RunnerFailed
from localrun.messages import Delta, End, Load, Sampling, Submit, pack_tokens

ROOT = Path(__file__).parents[2]
DEADLINE_S = 20.0
LOAD = Load(("/model",), 512, 512, 4, 8, weights_bytes={"cpu": 5})


class Events:
    """Keeps what the runner tells its owner."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[str, object]] = asyncio.Queue()

    def loaded(self, loaded):
        self.told.put_nowait(("loaded", loaded))

    def load_failed(self, error):
        self.told.put_nowait(("load_failed", error))

    def memory_asked(self, asked):
        self.told.put_nowait(("memory_asked", asked))

    def exited(self, error):
        self.told.put_nowait(("exited", error))


@contextlib.asynccontextmanager
async def loaded(**fake: str) -> AsyncIterator[tuple[LlamaRunner, Events]]:
    events = Events()
    env = child_environment(PYTHONPATH=str(ROOT), **fake)
    async with asyncio.timeout(DEADLINE_S):
        runner = await StartLlama(env, "tests.fakes.runner")(events)
        try:
            runner.load(LOAD)
            if not fake.get("FAKE_LOAD"):
                _, asked = await events.told.get()
                assert asked.need_bytes == {"cpu": 5}  # type: ignore[attr-defined]
                runner.answer_memory(asked.ask_id)  # type: ignore[attr-defined]
                assert (await events.told.get())[0] == "loaded"
            yield runner, events
        finally:
            runner.stop()
            await runner.closed(5.0)


def job(order: str = "", n_prompt: int = 3, n_predict: int = -1) -> Job:
    stop = (f"fake: {order}",) if order else ()
    submit = Submit(0, 0, "local", Sampling(), stop, n_predict)
    return Job(pack_tokens(range(n_prompt)), submit)


async def text_of(completion) -> str:
    text = ""
    while True:
        for part in await completion.next():
            if isinstance(part, End):
                return text
            assert isinstance(part, Delta)
            text += part.text
            completion.taken(len(part.text))


def test_a_completion_is_deltas_and_one_end():
    async def story():
        async with loaded() as (runner, _):
            assert await text_of(runner.complete(job(n_predict=3))) == "t0 t1 t2 "

    asyncio.run(story())


def test_a_long_prompt_arrives_in_pieces_and_whole():
    async def story():
        async with loaded() as (runner, _):  # the fake checks the count
            assert await text_of(runner.complete(job(n_prompt=100_001, n_predict=1))) == "t0 "

    asyncio.run(story())


def test_requests_run_side_by_side_and_get_their_own():
    async def story():
        async with loaded(FAKE_PACE="0.001") as (runner, _):
            jobs = [runner.complete(job(n_predict=n)) for n in range(1, 9)]
            texts = await asyncio.gather(*(text_of(completion) for completion in jobs))
            assert [text.count("t") for text in texts] == list(range(1, 9))

    asyncio.run(story())


def test_without_credit_a_sequence_pauses_and_with_it_goes_on():
    async def story():
        async with loaded() as (runner, _):
            completion = runner.complete(job("flood 300"))
            n_bytes = 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    while True:
                        parts = await completion.next()
                        n_bytes += sum(len(p.text) for p in parts if isinstance(p, Delta))
            assert 64 << 10 < n_bytes < 80 << 10
            completion.taken(n_bytes)
            assert len(await text_of(completion)) + n_bytes == 300 << 10

    asyncio.run(story())


def test_a_closed_completion_is_cancelled_in_the_runner(tmp_path):
    async def story():
        log = tmp_path / "log"
        async with loaded(FAKE_LOG=str(log)) as (runner, _):
            completion = runner.complete(job("stall 1"))
            await completion.next()
            completion.close()
            assert await text_of(runner.complete(job(n_predict=1))) == "t0 "
            assert "cancel 1" in log.read_text()

    asyncio.run(story())


def test_a_dead_runner_fails_its_requests_with_its_last_words_and_later_ones_too():
    async def story():
        async with loaded() as (runner, events):
            completion = runner.complete(job("crash 2"))
            with pytest.raises(RunnerFailed, match=r"signal 9.*device is on fire") as caught:
                await text_of(completion)
            assert "ask again" in caught.value.hint
            assert (await events.told.get())[0] == "exited"
            with pytest.raises(RunnerFailed, match="signal 9"):
                await text_of(runner.complete(job()))

    asyncio.run(story())


def test_text_before_a_failure_is_not_lost():
    async def story():
        async with loaded() as (runner, _):
            completion = runner.complete(job("fail 2"))
            texts: list[str] = []

            async def gather() -> None:
                while True:
                    texts.extend(p.text for p in await completion.next() if isinstance(p, Delta))

            with pytest.raises(LocalrunError, match="the decode failed"):
                await gather()
            assert texts == ["t0 ", "t1 "]

    asyncio.run(story())


def test_a_load_that_fails_keeps_its_class_and_words():
    async def story():
        async with loaded(FAKE_LOAD="refuse") as (_, events):
            kind, error = await events.told.get()
            assert kind == "load_failed"
            assert isinstance(error, BadModelFile)
            assert (error.message, error.hint) == ("the file is odd", "pull it again")
            assert (await events.told.get())[0] == "exited"

    asyncio.run(story())
