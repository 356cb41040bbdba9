"""Tell of a prompt that an Ollama daemon has cut without a word.

It drops the oldest turns of a prompt that its context window cannot hold, and says only how many
tokens it has read. Where these are far too few for the prompt's bytes, and the window is too small
for them, the answer gets a field `warning`. Older daemons count only what they had not cached: the
size of the window keeps that from being taken for a cut.
"""

import json
import re
from typing import cast

from localrun.backends.ollama import Daemon
from localrun.errors import LocalrunError

_COUNT = re.compile(rb'"(?:prompt_eval_count|prompt_tokens|input_tokens)":(\d+)')
_MANY = 8
"""Bytes of text that a token hardly has on average: it is about 4 in English, 3 in code."""
_FEW = 3
"""Bytes of text that a token has at least, about: so much more than the window cannot fit."""
_TEXTS = {"messages", "prompt", "system", "input", "instructions", "content", "text", "suffix"}


async def warned(body: bytes, answer: bytes, daemon: Daemon) -> bytes:
    """The answer, with a warning if its prompt was cut.

    Args:
        body: The request's.
        answer: A JSON object, or records of which the last one is the end.
        daemon: Who answered.
    """
    count = _COUNT.search(answer)
    if count is None or len(body) <= _MANY * int(count[1]):
        return answer
    try:
        request: object = json.loads(body)
    except (ValueError, RecursionError):
        return answer
    n_bytes, n_tokens = text_bytes(request), int(count[1])
    if n_bytes <= _MANY * n_tokens:
        return answer
    n_ctx = await _window(cast("dict[str, object]", request), daemon)
    if not n_ctx or n_bytes <= _FEW * n_ctx:
        return answer
    words = (
        f"Ollama has read {n_tokens} tokens of a prompt of {n_bytes} bytes, and cut the rest:"
        f" its context window holds {n_ctx}. Raise options.num_ctx."
    )
    at = answer.rindex(b"}")
    return b'%b,"warning":%b%b' % (answer[:at], json.dumps(words).encode(), answer[at:])


def text_bytes(value: object, *, is_text: bool = False) -> int:
    """Bytes of all text in a request that goes into its prompt."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace")) if is_text else 0
    if isinstance(value, list):
        return sum(text_bytes(item, is_text=is_text) for item in cast("list[object]", value))
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value).items()
        return sum(text_bytes(item, is_text=True) for key, item in fields if key in _TEXTS)
    return 0


async def _window(request: dict[str, object], daemon: Daemon) -> int:
    """Tokens that the model's context window holds, 0 if nobody says."""
    try:
        models = (await daemon.ask("/api/ps")).get("models")
    except LocalrunError:
        return 0
    name = str(request.get("model") or request.get("name") or "")
    for item in cast("list[object]", models) if isinstance(models, list) else ():
        if isinstance(item, dict):
            model = cast("dict[str, object]", item)
            if model.get("name") in (name, f"{name}:latest"):
                n_ctx = model.get("context_length")
                return n_ctx if isinstance(n_ctx, int) else 0
    return 0
