"""How Anthropic's API says that something went wrong. Pure."""

import secrets

from localrun.errors import LocalrunError, ModelNotFound, PromptTooLong
from localrun.server.answers import PLAIN_JSON
from localrun.server.wire import dump

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def new_id(prefix: str) -> str:
    """A fresh id in Ollama's form: the prefix and 24 hexadecimal digits."""
    return prefix + secrets.token_hex(12)


class AnthropicErrors:
    """The error bodies of one request, or of any if it has no id.

    Args:
        request_id: Stands in each body; a fresh one if empty.
    """

    content_type = PLAIN_JSON

    def __init__(self, request_id: str = "") -> None:
        self._request_id = request_id

    def refuse(self, error: LocalrunError) -> bytes:
        """The body of an answer that is an error."""
        return dump(
            {
                "type": "error",
                "error": _error_of(error),
                "request_id": self._request_id or new_id("req_"),
            }
        )

    def break_off(self, error: LocalrunError) -> bytes:
        """The event that ends a stream which cannot go on."""
        return b"event: error\ndata: " + self.refuse(error) + b"\n\n"


DIALECT = AnthropicErrors()


def error_type(status: int) -> str:
    """Anthropic's word for a status."""
    if status in _TYPES:
        return _TYPES[status]
    return "invalid_request_error" if 400 <= status < 500 else "api_error"


def _error_of(error: LocalrunError) -> dict[str, object]:
    message, hint = error.message, error.hint
    if isinstance(error, PromptTooLong):
        # Agents look for these words, and shorten their history by themselves.
        message = f"prompt is too long: {error.needed} tokens > {error.available} maximum"
    if isinstance(error, ModelNotFound) and error.name.startswith("claude"):
        hint = "set ANTHROPIC_MODEL and ANTHROPIC_DEFAULT_HAIKU_MODEL to a name from  localrun list"
    body: dict[str, object] = {"type": error_type(error.status), "message": message}
    body["code"] = error.code
    if hint:
        body["hint"] = hint
    return body | error.facts()
