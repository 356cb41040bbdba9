"""/api/generate and /api/chat: from a request to an `Ask`, and loads and unloads without one."""

from dataclasses import replace

from localrun.errors import BadRequest
from localrun.server.answers import Call
from localrun.server.ask import Ask, PromptOf
from localrun.server.complete import complete
from localrun.server.manner import check_able
from localrun.server.prepare import merged_options, open_for
from localrun.server.prompts import chat_prompt, check_raw, generate_prompt
from localrun.server.records import ChatWriter, GenerateWriter, NativeWriter
from localrun.server.schema.native import ModelRequest, read_chat, read_generate
from localrun.store.library import StoredModel


async def generate(call: Call) -> None:
    """POST /api/generate."""
    request = read_generate(call.body)
    writer = GenerateWriter(request.model, has_context=not request.raw)
    ask = _ask(request, lambda model: generate_prompt(request, model))
    ask = replace(ask, verb="insert" if request.suffix else "generate")
    if request.prompt:
        await _complete(call, ask, writer)
        return
    model = await call.rooms.shelf.find(request.model)
    if request.keep_alive_s != 0:
        check_raw(request)
    await load_or_unload(call, model, ask, writer)


async def chat(call: Call) -> None:
    """POST /api/chat."""
    request = read_chat(call.body)
    if not request.model:
        raise BadRequest("model is required")
    writer = ChatWriter(request.model)
    ask = replace(_ask(request, lambda model: chat_prompt(request, model)), tools=request.tools)
    if request.messages:
        await _complete(call, ask, writer)
        return
    model = await call.rooms.shelf.find(request.model)
    await load_or_unload(call, model, ask, writer)


async def load_or_unload(call: Call, model: StoredModel, ask: Ask, writer: NativeWriter) -> None:
    """A request without a prompt: loads the model, or with a keep-alive of 0 unloads it."""
    if ask.keep_alive_s == 0:
        call.rooms.scheduler.unload(model.model_digest)
        await call.answer(200, writer.loaded("unload"))
        return
    await load(call, model, ask)
    await call.answer(200, writer.loaded("load"))


async def load(call: Call, model: StoredModel, ask: Ask) -> None:
    """Have the model loaded, or stay, as a request with a prompt would.

    Raises:
        LocalrunError: If it cannot do what is asked, or cannot be loaded.
    """
    rooms = call.rooms
    options = merged_options(model, ask.options)
    rooms.scheduler.expect(model.model_digest)
    info = await open_for(rooms, model)
    check_able(model, info, ask)
    plan = await rooms.planner.plan(model, info, options)
    _, demanded = rooms.planner.settle(plan, options, 0)
    demand = rooms.planner.demand(plan, demanded, ask.keep_alive_s)
    async with rooms.scheduler.lease(demand):
        pass


async def _complete(call: Call, ask: Ask, writer: NativeWriter) -> None:
    answers = await complete(call, ask, writer)
    if ask.render_only:
        await call.answer(200, writer.rendered(answers[0].begin))


def _ask(request: ModelRequest, prompt: PromptOf) -> Ask:
    return Ask(
        model=request.model,
        prompt=prompt,
        options=request.options,
        stream=request.stream,
        keep_alive_s=request.keep_alive_s,
        think=request.think,
        format=request.format,
        truncate=request.truncate,
        n_logprobs=request.n_logprobs,
        render_only=request.render_only,
        n_images=request.n_images,
    )
