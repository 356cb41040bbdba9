"""The text worker through the server's handle: real children, tiny models, and a rude fake."""

import asyncio
import contextlib
import os
import signal
import time
from array import array
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from localrun.backends.text import TextLimits, TextWorker
from localrun.config import child_environment
from localrun.errors import (
    BadModelFile,
    BadRequest,
    Busy,
    PromptTooLong,
    RunnerFailed,
    TemplateFailed,
    Unsupported,
)
from localrun.messages import Prepare, Turn, Vocab, pack_tokens, unpack_tokens
from tests.fakes.tinygguf import make_tiny

ROOT = Path(__file__).parents[2]
ENV = child_environment(PYTHONPATH=str(ROOT))
DEADLINE_S = 30.0
NO_VOCAB = Vocab("none", ())
HELLO = (Turn("user", "hello"),)
BOMB = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Vocab:
    path = make_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
    return Vocab("tiny", (str(path),))


def worker(*, fake: bool = False, **limits: float) -> TextWorker:
    module = "tests.fakes.textworker" if fake else "localrun.text"
    return TextWorker(ENV, module=module, limits=TextLimits(**limits))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def running(handle: TextWorker) -> AsyncIterator[TextWorker]:
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield handle
    finally:
        await handle.close()


def said(prompt: str) -> Prepare:
    """A request to the fake, whose prompt is an order."""
    return Prepare(0, NO_VOCAB, "raw", prompt=prompt)


def test_a_conversation_becomes_the_text_and_tokens_of_a_prompt(tiny: Vocab) -> None:
    async def scene() -> None:
        async with running(worker()) as handle:
            await handle.start()
            done = await handle.prepare(Prepare(0, tiny, "chat", turns=HELLO, n_ctx=512))
            assert done.text == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
            tokens = unpack_tokens(done.tokens)
            start = (await handle.tokenize(tiny, "<|im_start|>", add_special=False))[0]
            end = (await handle.tokenize(tiny, "<|im_end|>", add_special=False))[0]
            assert [token for token in tokens if token in (start, end)] == [start, end, start]
            assert "hello" in await handle.detokenize(tiny, tokens)

    asyncio.run(scene())


def test_a_grammar_is_held_against_the_vocabulary_without_a_load(tiny: Vocab) -> None:
    async def scene() -> None:
        async with running(worker()) as handle:
            await handle.check_grammar(tiny, 'start: "a" /[0-9]+/')
            for broken in ('start: "a" nothing', "start: /(/", "what is this"):
                with pytest.raises(Unsupported):
                    await handle.check_grammar(tiny, broken)
            await handle.check_grammar(tiny, 'start: "b"')

    asyncio.run(scene())


DEEP: dict[str, object] = {}
for _ in range(2000):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (Prepare(0, NO_VOCAB, "raw", prompt="a\ud800"), "half of a surrogate pair"),
        (Prepare(0, NO_VOCAB, "chat", variables={"n": 1 << 64}), "beyond 64 bits"),
        (Prepare(0, NO_VOCAB, "chat", tools=(DEEP,)), "nested too deeply"),
    ],
)
def test_what_no_frame_can_say_is_refused(ask: Prepare, words: str) -> None:
    async def scene() -> None:
        async with running(worker(fake=True)) as handle:
            with pytest.raises(BadRequest, match=words):
                await handle.prepare(ask)
            assert (await handle.prepare(said("a"))).text == "a"

    asyncio.run(scene())


def test_text_and_tokens_go_there_and_back(tiny: Vocab) -> None:
    async def scene() -> None:
        async with running(worker()) as handle:
            for words in ("the hat", "天空", " two  spaces ", "a\nb"):
                tokens = await handle.tokenize(tiny, words, add_special=False)
                assert await handle.detokenize(tiny, tokens) == words

    asyncio.run(scene())


def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(tiny: Vocab) -> None:
    async def scene() -> None:
        async with running(worker()) as handle:
            exact = await handle.prepare(Prepare(0, tiny, "raw", prompt="hello"))
            n = len(unpack_tokens(exact.tokens))
            await handle.prepare(Prepare(0, tiny, "raw", prompt="hello", n_ctx=n + 1))
            with pytest.raises(PromptTooLong) as caught:
                await handle.prepare(
                    Prepare(0, tiny, "raw", prompt="hello", n_ctx=n, n_ctx_train=4096)
                )
            facts = {"needed": n + 1, "available": n, "trained": 4096}
            assert caught.value.facts() == facts
            assert f"options.num_ctx={n + 1}" in caught.value.hint

    asyncio.run(scene())


def test_a_template_of_the_request_replaces_the_models_own(tiny: Vocab) -> None:
    async def scene() -> None:
        async with running(worker()) as handle:
            go, jinja = "{{ if .System }}{{ .System }}{{ end }}Q: {{ .Prompt }}", "J{{ bos_token }}"

            async def text_of(template: str, language: str) -> str:
                ask = Prepare(
                    0,
                    tiny,
                    "chat",
                    turns=HELLO,
                    template=template,
                    template_language=language,  # type: ignore[arg-type]
                )
                return (await handle.prepare(ask)).text

            assert await text_of(go, "go") == "Q: hello"
            assert await text_of(jinja, "jinja") == "J<s>"
            assert await text_of("{{ range .Messages }}{{ .Role }}{{ end }}", "go") == "user"
            with pytest.raises(TemplateFailed, match="'nothing' is undefined"):
                await text_of("{{ nothing.here }}", "jinja")

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"),
        ("{{ bos_token }}{{ messages[0].content }}", "<s>hello"),
    ],
)
def test_the_models_own_template_is_used_or_chatml_where_it_has_none(
    tmp_path: Path, template: str | None, expected: str
) -> None:
    path = make_tiny(tmp_path / "model.gguf", chat_template=template)

    async def scene() -> None:
        async with running(worker()) as handle:
            vocab = Vocab("other", (str(path),))
            done = await handle.prepare(Prepare(0, vocab, "chat", turns=HELLO))
            assert done.text == expected
            tokens = unpack_tokens(done.tokens)
            assert tokens.tolist().count(1) <= 1, "BOS stands there twice"

    asyncio.run(scene())


def test_an_earlier_context_stands_in_front_and_is_checked(tiny: Vocab) -> None:
    async def scene() -> None:
        async with running(worker()) as handle:
            first = unpack_tokens((await handle.prepare(Prepare(0, tiny, "raw", "one"))).tokens)
            ask = Prepare(0, tiny, "raw", " two", context=pack_tokens(first))
            both = unpack_tokens((await handle.prepare(ask)).tokens)
            assert both[: len(first)] == first
            assert len(both) > len(first)
            with pytest.raises(BadRequest, match="token 99999 is not of this vocabulary"):
                await handle.prepare(Prepare(0, tiny, "raw", "x", context=pack_tokens([99_999])))

    asyncio.run(scene())


def test_a_file_that_is_no_model_fails_its_request_alone(tmp_path: Path, tiny: Vocab) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\xff" * 100)

    async def scene() -> None:
        async with running(worker()) as handle:
            vocab = Vocab("bad", (str(tmp_path / "bad.gguf"),))
            bad, good = await asyncio.gather(
                handle.prepare(Prepare(0, vocab, "raw", "x")),
                handle.prepare(Prepare(0, tiny, "raw", "x")),
                return_exceptions=True,
            )
            assert isinstance(bad, BadModelFile)
            assert not isinstance(good, BaseException)

    asyncio.run(scene())


def test_a_template_bomb_is_killed_in_time_and_its_neighbours_are_answered(tiny: Vocab) -> None:
    async def scene() -> None:
        async with running(worker(render_s=1.0)) as handle:
            await handle.prepare(Prepare(0, tiny, "raw", "warm"))
            first = handle.pid
            before = time.monotonic()
            answers = await asyncio.gather(
                handle.prepare(Prepare(0, tiny, "chat", turns=HELLO)),
                handle.prepare(Prepare(0, tiny, "chat", turns=HELLO, template=BOMB)),
                handle.prepare(Prepare(0, tiny, "chat", turns=HELLO)),
                handle.tokenize(tiny, "hello"),
                return_exceptions=True,
            )
            assert time.monotonic() - before < DEADLINE_S / 2
            assert isinstance(answers[1], TemplateFailed)
            assert answers[1].message == "the chat template took longer than 1 s"
            assert [isinstance(a, BaseException) for a in answers] == [False, True, False, False]
            assert handle.pid != first

    asyncio.run(scene())


def test_a_template_that_eats_memory_fails_alone(tiny: Vocab) -> None:
    doubling = (
        "{% set ns = namespace(x='x' * 1000000) %}"
        "{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
    )

    async def scene() -> None:
        async with running(worker(memory_bytes=256 << 20)) as handle:
            with pytest.raises((TemplateFailed, RunnerFailed)):
                await handle.prepare(Prepare(0, tiny, "chat", turns=HELLO, template=doubling))
            await handle.prepare(Prepare(0, tiny, "chat", turns=HELLO))

    asyncio.run(scene())


def test_a_crash_is_repeated_on_a_fresh_worker_and_nobody_notices(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(worker(fake=True)) as handle:
            await handle.start()
            asks = ("a", f"crash-once {tmp_path / 'mark'}", "b")
            done = await asyncio.gather(*(handle.prepare(said(ask)) for ask in asks))
            assert [answer.text for answer in done] == list(asks)
            assert done[0].tokens != done[1].tokens, "the same process answered"

    asyncio.run(scene())


def test_a_request_that_crashes_twice_fails_with_the_last_words_and_its_neighbours_do_not() -> None:
    async def scene() -> None:
        async with running(worker(fake=True)) as handle:
            asks = ("crash", "a", "b", "c")
            done = await asyncio.gather(
                *(handle.prepare(said(ask)) for ask in asks), return_exceptions=True
            )
            assert isinstance(done[0], RunnerFailed)
            assert done[0].message == "the text worker died with status -6: GGML_ASSERT failed"
            assert not any(isinstance(answer, BaseException) for answer in done[1:])

    asyncio.run(scene())


def test_a_worker_that_talks_nonsense_is_restarted() -> None:
    async def scene() -> None:
        async with running(worker(fake=True)) as handle:
            with pytest.raises(RunnerFailed, match="status -9"):
                await handle.prepare(said("garbage"))
            assert (await handle.prepare(said("a"))).text == "a"

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("order", "limits", "error"),
    [
        ("hang", {"render_s": 0.1}, TemplateFailed),
        ("stall", {"native_s": 0.1}, RunnerFailed),
        ("mute", {"native_s": 0.1}, RunnerFailed),
    ],
)
def test_no_request_waits_for_ever(
    order: str, limits: dict[str, float], error: type[Exception]
) -> None:
    async def scene() -> None:
        async with running(worker(fake=True, **limits)) as handle:
            with pytest.raises(error):
                await handle.prepare(said(order))

    asyncio.run(scene())


def test_a_worker_that_cannot_start_is_an_error_for_each_request() -> None:
    async def scene() -> None:
        async with running(TextWorker(ENV, module="localrun.no_such")) as handle:
            done = await asyncio.gather(
                *(handle.prepare(said("x")) for _ in range(2)), return_exceptions=True
            )
            assert all(isinstance(answer, RunnerFailed) for answer in done)
            assert "No module named localrun.no_such" in str(done[0])

    asyncio.run(scene())


async def until(is_so: Callable[[], bool], handle: TextWorker) -> None:
    """Ask the worker something small until it is so; each answer is a round trip, not a sleep."""
    while not is_so():
        await handle.prepare(said("ping"))


def test_the_worker_is_told_when_a_caller_goes_away() -> None:
    async def scene() -> None:
        async with running(worker(fake=True)) as handle:
            await handle.prepare(said("warm"))
            gone = asyncio.create_task(handle.prepare(said("slow")))
            await asyncio.sleep(0)  # let it be sent, not answered
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            child = handle._child
            assert child is not None
            await until(lambda: "forget 2" in child.last_words, handle)

    asyncio.run(scene())


def test_a_hanging_render_is_killed_though_its_caller_has_gone() -> None:
    async def scene() -> None:
        async with running(worker(fake=True, render_s=0.1)) as handle:
            gone = asyncio.create_task(handle.prepare(said("hang")))
            neighbour = asyncio.create_task(handle.prepare(said("a")))
            await asyncio.sleep(0)
            gone.cancel()
            assert (await neighbour).text == "a"

    asyncio.run(scene())


def test_a_worker_that_dies_idle_is_started_again_by_the_next_request() -> None:
    async def scene() -> None:
        async with running(worker(fake=True)) as handle:
            await handle.prepare(said("a"))
            first = handle.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            done = await handle.prepare(said("b"))
            assert unpack_tokens(done.tokens) != array("i", [first])

    asyncio.run(scene())


def test_closing_tells_those_who_wait_and_leaves_no_child() -> None:
    async def scene() -> None:
        handle = worker(fake=True)
        waiting = asyncio.create_task(handle.prepare(said("hang")))
        await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE_S):
            await handle.close()
            with pytest.raises(Busy, match="shutting down"):
                await waiting
            with pytest.raises(Busy, match="shutting down"):
                await handle.prepare(said("a"))
        assert handle.pid is None

    asyncio.run(scene())


def test_a_request_beyond_the_frame_limit_is_refused_at_once() -> None:
    async def scene() -> None:
        async with running(worker(fake=True, frame_bytes=100)) as handle:
            with pytest.raises(BadRequest, match="more than 100"):
                await handle.prepare(said("x" * 101))
            assert handle.pid is None, "nothing was started for it"

    asyncio.run(scene())
