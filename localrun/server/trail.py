"""The last requests, and the first message that broke the prefix of an earlier prompt.

Of the last requests of each model, fingerprints are kept in memory: a hash of every 64 characters
of each message, and its first 160 characters. No other text of a prompt is kept, and a key sees its
own requests only. Pure but for the clock.
"""

import time
from array import array
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile, zip_longest
from typing import TypeAlias

import msgspec

from localrun.messages import End, Prepare

MAX_REQUESTS = 16
MAX_MODELS = 32
HEAD_CHARS = 160
TOOL, SETTINGS = "tool definition", "settings"

_BLOCK_CHARS = 64
_WORDS_CHARS = 60
_encoder = msgspec.json.Encoder(enc_hook=repr)


@dataclass(frozen=True, slots=True)
class Message:
    """The fingerprint of one part of a prompt.

    Attributes:
        role: Of its turn; `tool definition` for a tool, `settings` for what the template is told.
        index: Counts the turns, or the tools, from 0.
        head: Its first characters.
        n_chars: Its length.
        whole: A hash of all of it; hashes mean nothing outside this process.
        blocks: A hash of each block of it.
    """

    role: str
    index: int
    head: str
    n_chars: int
    whole: int
    blocks: "array[int]"


@dataclass(frozen=True, slots=True)
class Break:
    """Where a prompt left an earlier one.

    Attributes:
        role: Of the message.
        index: Of the message, as in `Message`.
        at: Character at which it differs, or up to a block before it.
        was: The words there in the earlier prompt; empty where they are not kept.
        now: The words there now; empty where the message is gone.
    """

    role: str
    index: int
    at: int
    was: str
    now: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was answered.

    Attributes:
        model: Name as the client wrote it.
        answered_s: Unix time of its end.
        messages: Fingerprints of what was rendered, in its order.
        n_prompt: Tokens of the prompt.
        n_cached: Of these, from the cache.
        n_dropped: Turns that were left out because the history did not fit.
        earlier: Tokens of the closest earlier prompt; None if there was none.
        broken: Where it left that prompt; None if it went on from it.
    """

    model: str
    answered_s: float
    messages: Sequence[Message]
    n_prompt: int
    n_cached: int
    n_dropped: int = 0
    earlier: int | None = None
    broken: Break | None = None


_Key: TypeAlias = tuple[str, str]


@dataclass(slots=True)
class Trail:
    """The last requests of each model and cache scope. Used on the event loop."""

    _found: OrderedDict[_Key, deque[Request]] = field(
        default_factory=OrderedDict[_Key, deque[Request]]
    )

    def note(self, scope: str, model: str, prompt: Prepare, end: End, n_dropped: int = 0) -> None:
        """Remember a request that was answered, and where it left the ones before."""
        ring = self._ring((scope, prompt.vocab.key))
        parts = list(_parts(prompt))
        # A history grows at its end: what the last request had is not looked at again.
        before = ring[-1].messages if ring else ()
        messages = [
            fingerprint(role, index, text, known)
            for (role, index, text), known in zip_longest(parts, before[: len(parts)])
        ]
        request = Request(model, time.time(), messages, end.n_prompt, end.n_cached, n_dropped)
        # Of several that are as close, the last: its cells are the warmest.
        closest = max(reversed(ring), key=lambda r: shared(r.messages, messages), default=None)
        if closest is not None:
            broken = find_break(closest.messages, messages, [text for _, _, text in parts])
            request = replace(request, earlier=closest.n_prompt, broken=broken)
        ring.append(request)

    def _ring(self, key: _Key) -> deque[Request]:
        ring = self._found.setdefault(key, deque(maxlen=MAX_REQUESTS))
        self._found.move_to_end(key)
        if len(self._found) > MAX_MODELS:
            self._found.popitem(last=False)
        return ring

    def last(self, scope: str, model: str, n: int) -> list[Request]:
        """The last requests under a model's name (or under any), the newest first."""
        found = [
            request
            for (owner, _), ring in self._found.items()
            if owner == scope
            for request in ring
            if model in ("", request.model)
        ]
        return sorted(found, key=lambda request: request.answered_s, reverse=True)[:n]


def fingerprint(role: str, index: int, text: str, known: Message | None = None) -> Message:
    """What is remembered of a text; `known` is taken if it is of the same one."""
    whole = hash(text)
    if known is not None and (known.role, known.index, known.whole) == (role, index, whole):
        return known
    blocks = (hash(text[at : at + _BLOCK_CHARS]) for at in range(0, len(text), _BLOCK_CHARS))
    return Message(role, index, text[:HEAD_CHARS], len(text), whole, array("q", blocks))


def shared(old: Sequence[Message], new: Sequence[Message]) -> tuple[int, int]:
    """How many messages, and blocks of the next one, two prompts have in common."""
    n_messages = 0
    for a, b in zip(old, new, strict=False):
        if not _is_same(a, b):
            return n_messages, _shared_blocks(a, b) if a.role == b.role else 0
        n_messages += 1
    return n_messages, 0


def find_break(
    old: Sequence[Message], new: Sequence[Message], texts: Sequence[str]
) -> Break | None:
    """Where a prompt left an earlier one; None if one of them only goes on from the other.

    Args:
        old: The earlier prompt.
        new: The prompt.
        texts: Of the messages of `new`.
    """
    for a, b, text in zip(old, new, texts, strict=False):
        if _is_same(a, b):
            continue
        if a.role != b.role:
            if a.role == TOOL:  # fewer tools than before
                return Break(a.role, a.index, 0, a.head[:_WORDS_CHARS], "")
            return Break(b.role, b.index, 0, "", text[:_WORDS_CHARS])
        at = _shared_blocks(a, b) * _BLOCK_CHARS
        if at < HEAD_CHARS:
            pairs = zip(a.head, text, strict=False)
            at = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return Break(b.role, b.index, at, _words(a.head, at), _words(text, at))
    return None


def _is_same(a: Message, b: Message) -> bool:
    return a is b or (a.role, a.n_chars, a.whole) == (b.role, b.n_chars, b.whole)


def _shared_blocks(a: Message, b: Message) -> int:
    n_blocks = 0
    for x, y in zip(a.blocks, b.blocks, strict=False):
        if x != y:
            break
        n_blocks += 1
    return n_blocks


def _words(text: str, at: int) -> str:
    """The words from a character on, begun at the start of its word."""
    if at >= len(text):
        return ""
    start = text.rfind(" ", max(0, at - 20), at) + 1 or (at if at > 20 else 0)
    return text[start : start + _WORDS_CHARS].strip()


def _parts(prompt: Prepare) -> Iterator[tuple[str, int, str]]:
    """Role, index and text of what a prompt is rendered from, in most templates' order."""
    told = f"think={prompt.think} {_json(prompt.variables)}"
    yield SETTINGS, 0, told
    if prompt.kind != "chat":
        yield "prompt", 0, prompt.prompt
    for index, tool in enumerate(prompt.tools):
        yield TOOL, index, _json(tool)
    for index, turn in enumerate(prompt.turns):
        extra = f"\n{_json(turn.extra)}" if turn.extra else ""
        yield turn.role, index, turn.content + extra


def _json(value: object) -> str:
    return _encoder.encode(value).decode()
