"""From an `Ask` to a prompt that fits, a plan of the load and a job: all before the lease."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import msgspec

from localrun.backends.base import Job
from localrun.errors import BadRequest, PromptTooLong, Unsupported
from localrun.gguf import ModelInfo
from localrun.messages import Prepare, Prepared, Reasoning, Sampling, Submit
from localrun.options import Options, merge_options
from localrun.output.family import Family
from localrun.output.pieces import Parser
from localrun.scheduler.events import Demand
from localrun.scheduler.scheduler import Lease
from localrun.server.answers import Call
from localrun.server.ask import Ask
from localrun.server.manner import Manner, lacks, laid_out, manner_of
from localrun.server.planner import Plan
from localrun.server.rooms import Rooms
from localrun.store.library import StoredModel

_TEMPLATE_TOKENS = 1024
"""More than a template writes of its own, such as a system message where there is none."""

_ROOM_FOR_ANSWER = 1024
"""Tokens that stay free for the answer when history is dropped, if the request names no number."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A prompt that fits, and what it is to run on.

    Attributes:
        ask: What was asked for.
        manner: How the model answers it.
        prepared: The prompt's tokens and text.
        plan: How the model would be loaded for it.
        options: Built-in, the model's and the request's, merged.
        window: Tokens that its sequence may hold.
        lease: The claim on a runner; who has this gives it back.
        grammar: What the whole completion must match; empty for all.
        prompt: What was rendered.
    """

    ask: Ask
    manner: Manner
    prepared: Prepared
    plan: Plan
    options: Options
    window: int
    lease: Lease
    grammar: str = ""
    prompt: Prepare | None = None

    def parser(self) -> Parser | None:
        """A new parser for one completion; None where its text is the answer."""
        manner = self.manner
        if not manner.parses:
            return None
        return manner.family.parser(
            prompt_text=self.prepared.text,
            tools=manner.tools,
            think=manner.think,
            is_formatted=self.ask.format is not None,
        )

    def job(self, scope: str, index: int = 0) -> Job:
        """What completion `index` asks of the runner."""
        ask, options = self.ask, self.options
        submit = Submit(
            request_id=0,
            n_prompt=0,
            scope=scope,
            sampling=_sampling(options, index),
            stop=options.stop,
            n_predict=options.num_predict,
            n_ctx=self.window,
            deterministic=options.deterministic,
            grammar=self.grammar,
            n_logprobs=ask.n_logprobs,
            logit_bias=dict(ask.logit_bias),
            preserved=self.prepared.preserved,
            reasoning=self._reasoning(),
        )
        return Job(self.prepared.tokens, submit)

    def _reasoning(self) -> Reasoning | None:
        manner, prepared = self.manner, self.prepared
        family = manner.family
        if not (manner.parses and family.reasoning_end):
            return None
        return Reasoning(
            is_open=family.opens_reasoning(prepared.text),
            start=family.reasoning_start,
            end=family.reasoning_end,
            closing=prepared.closing,
            budget=_budget(self.ask, self.options),
        )


async def prepare(rooms: Rooms, model: StoredModel, ask: Ask, *, scope: str) -> Ready:
    """Render, tokenize and fit the prompt, beside the start of a process and the plan of a load.

    Args:
        rooms: The server.
        model: Of this the prompt is made.
        ask: What is wanted.
        scope: The request's cache scope.

    Raises:
        LocalrunError: If the request cannot be served; nothing has been loaded then.
    """
    options = merged_options(model, ask.options)
    prompt = ask.prompt(model)
    rooms.scheduler.expect(model.model_digest)
    info = await open_for(rooms, model)
    manner = manner_of(model, info, ask, prompt)
    _check_bias(ask, info)
    prompt = _mended(rooms, laid_out(model, prompt, ask, manner, info), scope)
    ahead = _Ahead(rooms, ask, prompt, is_held=_may_need_grammar(ask, manner))
    planning = asyncio.ensure_future(ahead.plan(model, info, options))
    try:
        plan, prepared, (window, demanded) = await _fitted(rooms, ask, options, prompt, planning)
        grammar = _grammar(ask, manner, prepared)
        if grammar:
            await rooms.parts.text.check_grammar(prompt.vocab, grammar)
        lease = ahead.take(rooms.planner.demand(plan, demanded, ask.keep_alive_s))
        return Ready(ask, manner, prepared, plan, options, window, lease, grammar, prompt)
    except Unsupported as error:
        if prompt.kind != "fill":
            raise
        raise lacks(model, "insert") from error
    finally:
        planning.cancel()
        ahead.close()


class _Ahead:
    """The plan of a load, and the load itself beside the rendering, where the prompt surely fits.

    Reading weights takes as long as reading a vocabulary; one after the other a first token would
    wait for both. A prompt that may be too long waits, and so does what a grammar may have to hold:
    both may be refused, and then before a weight is read.
    """

    def __init__(self, rooms: Rooms, ask: Ask, prompt: Prepare, *, is_held: bool) -> None:
        self._rooms, self._prompt, self._keep_alive_s = rooms, prompt, ask.keep_alive_s
        self._may_begin = not (ask.render_only or is_held)
        self._lease: Lease | None = None

    async def plan(self, model: StoredModel, info: ModelInfo, options: Options) -> Plan:
        """Plan the load, and begin it."""
        rooms = self._rooms
        plan = await rooms.planner.plan(model, info, options)
        is_loaded = rooms.scheduler.loaded_window(plan.model)
        if self._may_begin and not is_loaded and _most_tokens(self._prompt) <= plan.window:
            _, demanded = rooms.planner.settle(plan, options, 0)
            self._lease = rooms.scheduler.lease(
                rooms.planner.demand(plan, demanded, self._keep_alive_s)
            )
            self._lease.begin()
        return plan

    def take(self, demand: Demand) -> Lease:
        """The claim for what is demanded in the end."""
        ahead = self._lease
        if ahead is not None and ahead.demand == demand:
            self._lease = None
            return ahead
        return self._rooms.scheduler.lease(demand)

    def close(self) -> None:
        """Give the claim back, unless it was taken."""
        if self._lease is not None:
            self._lease.release()


def _most_tokens(prompt: Prepare) -> int:
    """Tokens that a prompt may have: one for each byte, and what templates write around them."""
    texts = [prompt.prompt, prompt.suffix, *(turn.content for turn in prompt.turns)]
    extras = [turn.extra for turn in prompt.turns if turn.extra]
    rest = len(msgspec.json.encode((extras, prompt.tools))) + len(prompt.context) // 4
    return sum(len(text.encode()) for text in texts) + rest + 64 * len(texts) + _TEMPLATE_TOKENS


async def count_tokens(call: Call, ask: Ask) -> int:
    """Tokens of a prompt of any length; no weight is read and no load planned.

    Raises:
        LocalrunError: If there is no such model, or it cannot do what is asked.
    """
    rooms = call.rooms
    model = await rooms.shelf.find(ask.model)
    prompt = ask.prompt(model)
    info = await rooms.shelf.open(model)
    manner = manner_of(model, info, ask, prompt)
    prompt = _mended(rooms, laid_out(model, prompt, ask, manner, info), call.cache_scope)
    prepared = await rooms.parts.text.prepare(prompt)
    return len(prepared.tokens) // 4


async def open_for(rooms: Rooms, model: StoredModel) -> ModelInfo:
    """The facts of a model that is about to be used, whose name counts if that loads it."""
    info = await rooms.shelf.open(model)
    if not rooms.scheduler.loaded_window(model.model_digest):
        rooms.names[model.model_digest] = model
    return info


def merged_options(model: StoredModel, options: Mapping[str, object]) -> Options:
    """Built-in options, the model's and the request's."""
    return merge_options(merge_options(Options(), model.params), options)


def _mended(rooms: Rooms, prompt: Prepare, scope: str) -> Prepare:
    """The prompt without what agents change in it from request to request (`agents.py`)."""
    if prompt.kind != "chat":
        return prompt
    turns, tools = rooms.agents.normalise(prompt.turns, prompt.tools, scope=scope)
    return msgspec.structs.replace(prompt, turns=turns, tools=tuple(map(dict, tools)))


_Fitted: TypeAlias = tuple[Plan, Prepared, tuple[int, int]]


async def _fitted(
    rooms: Rooms, ask: Ask, options: Options, prompt: Prepare, planning: "asyncio.Future[Plan]"
) -> _Fitted:
    """The prompt, whole if it fits, else without its oldest turns where that is allowed."""
    trained = prompt.n_ctx_train
    limit = min(options.num_ctx or trained, trained) if trained else options.num_ctx or 0
    preparing = asyncio.ensure_future(
        # What is too long by far need not be tokenized to the end.
        rooms.parts.text.prepare(msgspec.structs.replace(prompt, n_ctx=limit))
    )
    try:
        plan, prepared = await asyncio.gather(asyncio.shield(planning), preparing)
        return plan, prepared, _settled(rooms, plan, options, prepared)
    except PromptTooLong:
        if not (ask.truncate and len(prompt.turns) > 1):
            raise
    finally:
        preparing.cancel()
    return await _shortened(rooms, options, prompt, await planning)


async def _shortened(rooms: Rooms, options: Options, prompt: Prepare, plan: Plan) -> _Fitted:
    """Drop turns until there is room for an answer too; if there cannot be, just until it fits."""
    answer = options.num_predict if options.num_predict > 0 else _ROOM_FOR_ANSWER
    room = min(answer, plan.window // 4)
    for n_free in (room, 0):
        shortened = msgspec.structs.replace(prompt, truncate=True, n_ctx=plan.window - n_free)
        try:
            prepared = await rooms.parts.text.prepare(shortened)
            break
        except PromptTooLong:
            if not n_free:
                raise
    else:  # pragma: no cover (the last turn of the loop breaks or raises)
        raise AssertionError
    return plan, prepared, _settled(rooms, plan, options, prepared)


def _settled(rooms: Rooms, plan: Plan, options: Options, prepared: Prepared) -> tuple[int, int]:
    return rooms.planner.settle(plan, options, len(prepared.tokens) // 4)


def _may_need_grammar(ask: Ask, manner: Manner) -> bool:
    return ask.format not in (None, "") or bool(manner.tools)


def _grammar(ask: Ask, manner: Manner, prepared: Prepared) -> str:
    if not _may_need_grammar(ask, manner):
        return ""
    wanted = (
        None if ask.format == "" else ask.format,
        manner.tools,
        ask.tool_choice,
        ask.parallel_tool_calls,
        manner.parses and manner.family.opens_reasoning(prepared.text),
        manner.think,
    )
    return _composed(manner.family, msgspec.json.encode(wanted))


@lru_cache(maxsize=64)
def _composed(family: Family, wanted: bytes) -> str:
    """The grammar of what is wanted, as JSON: an agent sends the same tools with each request.

    Composing it for 25 tools takes 10 ms, on the loop.
    """
    form, tools, choice, is_parallel, is_open, think = msgspec.json.decode(wanted)
    return family.grammar(
        format=form,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=is_parallel,
        is_open=is_open,
        think=think,
    )


def _budget(ask: Ask, options: Options) -> int:
    """Reasoning tokens at most: the request's own word, else its option's or the model's."""
    return ask.thinking_budget if ask.thinking_budget >= 0 else options.thinking_budget


def _check_bias(ask: Ask, info: ModelInfo) -> None:
    for token in ask.logit_bias:
        if not 0 <= token < info.n_vocab:
            raise BadRequest(f"logit_bias names token {token}; the model has {info.n_vocab}")


def _sampling(options: Options, index: int) -> Sampling:
    """How completion `index` is drawn: of several with one seed each has its own."""
    seed = options.sampling_seed
    return Sampling(
        seed=seed + index if seed >= 0 else seed,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        typical_p=options.typical_p,
        repeat_last_n=options.repeat_last_n,
        repeat_penalty=options.repeat_penalty,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
    )
