"""Decide which tokens go into the next decode call. Pure: no model, no clock, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pending:
    """Tokens of one sequence that the KV cache does not hold yet.

    Attributes:
        key: Names the sequence.
        n_past: Tokens of it in the cache; also the next position.
        n_pending: Tokens still to be fed, at least one.
        is_decoding: Whether its one pending token continues a completion.
    """

    key: int
    n_past: int
    n_pending: int
    is_decoding: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `n_tokens` of one sequence; `wants_logits` if they are its last pending ones."""

    key: int
    n_tokens: int
    wants_logits: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """What one decode call may hold.

    Attributes:
        n_batch: Rows.
        n_prefill: Rows of prompts, the time budget of this step in tokens.
        n_outputs: Rows with logits.
    """

    n_batch: int
    n_prefill: int
    n_outputs: int


def plan_step(pending: Sequence[Pending], limits: Limits) -> list[Chunk]:
    """Fill one batch: every decoding sequence first, then prompts in order of arrival.

    Decoding goes first so that a long prompt delays running answers by its time budget at most.
    Chunks of prompts end on absolute multiples of a power of two where they do not end the prompt,
    so that the same prompt meets the same chunk borders again.

    Args:
        pending: Sequences with work, in order of arrival.
        limits: Room of the batch.

    Returns:
        Chunks that sum to at most `limits.n_batch` rows; empty when nothing is pending.
    """
    chunks: list[Chunk] = []
    room, outputs = limits.n_batch, limits.n_outputs
    for work in pending:
        if work.is_decoding and room and outputs:
            chunks.append(Chunk(work.key, 1, wants_logits=True))
            room, outputs = room - 1, outputs - 1
    budget = min(room, limits.n_prefill)
    for work in pending:
        if work.is_decoding or budget <= 0:
            continue
        n = _chunk_length(work, budget)
        ends = n == work.n_pending
        if ends and not outputs:
            continue
        chunks.append(Chunk(work.key, n, wants_logits=ends))
        budget, outputs = budget - n, outputs - ends
    return chunks


def _chunk_length(work: Pending, budget: int) -> int:
    if work.n_pending <= budget:
        return work.n_pending
    grain = 1 << (budget.bit_length() - 1)
    end = (work.n_past + budget) // grain * grain
    return end - work.n_past if end > work.n_past else budget
