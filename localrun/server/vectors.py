"""/api/embed, /api/embeddings, /api/rerank, /v1/rerank, /api/tokenize and /api/detokenize."""

from array import array

from localrun.errors import BadRequest, ModelNotFound
from localrun.server.answers import Call, Handler
from localrun.server.embed import EmbedAsk, embed, rank
from localrun.server.schema.vectors import (
    RankRequest,
    read_detokenize,
    read_embed,
    read_embeddings,
    read_rank,
    read_tokenize,
)
from localrun.server.shelf import vocab_of
from localrun.server.wire import nanoseconds
from localrun.store.library import StoredModel


class ModelMissing(ModelNotFound):
    """Raised when there is no such model, in the words of the routes that embed."""

    def __init__(self, name: str, *, hint: str | None = None) -> None:
        super().__init__(name, hint=hint)
        self.args = (f'model "{name}" not found, try pulling it first',)


async def api_embed(call: Call) -> None:
    """POST /api/embed."""
    request = read_embed(call.body)
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
    body: dict[str, object] = {"model": request.model, "embeddings": [[*v] for v in found.vectors]}
    if request.inputs:
        counts = {
            "total_duration": nanoseconds(found.total_s),
            "load_duration": nanoseconds(found.load_s),
            "prompt_eval_count": sum(found.counts),
        }
        body |= {name: value for name, value in counts.items() if value}
    await call.json(body)


async def api_embeddings(call: Call) -> None:
    """POST /api/embeddings, the older form: one text, nothing is cut."""
    request = read_embeddings(call.body)
    if not request.model:
        raise BadRequest("model is required")
    model = await find_to_embed(call, request.model)
    ask = EmbedAsk(
        model,
        request.inputs,
        request.options,
        truncate=False,
        keep_alive_s=request.keep_alive_s,
    )
    found = await embed(call, ask)
    await call.json({"embedding": [*found.vectors[0]] if found.vectors else []})


async def api_rerank(call: Call) -> None:
    """POST /api/rerank: the documents by how well they answer the query, best first."""
    request = read_rank(call.body)
    scores, n_tokens = await _ranked(call, request)
    results = [{"index": at, "relevance_score": score, **_document(request, at)}
               for at, score in scores]  # fmt: skip
    await call.json({"model": request.model, "results": results, "prompt_eval_count": n_tokens})


async def v1_rerank(call: Call) -> None:
    """POST /v1/rerank, as llama-server, Jina and Cohere know it."""
    request = read_rank(call.body)
    scores, n_tokens = await _ranked(call, request)
    results = [{"index": at, "relevance_score": score, **_document(request, at)}
               for at, score in scores]  # fmt: skip
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    await call.json({"model": request.model, "object": "list", "usage": usage, "results": results})


async def _ranked(call: Call, request: RankRequest) -> tuple[list[tuple[int, float]], int]:
    model = await find_to_embed(call, request.model)
    ask = EmbedAsk(
        model,
        request.documents,
        request.options,
        truncate=request.truncate,
        keep_alive_s=request.keep_alive_s,
    )
    scores, n_tokens = await rank(call, ask, request.query)
    best = sorted(enumerate(scores), key=lambda item: -item[1])
    return best[: request.top_n or None], n_tokens


def _document(request: RankRequest, at: int) -> dict[str, object]:
    return {"document": {"text": request.documents[at]}} if request.return_documents else {}


async def api_tokenize(call: Call) -> None:
    """POST /api/tokenize: no weight is read."""
    request = read_tokenize(call.body)
    model = await find_to_embed(call, request.model)
    tokens = await call.rooms.parts.text.tokenize(
        vocab_of(model), request.text, add_special=request.add_special
    )
    await call.json({"model": request.model, "tokens": tokens.tolist()})


async def api_detokenize(call: Call) -> None:
    """POST /api/detokenize: no weight is read."""
    request = read_detokenize(call.body)
    model = await find_to_embed(call, request.model)
    text = await call.rooms.parts.text.detokenize(
        vocab_of(model), array("i", request.tokens), render_special=True
    )
    await call.json({"model": request.model, "text": text})


async def find_to_embed(call: Call, name: str) -> StoredModel:
    """The model that a client means.

    Raises:
        BadRequest: If it names none.
        ModelMissing: If there is no such model.
    """
    if not name:
        raise BadRequest("model is required")
    try:
        return await call.rooms.shelf.find(name)
    except ModelNotFound as error:
        raise ModelMissing(name) from error


ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/api/embed", api_embed),
    ("POST", "/api/embeddings", api_embeddings),
    ("POST", "/api/rerank", api_rerank),
    ("POST", "/api/tokenize", api_tokenize),
    ("POST", "/api/detokenize", api_detokenize),
)
"""Methods, path and handler of each route."""
