"""The routes about models: tags, ps, show, pull, delete; and the small ones beside them."""

import asyncio
import contextlib
import hmac
import json
import threading
from typing import TYPE_CHECKING

from localrun import __version__
from localrun.errors import BadModelFile, BadRequest, InvalidName, ModelNotFound
from localrun.names import parse_name
from localrun.server.answers import PLAIN_JSON, TEXT, Call
from localrun.server.metrics import prometheus_text
from localrun.server.schema.native import read_delete, read_pull, read_show
from localrun.server.show import ps_item, show_model, tag_item
from localrun.server.wire import dump

if TYPE_CHECKING:
    from localrun.hardware.budget import Budget
    from localrun.server.rooms import Pull
    from localrun.store.library import StoredModel
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
    """GET /api/tags."""
    shelf = call.rooms.shelf
    models = await shelf.all()
    await call.json({"models": [tag_item(model, await shelf.peek(model)) for model in models]})


async def ps(call: Call) -> None:
    """GET /api/ps."""
    runners = call.rooms.scheduler.status()
    if not runners:
        await call.json({"models": []})
        return
    # The name under which it was loaded counts; it may have been removed from the store since.
    by_weights = {model.model_digest: model for model in await call.rooms.shelf.all()}
    by_weights |= call.rooms.names
    items = [
        ps_item(by_weights[runner.model], runner)
        for runner in sorted(runners, key=lambda runner: -runner.expires_at)
    ]
    await call.json({"models": items})


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
        model = await call.rooms.shelf.find(text)
    except InvalidName as error:
        raise BadRequest(f"name {json.dumps(text, ensure_ascii=False)} is invalid") from error
    await asyncio.to_thread(call.rooms.shelf.library.delete, model.name)
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
    errand = _Errand(call, request.model, budget)
    if not request.stream:
        await errand.run(None)
        await call.json({"status": "success"}, PLAIN_JSON)
        return
    await errand.run(call)
    await call.finish()


class _Errand:
    """One pull: a thread that fetches, and the events that it reports."""

    def __init__(self, call: Call, name: str, budget: "Budget") -> None:
        self._rooms, self._name, self._budget = call.rooms, name, budget
        token = call.rooms.cli_token
        given = call.header(LOCAL_HEADER).encode("latin-1")
        self._allow_files = bool(token) and hmac.compare_digest(token.encode(), given)
        self._cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._events: list[PullEvent] = []
        self._news = asyncio.Event()

    async def run(self, call: Call | None) -> None:
        """Pull; with a call, send it the events.

        Raises:
            LocalrunError: What the pull says.
        """
        work = self._loop.run_in_executor(self._rooms.pulls, self._fetch)
        work.add_done_callback(lambda _: self._news.set())
        try:
            while self._events or not work.done():
                if not self._events:
                    await self._news.wait()
                    self._news.clear()
                events, self._events = self._events, []
                if call is not None:
                    for event in events:
                        await call.write(_record(event))
            await work
        finally:
            self._cancelled.set()
            work.add_done_callback(_read_error)

    def _fetch(self) -> "StoredModel":
        from localrun.store.catalog import Catalog

        pull_model = self._rooms.parts.pull or _store_pull()
        settings = self._rooms.settings
        return pull_model(
            self._name,
            library=self._rooms.shelf.library,
            catalog=Catalog.load(settings.catalog),
            settings=settings,
            budget=self._budget,
            allow_files=self._allow_files,
            report=self._report,
            cancelled=self._is_cancelled,
        )

    def _is_cancelled(self) -> bool:
        return self._cancelled.is_set() or self._rooms.closing.is_set()

    def _report(self, event: "PullEvent") -> None:
        """Called in the thread. The pull itself asks whether to stop."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._take, event)

    def _take(self, event: "PullEvent") -> None:
        """Keep the event; of a slow client's bars only the newest state is kept."""
        events = self._events
        last = events[-1] if events else None
        if last and last.total and (last.status, last.digest) == (event.status, event.digest):
            events[-1] = event
        else:
            events.append(event)
        self._news.set()


def _store_pull() -> "Pull":
    from localrun.store.pull import pull as pull_model

    return pull_model


def _record(event: "PullEvent") -> bytes:
    fields: dict[str, object] = {"status": event.status}
    if event.digest:
        fields["digest"] = event.digest
    if event.total:
        fields["total"] = event.total
    if event.completed:
        fields["completed"] = event.completed
    if event.plan:
        fields["plan"] = event.plan
    if event.hint:
        fields["hint"] = event.hint
    if event.name:
        fields["name"] = event.name
    return dump(fields) + b"\n"


def _read_error(work: "asyncio.Future[StoredModel]") -> None:
    """A pull whose client is gone ends with an error that nobody wants."""
    if not work.cancelled():
        work.exception()
