"""What a model itself thinks of the next token: log-probabilities of a row of logits.

Taken before bias, mask, penalties and temperature touch the row.
"""

import math
from typing import Any

from localrun.llama.context import Context

_BLOCK = 64


class Scores:
    """The likeliest tokens of a row, and the measure of all. Make it before the row is masked.

    Args:
        context: Where the row is.
        row: A row with logits.
        n_top: How many of the likeliest tokens are wanted.

    Raises:
        ValueError: If the row has no logits.
    """

    def __init__(self, context: Context, row: int, n_top: int) -> None:
        import numpy as np

        self._logits = logits = np.asarray(context.logits(row))
        highest = float(logits.max())
        shifted = logits - highest
        np.exp(shifted, out=shifted)
        self._total = highest + math.log(float(shifted.sum(dtype=np.float64)))
        self.top = [(int(i), float(logits[i]) - self._total) for i in _largest(np, logits, n_top)]

    def logprob(self, token: int) -> float:
        """Of a token whose score has not been changed since: one that was drawn."""
        return float(self._logits[token]) - self._total


def _largest(np: Any, logits: Any, n: int) -> Any:
    """Indices of the `n` largest, best first.

    A partition of the whole row takes three times as long. The n-th best of the blocks' maxima is
    no more than the n-th best of all, so what is below it need not be looked at.
    """
    if n <= 0:
        return np.zeros(0, np.int64)
    whole = len(logits) // _BLOCK * _BLOCK
    found = np.arange(len(logits))
    if whole // _BLOCK > n:
        maxima = logits[:whole].reshape(-1, _BLOCK).max(axis=1)
        floor = np.partition(maxima, len(maxima) - n)[len(maxima) - n]
        found = np.flatnonzero(logits >= floor)
    order = np.argsort(-logits[found], kind="stable")[:n]
    return found[order]
