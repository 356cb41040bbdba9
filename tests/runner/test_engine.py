"""Engine: batching, sharing, pausing and ending, on a tiny model with real llama.cpp."""

from collections.abc import Callable
from pathlib import Path

import pytest

from localrun.errors import OutOfMemory
from localrun.messages import End, Failed, Sampling
from localrun.runner.sequence import CREDIT_WINDOW_BYTES
from tests.runner.conftest import LOGIT_TOLERANCE, Answer, Bench, prompt_of, worst_gap

Make = Callable[..., Bench]


def test_one_request_streams_and_ends_at_its_length(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    answer = bench.submit(1, prompt_of(16), n_predict=5)
    bench.run()
    assert (answer.done.reason, answer.done.n_completion, answer.done.n_prompt) == ("length", 5, 16)
    assert len(answer.tokens) == 5
    assert answer.text


@pytest.mark.parametrize(
    ("n_requests", "n_prompt"), [(1, 16), (8, 16), (1, 600), (4, 600), (8, 600), (4, 1500)]
)
def test_greedy_tokens_of_a_batch_are_those_of_a_solo_run(
    tiny: Path, make_bench: Make, n_prompt: int, n_requests: int
) -> None:
    bench = make_bench(tiny, n_cells=16384)
    prompts = {k: prompt_of(n_prompt, seed=k) for k in range(n_requests)}
    for k, prompt in prompts.items():
        bench.submit(k, prompt, n_predict=6)
    bench.run()
    for k in (0, n_requests - 1):
        assert worst_gap(bench, prompts[k], bench.answers[k].tokens) < LOGIT_TOLERANCE


def test_kept_prefix_is_reused_and_changes_no_token(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    first = bench.submit(1, prompt_of(600), n_predict=4)
    bench.run()
    prompt = prompt_of(600) + first.tokens[:2] + prompt_of(20, seed=5)[1:]
    second = bench.submit(2, prompt, n_predict=8)
    bench.run()
    assert second.done.n_cached == 602
    assert worst_gap(bench, prompt, second.tokens) < LOGIT_TOLERANCE


def test_kept_sequence_leaves_the_pool_and_comes_back(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    first = bench.submit(1, prompt_of(300), n_predict=4)
    bench.run()
    lane = bench.engine.lane
    assert (lane.ledger.n_used, len(lane.spilled), bench.engine.stats().n_kept) == (0, 1, 1)
    bench.submit(2, prompt_of(300) + first.tokens[:1] + [290, 291], n_predict=400)
    bench.until(lambda: len(bench.answers[2].tokens) > 3)
    third = bench.submit(3, [*prompt_of(300), 300, 301], n_predict=4)
    bench.until(lambda: third.end is not None)
    assert third.done.n_cached == 300
    assert lane.ledger.n_used < 300 + 4 + 400, "the prefix of a running sequence was not shared"


def test_host_memory_of_kept_sequences_is_bounded(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    lane = bench.engine.lane
    bench.submit(0, prompt_of(200), n_predict=1)
    bench.run()
    (one,) = (len(spilled.cells) for spilled in lane.spilled.values())
    lane.spill_bytes = 3 * one + one // 2
    for k in range(1, 8):
        bench.submit(k, prompt_of(200, seed=k), n_predict=1)
        bench.run()
    assert len(lane.spilled) == 3
    newest = bench.submit(20, [*prompt_of(200, seed=7), 280], n_predict=1)
    oldest = bench.submit(21, [*prompt_of(200, seed=0), 280], n_predict=1)
    bench.run()
    assert newest.done.n_cached == 200
    assert oldest.done.n_cached <= 1, "only BOS is common with what is still there"


def test_sequence_too_large_to_copy_is_kept_in_the_pool(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    lane = bench.engine.lane
    lane.largest_spill_bytes = 1000
    first = bench.submit(1, prompt_of(300), n_predict=4)
    bench.run()
    assert (len(lane.kept), len(lane.spilled)) == (1, 0)
    second = bench.submit(2, prompt_of(300) + first.tokens[:2] + [290], n_predict=4)
    bench.run()
    assert second.done.n_cached == 302


def test_running_sequence_lends_its_prefix(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    bench.submit(1, prompt_of(300), n_predict=200)
    bench.until(lambda: len(bench.answers[1].tokens) > 5)
    prompt = prompt_of(300) + prompt_of(10, seed=3)[1:]
    second = bench.submit(2, prompt, n_predict=8)
    bench.run()
    assert second.done.n_cached == 300
    assert worst_gap(bench, prompt, second.tokens) < LOGIT_TOLERANCE


def test_same_new_prefix_is_computed_once(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    for k in range(8):
        bench.submit(k, prompt_of(400) + prompt_of(13, seed=k + 1)[1:], n_predict=4)
    bench.run()
    stats = bench.engine.stats()
    assert stats.n_prompt_tokens == 8 * 412
    assert stats.n_prompt_computed <= 400 + 8 * 12


def test_whole_prompt_in_the_cache_computes_one_token(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    first = bench.submit(1, prompt_of(100), n_predict=3)
    bench.run()
    second = bench.submit(2, prompt_of(100), n_predict=3)
    bench.run()
    assert second.done.n_cached == 99
    assert second.tokens == first.tokens


def test_scopes_share_nothing(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    bench.submit(1, prompt_of(200), scope="alice")
    bench.run()
    other = bench.submit(2, prompt_of(200), scope="bob")
    bench.run()
    assert other.done.n_cached == 0


def test_followers_go_on_when_their_leader_is_cancelled(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    leader = bench.submit(1, prompt_of(1500))
    follower = bench.submit(2, prompt_of(1500) + prompt_of(9, seed=2)[1:])
    bench.until(lambda: bench.engine.stats().n_prompt_computed >= 64)
    bench.engine.cancel(1)
    bench.run()
    assert leader.done.reason == "cancelled"
    assert follower.done.n_cached >= 64
    assert follower.done.n_completion == 8


def test_full_pool_preempts_the_youngest_and_fails_no_one(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny, n_ctx=512, n_cells=1024, n_slots=4)
    prompts = {k: prompt_of(200, seed=k) for k in range(4)}
    for k, prompt in prompts.items():
        bench.submit(k, prompt, n_predict=250)
    bench.run()
    for k, prompt in prompts.items():
        assert bench.answers[k].done.n_completion == 250
        assert worst_gap(bench, prompt, bench.answers[k].tokens) < LOGIT_TOLERANCE
    assert bench.engine.stats().n_prompt_computed > 4 * 200, "nothing was preempted"


def test_more_requests_than_slots_wait_their_turn(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny, n_slots=2)
    for k in range(7):
        bench.submit(k, prompt_of(30, seed=k), n_predict=5)
    bench.run()
    assert all(answer.done.n_completion == 5 for answer in bench.answers.values())
    assert bench.engine.stats().n_running == 0


def test_every_cell_comes_back(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny, n_kept=4)
    for k in range(40):
        bench.submit(k, prompt_of(40 + k % 5, seed=k % 7), n_predict=3, scope=str(k % 3))
        if k % 4 == 3:
            bench.engine.cancel(k - 1)
    bench.run()
    lane = bench.engine.lane
    assert len(lane.kept) <= 12
    assert lane.ledger.n_used == sum(lane.ledger.n_own(s) for s in lane.kept) or lane.kept
    lane.make_room(lane.ledger.n_cells)
    assert (lane.ledger.n_used, len(lane.kept)) == (0, 0)


def test_paused_client_stops_its_own_sequence_only(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny, n_ctx=2048)
    slow = bench.submit(1, prompt_of(10), n_predict=1500)
    bench.until(lambda: len(slow.tokens) > 3)
    bench.engine.credit(1, -5)
    sequence = bench.engine.lane.running[0]
    sequence.n_uncredited = CREDIT_WINDOW_BYTES + 1
    n_before = len(slow.tokens)
    quick = bench.submit(2, prompt_of(10, seed=1), n_predict=20)
    bench.until(lambda: quick.end is not None)
    assert len(slow.tokens) == n_before
    assert not bench.turn(), "a paused sequence must not spin the engine"
    bench.engine.credit(1, CREDIT_WINDOW_BYTES)
    bench.until(lambda: len(slow.tokens) > n_before + 5)


def test_stop_string_ends_the_text_before_it(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    whole = bench.submit(1, prompt_of(30), n_predict=40)
    bench.run()
    stop = whole.text[10:13]
    cut = bench.submit(2, prompt_of(30), n_predict=40, stop=(stop,))
    bench.run()
    assert cut.done.reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    # What `context` is made of ends with the text, but for a token that holds parts of both.
    assert cut.done.n_completion - len(cut.tokens) in range(1, len(stop) + 1)


def test_end_token_ends_the_completion(byte_speaker: Path, make_bench: Make) -> None:
    bench = make_bench(byte_speaker)
    for k in range(6):
        wild = Sampling(seed=k, temperature=3.0, top_k=0, top_p=1.0)
        bench.submit(k, prompt_of(12, seed=k), n_predict=500, sampling=wild)
    bench.run()
    stopped = [a for a in bench.answers.values() if a.done.reason == "stop"]
    assert stopped
    for answer in stopped:
        assert answer.done.n_completion == len(answer.tokens) + 1
        assert answer.text.encode().decode() == answer.text


def test_full_window_ends_with_length(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny, n_ctx=64, n_cells=256)
    whole = bench.submit(1, prompt_of(50), n_predict=-1)
    small = bench.submit(2, prompt_of(10), n_predict=-1, n_ctx=32)
    bench.run()
    assert (whole.done.reason, whole.done.n_completion) == ("length", 14)
    assert (small.done.reason, small.done.n_completion) == ("length", 22)


def test_nothing_to_predict_ends_after_the_prompt(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    answer = bench.submit(1, prompt_of(40), n_predict=0)
    bench.run()
    assert (answer.done.reason, answer.done.n_completion, answer.text) == ("length", 0, "")


def test_same_seed_draws_the_same_text(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    texts = []
    for k, seed in enumerate((7, 7, 8)):
        sampling = Sampling(seed=seed, temperature=1.5, top_k=0, top_p=1.0)
        answer = bench.submit(k, prompt_of(20), n_predict=20, sampling=sampling, scope=str(k))
        bench.run()
        texts.append(answer.text)
    assert texts[0] == texts[1] != texts[2]


def test_penalty_changes_what_is_drawn(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    plain = bench.submit(1, prompt_of(20), n_predict=60)
    held = bench.submit(
        2,
        prompt_of(20),
        n_predict=60,
        sampling=Sampling(temperature=0.0, repeat_penalty=1.8, repeat_last_n=-1),
    )
    bench.run()
    assert len(set(held.tokens)) > len(set(plain.tokens))


@pytest.mark.parametrize(
    ("prompt", "n_ctx", "code"),
    [
        ([], 0, "bad_request"),
        ([1, 366], 0, "bad_request"),
        ([1, -1], 0, "bad_request"),
        (prompt_of(2048), 0, "prompt_too_long"),
        (prompt_of(33), 33, "prompt_too_long"),
        (prompt_of(5), 4096, "invalid_option"),
        (prompt_of(5), -1, "invalid_option"),
    ],
)
def test_bad_request_fails_alone(
    tiny: Path, make_bench: Make, prompt: list[int], n_ctx: int, code: str
) -> None:
    bench = make_bench(tiny)
    good = bench.submit(1, prompt_of(10))
    bad = bench.submit(2, prompt, n_ctx=n_ctx)
    bench.run()
    assert isinstance(bad.end, Failed)
    assert bad.end.code == code
    assert good.done.n_completion == 8


def test_cancel_ends_a_waiting_and_a_running_request(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny, n_slots=1)
    running = bench.submit(1, prompt_of(10), n_predict=500)
    waiting = bench.submit(2, prompt_of(10, seed=1), n_predict=500)
    bench.until(lambda: len(running.tokens) > 3)
    bench.engine.cancel(1)
    bench.engine.cancel(2)
    bench.engine.cancel(77)
    bench.run(5)
    assert [running.done.reason, waiting.done.reason] == ["cancelled", "cancelled"]
    assert waiting.done.n_completion == 0


def ask_deterministically(bench: Bench, request_id: int) -> Answer:
    sampling = Sampling(seed=3, temperature=1.0)
    return bench.submit(
        request_id, prompt_of(700), n_predict=30, deterministic=True, sampling=sampling
    )


def test_deterministic_text_is_the_same_cold_warm_and_beside_others(
    tiny: Path, make_bench: Make
) -> None:
    bench = make_bench(tiny)
    texts = set()
    for k in range(8):
        if k > 3:
            bench.submit(100 + k, prompt_of(300, seed=k), n_predict=20)
        answer = ask_deterministically(bench, k)
        bench.turn()
        if bench.n_asked == 1 and not bench.engine.solo.lanes():
            bench.engine.solo.answered(granted=True)
        bench.run()
        texts.add(answer.text)
    assert len(texts) == 1
    assert bench.n_asked == 1


def test_deterministic_request_fails_when_memory_is_refused(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    answer = ask_deterministically(bench, 1)
    other = bench.submit(2, prompt_of(10))
    bench.turn()
    bench.engine.solo.answered(granted=False)
    bench.engine.fail_deterministic(OutOfMemory(2, 1, "cpu"))
    bench.run()
    assert isinstance(answer.end, Failed)
    assert answer.end.code == "out_of_memory"
    assert isinstance(other.end, End)
