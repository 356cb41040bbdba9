"""What each route takes and answers. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

JSON, NDJSON, SSE = "application/json", "application/x-ndjson", "text/event-stream"
PLAIN, BYTES = "text/plain", "application/octet-stream"

_RUNS = (500, 502, 503, 507)
"""A model may be too large, the queue full, a runner dead."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        method: In lower case.
        path: As OpenAPI writes paths.
        summary: One sentence.
        takes: Name of the request's schema, or a content type that has none; empty without a body.
        gives: Name of the answer's schema; empty for an answer without a body.
        streams: Content type of a streamed answer; empty where it is never streamed.
        statuses: Errors beside those that any route may answer.
        success: Status of success.
        plain: Content type of an answer that is no JSON.
        query: Parameters behind the path, all optional.
    """

    method: str
    path: str
    summary: str
    takes: str = ""
    gives: str = ""
    streams: str = ""
    statuses: tuple[int, ...] = ()
    success: int = 200
    plain: str = ""
    query: tuple[str, ...] = ()

    @property
    def dialect(self) -> str:
        """Name of the schema of its errors."""
        if self.path.startswith("/v1/messages"):
            return "AnthropicError"
        is_native = not self.path.startswith("/v1/") or self.path in _NATIVE
        return "Error" if is_native else "OpenAIError"


_NATIVE = ("/v1/stream/{id}", "/v1/chat/completions/control")
_SHAPES: Mapping[str, str] = {"{name:path}": "{name}"}


def openapi_path(path: str) -> str:
    """A path of the router as OpenAPI writes it."""
    for ours, theirs in _SHAPES.items():
        path = path.replace(ours, theirs)
    return path


def _run(path: str, summary: str, takes: str, gives: str, streams: str) -> Operation:
    return Operation("post", path, summary, takes, gives, streams, (404, 409, 422, *_RUNS))


def _errand(path: str, summary: str, takes: str) -> Operation:
    statuses = (404, 409, 422, 429, *_RUNS)
    return Operation("post", path, summary, takes, "Progress", NDJSON, statuses)


def _ask(path: str, summary: str, takes: str, gives: str) -> Operation:
    return Operation("post", path, summary, takes, gives, "", (404, 409, 422, *_RUNS))


def _get(path: str, summary: str, gives: str, *statuses: int, query: str = "") -> Operation:
    return Operation("get", path, summary, "", gives, "", statuses, query=tuple(query.split()))


def _nobody(method: str, path: str, summary: str) -> Operation:
    """A route that only refuses: its one answer is 401 or 403, which any route may give."""
    return Operation(method, path, summary, success=0)


OPERATIONS = (
    Operation("get", "/", "Say that the server is there.", plain=PLAIN),
    Operation("head", "/", "The same without the words."),
    _get("/api/version", "The version.", "Version"),
    Operation("head", "/api/version", "The same without the body."),
    _get("/api/tags", "The models on this machine.", "Models"),
    Operation("head", "/api/tags", "The same without the body."),
    _get("/api/ps", "The models in memory.", "Models"),
    _get("/openapi.json", "This description.", "Document"),
    _get("/health", "What works, part by part.", "Health", 503),
    Operation("get", "/metrics", "Counters in Prometheus' format.", plain=PLAIN),
    _run("/api/generate", "Complete a prompt.", "GenerateRequest", "GenerateResponse", NDJSON),
    _run("/api/chat", "Answer a conversation.", "ChatRequest", "ChatResponse", NDJSON),
    _ask("/api/embed", "Turn texts into vectors.", "EmbedRequest", "EmbedResponse"),
    _ask("/api/embeddings", "Turn a text into a vector.", "EmbeddingsRequest",
         "EmbeddingsResponse"),
    _ask("/api/rerank", "Order documents by a query.", "RerankRequest", "RerankResponse"),
    _ask("/api/tokenize", "Turn a text into tokens.", "TokenizeRequest", "TokenizeResponse"),
    _ask("/api/detokenize", "Turn tokens into text.", "DetokenizeRequest", "DetokenizeResponse"),
    _ask("/api/show", "Show what a model is.", "ShowRequest", "ShowResponse"),
    _errand("/api/pull", "Fetch a model.", "PullRequest"),
    _errand("/api/push", "Send a model to a registry.", "PushRequest"),
    _errand("/api/create", "Make a model.", "CreateRequest"),
    Operation("post", "/api/copy", "Give a model a second name.", "CopyRequest",
              statuses=(404, 500)),
    Operation("delete", "/api/delete", "Remove a model.", "DeleteRequest", statuses=(404, 500)),
    Operation("head", "/api/blobs/{digest}", "Whether a file is here.", statuses=(404,)),
    Operation("post", "/api/blobs/{digest}", "Store a file.", BYTES, success=201,
              statuses=(404, 500, 507)),
    _get("/api/status", "Whether there is a cloud: there is none.", "Status"),
    _nobody("post", "/api/me", "Who is signed in: nobody."),
    _nobody("post", "/api/signout", "Sign out: nobody is signed in."),
    _nobody("delete", "/api/user/keys/{key}", "The older form of signing out."),
    _nobody("post", "/api/experimental/web_search", "Search the web: that needs a cloud."),
    _nobody("post", "/api/experimental/web_fetch", "Fetch a page: that needs a cloud."),
    _get("/api/experimental/model-recommendations", "Models of the cloud: none.",
         "Recommendations"),
    Operation("post", "/api/answer_now", "Have a model end its reasoning.", "AnswerNowRequest",
              "AnswerNowResponse", statuses=(404,)),
    _get("/api/explain", "What kept the last prompts from the cache.", "Explained",
         query="model n"),
    _run("/v1/chat/completions", "Answer a conversation.", "ChatCompletionRequest",
         "ChatCompletion", SSE),
    Operation("post", "/v1/chat/completions/control", "Have a model end its reasoning.",
              "ControlRequest", "ControlResponse"),
    _ask("/v1/chat/completions/input_tokens", "Count the tokens of a conversation.",
         "ChatCompletionRequest", "InputTokens"),
    _run("/v1/completions", "Complete a prompt.", "CompletionRequest", "ChatCompletion", SSE),
    _ask("/v1/embeddings", "Turn texts into vectors.", "OpenAIEmbedRequest", "OpenAIList"),
    _ask("/v1/rerank", "Order documents by a query.", "RerankRequest", "RerankResponse"),
    _get("/v1/models", "The models on this machine.", "OpenAIList"),
    _get("/v1/models/{name}", "One model.", "OpenAIModel", 404),
    _run("/v1/responses", "Answer, and keep the answer.", "ResponseRequest", "Response", SSE),
    _ask("/v1/responses/input_tokens", "Count the tokens of a request.", "ResponseRequest",
         "InputTokens"),
    _get("/v1/responses/{id}", "A kept answer.", "Response", 404, query="stream"),
    Operation("delete", "/v1/responses/{id}", "Forget a kept answer.", "", "DeletedResponse",
              statuses=(404,)),
    _get("/v1/responses/{id}/input_items", "What a kept answer answered.", "OpenAIList", 404,
         query="order after limit"),
    _run("/v1/messages", "Answer a conversation.", "MessagesRequest", "Message", SSE),
    _ask("/v1/messages/count_tokens", "Count the tokens of a conversation.",
         "CountTokensRequest", "InputTokens"),
    Operation("get", "/v1/stream/{id}", "Read a named stream again, from a byte on.",
              statuses=(404, 409), plain=f"{NDJSON} {SSE} {JSON}", query=("from",)),
    Operation("delete", "/v1/stream/{id}", "Stop a named stream.", success=204, statuses=(404,)),
)  # fmt: skip
"""Every route, in the order of the document."""
