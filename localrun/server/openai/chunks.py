"""What all of OpenAI's answers are made of: ids, usage, log-probabilities. Pure."""

import secrets
import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import cast

from localrun.messages import End, Logprob
from localrun.server.ask import Answer
from localrun.server.wire import dump, dump_text

FINGERPRINT = "fp_localrun"
SSE = b"text/event-stream"
PING = b": ping\n\n"
"""A comment, which readers of events pass over."""

_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """A fresh id: the prefix and 24 letters and digits."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(24))


def event(value: object) -> bytes:
    """A JSON value as an event without a name."""
    return b"data: " + dump(value) + b"\n\n"


def finish_reason(end: End, *, has_calls: bool) -> str:
    """Why a completion ended: a call only renames a stop."""
    return "tool_calls" if has_calls and end.reason == "stop" else end.reason


def usage_of(answers: Sequence[Answer]) -> dict[str, object]:
    """Tokens of one prompt and its completions.

    The prompt counts once, and as cached only as far as every completion found it so: what the
    first has computed the others have from it.
    """
    ends = [answer.finished for answer in answers]
    n_prompt = max(end.n_prompt for end in ends)
    n_completion = sum(end.n_completion for end in ends)
    usage: dict[str, object] = {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_completion,
        "total_tokens": n_prompt + n_completion,
        "prompt_tokens_details": {"cached_tokens": min(end.n_cached for end in ends)},
        "completion_tokens_details": {"reasoning_tokens": sum(end.n_reasoning for end in ends)},
    }
    return usage | truncated(answers)


def truncated(answers: Sequence[Answer]) -> dict[str, object]:
    """How many turns were left out of the prompt; nothing if none were."""
    n_dropped = answers[0].begin.prepared.n_dropped
    return {"truncated_messages": n_dropped} if n_dropped else {}


def sum_usage(usages: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """The usage of several prompts."""
    total: dict[str, object] = {}
    for usage in usages:
        for name, value in usage.items():
            total[name] = _sum(total.get(name), value)
    return total


def _sum(before: object, value: object) -> object:
    """Two counts, or two objects of counts."""
    if isinstance(value, dict):
        both = (cast("dict[str, object]", before or {}), cast("dict[str, object]", value))
        return sum_usage(both)
    return cast("int", before or 0) + cast("int", value)


def text_of(piece: bytes) -> str:
    """The bytes of a token as text; what is no UTF-8 by itself becomes U+FFFD."""
    return piece.decode("utf-8", "replace")


def chat_logprobs(logprobs: Sequence[Logprob]) -> bytes:
    """The JSON of a choice's `logprobs`."""
    items = b",".join(map(_chat_logprob, logprobs))
    return b'{"content":[' + items + b'],"refusal":null}'


def response_logprobs(logprobs: Sequence[Logprob]) -> bytes:
    """The JSON array of log-probabilities of a response's text."""
    return b"[" + b",".join(map(_chat_logprob, logprobs)) + b"]"


def _chat_logprob(logprob: Logprob) -> bytes:
    """Written by hand: with five alternatives a token it is most of what is sent."""
    top = b"},{".join(_one(piece, number) for piece, number in logprob.top)
    top = b"[{" + top + b"}]" if top else b"[]"
    return b"{" + _one(logprob.piece, logprob.logprob) + b',"top_logprobs":' + top + b"}"


def _one(piece: bytes, number: float) -> bytes:
    before, after = _around(piece)
    return before + _number(number) + after


@lru_cache(4096)
def _around(piece: bytes) -> tuple[bytes, bytes]:
    """What stands before and behind the number of a token; likely tokens come again and again."""
    numbers = ",".join(map(str, piece)).encode()
    return (
        b'"token":' + dump_text(text_of(piece)) + b',"logprob":',
        b',"bytes":[' + numbers + b"]",
    )


def _number(value: float) -> bytes:
    """A log-probability as JSON, which has no infinity: OpenAI's lowest number stands for it."""
    return b"%.9g" % max(value, -9999.0)
