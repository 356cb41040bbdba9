"""What agents put into a prompt that changes and means nothing, mended before it is rendered.

A prompt is reused up to its first differing token. Two habits of agents break that near the start,
where the whole history follows:

- Claude Code writes an attribution line at the head of its system prompt, with a checksum of the
  request in it (`cch`) and a version whose suffix differs between conversations and subagents. It
  is addressed to a billing system, not to the model, and is left out.
- Tools come in another order, or with their keys in another order, when an MCP server keeps them
  in a hash table. A set of tools that was seen before is rendered as it was the first time; the
  first time it stands as the client wrote it. A set with one tool more is another set.

Only these; only in turns of the system, at the head of the text. A date or a time is left alone,
as the model may be asked for it: `localrun explain` shows where one breaks a prefix.

Source: the line's form in ggml-org/llama.cpp#21793 and anthropics/claude-code#68900; the order of
tools in openai/codex#2611.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from localrun.messages import Turn

Tool: TypeAlias = Mapping[str, object]
_Key: TypeAlias = tuple[str, frozenset[bytes]]

SYSTEM_ROLES = ("system", "developer")

_MAX_SETS = 64
_ATTRIBUTION = re.compile(
    r"\s*x-anthropic-billing-header:(?:[ \t]*cc[a-z_]*=[^;\s]{0,64}(?:;|\s*\Z))+\s*"
)
_encoder = msgspec.json.Encoder(order="deterministic", enc_hook=repr)  # numbers that Go keeps


def without_nonces(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns without the attribution line; a system turn of nothing else is dropped."""
    kept: list[Turn] = []
    for turn in turns:
        found = _ATTRIBUTION.match(turn.content) if turn.role in SYSTEM_ROLES else None
        if found is None:
            kept.append(turn)
        elif rest := turn.content[found.end() :]:
            kept.append(msgspec.structs.replace(turn, content=rest))
    return tuple(kept)


class Agents:
    """Mends prompts, and remembers in which order sets of tools came first. On the event loop.

    Args:
        keeps_nonces: Leave every prompt as it was sent.
    """

    def __init__(self, *, keeps_nonces: bool = False) -> None:
        self._keeps_nonces = keeps_nonces
        self._sets: OrderedDict[_Key, tuple[Tool, ...]] = OrderedDict()

    def normalise(
        self, turns: Sequence[Turn], tools: Sequence[Tool], *, scope: str
    ) -> tuple[tuple[Turn, ...], tuple[Tool, ...]]:
        """The same prompt in the form in which its prefix was seen before.

        Args:
            turns: The conversation.
            tools: What the model may call, as the client wrote them.
            scope: The request's cache scope; no order is learnt from another's requests.
        """
        if self._keeps_nonces:
            return tuple(turns), tuple(tools)
        return without_nonces(turns), self._settled(tuple(tools), scope)

    def _settled(self, tools: tuple[Tool, ...], scope: str) -> tuple[Tool, ...]:
        if not tools:
            return tools
        found = frozenset(map(_identity, tools))
        if len(found) < len(tools):
            return tools  # twice the same: no set
        key = (scope, found)
        first = self._sets.setdefault(key, tools)
        self._sets.move_to_end(key)
        if len(self._sets) > _MAX_SETS:
            self._sets.popitem(last=False)
        return first


def _identity(tool: Tool) -> bytes:
    """The same for two tools that differ in the order of their keys only."""
    return hashlib.blake2b(_encoder.encode(tool), digest_size=16).digest()
