"""The route that sends models to a registry: POST /api/push."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from localrun.errors import BadRequest, InvalidName, ModelNotFound
from localrun.server.answers import Call
from localrun.server.errand import run_errand
from localrun.server.schema.create import read_push
from localrun.store.addresses import Credentials, read_address

if TYPE_CHECKING:
    from localrun.store.progress import Report


async def push(call: Call) -> None:
    """POST /api/push: the steps as records, or the last one alone."""
    request = read_push(call.body)
    if not request.model:
        raise BadRequest("model is required")
    library = call.rooms.shelf.library

    def work(report: "Report", cancelled: Callable[[], bool]) -> None:
        from localrun.store.progress import PullEvent
        from localrun.store.push import push
        from localrun.store.registry import Registry

        report(PullEvent("retrieving manifest"))
        try:
            address = read_address(request.model, insecure=request.insecure)
            model = library.find(request.model)
        except (InvalidName, ModelNotFound):
            report(PullEvent("couldn't retrieve manifest"))
            raise
        user = Credentials(request.username, request.password) if request.username else None
        with Registry(address, user) as registry:
            push(model, registry, library, report, cancelled)

    await run_errand(call, work, stream=request.stream)


ROUTES = (("POST", "/api/push", push),)
