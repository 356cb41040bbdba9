"""The routes about models: tags, ps, show, pull, delete; and the small ones beside them."""

import asyncio
import hmac
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from localrun import __version__
from localrun.errors import BadModelFile, BadRequest, InvalidName, ModelNotFound
from localrun.names import parse_name
from localrun.server.answers import TEXT, Call
from localrun.server.errand import Work, run_errand
from localrun.server.metrics import prometheus_text
from localrun.server.relay import theirs
from localrun.server.schema.native import PullRequest, read_delete, read_pull, read_show
from localrun.server.show import ps_item, show_model, tag_item
from localrun.store.cleaning import clean

if TYPE_CHECKING:
    from localrun.hardware.budget import Budget
    from localrun.server.rooms import Pull
    from localrun.store.pull import PullEvent

LOCAL_HEADER = b"x-localrun-local"
_COPILOT = "GitHubCopilotChat/"  # shows the base name; Ollama gives it the name it asked for


async def alive(call: Call) -> None:
    """GET /: the words that clients look for."""
    await call.answer(200, b"Ollama is running", TEXT)


async def version(call: Call) -> None:
    """GET /api/version."""
    await call.json({"version": __version__})


async def metrics(call: Call) -> None:
    """GET /metrics."""
    rooms = call.rooms
    body = prometheus_text(rooms.counts, rooms.scheduler, len(rooms.calls))
    await call.answer(200, body, b"text/plain; version=0.0.4; charset=utf-8")


async def tags(call: Call) -> None:
    """GET /api/tags: ours, and after them those that only a daemon has."""
    shelf = call.rooms.shelf
    items = [tag_item(model, await shelf.peek(model)) for model in await shelf.all()]
    names = {str(item["name"]).lower() for item in items}
    others = await theirs(call, "/api/tags", "models")
    items += [item for item in others if str(item.get("name", "")).lower() not in names]
    await call.json({"models": items})


async def ps(call: Call) -> None:
    """GET /api/ps: what we have loaded, and what a daemon has."""
    others = await theirs(call, "/api/ps", "models")
    runners = call.rooms.scheduler.status()
    if not runners:
        await call.json({"models": others})
        return
    # The name under which it was loaded counts; it may have been removed from the store since.
    by_weights = {model.model_digest: model for model in await call.rooms.shelf.all()}
    by_weights |= call.rooms.names
    items = [
        ps_item(by_weights[runner.model], runner)
        for runner in sorted(runners, key=lambda runner: -runner.expires_at)
    ]
    await call.json({"models": [*items, *others]})


async def show(call: Call) -> None:
    """POST /api/show."""
    request = read_show(call.body)
    if not request.model:
        raise BadRequest("model is required")
    try:
        model = await call.rooms.shelf.find(request.model)
    except ModelNotFound as error:
        name = parse_name(request.model).short()
        raise ModelNotFound(name, hint=error.hint) from error
    asks_for_name = call.header(b"user-agent").startswith(_COPILOT)
    basename = request.model if asks_for_name else ""
    try:
        shown = await asyncio.to_thread(
            show_model, model, system=request.system, verbose=request.verbose, basename=basename
        )
    except OSError as error:
        raise BadModelFile(f"the file of {request.model} cannot be read: {error}") from error
    await call.json(shown)


async def delete(call: Call) -> None:
    """DELETE /api/delete."""
    text = read_delete(call.body)
    if not text:
        raise BadRequest("model is required")
    try:
        name = await asyncio.to_thread(call.rooms.shelf.library.resolve, text)
    except InvalidName as error:
        raise BadRequest(f"name {json.dumps(text, ensure_ascii=False)} is invalid") from error
    await asyncio.to_thread(call.rooms.shelf.library.delete, name)
    await call.answer(200, b"")


async def pull(call: Call) -> None:
    """POST /api/pull: the events of the pull as records, or the last one alone.

    When the client goes away the pull stops; what it has fetched stays for the next one.
    """
    request = read_pull(call.body)
    if not request.model:
        raise BadRequest("invalid model name")
    if not request.model.lower().endswith(".gguf"):
        parse_name(request.model)  # a wrong name is refused before the answer begins
    budget = await call.rooms.planner.budget()
    pull_work = pull_into_store(call, request, budget)
    await run_errand(call, pull_work, stream=request.stream)


def pull_into_store(call: Call, request: PullRequest, budget: "Budget") -> Work:
    """The work of a pull. Files of this machine are taken from the user's own CLI only."""
    rooms = call.rooms

    def work(report: "Callable[[PullEvent], None]", is_cancelled: Callable[[], bool]) -> object:
        from localrun.store.catalog import Catalog

        pull_model = rooms.parts.pull or _store_pull()
        stored = pull_model(
            request.model,
            library=rooms.shelf.library,
            catalog=Catalog.load(rooms.settings.catalog),
            settings=rooms.settings,
            budget=budget,
            allow_files=is_local(call),
            report=report,
            cancelled=is_cancelled,
            insecure=request.insecure,
            credentials=(request.username, request.password) if request.username else None,
        )
        clean(rooms.shelf.library)
        return stored

    return work


def is_local(call: Call) -> bool:
    """Whether the request comes from this user's own CLI, which may name files."""
    token = call.rooms.cli_token
    given = call.header(LOCAL_HEADER).encode("latin-1")
    return bool(token) and hmac.compare_digest(token.encode(), given)


def _store_pull() -> "Pull":
    from localrun.store.pull import pull as pull_model

    return pull_model
