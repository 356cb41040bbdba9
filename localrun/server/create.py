"""The route that makes models: POST /api/create."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from localrun.errors import InvalidName, ModelNotFound, TemplateFailed
from localrun.gotemplate import check_go
from localrun.names import parse_name
from localrun.server.answers import Call
from localrun.server.errand import run_errand
from localrun.server.models import pull_into_store
from localrun.server.schema.create import CreateRequest, read_create, read_info, read_licenses
from localrun.server.schema.native import PullRequest
from localrun.store.library import StoredModel

if TYPE_CHECKING:
    from localrun.store.create import Recipe
    from localrun.store.pull import PullEvent, Report


async def create(call: Call) -> None:
    """POST /api/create: the steps as records, or the last one alone.

    When the client goes away the creation stops, and leaves nothing behind.
    """
    request = read_create(call.body)
    if not request.model:
        raise InvalidName(request.model)
    name = parse_name(request.model)
    budget = await call.rooms.planner.budget()
    library = call.rooms.shelf.library
    pull = pull_into_store(call, PullRequest(request.base, stream=False), budget)

    def work(report: "Report", is_cancelled: Callable[[], bool]) -> object:
        from localrun.store.create import Recipe, create

        base = None
        if request.base:
            parse_name(request.base)
            try:
                base = library.find(request.base)
            except ModelNotFound:
                found = pull(_without_success(report), is_cancelled)
                assert isinstance(found, StoredModel)
                base = found
        recipe = _filled(Recipe(name, base), request)
        return create(recipe, library, report, is_cancelled)

    await run_errand(call, work, stream=request.stream)


def _without_success(report: "Report") -> "Report":
    """The success of the pull is not that of the creation."""

    def tell(event: "PullEvent") -> None:
        if event.status != "success":
            report(event)

    return tell


def _filled(recipe: "Recipe", request: CreateRequest) -> "Recipe":
    """Raises `BadRequest` or `TemplateFailed`, as late as Ollama finds it out."""
    if request.template:
        _check_template(request.template)
    return replace(
        recipe,
        files=request.files,
        adapters=request.adapters,
        draft_files=request.draft_files,
        template=request.template,
        system=request.system,
        licenses=read_licenses(request.license),
        parameters=request.parameters,
        messages=request.messages,
        renderer=request.renderer,
        parser=request.parser,
        requires=request.requires,
        quantize=request.quantize,
        draft_quantize=request.draft_quantize,
        overrides=read_info(request.info),
    )


def _check_template(text: str) -> None:
    try:
        check_go(text)
    except TemplateFailed as error:
        said = re.sub(r"^the template's line (\d+): ", r"template: :\1: ", error.message)
        raise TemplateFailed(f"template error: {said}", hint=error.hint) from error


ROUTES = (("POST", "/api/create", create),)
