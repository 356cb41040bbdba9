"""How many prompt tokens fit a step's time budget, learnt from measured steps. Pure."""

from dataclasses import dataclass, field

_WEIGHT = 0.3
_SMALLEST, _LARGEST = 8, 512
_FIRST_BESIDE_DECODE = 16


@dataclass(slots=True)
class Pace:
    """Milliseconds a step takes, as a pure decode part and a part for each prompt token.

    Attributes:
        target_s: Time a step may take beside running answers.
        target_alone_s: Time it may take when only prompts run; bounds how long a request that
            arrives in the middle waits for its turn.
    """

    target_s: float = 0.1
    target_alone_s: float = 0.3
    _decode_s: dict[int, float] = field(default_factory=dict[int, float])
    _prefill_s: float = 0.0

    def observe(self, n_decode: int, n_prefill: int, took_s: float) -> None:
        """Learn from one step of `n_decode` decoding rows and `n_prefill` prompt rows."""
        if not n_prefill:
            known = self._decode_s.get(n_decode, took_s)
            self._decode_s[n_decode] = known + _WEIGHT * (took_s - known)
            return
        each = max(took_s - self._decode_cost(n_decode), took_s / 10) / n_prefill
        # Tiny chunks pay the step's fixed cost alone; they say little about large ones.
        weight = _WEIGHT if n_prefill >= _SMALLEST else _WEIGHT / 10
        self._prefill_s += (weight if self._prefill_s else 1.0) * (each - self._prefill_s)

    def prefill_tokens(self, n_decode: int) -> int:
        """Prompt tokens of the next step beside `n_decode` decoding sequences: 8 to 512."""
        if not self._prefill_s:
            return _FIRST_BESIDE_DECODE if n_decode else _LARGEST // 8
        target = self.target_s if n_decode else self.target_alone_s
        fits = (target - self._decode_cost(n_decode)) / self._prefill_s
        return max(_SMALLEST, min(_LARGEST, int(fits)))

    def _decode_cost(self, n_decode: int) -> float:
        """Measured time of a pure decode step of this width, or of the nearest one known."""
        if not n_decode or not self._decode_s:
            return 0.0
        nearest = min(self._decode_s, key=lambda n: abs(n - n_decode))
        return self._decode_s[nearest]
