"""The runner as the server sees it: a real child, real frames, a tiny model."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from localrun.config import child_environment
from localrun.messages import (
    AskStats,
    Cancel,
    Embed,
    Embedded,
    End,
    EndReasoning,
    Failed,
    Load,
    Loaded,
    LoadFailed,
    MemoryAsked,
    MemoryGranted,
    MemoryRefused,
    Reasoning,
    RunnerAnswer,
    RunnerReady,
    RunnerRequest,
    Sampling,
    Stats,
    Step,
    Submit,
    Tokens,
    decode_runner_answer,
    encode,
    pack_tokens,
)
from localrun.system.spawn import Child, start_child
from tests.fakes.tinybert import TinyBert, make_tiny_bert
from tests.runner.conftest import prompt_of

T = TypeVar("T")
DEADLINE_S = 20.0


class Talk:
    """A runner child and what it said."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[RunnerAnswer] = asyncio.Queue()
        self.exited: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.child: Child | None = None

    def say(self, *messages: RunnerRequest) -> None:
        assert self.child is not None
        for message in messages:
            self.child.send(encode(message))

    async def hear(self, kind: type[T]) -> T:
        """The next message, which must be of this kind."""
        message = await asyncio.wait_for(self.heard.get(), DEADLINE_S)
        assert isinstance(message, kind), message
        return message

    async def hear_until(self, found: Callable[[RunnerAnswer], bool]) -> list[RunnerAnswer]:
        heard: list[RunnerAnswer] = []
        while not heard or not found(heard[-1]):
            heard.append(await asyncio.wait_for(self.heard.get(), DEADLINE_S))
        return heard

    async def load(self, path: Path, **numbers: int) -> Loaded:
        await self.hear(RunnerReady)
        self.say(load_of(path, **numbers))
        asked = await self.hear(MemoryAsked)
        self.say(MemoryGranted(asked.ask_id))
        return await self.hear(Loaded)


def load_of(path: Path, n_ctx: int = 2048, n_cells: int = 4096) -> Load:
    return Load(
        (str(path),),
        n_ctx,
        n_cells,
        n_slots=4,
        n_seq_max=8,
        n_threads=1,
        weights_bytes={"cpu": 1000},
        cell_bytes={"cpu": 10},
        compute_bytes={"cpu": 5},
    )


@asynccontextmanager
async def runner() -> AsyncIterator[Talk]:
    talk = Talk()
    child = await start_child(
        "localrun.runner",
        env=child_environment(),
        on_frame=lambda body: talk.heard.put_nowait(decode_runner_answer(body)),
        on_exit=lambda status, words: talk.exited.set_result((status, words)),
    )
    talk.child = child
    try:
        yield talk
    finally:
        child.close_input()
        await child.wait(DEADLINE_S)


def request(request_id: int, n_prompt: int, n_predict: int = 8, **more: Any) -> list[RunnerRequest]:
    prompt = prompt_of(n_prompt, seed=request_id)
    half = len(prompt) // 2
    return [
        Tokens(request_id, pack_tokens(prompt[:half])),
        Tokens(request_id, pack_tokens(prompt[half:])),
        Submit(request_id, n_prompt, "s", Sampling(temperature=0.0), n_predict=n_predict, **more),
    ]


def ends_of(heard: list[RunnerAnswer]) -> list[End]:
    return [end for message in heard if isinstance(message, Step) for end in message.ends]


def has_end(message: RunnerAnswer) -> bool:
    return isinstance(message, Step) and bool(message.ends)


def test_load_asks_for_memory_first_and_then_answers_requests(tiny: Path) -> None:
    async def talk_to_it() -> None:
        async with runner() as talk:
            await talk.hear(RunnerReady)
            talk.say(load_of(tiny))
            asked = await talk.hear(MemoryAsked)
            assert (asked.purpose, asked.need_bytes) == ("load", {"cpu": 1000 + 4096 * 10 + 5})
            talk.say(MemoryGranted(asked.ask_id))
            loaded = await talk.hear(Loaded)
            assert (loaded.n_ctx, loaded.n_cells, loaded.n_ctx_train) == (2048, 4096, 4096)
            talk.say(*request(1, 300))
            (end,) = ends_of(await talk.hear_until(has_end))
            assert (end.n_prompt, end.n_completion, end.reason) == (300, 8, "length")
            talk.say(AskStats())
            assert (await talk.hear(Stats)).n_prompt_computed == 300

    asyncio.run(talk_to_it())


def test_refused_memory_ends_the_runner_with_the_reason(tiny: Path) -> None:
    async def talk_to_it() -> None:
        async with runner() as talk:
            await talk.hear(RunnerReady)
            talk.say(load_of(tiny))
            asked = await talk.hear(MemoryAsked)
            talk.say(MemoryRefused(asked.ask_id, 4 << 30, 1 << 30, "cpu"))
            refused = await talk.hear(LoadFailed)
            assert refused.code == "out_of_memory"
            await asyncio.wait_for(asyncio.shield(talk.exited), DEADLINE_S)

    asyncio.run(talk_to_it())


def test_damaged_model_is_a_load_failure_with_llama_cpps_reason(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 64)

    async def talk_to_it() -> None:
        async with runner() as talk:
            await talk.hear(RunnerReady)
            talk.say(load_of(bad))
            asked = await talk.hear(MemoryAsked)
            talk.say(MemoryGranted(asked.ask_id))
            failed = await talk.hear(LoadFailed)
            assert failed.code == "bad_model_file"

    asyncio.run(talk_to_it())


def test_request_with_missing_tokens_fails_alone(tiny: Path) -> None:
    async def talk_to_it() -> None:
        async with runner() as talk:
            await talk.load(tiny)
            talk.say(Submit(1, 50, "s", Sampling()), *request(2, 20))
            heard = await talk.hear_until(has_end)
            (failed,) = [message for message in heard if isinstance(message, Failed)]
            assert (failed.request_id, failed.code) == (1, "bad_request")
            assert [end.request_id for end in ends_of(heard)] == [2]

    asyncio.run(talk_to_it())


def test_cancel_reaches_a_running_prefill(tiny: Path) -> None:
    async def talk_to_it() -> None:
        async with runner() as talk:
            await talk.load(tiny)
            talk.say(*request(1, 2000, n_predict=40))
            talk.say(Cancel(1))
            (end,) = ends_of(await talk.hear_until(has_end))
            assert end.reason == "cancelled"

    asyncio.run(talk_to_it())


def test_deterministic_request_asks_for_a_context_of_its_own(tiny: Path) -> None:
    async def talk_to_it() -> None:
        async with runner() as talk:
            await talk.load(tiny)
            talk.say(*request(1, 100, deterministic=True))
            asked = await talk.hear(MemoryAsked)
            assert (asked.purpose, asked.need_bytes) == ("context", {"cpu": 2048 * 10 + 5})
            talk.say(MemoryRefused(asked.ask_id, 9, 1, "cpu"))
            failed = await talk.hear(Failed)
            assert failed.code == "out_of_memory"
            talk.say(*request(2, 100, deterministic=True))
            asked = await talk.hear(MemoryAsked)
            talk.say(MemoryGranted(asked.ask_id))
            (end,) = ends_of(await talk.hear_until(has_end))
            assert end.n_completion == 8

    asyncio.run(talk_to_it())


def test_grammar_is_made_and_held_in_the_child(tiny: Path) -> None:
    async def talk_to_it() -> None:
        async with runner() as talk:
            await talk.load(tiny)
            talk.say(*request(1, 20, grammar='start: "he" ("re" | "on") "!"', n_predict=30))
            heard = await talk.hear_until(has_end)
            text = "".join(d.text for step in heard if isinstance(step, Step) for d in step.deltas)
            assert text in {"here!", "heon!"}
            assert ends_of(heard)[0].reason == "stop"

    asyncio.run(talk_to_it())


def test_reasoning_can_be_ended_from_outside(tiny: Path) -> None:
    async def talk_to_it() -> None:
        async with runner() as talk:
            await talk.load(tiny)
            reasoning = Reasoning(True, "<t>", "</t>", pack_tokens([289, 276, 345, 291]))  # </t>
            talk.say(*request(1, 20, reasoning=reasoning, n_predict=400))
            await talk.hear(Step)
            talk.say(EndReasoning(1))
            heard = await talk.hear_until(has_end)
            assert ends_of(heard)[0].n_reasoning < 400

    asyncio.run(talk_to_it())


def test_generating_model_asks_for_an_embedding_context_when_one_is_wanted(tiny: Path) -> None:
    async def talk_to_it() -> None:
        async with runner() as talk:
            await talk.load(tiny)
            talk.say(Tokens(1, pack_tokens(prompt_of(30))), Embed(1, 30))
            asked = await talk.hear(MemoryAsked)
            assert (asked.purpose, asked.need_bytes) == ("context", {"cpu": 2048 * 10 + 5})
            talk.say(MemoryRefused(asked.ask_id, 9, 1, "cpu"))
            assert (await talk.hear(Failed)).code == "out_of_memory"
            talk.say(Tokens(2, pack_tokens(prompt_of(30))), Embed(2, 30))
            talk.say(MemoryGranted((await talk.hear(MemoryAsked)).ask_id))
            embedded = await talk.hear(Embedded)
            assert (embedded.request_id, len(embedded.vector)) == (2, 4 * 64)
            talk.say(*request(3, 20))
            assert ends_of(await talk.hear_until(has_end))[0].n_completion == 8

    asyncio.run(talk_to_it())


def test_model_that_only_embeds_has_no_pool_and_writes_no_text(tmp_path: Path) -> None:
    path = make_tiny_bert(tmp_path / "bert.gguf", n_ctx=256)

    async def talk_to_it() -> None:
        async with runner() as talk:
            await talk.hear(RunnerReady)
            talk.say(msgspec.structs.replace(load_of(path, 256, 0), embeds=True, n_batch=256))
            talk.say(MemoryGranted((await talk.hear(MemoryAsked)).ask_id))
            loaded = await talk.hear(Loaded)
            assert (loaded.n_ctx, loaded.n_cells, loaded.n_ctx_train) == (256, 0, 256)
            for k in (1, 2):
                talk.say(Tokens(k, pack_tokens([2, 5 + k, 6, 3])), Embed(k, 4))
            for k in (1, 2):
                embedded = await talk.hear(Embedded)
                expected = TinyBert(n_ctx=256).vector([2, 5 + k, 6, 3])
                np.testing.assert_allclose(
                    np.frombuffer(embedded.vector, "<f4"), expected, atol=2e-3
                )
            talk.say(Tokens(3, pack_tokens([2])), Embed(3, 9))
            assert (await talk.hear(Failed)).code == "bad_request"
            talk.say(AskStats())
            assert (await talk.hear(Stats)).n_prompt_tokens == 8
            talk.say(Tokens(4, pack_tokens([2, 5])), Submit(4, 2, "s", Sampling()))
            failed = await talk.hear(Failed)
            assert (failed.request_id, failed.code) == (4, "unsupported")

    asyncio.run(talk_to_it())


def test_runner_leaves_when_the_server_closes_its_end(tiny: Path) -> None:
    async def talk_to_it() -> None:
        async with runner() as talk:
            await talk.load(tiny)
            talk.say(*request(1, 500, n_predict=1500))
            await talk.hear(Step)
            assert talk.child is not None
            talk.child.close_input()
            status, _ = await asyncio.wait_for(asyncio.shield(talk.exited), DEADLINE_S)
            assert status == 0

    asyncio.run(talk_to_it())
