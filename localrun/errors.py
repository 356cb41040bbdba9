"""The error tree of localrun. Pure: imported by every room.

    LocalrunError
    ├── BadRequest            400  what was sent cannot be understood or served
    │   ├── InvalidName       400  a model name outside the grammar
    │   ├── InvalidOption     400  an option of a wrong type or out of its range
    │   ├── PromptTooLong     400  the prompt does not fit the context window
    │   ├── TemplateFailed    400  the chat template raised, or took too long
    │   └── Unsupported       400  the model cannot do what is asked
    ├── NotFound              404
    │   └── ModelNotFound     404  no such model on this machine
    ├── Forbidden             403  a door is shut: host, origin, key
    ├── Cancelled             499  the client went away, or the server stops
    ├── Busy                  503  the queue is full, or the server is shutting down
    ├── BackendFailed         502  a daemon that serves for us answered nonsense, or broke off
    │   └── BackendGone       503  it cannot be reached
    ├── OutOfMemory           507  the model does not fit what is free
    ├── PullFailed            502  a model could not be fetched
    │   ├── SourceMissing     404  no such repository, file or tag at the source
    │   ├── AccessDenied      401  gated, private or a wrong token
    │   ├── RateLimited       429  the source asks to come back later
    │   ├── Offline           503  the source cannot be reached
    │   ├── BrokenTransfer    502  what arrived is not what was promised
    │   └── DiskFull          507  not enough room for the files
    ├── BadModelFile          422  a GGUF that is damaged, foreign or too new
    ├── BadSetting            500  a setting that stops the start
    ├── EngineMissing         500  llama.cpp is not installed, or of another ABI
    ├── GrammarFailed         500  an answer could not be held to its grammar to the end
    └── RunnerFailed          500  a child process died or answered nonsense

Each error takes facts, builds its own sentence, and carries `code` (a stable word for programs),
`status` (HTTP) and `hint` (the next thing to do, or an empty string).
"""

from typing import ClassVar


class LocalrunError(Exception):
    """Raised when something fails in a way that a person can understand and act on.

    Attributes:
        code: Stable lower-case word for programs.
        status: HTTP status of an answer that carries this error.
        hint: What to do next, one sentence or command; empty where nothing helps.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def message(self) -> str:
        """The sentence, without the hint."""
        return str(self.args[0])

    def facts(self) -> dict[str, int | str]:
        """Numbers and names a program may want beside the sentence; empty by default."""
        return {}


class BadRequest(LocalrunError):
    """Raised when a request cannot be understood or served as it stands."""

    code = "bad_request"
    status = 400


class InvalidName(BadRequest):
    """Raised when a model name is outside the grammar `[host/][namespace/]model[:tag]`."""

    code = "invalid_name"

    def __init__(self, text: str) -> None:
        super().__init__("invalid model name", hint=f"{text!r} is not host/namespace/model:tag")
        self.text = text


class InvalidOption(BadRequest):
    """Raised when an option has a wrong type or is out of its range."""

    code = "invalid_option"


class PromptTooLong(BadRequest):
    """Raised when a prompt does not fit the context window.

    Args:
        needed: Tokens of the prompt, plus one for the first completion token.
        available: Tokens the context window holds.
        trained: The model's trained context in tokens; 0 if unknown.
    """

    code = "prompt_too_long"

    def __init__(self, needed: int, available: int, trained: int = 0) -> None:
        if trained >= needed:
            hint = f"raise it with options.num_ctx={needed} or more (the model allows {trained})"
        elif trained:
            hint = f"shorten the prompt; the model was trained for {trained} tokens"
        else:
            hint = "shorten the prompt or raise options.num_ctx"
        super().__init__(
            f"the prompt needs {needed} tokens and the context window holds {available}", hint=hint
        )
        self.needed, self.available, self.trained = needed, available, trained

    def facts(self) -> dict[str, int | str]:
        """Tokens needed, available and trained for."""
        return {"needed": self.needed, "available": self.available, "trained": self.trained}


class TemplateFailed(BadRequest):
    """Raised when a chat template raises, is refused by the sandbox or takes too long."""

    code = "template_failed"


class Unsupported(BadRequest):
    """Raised when a model or this version cannot do what is asked."""

    code = "unsupported"


class NotFound(LocalrunError):
    """Raised when the thing asked for does not exist."""

    code = "not_found"
    status = 404


class ModelNotFound(NotFound):
    """Raised when no model of this name is on the machine. `name` is as the user wrote it."""

    code = "model_not_found"

    def __init__(self, name: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"model '{name}' not found",
            hint=f"localrun pull {name}" if hint is None else hint,
        )
        self.name = name


class Forbidden(LocalrunError):
    """Raised when the Host, the Origin or the key of a request is not allowed."""

    code = "forbidden"
    status = 403


class Cancelled(LocalrunError):
    """Raised when the client went away or the server stops before the answer is complete."""

    code = "cancelled"
    status = 499


class Busy(LocalrunError):
    """Raised when the queue is full or the server is shutting down."""

    code = "busy"
    status = 503


class BackendFailed(LocalrunError):
    """Raised when a daemon that serves for us fails, answers nonsense or breaks off."""

    code = "backend_failed"
    status = 502


class BackendGone(BackendFailed):
    """Raised when a daemon that serves for us cannot be reached or does not answer any more."""

    code = "backend_gone"
    status = 503


class OutOfMemory(LocalrunError):
    """Raised when a model does not fit into what is free, even after evictions.

    Args:
        needed_bytes: What the load would take on the tightest device.
        free_bytes: What is free there.
        device: Name of that device, `cpu` or a GPU's.
    """

    code = "out_of_memory"
    status = 507

    def __init__(self, needed_bytes: int, free_bytes: int, device: str, *, hint: str = "") -> None:
        super().__init__(
            f"the model needs {needed_bytes / 2**30:.1f} GiB on {device}"
            f" and {free_bytes / 2**30:.1f} GiB are free",
            hint=hint or "lower options.num_ctx, or pull a smaller quantization",
        )
        self.needed_bytes, self.free_bytes, self.device = needed_bytes, free_bytes, device


class PullFailed(LocalrunError):
    """Raised when a model cannot be fetched; the subclasses say why."""

    code = "pull_failed"
    status = 502


class SourceMissing(PullFailed):
    """Raised when the source has no such repository, file, tag or revision."""

    code = "source_missing"
    status = 404


class AccessDenied(PullFailed):
    """Raised when a source is gated or private, or does not accept the token."""

    code = "access_denied"
    status = 401


class RateLimited(PullFailed):
    """Raised when a source asks to come back later; `retry_after_s` in seconds, 0 if unsaid."""

    code = "rate_limited"
    status = 429

    def __init__(self, message: str, *, retry_after_s: float = 0.0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Offline(PullFailed):
    """Raised when a source cannot be reached, or offline mode forbids to try."""

    code = "offline"
    status = 503


class BrokenTransfer(PullFailed):
    """Raised when bytes that arrived are not the bytes that were promised."""

    code = "broken_transfer"


class DiskFull(PullFailed):
    """Raised when the store's disk has no room for what is to be written."""

    code = "disk_full"
    status = 507


class BadModelFile(LocalrunError):
    """Raised when a GGUF file is damaged, truncated, foreign or newer than we know."""

    code = "bad_model_file"
    status = 422


class BadSetting(LocalrunError):
    """Raised at start when a setting cannot be used; names the setting and where it came from."""

    code = "bad_setting"


class EngineMissing(LocalrunError):
    """Raised when llama.cpp cannot be loaded or does not match the binding."""

    code = "engine_missing"


class GrammarFailed(LocalrunError):
    """Raised when an answer cannot be held to its grammar any further: it ends, never unheld."""

    code = "grammar_failed"


class RunnerFailed(LocalrunError):
    """Raised when a child process died or broke the protocol; the message has its last words."""

    code = "runner_failed"


def error_classes() -> dict[str, type[LocalrunError]]:
    """Every class of the tree by its `code`, to rebuild an error that crossed a process border."""
    found: dict[str, type[LocalrunError]] = {}
    todo: list[type[LocalrunError]] = [LocalrunError]
    while todo:
        cls = todo.pop()
        found.setdefault(cls.code, cls)  # of those that share a code the most general
        todo += cls.__subclasses__()
    return found
