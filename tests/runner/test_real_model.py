"""The engine on a real small model, at lengths where batching and reuse could go wrong."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from localrun.messages import (
    Cancel,
    Sampling,
    Step,
    Submit,
    Tokens,
    pack_tokens,
)
from tests.runner.conftest import LOGIT_TOLERANCE, Answer, Bench, worst_gap
from tests.runner.test_process import ends_of, has_end, runner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Make = Callable[..., Bench]
TEXT = (
    "The lighthouse keeper wrote in his log every evening: wind, waves, ships and weather. "
    "On the {}th day of the {}th month the fog came in from the north and did not lift. "
)
N_TOKENS = 24


def prompt_of(bench: Bench, n_tokens: int, seed: int) -> list[int]:
    text = "".join(TEXT.format(seed + i, seed * i % 12) for i in range(n_tokens // 20))
    tokens = bench.model.vocabulary.tokenize(text, add_special=True, parse_special=True)
    tail = bench.model.vocabulary.tokenize(
        f"<|im_end|>\n<|im_start|>user\nSum up day {seed}.<|im_end|>\n<|im_start|>assistant\n",
        add_special=False,
        parse_special=True,
    )
    return [*tokens[: max(2, n_tokens - len(tail))], *tail]


@pytest.mark.parametrize("n_prompt", [16, 600, 1500])
@pytest.mark.parametrize("n_requests", [1, 4, 8])
def test_greedy_tokens_of_a_batch_lie_within_a_logit_of_a_solo_run(
    smollm2: Path, make_bench: Make, n_prompt: int, n_requests: int
) -> None:
    bench = make_bench(smollm2, n_cells=16384, n_threads=2)
    prompts = {k: prompt_of(bench, n_prompt, seed=k + 1) for k in range(n_requests)}
    for k, prompt in prompts.items():
        bench.submit(k, prompt, n_predict=N_TOKENS)
    bench.run()
    for k in sorted({0, n_requests - 1}):
        assert bench.answers[k].tokens
        assert worst_gap(bench, prompts[k], bench.answers[k].tokens) < LOGIT_TOLERANCE


@pytest.mark.parametrize("n_prompt", [600, 1500])
@pytest.mark.parametrize("source", ["kept", "live"])
def test_reused_prefix_changes_no_token_beyond_a_logit(
    smollm2: Path, make_bench: Make, n_prompt: int, source: str
) -> None:
    bench = make_bench(smollm2, n_cells=8192, n_threads=2)
    first = prompt_of(bench, n_prompt, seed=1)
    leader = bench.submit(1, first, n_predict=N_TOKENS if source == "kept" else 400)
    if source == "kept":
        bench.run()
    else:
        bench.until(lambda: len(leader.tokens) >= N_TOKENS)
    second = [*first, *leader.tokens[:10], *prompt_of(bench, 40, seed=9)]
    answer = bench.submit(2, second, n_predict=N_TOKENS)
    bench.until(lambda: answer.end is not None)
    assert answer.done.n_cached >= len(first) + 10
    assert worst_gap(bench, second, answer.tokens) < LOGIT_TOLERANCE


def test_deterministic_text_has_one_hash_cold_and_warm(smollm2: Path, make_bench: Make) -> None:
    bench = make_bench(smollm2, n_cells=8192, n_threads=2)
    prompt = prompt_of(bench, 600, seed=3)
    texts: list[str] = []
    for k in range(20):
        if k >= 10:
            bench.submit(100 + k, prompt_of(bench, 200, seed=k), n_predict=30)
        answer: Answer = bench.submit(
            k,
            prompt,
            n_predict=N_TOKENS,
            deterministic=True,
            sampling=Sampling(seed=5, temperature=0.8),
        )
        bench.turn()
        if not bench.engine.solo.lanes():
            bench.engine.solo.answered(granted=True)
        bench.run()
        texts.append(answer.text)
    assert len(set(texts)) == 1
    assert texts[0]


def test_cancel_inside_a_long_prefill_takes_at_most_50_ms(smollm2: Path, make_bench: Make) -> None:
    bench = make_bench(smollm2)
    prompt = prompt_of(bench, 1900, seed=2)

    async def cancel_some() -> list[float]:
        took: list[float] = []
        async with runner() as talk:
            await talk.load(smollm2)
            for k in range(8):
                talk.say(Tokens(k, pack_tokens(prompt)))
                talk.say(Submit(k, len(prompt), str(k), Sampling(), (), 4))
                await asyncio.sleep(0.25 + 0.11 * k)
                begun = time.monotonic()
                talk.say(Cancel(k))
                heard = await talk.hear_until(has_end)
                took.append(time.monotonic() - begun)
                (end,) = ends_of(heard)
                assert (end.reason, end.n_completion) == ("cancelled", 0)
        return took

    took = sorted(asyncio.run(cancel_some()))
    assert took[len(took) // 2] <= 0.050, took


def test_step_frames_hold_all_running_requests(smollm2: Path) -> None:
    async def talk_to_it() -> int:
        async with runner() as talk:
            await talk.load(smollm2)
            for k in range(4):
                prompt = [1, 2, 3 + k, 40 + k]
                talk.say(Tokens(k, pack_tokens(prompt)))
                talk.say(Submit(k, len(prompt), "s", Sampling(seed=k), (), 20))
            widest, n_ended = 0, 0
            while n_ended < 4:
                step = await talk.hear(Step)
                widest = max(widest, len(step.deltas))
                n_ended += len(step.ends)
            return widest

    assert asyncio.run(talk_to_it()) == 4
