"""Vectors and scores: texts to tokens that fit, tokens to the runner, numbers back.

The core of every route that embeds or ranks, in no dialect.
"""

import asyncio
import math
import time
from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from localrun.errors import BadRequest, Unsupported
from localrun.gguf import ModelInfo
from localrun.messages import Embedded, pack_tokens
from localrun.server.answers import Call
from localrun.server.prepare import merged_options, open_for
from localrun.server.shelf import POOLING_RANK, vocab_of
from localrun.store.library import StoredModel

T = TypeVar("T")

_N_SPECIAL = 2
"""Tokens that may stand around a text: one before it, one after."""


class InputTooLong(BadRequest):
    """Raised when a text to embed does not fit and may not be cut.

    Args:
        needed: Its tokens.
        available: Tokens that it may have.
    """

    code = "input_too_long"

    def __init__(self, needed: int, available: int) -> None:
        super().__init__(
            "the input length exceeds the context length",
            hint=f"it has {needed} tokens of {available}; shorten it, or let truncate be true",
        )
        self.needed, self.available = needed, available

    def facts(self) -> dict[str, int | str]:
        """Tokens needed and available."""
        return {"needed": self.needed, "available": self.available}


@dataclass(frozen=True, slots=True)
class EmbedAsk:
    """What is to be embedded.

    Attributes:
        model: Of the store.
        inputs: Texts, or tokens as they are; none only loads the model.
        options: Ollama's options by name.
        truncate: Cut what is too long; else that is a 400.
        dimensions: Numbers of each vector that are kept, 0 for all; the rest is made unit again.
        keep_alive_s: Stay of the model afterwards; None keeps what holds.
    """

    model: StoredModel
    inputs: Sequence[str | Sequence[int]]
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    truncate: bool = True
    dimensions: int = 0
    keep_alive_s: float | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors in the order of their inputs.

    Attributes:
        vectors: Of length 1.
        counts: Tokens of each input.
        load_s: Seconds until there was a runner.
        total_s: Seconds of it all.
    """

    vectors: list["array[float]"]
    counts: list[int]
    load_s: float
    total_s: float


async def embed(call: Call, ask: EmbedAsk) -> Embeddings:
    """Turn every input into a vector.

    Raises:
        InputTooLong: If an input does not fit and may not be cut.
        LocalrunError: If it cannot be served.
    """

    async def tokens_of(text: str | Sequence[int], fit: Fit) -> "array[int]":
        if isinstance(text, str):
            return await fit.tokens(text, truncate=ask.truncate)
        return fit.checked(text, truncate=ask.truncate)

    begun = time.monotonic()
    found, load_s = await _compute(call, ask, ask.inputs, tokens_of)
    return Embeddings(
        [cut_to(vector_of(item), ask.dimensions) for item in found],
        [item.n_prompt for item in found],
        load_s,
        time.monotonic() - begun,
    )


async def rank(call: Call, ask: EmbedAsk, query: str) -> tuple[list[float], int]:
    """How well each of the inputs answers the query, as the model says; and the tokens of all.

    Raises:
        Unsupported: If the model does not rank.
        LocalrunError: If it cannot be served.
    """
    info = await call.rooms.shelf.open(ask.model)
    if info.pooling_type != POOLING_RANK:
        raise Unsupported(f"{ask.model.name.full()} does not support rerank")

    async def tokens_of(document: str | Sequence[int], fit: Fit) -> "array[int]":
        return await fit.pair(query, str(document), truncate=ask.truncate)

    found, _ = await _compute(call, ask, ask.inputs, tokens_of)
    return [vector_of(item)[0] for item in found], sum(item.n_prompt for item in found)


async def _compute(
    call: Call,
    ask: EmbedAsk,
    inputs: Sequence[T],
    tokens_of: "Callable[[T, Fit], Awaitable[array[int]]]",
) -> tuple[list[Embedded], float]:
    """Tokens of all inputs, then a runner, then all of them at once."""
    begun = time.monotonic()
    rooms, model = call.rooms, ask.model
    options = merged_options(model, ask.options)
    rooms.scheduler.expect(model.model_digest)
    info = await open_for(rooms, model)
    plan = await rooms.planner.plan(model, info, options)
    window, demanded = rooms.planner.settle(plan, options, 0)
    fit = Fit(call, model, info, window)
    prompts = await together([tokens_of(item, fit) for item in inputs])
    demand = rooms.planner.demand(plan, demanded, ask.keep_alive_s)
    async with rooms.scheduler.lease(demand) as runner:
        load_s = time.monotonic() - begun
        found = await together([runner.embed(pack_tokens(tokens)) for tokens in prompts])
    return found, load_s


class Fit:
    """Makes tokens that fit one model's window.

    Args:
        call: Its text worker is asked.
        model: Of the store.
        info: Its facts.
        window: Tokens of one sequence.
    """

    def __init__(self, call: Call, model: StoredModel, info: ModelInfo, window: int) -> None:
        self._text, self._vocab, self._info = call.rooms.parts.text, vocab_of(model), info
        self._window = window

    async def tokens(self, text: str, *, truncate: bool) -> "array[int]":
        """Tokens of a text, with those that the model wants around it.

        Source: Ollama's `EmbedHandler`, which counts both ends of the window as taken.

        Raises:
            InputTooLong: If it does not fit and may not be cut.
            BadRequest: If the window holds nothing at all.
        """
        whole = await self._text.tokenize(self._vocab, text)
        if len(whole) <= self._window - _N_SPECIAL:
            return whole
        bare = await self._text.tokenize(self._vocab, text, add_special=False)
        limit = self._limit(bare)
        if len(bare) <= limit:
            return whole
        if not truncate:
            raise InputTooLong(len(bare), limit)
        before, after = around(whole, bare)
        return before + bare[:limit] + after

    async def pair(self, query: str, document: str, *, truncate: bool) -> "array[int]":
        """Tokens of a question and a text that may answer it; the text is cut if need be.

        Raises:
            InputTooLong: If they do not fit and the text may not be cut, or cannot help.
        """
        tokens = await self._text.tokenize_pair(self._vocab, query, document)
        excess = len(tokens) - self._window
        if excess <= 0:
            return tokens
        bare = await self._text.tokenize(self._vocab, document, add_special=False)
        kept = bare[: max(len(bare) - excess - _N_SPECIAL, 0)]
        if not truncate or not kept:
            raise InputTooLong(len(tokens), self._window)
        shorter = await self._text.detokenize(self._vocab, kept)
        tokens = await self._text.tokenize_pair(self._vocab, query, shorter)
        if len(tokens) > self._window:
            raise InputTooLong(len(tokens), self._window)
        return tokens

    def checked(self, tokens: Sequence[int], *, truncate: bool) -> "array[int]":
        """Tokens that a client chose.

        Raises:
            InputTooLong: If they do not fit and may not be cut.
            BadRequest: If one of them is no token of the model.
        """
        if not all(0 <= token < self._info.n_vocab for token in tokens):
            raise BadRequest(f"the model has the tokens 0 to {self._info.n_vocab - 1}")
        if len(tokens) > self._window and not truncate:
            raise InputTooLong(len(tokens), self._window)
        return array("i", tokens[: self._window])

    def _limit(self, bare: "array[int]") -> int:
        limit = self._window
        if bare:
            limit -= bare[0] != (self._info.bos_token or 0)
            limit -= bare[-1] != (self._info.eos_token or 0)
        if limit <= 0:
            raise BadRequest("input after truncation exceeds maximum context length")
        return limit


def around(whole: "array[int]", bare: "array[int]") -> "tuple[array[int], array[int]]":
    """The tokens that stand before and after `bare` in `whole`; none if it is not in there."""
    n = len(bare)
    for at in range(len(whole) - n + 1):
        if whole[at : at + n] == bare:
            return whole[:at], whole[at + n :]
    return array("i"), array("i")


def vector_of(embedded: Embedded) -> "array[float]":
    """The numbers of a vector.

    Raises:
        BadRequest: If one is none.
    """
    vector = array("f")
    vector.frombytes(embedded.vector)
    if not math.isfinite(sum(vector)):
        raise BadRequest("embedding contains NaN or Inf values")
    return vector


def cut_to(vector: "array[float]", dimensions: int) -> "array[float]":
    """The first numbers of a vector, scaled to length 1; all of them if it has no more."""
    if not 0 < dimensions < len(vector):
        return vector
    kept = vector[:dimensions]
    length = max(math.sqrt(math.fsum(number * number for number in kept)), 1e-12)
    return array("f", [number / length for number in kept])


async def together(works: Sequence[Awaitable[T]]) -> list[T]:
    """Wait for all; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
