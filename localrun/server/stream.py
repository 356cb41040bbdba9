"""The records of an answer: built by hand from cached prefixes, sent as they come.

Eight streams of a small model make a thousand records a second; this path makes no task, no model
object and no copy for any of them.
"""

import time
from typing import TYPE_CHECKING, Protocol

from localrun.backends.base import Completion
from localrun.errors import Cancelled
from localrun.messages import End, unpack_tokens
from localrun.server.answers import Call
from localrun.server.wire import dump, dump_text, nanoseconds, utc_now

if TYPE_CHECKING:
    from array import array


class Lines(Protocol):
    """One dialect's records for one request."""

    def delta(self, text: str) -> bytes:
        """The record of a piece of text."""
        ...

    def keep(self, tokens: tuple[int, ...]) -> None:
        """Remember the tokens of a delta, where the last record shows them."""
        ...

    def done(self, text: str, end: End, metrics: dict[str, object]) -> bytes:
        """The last record, with `text` in it."""
        ...


class _Records:
    """What the records of generate and chat share: all but the place of the text."""

    def __init__(self, model: str, before: bytes, after: bytes) -> None:
        self._model = model
        self._head = b'{"model":' + dump_text(model) + b',"created_at":"'
        self._before, self._after = b'",' + before, after + b',"done":'
        self._false = self._after + b"false}\n"

    def delta(self, text: str) -> bytes:
        """The record of a piece of text."""
        return self._head + utc_now() + self._before + dump_text(text) + self._false

    def keep(self, tokens: tuple[int, ...]) -> None:
        """Forget the tokens."""

    def _last(self, text: str, fields: dict[str, object]) -> bytes:
        rest = dump(fields)[1:]  # without its brace: it continues the record
        return b"".join(
            (self._head, utc_now(), self._before, dump_text(text), self._after, b"true,", rest)
        )

    def done(self, text: str, end: End, metrics: dict[str, object]) -> bytes:
        """The last record."""
        return self._last(text, {"done_reason": end.reason, **metrics})


class ChatLines(_Records):
    """Records of /api/chat."""

    def __init__(self, model: str) -> None:
        super().__init__(model, b'"message":{"role":"assistant","content":', b"}")


class GenerateLines(_Records):
    """Records of /api/generate.

    Args:
        model: Name as the client wrote it.
        prompt: Packed tokens of the prompt, the first part of `context`; None to leave it out.
    """

    def __init__(self, model: str, prompt: bytes | None) -> None:
        super().__init__(model, b'"response":', b"")
        self._context: array[int] | None = None if prompt is None else unpack_tokens(prompt)

    def keep(self, tokens: tuple[int, ...]) -> None:
        """Keep the tokens for `context`."""
        if self._context is not None:
            self._context.extend(tokens)

    def done(self, text: str, end: End, metrics: dict[str, object]) -> bytes:
        """The last record, with all tokens of the exchange."""
        context = {} if self._context is None else {"context": self._context.tolist()}
        return self._last(text, {"done_reason": end.reason, **context, **metrics})


async def send_stream(call: Call, completion: Completion, lines: Lines, clock: "Clock") -> End:
    """Send each delta as a record of its own as it comes, then the last record."""
    while True:
        records: list[bytes] = []
        n_bytes, end = 0, None
        for part in await completion.next():
            if isinstance(part, End):
                end = part
                break
            text = part.text
            lines.keep(part.tokens)
            if text:
                records.append(lines.delta(text))
                n_bytes += len(text) if text.isascii() else len(text.encode())
        if end is not None:
            records.append(lines.done("", _checked(end), clock.metrics(end)) + b"\n")
            await call.finish(b"".join(records))
            return end
        if records:
            await call.write(b"".join(records))
            completion.taken(n_bytes)


async def send_whole(call: Call, completion: Completion, lines: Lines, clock: "Clock") -> End:
    """Gather all deltas and answer with one object."""
    texts: list[str] = []
    while True:
        for part in await completion.next():
            if isinstance(part, End):
                record = lines.done("".join(texts), _checked(part), clock.metrics(part))
                await call.answer(200, record)
                return part
            texts.append(part.text)
            lines.keep(part.tokens)
            completion.taken(len(part.text.encode()))


class Clock:
    """The durations of a request: begun when it was read, loaded when it got its runner."""

    def __init__(self, begun: float) -> None:
        self._begun = begun
        self._load_s = 0.0

    def loaded(self) -> None:
        """The request has its runner."""
        self._load_s = time.monotonic() - self._begun

    def metrics(self, end: End) -> dict[str, object]:
        """Ollama's counts and durations (ns); what is 0 is left out."""
        found = {
            "total_duration": nanoseconds(time.monotonic() - self._begun),
            "load_duration": nanoseconds(self._load_s),
            "prompt_eval_count": end.n_prompt,
            "prompt_eval_duration": nanoseconds(end.prefill_s),
            "eval_count": end.n_completion,
            "eval_duration": nanoseconds(end.decode_s),
        }
        return {name: value for name, value in found.items() if value}


def _checked(end: End) -> End:
    if end.reason == "cancelled":
        raise Cancelled("the request was cancelled")
    return end
