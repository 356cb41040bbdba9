"""GET /v1/models and GET /v1/models/{name}."""

from localrun.errors import ModelNotFound
from localrun.names import parse_name
from localrun.server.answers import Call
from localrun.server.relay import theirs
from localrun.server.wire import dump
from localrun.store.library import StoredModel


async def models(call: Call) -> None:
    """GET /v1/models: every model, newest first; without one an empty list, not null."""
    found = await call.rooms.shelf.all()
    data = [_item(model.name.short(), model) for model in found]
    names = {str(item["id"]).lower() for item in data}
    others = await theirs(call, "/v1/models", "data")
    data += [item for item in others if str(item.get("id", "")).lower() not in names]
    await call.answer(200, dump({"object": "list", "data": data}) + b"\n")


async def model(call: Call) -> None:
    """GET /v1/models/{name}, where the name may have slashes."""
    text: str = call.scope["path_params"]["name"]
    if not text:
        await models(call)
        return
    try:
        found = await call.rooms.shelf.find(text)
    except ModelNotFound as error:
        raise ModelNotFound(parse_name(text).short(), hint=error.hint) from error
    await call.answer(200, dump(_item(text, found)) + b"\n")


def _item(name: str, model: StoredModel) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": int(model.modified_at.timestamp()),
        "owned_by": model.name.namespace,
    }
