"""Requests of the routes that embed, rank and tokenize. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from localrun.errors import BadRequest
from localrun.server.durations import parse_keep_alive
from localrun.server.schema.decode import Fields, parse_json

_MAX_TOKEN = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """POST /api/embed and, with one text and no more, /api/embeddings.

    Attributes:
        model: Name as the client wrote it.
        inputs: Texts; none only loads the model.
        options: As sent.
        truncate: Cut what is too long.
        dimensions: Numbers of each vector; 0 for all.
        keep_alive_s: Stay of the model; None keeps what holds.
    """

    model: str
    inputs: tuple[str, ...]
    options: Mapping[str, object]
    truncate: bool = True
    dimensions: int = 0
    keep_alive_s: float | None = None


@dataclass(frozen=True, slots=True)
class RankRequest:
    """POST /api/rerank and /v1/rerank.

    Attributes:
        model: Name as the client wrote it.
        query: What the documents are to answer.
        documents: At least one.
        top_n: So many of the best; 0 for all.
        return_documents: Repeat the documents in the answer.
        truncate: Cut documents that are too long.
        options: As sent.
        keep_alive_s: Stay of the model; None keeps what holds.
    """

    model: str
    query: str
    documents: tuple[str, ...]
    top_n: int
    return_documents: bool
    truncate: bool
    options: Mapping[str, object]
    keep_alive_s: float | None


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """POST /api/tokenize.

    Attributes:
        model: Name as the client wrote it.
        text: Any text.
        add_special: Add the tokens that the model wants around a text.
    """

    model: str
    text: str
    add_special: bool


@dataclass(frozen=True, slots=True)
class DetokenizeRequest:
    """POST /api/detokenize."""

    model: str
    tokens: tuple[int, ...]


def read_embed(body: bytes) -> EmbedRequest:
    """Read the body of /api/embed.

    Raises:
        BadRequest: If it cannot be understood.
    """
    fields = Fields(parse_json(body), "EmbedRequest")
    return EmbedRequest(
        model=fields.text("model") or "",
        options=fields.record("options") or {},
        truncate=fields.flag("truncate") is not False,
        dimensions=fields.count("dimensions") or 0,
        keep_alive_s=parse_keep_alive(fields.all.get("keep_alive")),
        inputs=_inputs(fields.all.get("input")),
    )


def read_embeddings(body: bytes) -> EmbedRequest:
    """Read the body of /api/embeddings. Raises as `read_embed`."""
    fields = Fields(parse_json(body), "EmbeddingRequest")
    prompt = fields.text("prompt")
    return EmbedRequest(
        model=fields.text("model") or "",
        inputs=(prompt,) if prompt else (),
        options=fields.record("options") or {},
        keep_alive_s=parse_keep_alive(fields.all.get("keep_alive")),
    )


def read_rank(body: bytes) -> RankRequest:
    """Read the body of /api/rerank or /v1/rerank. Raises as `read_embed`."""
    fields = Fields(parse_json(body), "RerankRequest")
    top_n = fields.count("top_n") or 0
    if top_n < 0:
        raise BadRequest("top_n must be 0 or more")
    documents = tuple(_document(item) for item in fields.array("documents", "[]string") or [])
    if not documents:
        raise BadRequest("documents is required")
    query = fields.text("query")
    if not query:
        raise BadRequest("query is required")
    return RankRequest(
        model=fields.text("model") or "",
        query=query,
        documents=documents,
        top_n=top_n,
        return_documents=fields.flag("return_documents") or False,
        truncate=fields.flag("truncate") is not False,
        options=fields.record("options") or {},
        keep_alive_s=parse_keep_alive(fields.all.get("keep_alive")),
    )


def read_tokenize(body: bytes) -> TokenizeRequest:
    """Read the body of /api/tokenize: `text`, or `content` as llama-server calls it."""
    fields = Fields(parse_json(body), "TokenizeRequest")
    text = fields.text("text")
    if text is None:
        text = fields.text("content") or ""
    return TokenizeRequest(fields.text("model") or "", text, fields.flag("add_special") or False)


def read_detokenize(body: bytes) -> DetokenizeRequest:
    """Read the body of /api/detokenize."""
    fields = Fields(parse_json(body), "DetokenizeRequest")
    tokens = fields.ints("tokens") or []
    if not all(0 <= token <= _MAX_TOKEN for token in tokens):
        raise BadRequest("tokens holds a number that is no token")
    return DetokenizeRequest(fields.text("model") or "", tuple(tokens))


def _inputs(value: object) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    texts = tuple(item for item in items if isinstance(item, str))
    if len(texts) != len(items):
        raise BadRequest("invalid input type")
    return texts


def _document(item: object) -> str:
    """A document: a text, or an object with one."""
    if isinstance(item, dict):
        item = cast("dict[str, object]", item).get("text")
    if not isinstance(item, str):
        raise BadRequest("documents must be texts")
    return item
