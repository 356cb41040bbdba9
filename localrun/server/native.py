"""/api/generate and /api/chat: from a request to the records of its answer."""

import asyncio
import time
from dataclasses import dataclass

from localrun.backends.base import Job
from localrun.errors import BadRequest, Unsupported
from localrun.messages import Prepare, Prepared, Sampling, Submit
from localrun.options import Options, merge_options
from localrun.server.answers import Call
from localrun.server.planner import Plan
from localrun.server.prompts import chat_prompt, generate_prompt
from localrun.server.rooms import Rooms
from localrun.server.schema.native import ModelRequest, read_chat, read_generate
from localrun.server.shelf import capabilities
from localrun.server.stream import ChatLines, Clock, GenerateLines, Lines, send_stream, send_whole
from localrun.server.wire import utc_now
from localrun.store.library import StoredModel


@dataclass(frozen=True, slots=True)
class Ready:
    """A prompt that fits, and what it is to run on.

    Attributes:
        prepared: Its tokens and text.
        plan: How the model would be loaded for it.
        options: Built-in, the model's and the request's, merged.
        window: Tokens that its sequence may hold.
        demanded: The window that the runner must have; 0 for any.
    """

    prepared: Prepared
    plan: Plan
    options: Options
    window: int
    demanded: int


async def generate(call: Call) -> None:
    """POST /api/generate."""
    clock = Clock(time.monotonic())
    request = read_generate(call.body)
    model = await call.rooms.shelf.find(request.model)
    nothing: dict[str, object] = {"response": ""}
    if not request.prompt:
        await _load_or_unload(call, model, request, "generate", nothing)
        return
    prompt = generate_prompt(request, model)
    ready = await _prepare(call.rooms, model, request, prompt, "generate")
    if request.render_only:
        await call.json(_rendered(request.model, nothing, ready))
        return
    tokens = None if request.raw else ready.prepared.tokens
    await _complete(call, request, ready, GenerateLines(request.model, tokens), clock)


async def chat(call: Call) -> None:
    """POST /api/chat."""
    clock = Clock(time.monotonic())
    request = read_chat(call.body)
    if not request.model:
        raise BadRequest("model is required")
    model = await call.rooms.shelf.find(request.model)
    nothing: dict[str, object] = {"message": {"role": "assistant", "content": ""}}
    if not request.messages:
        await _load_or_unload(call, model, request, "chat", nothing)
        return
    ready = await _prepare(call.rooms, model, request, chat_prompt(request, model), "chat")
    if request.render_only:
        await call.json(_rendered(request.model, nothing, ready))
        return
    await _complete(call, request, ready, ChatLines(request.model), clock)


async def _load_or_unload(
    call: Call, model: StoredModel, request: ModelRequest, verb: str, nothing: dict[str, object]
) -> None:
    """A request without a prompt: loads the model, or with a keep-alive of 0 unloads it."""
    rooms = call.rooms
    unloads = request.keep_alive_s == 0
    if unloads:
        rooms.scheduler.unload(model.model_digest)
    else:
        options = _options(model, request)
        rooms.scheduler.expect(model.model_digest)
        plan = await _plan(rooms, model, request, options, verb)
        _, demanded = rooms.planner.settle(plan, options, 0)
        demand = rooms.planner.demand(plan, demanded, request.keep_alive_s)
        async with rooms.scheduler.lease(demand):
            pass
    reason = "unload" if unloads else "load"
    await call.json({**_head(request.model), **nothing, "done": True, "done_reason": reason})


async def _prepare(
    rooms: Rooms, model: StoredModel, request: ModelRequest, prompt: Prepare, verb: str
) -> Ready:
    """Render, tokenize and fit the prompt, beside the start of a process and the plan of a load.

    Raises:
        LocalrunError: If the request cannot be served; nothing has been loaded then.
    """
    options = _options(model, request)
    rooms.scheduler.expect(model.model_digest)
    info = rooms.shelf.opened(model)
    if info is not None and options.num_ctx:
        # What is too long by far need not be tokenized to the end.
        prompt = _limited(
            prompt, min(options.num_ctx, info.n_ctx_train or 1 << 30), info.n_ctx_train
        )
    preparing = asyncio.ensure_future(rooms.parts.text.prepare(prompt))
    planning = asyncio.ensure_future(_plan(rooms, model, request, options, verb))
    try:
        plan, prepared = await asyncio.gather(planning, preparing)
    finally:
        preparing.cancel()
        planning.cancel()
    window, demanded = rooms.planner.settle(plan, options, len(prepared.tokens) // 4)
    return Ready(prepared, plan, options, window, demanded)


async def _plan(
    rooms: Rooms, model: StoredModel, request: ModelRequest, options: Options, verb: str
) -> Plan:
    info = await rooms.shelf.open(model)
    if not rooms.scheduler.loaded_window(model.model_digest):
        rooms.names[model.model_digest] = model
    able = capabilities(model, info)
    if "completion" not in able:
        raise Unsupported(f'"{request.model}" does not support {verb}')
    if request.wants_thinking and "thinking" not in able:
        raise Unsupported(f'"{request.model}" does not support thinking')
    if request.wants_thinking:
        raise Unsupported('"think" is not supported by this version of localrun yet')
    return await rooms.planner.plan(model, info, options)


async def _complete(
    call: Call, request: ModelRequest, ready: Ready, lines: Lines, clock: Clock
) -> None:
    """Get a runner and send what it makes; every way out gives the runner back."""
    rooms = call.rooms
    demand = rooms.planner.demand(ready.plan, ready.demanded, request.keep_alive_s)
    async with rooms.scheduler.lease(demand) as runner:
        clock.loaded()
        completion = runner.complete(_job(ready, call.cache_scope))
        try:
            send = send_stream if request.stream else send_whole
            end = await send(call, completion, lines, clock)
        finally:
            completion.close()
    rooms.counts.completed(end)


def _job(ready: Ready, scope: str) -> Job:
    options = ready.options
    sampling = Sampling(
        seed=options.sampling_seed,
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
    submit = Submit(
        request_id=0,
        n_prompt=0,
        scope=scope,
        sampling=sampling,
        stop=options.stop,
        n_predict=options.num_predict,
        n_ctx=ready.window,
        deterministic=options.deterministic,
    )
    return Job(ready.prepared.tokens, submit)


def _options(model: StoredModel, request: ModelRequest) -> Options:
    return merge_options(merge_options(Options(), model.params), request.options)


def _limited(prompt: Prepare, n_ctx: int, n_ctx_train: int) -> Prepare:
    return Prepare(
        prompt.request_id,
        prompt.vocab,
        prompt.kind,
        prompt.prompt,
        prompt.turns,
        prompt.template,
        prompt.context,
        n_ctx,
        n_ctx_train,
        prompt.template_language,
    )


def _head(model: str) -> dict[str, object]:
    return {"model": model, "created_at": utc_now().decode()}


def _rendered(model: str, nothing: dict[str, object], ready: Ready) -> dict[str, object]:
    debug = {"rendered_template": ready.prepared.text}
    return {**_head(model), **nothing, "done": False, "_debug_info": debug}
