"""GET /openapi.json: the API as OpenAPI 3.1 describes it."""

from functools import cache

from localrun import __version__
from localrun.server.answers import Call
from localrun.server.openapi.operations import JSON, OPERATIONS, PLAIN, Operation
from localrun.server.openapi.shapes import OBJECT, SCHEMAS, TEXT, Schema, record
from localrun.server.wire import dump

_ANY_ROUTE = (400, 401, 403)
_WITH_BODY = (413, 415)
_MEANINGS = {
    200: "Done.",
    201: "Stored.",
    204: "Done.",
    400: "The request cannot be understood or served as it stands.",
    401: "A key is missing or wrong.",
    403: "The Host, the Origin or the request is not allowed.",
    404: "There is no such model, file, answer or stream.",
    409: "Another request or connection has this stream.",
    413: "The body is too large.",
    415: "The body is compressed in a way that is not known.",
    422: "The model's file is damaged, or newer than is known.",
    429: "The source asks to come back later.",
    500: "Something failed here.",
    502: "A model could not be fetched or sent, or a backend failed.",
    503: "The queue is full, the server stops, or the source or a backend cannot be reached.",
    507: "There is not enough memory or disk.",
}
_STREAM_HEADERS = ("x-localrun-stream", "x-localrun-stream-from")


@cache
def make_document() -> bytes:
    """The whole document as JSON."""
    paths: dict[str, dict[str, object]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    count = {key: value for key, value in SCHEMAS["MessagesRequest"].items() if key != "required"}
    schemas = {
        **SCHEMAS,
        "CountTokensRequest": {**count, "required": ["model", "messages"]},
        "Document": record("openapi info paths", openapi=TEXT, info=OBJECT, paths=OBJECT),
    }
    keys = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    return dump(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "localrun",
                "version": __version__,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
                "description": "Ollama's API, OpenAI's and Anthropic's, and what is our own.",
            },
            "security": [{}, *({name: list[str]()} for name in keys)],
            "paths": paths,
            "components": {"schemas": schemas, "securitySchemes": keys},
        }
    )


def _described(operation: Operation) -> dict[str, object]:
    found: dict[str, object] = {
        "summary": operation.summary,
        "operationId": _name_of(operation),
        "responses": _responses(operation),
    }
    if parameters := _parameters(operation):
        found["parameters"] = parameters
    if takes := operation.takes:
        is_json = takes in SCHEMAS or takes == "CountTokensRequest"
        content: dict[str, object] = {JSON: {"schema": _link(takes)}} if is_json else {takes: {}}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _name_of(operation: Operation) -> str:
    words = operation.path.translate(str.maketrans("/{}.-", "     ")).split() or ["root"]
    return "_".join((operation.method, *words))


def _responses(operation: Operation) -> dict[str, object]:
    found: dict[str, object] = {}
    if operation.success:
        found[str(operation.success)] = _answer(operation)
    statuses = {*_ANY_ROUTE, *operation.statuses, *(_WITH_BODY if operation.takes else ())}
    content = {JSON: {"schema": _link(operation.dialect)}}
    for status in sorted(statuses):
        answer: dict[str, object] = {"description": _MEANINGS[status]}
        if operation.method != "head":
            # A path that fits no route is answered by the router, in plain text as Ollama's.
            is_routers = status == 404 and "{" in operation.path
            answer["content"] = content | ({PLAIN: {}} if is_routers else {})
        found[str(status)] = answer
    return found


def _answer(operation: Operation) -> dict[str, object]:
    content: dict[str, object] = {kind: {} for kind in operation.plain.split()}
    if operation.gives:
        content[JSON] = {"schema": _link(operation.gives)}
    if operation.streams:
        content[operation.streams] = {}
    answer: dict[str, object] = {"description": _MEANINGS[operation.success]}
    return answer | {"content": content} if content else answer


def _parameters(operation: Operation) -> list[object]:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    found: list[object] = [
        {"name": name, "in": "path", "required": True, "schema": TEXT} for name in names
    ]
    found += [{"name": name, "in": "query", "schema": TEXT} for name in operation.query]
    if operation.streams:
        found += [
            {"name": name, "in": "header", "schema": _header_schema(name)}
            for name in _STREAM_HEADERS
        ]
    return found


def _header_schema(name: str) -> Schema:
    counts = name.endswith("from")
    return {"type": "string", "pattern": "^[0-9]{1,18}$" if counts else "^[A-Za-z0-9_-]{8,128}$"}


def _link(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


async def openapi(call: Call) -> None:
    """GET /openapi.json."""
    await call.answer(200, make_document())


ROUTES = (("GET", "/openapi.json", openapi),)
