"""The sampler chain of one request.

The order is llama-server's: penalties, top-k, typical, top-p, min-p, temperature, then the draw.
"""

import ctypes
import math
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from localrun.llama.context import Context
from localrun.llama.library import native
from localrun.llama.model import Model
from localrun.messages import Sampling

if TYPE_CHECKING:
    from array import array

MAX_BIAS = 1000.0
"""A logit bias beyond this says no more than one of this size."""
_NOTHING = 1e-9
_RANDOM_SEED = 0xFFFFFFFF
"""llama.cpp's LLAMA_DEFAULT_SEED: it would draw a seed of its own that nobody knows."""


class Sampler:
    """Draws tokens for one sequence; holds the window of the penalties and the random state.

    Attributes:
        seed: What the random state began with.
        remembers: Penalties look back, so a token that is drawn and not used would leave a trace.

    Args:
        model: Whose vocabulary is drawn from.
        sampling: How.
        n_ctx: Window for `repeat_last_n` -1.
        prompt: Its last tokens fill the window of the penalties.
        bias: Token id → what is added to its logit before all else.

    Raises:
        BadRequest: If a bias is of a foreign token.
        ValueError: If a bias is not a number, or beyond `MAX_BIAS`.
    """

    def __init__(
        self,
        model: Model,
        sampling: Sampling,
        *,
        n_ctx: int,
        prompt: "array[int]",
        bias: Mapping[int, float] = MappingProxyType({}),
    ) -> None:
        self._engine = native()
        low = self._engine.low
        self.seed = _seed(sampling.seed)
        self.remembers = _penalties_on(sampling)
        biases = _biases(low, model, bias)
        self._chain = low.llama_sampler_chain_init(low.llama_sampler_chain_default_params())
        for part in biases + _parts(low, model, sampling, self.seed, n_ctx):
            low.llama_sampler_chain_add(self._chain, part)
        if self.remembers:
            window = n_ctx if sampling.repeat_last_n < 0 else sampling.repeat_last_n
            for token in prompt[max(0, len(prompt) - window) :]:
                self._engine.short.llama_sampler_accept(self._chain, token)

    def sample(self, context: Context, row: int) -> int:
        """Draw the next token from a row's logits and remember it.

        Raises:
            ValueError: If the row has no logits.
        """
        if not context.has_logits(row):
            raise ValueError(f"row {row} has no logits to sample from")
        token: int = self._engine.short.llama_sampler_sample(self._chain, context.pointer, row)
        return token

    def accept(self, token: int) -> None:
        """Remember a token that was not drawn here but put into the completion."""
        self._engine.short.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        """Free the chain."""
        if self._chain:
            self._engine.low.llama_sampler_free(self._chain)
            self._chain = None


def _seed(wanted: int) -> int:
    seed = secrets.randbits(32) if wanted < 0 else wanted & 0xFFFFFFFF
    return seed if seed != _RANDOM_SEED else 0


def _penalties_on(sampling: Sampling) -> bool:
    neutral = (
        sampling.repeat_penalty == 1.0
        and sampling.presence_penalty == 0.0
        and sampling.frequency_penalty == 0.0
    )
    return sampling.repeat_last_n != 0 and not neutral


def _parts(low: Any, model: Model, sampling: Sampling, seed: int, n_ctx: int) -> list[Any]:
    n_vocab = model.vocabulary.n_tokens
    parts = _suppressed(low, model, n_vocab)
    if _penalties_on(sampling):
        window = n_ctx if sampling.repeat_last_n < 0 else min(sampling.repeat_last_n, n_ctx)
        parts.append(
            low.llama_sampler_init_penalties(
                n_vocab,
                window,
                sampling.repeat_penalty,
                sampling.frequency_penalty,
                sampling.presence_penalty,
            )
        )
    if sampling.temperature <= 0.0:
        return [*parts, low.llama_sampler_init_greedy()]
    if 0 < sampling.top_k < n_vocab:
        parts.append(low.llama_sampler_init_top_k(sampling.top_k))
    if sampling.typical_p < 1.0:
        # What has no probability gives it a NaN to sort by.
        parts.append(low.llama_sampler_init_min_p(_NOTHING, 1))
        parts.append(low.llama_sampler_init_typical(max(sampling.typical_p, 0.0), 1))
    if sampling.top_p < 1.0:
        parts.append(low.llama_sampler_init_top_p(max(sampling.top_p, 0.0), 1))
    if sampling.min_p > 0.0:
        parts.append(low.llama_sampler_init_min_p(min(sampling.min_p, 1.0), 1))
    parts.append(low.llama_sampler_init_temp(sampling.temperature))
    parts.append(low.llama_sampler_init_dist(seed))
    return parts


def _suppressed(low: Any, model: Model, n_vocab: int) -> list[Any]:
    """Tokens that the model's author forbids (`llama_vocab_get_suppress_tokens`), if any."""
    n = ctypes.c_int32(0)
    tokens = low.llama_vocab_get_suppress_tokens(model.vocabulary.pointer, ctypes.byref(n))
    if n.value <= 0:
        return []
    return [_bias(low, n_vocab, {tokens[i]: -math.inf for i in range(n.value)})]


def _biases(low: Any, model: Model, bias: Mapping[int, float]) -> list[Any]:
    for token, value in bias.items():
        model.vocabulary.check(token)
        if not -MAX_BIAS <= value <= MAX_BIAS:
            raise ValueError(f"the bias {value} of token {token} is beyond {MAX_BIAS:g}")
    return [_bias(low, model.vocabulary.n_tokens, bias)] if bias else []


def _bias(low: Any, n_vocab: int, bias: Mapping[int, float]) -> Any:
    rows = (low.llama_logit_bias * len(bias))()
    for row, (token, value) in zip(rows, bias.items(), strict=True):
        row.token, row.bias = token, value
    return low.llama_sampler_init_logit_bias(n_vocab, len(bias), rows)
