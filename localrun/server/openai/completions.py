"""POST /v1/completions: one prompt or several, each with one completion or several.

As in Ollama a prompt goes through the model's template; our extension `raw` takes it as it is, and
a prompt that is given in tokens always is.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar, cast

from localrun.messages import Prepare, pack_tokens, unpack_tokens
from localrun.server.answers import Call, Scope
from localrun.server.ask import Answer, Ask, PromptOf
from localrun.server.complete import complete
from localrun.server.openai.chunks import SSE, sum_usage, usage_of
from localrun.server.openai.errors import InvalidField, UnsupportedField, reading
from localrun.server.openai.fields import (
    MAX_N,
    MAX_TOP_LOGPROBS,
    Body,
    read_biases,
    read_body,
    read_keep_alive,
    read_name,
    read_options,
    read_think,
)
from localrun.server.openai.texts import Shape, TextWriter
from localrun.server.prompts import generate_prompt
from localrun.server.schema.native import GenerateRequest
from localrun.server.shelf import vocab_of
from localrun.store.library import StoredModel

T = TypeVar("T")
Prompt: TypeAlias = str | bytes
"""A text, or packed tokens."""

MAX_PROMPTS = 2048
_N_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """Completions as they were asked for.

    Attributes:
        prompts: At least one.
        ask: What the core is to do with the first prompt.
        n: Completions of each prompt that are shown.
        echo: Show the prompt in front.
        includes_usage: End a stream with the counts.
        tells_logprobs: Show log-probabilities.
        suffix: Text behind each completion.
        raw: Take texts as they are.
    """

    prompts: tuple[Prompt, ...]
    ask: Ask
    n: int
    echo: bool
    includes_usage: bool
    tells_logprobs: bool
    suffix: str
    raw: bool


async def completions(call: Call) -> None:
    """POST /v1/completions."""
    request = reading(call, read_completions)
    shape = Shape.make(
        request.ask.model,
        n=request.n,
        includes_usage=request.includes_usage,
        tells_logprobs=request.tells_logprobs,
    )
    call.answer_id = shape.id
    asks = [replace(request.ask, prompt=_maker(request, prompt)) for prompt in request.prompts]
    echoes = [await _echo(call, request, prompt) for prompt in request.prompts]
    if len(asks) == 1:
        writer = TextWriter(shape, echo=echoes[0])
        answers = await complete(call, asks[0], writer)
        if request.ask.render_only:
            await call.json(_rendered(shape, answers[0]))
        return
    writers = [
        TextWriter(shape, echo=echo, first=at * request.n, is_alone=False)
        for at, echo in enumerate(echoes)
    ]
    await _complete_all(call, asks, writers, shape)


async def _echo(call: Call, request: CompletionRequest, prompt: Prompt) -> str:
    """The prompt as text, where it is to be shown."""
    if not request.echo:
        return ""
    if isinstance(prompt, str):
        return prompt
    model = await call.rooms.shelf.find(request.ask.model)
    return await call.rooms.parts.text.detokenize(vocab_of(model), unpack_tokens(prompt))


async def _complete_all(
    call: Call, asks: Sequence[Ask], writers: Sequence[TextWriter], shape: Shape
) -> None:
    """Complete several prompts beside each other, into one answer."""
    gate = asyncio.Semaphore(_N_AT_ONCE)
    streams = asks[0].stream
    call.stream_type = SSE

    async def one(ask: Ask, writer: TextWriter) -> list[Answer]:
        async with gate:
            return await complete(_part_of(call, streams=streams), ask, writer)

    groups = await _together([one(*pair) for pair in zip(asks, writers, strict=True)])
    usage = sum_usage([usage_of(answers) for answers in groups])
    if streams:
        await call.finish(shape.closing(usage))
        return
    pairs = zip(writers, groups, strict=True)
    choices = [choice for writer, answers in pairs for choice in writer.choices(answers)]
    await call.answer(200, shape.whole(choices, usage))


def _part_of(call: Call, *, streams: bool) -> Call:
    """A call whose records go into another's stream, or nowhere: its answers are what counts."""

    async def send(message: Scope) -> None:
        record: bytes = message.get("body", b"")
        if streams and record:
            await call.write(record)

    return Call({**call.scope, "localrun.send": send}, send, call.rooms, call.dialect)


async def _together(works: Sequence[Coroutine[object, object, T]]) -> list[T]:
    """Run all of them; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _rendered(shape: Shape, answer: Answer) -> dict[str, object]:
    return {
        "id": shape.id,
        "object": "text_completion",
        "created": shape.created,
        "model": shape.model,
        "choices": [],
        "_debug_info": {"rendered_template": answer.begin.prepared.text},
    }


def read_completions(data: bytes) -> CompletionRequest:
    """Read the body of /v1/completions.

    Raises:
        BadRequest: If it cannot be understood, or asks for what nobody here does.
    """
    body = read_body(data, "CompletionRequest")
    read_name(body)
    prompts = _read_prompts(body)
    n = body.whole("n", 1, MAX_N) or 1
    n_told = body.whole("logprobs", 0, MAX_TOP_LOGPROBS)
    n_made = _read_best_of(body, n)
    least = 0 if n_made > n else -1  # the best are those with the likeliest tokens
    usage = body.inner("stream_options", "openai.StreamOptions")
    request = CompletionRequest(
        prompts=prompts,
        ask=_ask(body, n_made, least if n_told is None else n_told),
        n=n,
        echo=bool(body.flag("echo")),
        includes_usage=bool(usage and usage.flag("include_usage")),
        tells_logprobs=n_told is not None,
        suffix=body.text("suffix") or "",
        raw=bool(body.flag("raw")),
    )
    _check(request)
    return request


def _ask(body: Body, n_made: int, n_logprobs: int) -> Ask:
    return Ask(
        model=read_name(body),
        prompt=_no_prompt,
        verb="insert" if body.text("suffix") else "generate",
        options=read_options(body, ("max_tokens", "max_completion_tokens")),
        stream=bool(body.flag("stream")),
        keep_alive_s=read_keep_alive(body),
        think=read_think(body),
        n_logprobs=n_logprobs,
        logit_bias=read_biases(body),
        n=n_made,
        render_only=bool(body.flag("_debug_render_only")),
    )


def _no_prompt(_: StoredModel) -> Prepare:
    raise AssertionError


def _check(request: CompletionRequest) -> None:
    if request.echo and request.tells_logprobs:
        raise UnsupportedField("echo has no log-probabilities of the prompt", "echo")
    if request.suffix and any(isinstance(prompt, bytes) for prompt in request.prompts):
        raise InvalidField("suffix needs a prompt that is text", "suffix")
    if request.suffix and request.raw:
        raise InvalidField("suffix needs the model's template, and raw goes without", "suffix")


def _read_best_of(body: Body, n: int) -> int:
    """Completions that are made of each prompt."""
    n_made = body.whole("best_of", 1, MAX_N) or n
    if n_made < n:
        raise InvalidField("best_of must be at least n", "best_of")
    if n_made > n and body.flag("stream"):
        raise InvalidField("best_of cannot be streamed: all must end first", "best_of")
    return n_made


def _read_prompts(body: Body) -> tuple[Prompt, ...]:
    """`prompt`: a text, tokens, or a list of either."""
    value = body.all.get("prompt")
    if value is None or isinstance(value, str):
        return (value or "",)
    if not isinstance(value, list):
        body.text("prompt")  # says what it is
    items = cast("list[object]", value)
    if not items:
        raise InvalidField("prompt is an empty list", "prompt")
    if len(items) > MAX_PROMPTS and not isinstance(items[0], int):
        raise InvalidField(f"prompt takes at most {MAX_PROMPTS} prompts", "prompt")
    if all(isinstance(item, str) for item in items):
        return tuple(cast("list[str]", items))
    if all(isinstance(item, list) for item in items):
        return tuple(read_tokens(cast("list[object]", item), "prompt") for item in items)
    return (read_tokens(items, "prompt"),)


def read_tokens(items: Sequence[object], name: str) -> bytes:
    """A prompt given in tokens, packed.

    Raises:
        InvalidField: If one is no token, or there is none.
    """
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < 1 << 31:
            raise InvalidField(f"{name} must be text, tokens, or a list of either", name)
    if not items:
        raise InvalidField(f"{name} holds a list without tokens", name)
    return pack_tokens(cast("Sequence[int]", items))


def _maker(request: CompletionRequest, prompt: Prompt) -> PromptOf:
    def make(model: StoredModel) -> Prepare:
        if isinstance(prompt, bytes):
            return Prepare(0, vocab_of(model), "raw", context=prompt)
        return generate_prompt(_as_generate(request, prompt), model)

    return make


def _as_generate(request: CompletionRequest, prompt: str) -> GenerateRequest:
    """The request as Ollama's own route would have it: its prompt is made the same way."""
    return GenerateRequest(
        model=request.ask.model,
        options={},
        stream=False,
        keep_alive_s=None,
        think=None,
        format=None,
        truncate=True,
        n_logprobs=-1,
        render_only=False,
        prompt=prompt,
        suffix=request.suffix,
        system="",
        template="",
        context=None,
        raw=request.raw,
    )
