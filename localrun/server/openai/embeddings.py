"""POST /v1/embeddings: texts or tokens to vectors, as numbers or as base64."""

import base64
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import msgspec

from localrun.errors import BadRequest, ModelNotFound
from localrun.messages import unpack_tokens
from localrun.server.answers import Call
from localrun.server.embed import EmbedAsk, embed
from localrun.server.openai.completions import read_tokens
from localrun.server.openai.errors import InvalidField, reading
from localrun.server.openai.fields import read_body, read_keep_alive, read_name
from localrun.server.vectors import find_to_embed
from localrun.server.wire import dump

MAX_INPUTS = 2048


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """POST /v1/embeddings.

    Attributes:
        model: Name as the client wrote it.
        inputs: Texts, or lists of tokens.
        dimensions: Numbers of each vector that are kept, 0 for all.
        is_base64: Vectors as base64 of little-endian float32, instead of numbers.
        truncate: Cut what is too long; our extension, as Ollama always does.
        options: Ollama's options; our extension.
        keep_alive_s: Stay of the model afterwards; our extension.
    """

    model: str
    inputs: tuple[str | Sequence[int], ...]
    dimensions: int
    is_base64: bool
    truncate: bool
    options: dict[str, object]
    keep_alive_s: float | None


async def embeddings(call: Call) -> None:
    """POST /v1/embeddings."""
    request = reading(call, read_embeddings)
    if not request.model:
        raise ModelNotFound("", hint="")
    model = await find_to_embed(call, request.model)
    ask = EmbedAsk(
        model,
        request.inputs,
        request.options,
        truncate=request.truncate,
        dimensions=request.dimensions,
        keep_alive_s=request.keep_alive_s,
    )
    found = await embed(call, ask)
    form = _base64 if request.is_base64 else _numbers
    data = [
        {"object": "embedding", "embedding": form(vector), "index": at}
        for at, vector in enumerate(found.vectors)
    ]
    n_tokens = sum(found.counts)
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    body = {"object": "list", "data": data, "model": request.model, "usage": usage}
    await call.answer(200, dump(body) + b"\n")


def read_embeddings(data: bytes) -> EmbeddingsRequest:
    """Read the body of /v1/embeddings.

    Raises:
        BadRequest: If it cannot be understood.
    """
    body = read_body(data, "EmbedRequest")
    name = read_name(body)
    form = body.text("encoding_format") or "float"
    if form.lower() not in ("float", "base64"):
        raise InvalidField(
            f"Invalid value for 'encoding_format' = {form}. Supported values: ['float', 'base64'].",
            "encoding_format",
        )
    return EmbeddingsRequest(
        model=name,
        inputs=_read_inputs(body.all.get("input")),
        dimensions=body.whole("dimensions", 0, 1 << 20) or 0,
        is_base64=form.lower() == "base64",
        truncate=body.flag("truncate") is not False,
        options=body.record("options") or {},
        keep_alive_s=read_keep_alive(body),
    )


def _read_inputs(value: object) -> tuple[str | Sequence[int], ...]:
    if isinstance(value, str):
        return (value,)
    if value is None or value == []:
        raise BadRequest("invalid input")
    if not isinstance(value, list):
        raise BadRequest("invalid input type")
    items = cast("list[object]", value)
    if isinstance(items[0], int):
        return (unpack_tokens(read_tokens(items, "input")),)
    if len(items) > MAX_INPUTS:
        raise InvalidField(f"input takes at most {MAX_INPUTS} texts", "input")
    return tuple(map(_read_input, items))


def _read_input(item: object) -> str | Sequence[int]:
    if isinstance(item, str):
        return item
    if isinstance(item, list):
        return unpack_tokens(read_tokens(cast("list[object]", item), "input"))
    raise BadRequest("invalid input type")


def _numbers(vector: "array[float]") -> msgspec.Raw:
    """With the nine digits that tell every float32 from its neighbours."""
    return msgspec.Raw(b"[" + b",".join([b"%.9g" % number for number in vector]) + b"]")


def _base64(vector: "array[float]") -> str:
    if sys.byteorder == "big":
        vector = array("f", vector)
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
