"""Drawing: grammars, log-probabilities, bias, special tokens in the text, limited reasoning."""

import json
import math
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localrun.llama import Batch
from localrun.messages import Failed, Reasoning, Sampling, pack_tokens
from tests.fakes.tinygguf import N_VOCAB
from tests.runner.conftest import Bench, prompt_of

Make = Callable[..., Bench]

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["cat", "dog"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}
JSON = "start: %json " + json.dumps(SCHEMA | {"x-guidance": {"whitespace_flexible": False}})
WARM = Sampling(seed=1, temperature=1.0)
END, IM_START = 2, 3


def distribution(bench: Bench, tokens: list[int]) -> list[float]:
    """The logits after these tokens, from a context of their own."""
    context = bench.context(1024)
    batch = Batch(n_batch=512, n_outputs_max=1, n_seq_max=1, n_vocab=N_VOCAB, n_ctx=1024)
    row = batch.add(0, 0, array("i", tokens), wants_logits=True)
    context.decode(batch)
    logits = list(context.logits(row or 0))
    context.close()
    return logits


def logprobs(logits: list[float]) -> list[float]:
    highest = max(logits)
    total = highest + math.log(math.fsum(math.exp(x - highest) for x in logits))
    return [x - total for x in logits]


# ── grammars ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(5))
def test_completion_matches_its_schema_and_ends_with_it(
    tiny: Path, make_bench: Make, seed: int
) -> None:
    bench = make_bench(tiny)
    sampling = Sampling(seed=seed, temperature=1.5, top_k=0, top_p=1.0)
    answer = bench.submit(1, prompt_of(12), n_predict=200, sampling=sampling, grammar=JSON)
    bench.run()
    found = json.loads(answer.text)
    assert set(found) == {"name", "age", "kind"}
    assert (0 <= found["age"] <= 150, found["kind"] in {"cat", "dog"}) == (True, True)
    assert answer.done.reason == "stop"


def test_constrained_stream_changes_no_token_of_its_neighbours(
    tiny: Path, make_bench: Make
) -> None:
    bench = make_bench(tiny)
    alone = bench.submit(0, prompt_of(12), n_predict=40)
    bench.run()
    plain = bench.submit(1, prompt_of(12), n_predict=40)
    held = bench.submit(2, prompt_of(12), n_predict=300, grammar=JSON)
    told = bench.submit(3, prompt_of(12), n_predict=40, n_logprobs=3)
    bench.run()
    assert plain.tokens == told.tokens == alone.tokens
    json.loads(held.text)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=3, temperature=0.9, typical_p=0.5),
        Sampling(seed=3, temperature=0.9, min_p=0.2, top_k=0),
        Sampling(seed=3, temperature=1.2, repeat_penalty=1.5, presence_penalty=0.5),
        Sampling(temperature=0.0, repeat_penalty=1.3),
    ],
)
def test_every_sampler_lives_with_forbidden_tokens(
    tiny: Path, make_bench: Make, sampling: Sampling
) -> None:
    bench = make_bench(tiny)
    grammar = 'start: "ab" ("x" | "y") "z"'
    answer = bench.submit(1, prompt_of(5), n_predict=20, sampling=sampling, grammar=grammar)
    bench.run()
    assert answer.text in {"abxz", "abyz"}


def test_end_is_drawn_only_where_the_grammar_may_end(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    answer = bench.submit(
        1, prompt_of(5), n_predict=50, grammar="start: /[a-z]{3,}/", logit_bias={END: 100.0}
    )
    bench.run()
    assert answer.done.reason == "stop"
    assert 3 <= len(answer.text) <= 4, "an end was preferred at every token"


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        ('start: "a', "lexer error"),
        ("start: <no_such_token>", "unknown special token"),
        ('start: %json {"type": "object", "properties": {"a": false}, "required": ["a"]}', "Unsat"),
        ('start: "\0"', "NUL"),
    ],
)
def test_grammar_that_cannot_be_held_fails_its_request_alone(
    tiny: Path, make_bench: Make, grammar: str, words: str
) -> None:
    bench = make_bench(tiny)
    beside = bench.submit(1, prompt_of(12), n_predict=30)
    answer = bench.submit(2, prompt_of(12), grammar=grammar)
    bench.run()
    assert isinstance(answer.end, Failed)
    assert (answer.end.code, words in answer.end.message) == ("unsupported", True), answer.end
    assert beside.done.n_completion == 30


def test_answer_that_cannot_go_on_in_its_grammar_ends_alone(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    beside = bench.submit(1, prompt_of(12), n_predict=30)
    closing = pack_tokens([IM_START])  # nothing that the grammar knows
    reasoning = Reasoning(is_open=True, start="", end="</t>", closing=closing, budget=3)
    answer = bench.submit(
        2, prompt_of(12), n_predict=30, grammar="start: /[a-z]+/", reasoning=reasoning
    )
    bench.run()
    assert isinstance(answer.end, Failed)
    assert answer.end.code == "grammar_failed"
    assert (len(answer.tokens), beside.done.n_completion) == (3, 30)


def test_literal_is_a_preserved_token_or_its_letters(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    grammar = 'start: "<|im_start|>" "ok"'
    spelled = bench.submit(1, prompt_of(5), n_predict=30, grammar=grammar)
    favoured = {IM_START: 100.0}
    as_token = bench.submit(
        2, prompt_of(5), grammar=grammar, preserved=(IM_START,), logit_bias=favoured, n_predict=30
    )
    without_text = bench.submit(3, prompt_of(5), grammar=grammar, logit_bias=favoured, n_predict=30)
    bench.run()
    for answer in (spelled, as_token, without_text):
        assert (answer.text, answer.done.reason) == ("<|im_start|>ok", "stop")
    assert as_token.tokens[0] == IM_START
    assert IM_START not in (*spelled.tokens, *without_text.tokens)


def test_named_token_has_no_text(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    answer = bench.submit(1, prompt_of(5), n_predict=30, grammar='start: <|im_start|> "ok"')
    bench.run()
    assert (answer.text, answer.tokens[0]) == ("ok", IM_START)


def test_cancel_while_the_grammar_is_made(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    answer = bench.submit(1, prompt_of(5), grammar=JSON)
    bench.engine.cancel(1)
    made = bench.made.get(timeout=10)
    bench.engine.constrain(made.request_id, made.made)
    bench.run()
    assert answer.done.reason == "cancelled"


def test_preemption_keeps_grammar_reasoning_and_log_probabilities(
    tiny: Path, make_bench: Make
) -> None:
    more: dict[str, Any] = {"grammar": JSON, "n_logprobs": 1, "n_predict": 120}
    roomy = make_bench(tiny)
    expected = roomy.submit(1, prompt_of(100), **more)
    roomy.run()
    bench = make_bench(tiny, n_ctx=256, n_cells=256, n_kept=0)
    bench.submit(0, prompt_of(100, seed=5), n_predict=150)
    answer = bench.submit(1, prompt_of(100), **more)
    bench.until(lambda: answer.end is not None)
    assert bench.engine.stats().n_prompt_computed > 200, "nothing was preempted"
    assert answer.text == expected.text
    assert len(answer.logprobs) == len(answer.tokens)


def test_deterministic_request_may_have_it_all(tiny: Path, make_bench: Make) -> None:
    texts: list[tuple[str, list[int]]] = []
    for n_beside in (0, 3):
        bench = make_bench(tiny)
        for k in range(n_beside):
            bench.submit(k, prompt_of(20, seed=k), n_predict=40)
        answer = bench.submit(
            9, prompt_of(30), deterministic=True, grammar=JSON, n_logprobs=2, sampling=WARM,
            logit_bias={300: 1.0}, n_predict=100,
        )  # fmt: skip
        while not bench.n_asked:
            bench.turn()
        bench.engine.solo.answered(granted=True)
        bench.run()
        texts.append((answer.text, answer.tokens))
        assert len(answer.logprobs) == len(answer.tokens)
    assert texts[0] == texts[1]
    json.loads(texts[0][0])


# ── log-probabilities ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"sampling": Sampling(seed=4, temperature=1.4, top_k=5)},
        {"logit_bias": {280: 50.0}},
        {"grammar": 'start: "he" /[a-z]{6}/'},
    ],
)
def test_log_probabilities_are_the_models_own(
    tiny: Path, make_bench: Make, more: dict[str, Any]
) -> None:
    bench = make_bench(tiny)
    prompt = prompt_of(12)
    answer = bench.submit(1, prompt, n_predict=6, n_logprobs=5, **more)
    bench.run()
    vocabulary = bench.model.vocabulary
    assert len(answer.logprobs) == len(answer.tokens) > 3
    for i, told in enumerate(answer.logprobs):
        expected = logprobs(distribution(bench, prompt + answer.tokens[:i]))
        token = answer.tokens[i]
        assert told.piece == vocabulary.piece(token, render_special=True)
        assert math.isclose(told.logprob, expected[token], abs_tol=0.02)
        best = sorted(range(N_VOCAB), key=lambda t: -expected[t])[:5]
        assert [logprob for _, logprob in told.top] == sorted(
            (logprob for _, logprob in told.top), reverse=True
        )
        for (_, logprob), other in zip(told.top, best, strict=True):
            assert math.isclose(logprob, expected[other], abs_tol=0.02)


@pytest.mark.parametrize(("n_logprobs", "n_told", "n_top"), [(-1, 0, 0), (0, 8, 0), (20, 8, 20)])
def test_as_many_log_probabilities_as_asked(
    tiny: Path, make_bench: Make, n_logprobs: int, n_told: int, n_top: int
) -> None:
    bench = make_bench(tiny)
    answer = bench.submit(1, prompt_of(12), n_logprobs=n_logprobs)
    bench.run()
    assert len(answer.logprobs) == n_told
    assert all(len(told.top) == n_top for told in answer.logprobs)


def test_log_probabilities_keep_to_their_tokens_while_text_is_held_back(
    byte_speaker: Path, make_bench: Make
) -> None:
    bench = make_bench(byte_speaker)
    told = bench.submit(1, prompt_of(9), n_predict=300, sampling=WARM, n_logprobs=0, stop=("zz9",))
    bench.run()
    pieces = b"".join(told.piece for told in told.logprobs)
    assert len(told.logprobs) == len(told.tokens)
    assert pieces.decode("utf-8", "replace").startswith(told.text.rstrip("�"))


# ── bias, special tokens, stop ────────────────────────────────────────────────────────────────


def test_bias_makes_and_forbids_tokens(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    plain = bench.submit(1, prompt_of(12), n_predict=4)
    bench.run()
    made = bench.submit(2, prompt_of(12), n_predict=4, logit_bias={300: 100.0})
    forbidden = bench.submit(3, prompt_of(12), n_predict=4, logit_bias={plain.tokens[0]: -100.0})
    bench.run()
    assert made.tokens == [300] * 4
    assert forbidden.tokens[0] != plain.tokens[0]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"logit_bias": {N_VOCAB: 1.0}}, "invalid_option"),
        ({"logit_bias": {-1: 1.0}}, "invalid_option"),
        ({"logit_bias": {5: math.nan}}, "invalid_option"),
        ({"logit_bias": {5: math.inf}}, "invalid_option"),
        ({"n_logprobs": 100_000}, "invalid_option"),
        ({"preserved": (N_VOCAB,)}, "bad_request"),
        ({"reasoning": Reasoning(True, "", "x", b"\0\0\0", 1)}, "bad_request"),
        ({"reasoning": Reasoning(True, "", "x", pack_tokens([N_VOCAB]), 1)}, "bad_request"),
    ],
)
def test_numbers_that_would_end_the_process_are_refused(
    tiny: Path, make_bench: Make, more: dict[str, Any], code: str
) -> None:
    bench = make_bench(tiny)
    answer = bench.submit(1, prompt_of(12), **more)
    bench.run()
    assert isinstance(answer.end, Failed)
    assert answer.end.code == code


def test_special_token_is_text_where_it_is_preserved(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    silent = bench.submit(1, prompt_of(12), n_predict=2, logit_bias={IM_START: 100.0})
    spoken = bench.submit(
        2, prompt_of(12), n_predict=2, logit_bias={IM_START: 100.0}, preserved=(IM_START,)
    )
    bench.run()
    assert (silent.text, spoken.text) == ("", "<|im_start|>" * 2)
    assert silent.tokens == spoken.tokens == [IM_START] * 2


def test_end_names_the_stop_string_that_matched(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    free = bench.submit(1, prompt_of(12), n_predict=12)
    bench.run()
    stop = free.text[4:7]
    answer = bench.submit(2, prompt_of(12), n_predict=12, stop=("never", stop))
    bench.run()
    assert (answer.done.reason, answer.done.stop, free.done.stop) == ("stop", stop, "")


# ── reasoning ─────────────────────────────────────────────────────────────────────────────────


def closing_of(bench: Bench, text: str) -> bytes:
    """Its tokens, without the space that this vocabulary puts before a text."""
    found = bench.model.vocabulary.tokenize(text, add_special=False, parse_special=True)
    return pack_tokens(found[1:])


@pytest.mark.parametrize("budget", [0, 1, 5])
def test_reasoning_ends_when_its_budget_is_used(tiny: Path, make_bench: Make, budget: int) -> None:
    bench = make_bench(tiny)
    closing = closing_of(bench, "</think>")
    reasoning = Reasoning(True, "<think>", "</think>", closing, budget)
    free = bench.submit(1, prompt_of(12), n_predict=40)
    answer = bench.submit(2, prompt_of(12), n_predict=40, reasoning=reasoning, n_logprobs=1)
    bench.run()
    before, _, after = answer.text.partition("</think>")
    assert free.text.startswith(before)
    assert answer.tokens[:budget] == free.tokens[:budget]
    assert answer.tokens[budget : budget + len(closing) // 4] == list(array("i", closing))
    assert len(after) > 5
    assert (answer.done.n_completion, len(answer.logprobs)) == (40, 40)
    assert answer.done.n_reasoning == budget + len(closing) // 4
    rest = distribution(bench, prompt_of(12) + answer.tokens[: budget + len(closing) // 4])
    assert rest[answer.tokens[budget + len(closing) // 4]] > max(rest) - 1.0


def test_reasoning_ends_when_asked_and_only_then(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    closing = closing_of(bench, "</think>")
    reasoning = Reasoning(True, "<think>", "</think>", closing)
    answer = bench.submit(1, prompt_of(12), n_predict=60, reasoning=reasoning)
    early = bench.submit(2, prompt_of(12), n_predict=20, reasoning=reasoning)
    idle = bench.submit(3, prompt_of(12), n_predict=20)
    shut = Reasoning(False, "<think>", "</think>", closing)
    closed = bench.submit(4, prompt_of(12), n_predict=20, reasoning=shut)
    for request_id in (2, 3, 4, 99):
        bench.engine.end_reasoning(request_id)
    bench.until(lambda: len(answer.tokens) > 10)
    bench.engine.end_reasoning(1)
    bench.run()
    assert answer.text.count("</think>") == 1
    assert answer.done.n_reasoning >= 10
    assert early.text.startswith("</think>")
    for other in (idle, closed):
        assert ("</think>" in other.text, other.done.n_reasoning) == (False, 0)


def test_reasoning_that_opens_in_the_text_is_found_and_limited(
    tiny: Path, make_bench: Make
) -> None:
    bench = make_bench(tiny)
    closing = closing_of(bench, "</t>")
    reasoning = Reasoning(False, "<t>", "</t>", closing, 4)
    grammar = 'start: "ab<t>" /[a-z]+/ "</t>" "done"'
    answer = bench.submit(
        1, prompt_of(12), n_predict=40, reasoning=reasoning, grammar=grammar, sampling=WARM
    )
    bench.run()
    inside = answer.text.removeprefix("ab<t>").removesuffix("</t>done")
    assert inside.isalpha()
    assert answer.done.n_reasoning <= 4 + len(closing) // 4


def test_closing_tokens_stop_at_the_length_of_the_completion(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    reasoning = Reasoning(True, "", "</think>", closing_of(bench, "</think>"), 3)
    answer = bench.submit(1, prompt_of(12), n_predict=5, reasoning=reasoning)
    bench.run()
    assert (answer.done.reason, answer.done.n_completion, len(answer.tokens)) == ("length", 5, 5)


def test_put_tokens_are_seen_by_the_penalties(tiny: Path, make_bench: Make) -> None:
    bench = make_bench(tiny)
    closing = pack_tokens([300])
    reasoning = Reasoning(True, "", "no such", closing, 0)
    sampling = Sampling(temperature=0.0, presence_penalty=100.0)
    answer = bench.submit(1, prompt_of(12), sampling=sampling, reasoning=reasoning, n_predict=30)
    bench.run()
    assert answer.tokens[0] == 300
    assert 300 not in answer.tokens[1:]
