"""Errors in OpenAI's form.

`{"error": {"message", "type", "param", "code"}}` with our hint and facts beside them; the types by
status are Ollama's, the codes those that clients of OpenAI look for.
"""

from collections.abc import Callable
from typing import TypeVar

from localrun.errors import BadRequest, LocalrunError
from localrun.server.answers import JSON, PLAIN_JSON, Call
from localrun.server.wire import dump

T = TypeVar("T")

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_CODES: dict[str, str | None] = {
    "bad_request": None,
    "not_found": None,
    "prompt_too_long": "context_length_exceeded",
    "unauthorized": "invalid_api_key",
}


class InvalidField(BadRequest):
    """Raised when a field of a request cannot be used; `param` is its path."""

    code = "invalid_value"

    def __init__(self, message: str, param: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.param = param


class UnsupportedField(InvalidField):
    """Raised when a request asks by a field for what localrun does not do."""

    code = "unsupported_parameter"


def error_object(error: LocalrunError) -> dict[str, object]:
    """The inner object of an error."""
    default = "invalid_request_error" if 400 <= error.status < 499 else "api_error"
    found: dict[str, object] = {
        "message": error.message,
        "type": _TYPES.get(error.status, default),
        "param": error.param if isinstance(error, InvalidField) else None,
        "code": _CODES.get(error.code, error.code),
    }
    if error.hint:
        found["hint"] = error.hint
    return found | error.facts()


class OpenAI:
    """How OpenAI's API says that something went wrong."""

    content_type = PLAIN_JSON

    def refuse(self, error: LocalrunError) -> bytes:
        """The body of an answer that is an error."""
        return dump({"error": error_object(error)}) + b"\n"

    def break_off(self, error: LocalrunError) -> bytes:
        """What ends a stream that has begun: clients raise it, and no `[DONE]` follows."""
        return b"data: " + dump({"error": error_object(error)}) + b"\n\n"


class _Misread(OpenAI):
    """The same where the request itself is wrong, with the framing that Ollama gives it there."""

    content_type = JSON

    def refuse(self, error: LocalrunError) -> bytes:
        """The body of an answer that is an error, without an end of line."""
        return dump({"error": error_object(error)})


DIALECT = OpenAI()
_MISREAD = _Misread()


def reading(call: Call, read: Callable[[bytes], T]) -> T:
    """Read a request's body.

    Raises:
        BadRequest: What `read` raises.
    """
    try:
        return read(call.body)
    except BadRequest:
        call.dialect = _MISREAD
        raise
