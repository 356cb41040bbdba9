"""What a model itself thinks of the next token: log-probabilities of a row of logits.

Taken before bias, mask, penalties and temperature touch the row.
"""

import functools
import math
from typing import Any

from localrun.llama.context import Context

_GROUP = 64


class Scores:
    """The likeliest tokens of a row, and the measure of all. Make it before the row is masked.

    On one thread only.

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
        shifted = _scratch(len(logits))
        np.subtract(logits, np.float32(highest), out=shifted)
        np.exp(shifted, out=shifted)
        self._total = highest + math.log(float(shifted.sum()))
        self.top = [(int(i), float(logits[i]) - self._total) for i in _largest(np, logits, n_top)]

    def logprob(self, token: int) -> float:
        """Of a token whose score has not been changed since: one that was drawn."""
        return float(self._logits[token]) - self._total


@functools.lru_cache(maxsize=1)
def _scratch(n: int) -> Any:
    """Room for one row, kept: fresh memory of this size is mapped page by page each time."""
    import numpy as np

    return np.empty(n, np.float32)


def _largest(np: Any, logits: Any, n: int) -> Any:
    """Indices of the `n` largest, best first.

    A partition of the whole row takes five times as long. The n-th best of the maxima of any groups
    is no more than the n-th best of all, so what is below it need not be looked at.
    """
    if n <= 0:
        return np.zeros(0, np.int64)
    n_groups = len(logits) // _GROUP
    floor = -np.inf
    if n_groups > n:
        maxima = logits[: n_groups * _GROUP].reshape(_GROUP, -1).max(axis=0)
        floor = np.partition(maxima, n_groups - n)[n_groups - n]
    found = np.flatnonzero(logits >= floor)
    order = np.argsort(-logits[found], kind="stable")[:n]
    return found[order]
