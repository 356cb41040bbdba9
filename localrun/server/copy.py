"""The route that gives a model a second name: POST /api/copy."""

import asyncio
import json

from localrun.errors import BadRequest, InvalidName, ModelNotFound, NotFound
from localrun.names import ModelName, parse_name
from localrun.server.answers import Call
from localrun.server.schema.create import read_copy


async def copy(call: Call) -> None:
    """POST /api/copy."""
    request = read_copy(call.body)
    source = _name("source", request.source)
    destination = _name("destination", request.destination)
    library = call.rooms.shelf.library
    if source.key != destination.key:
        try:
            found = await call.rooms.shelf.find(request.source)
            await asyncio.to_thread(library.copy, found.name, destination)
        except ModelNotFound as error:
            raise NotFound(f"model {_quoted(request.source)} not found") from error
    await call.answer(200, b"")


def _name(which: str, text: str) -> ModelName:
    try:
        return parse_name(text)
    except InvalidName as error:
        raise BadRequest(f"{which} {_quoted(text)} is invalid") from error


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


ROUTES = (("POST", "/api/copy", copy),)
