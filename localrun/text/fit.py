"""Which turns of a history to leave out so that the rest fits. Pure.

Turns go whole, the oldest first. System turns and the last message stay; so does the call behind a
result, and what a begun answer answers to. Of the many ways to cut only a few are measured: where
to begin is estimated from the lengths, and the search closes in from both sides.
"""

import json
from collections.abc import Callable, Sequence

from localrun.errors import PromptTooLong, TemplateFailed
from localrun.messages import Turn

_SYSTEM = ("system", "developer")
_TURN_CHARS = 16
"""What a template writes around a turn, about."""
_TOKENS_PER_CHAR = 0.3
_N_ESTIMATES = 4
_MAX_REFUSALS = 16


class History:
    """The turns of a conversation and the ways to cut them.

    Attributes:
        turns: All.
        cuts: How many of the oldest loose turns may go, from 0 on; not every number may, as no
            result is left without its call.

    Args:
        turns: The conversation.
        begins_with_question: What is left must not begin with an answer.
    """

    def __init__(self, turns: Sequence[Turn], *, begins_with_question: bool = False) -> None:
        self.turns = turns
        last = _first_of_the_last(turns)
        self._loose = [at for at, turn in enumerate(turns[:last]) if turn.role not in _SYSTEM]
        lengths = [_n_chars(turn) for turn in turns]
        self._left = [sum(lengths)]
        for at in self._loose:
            self._left.append(self._left[-1] - lengths[at])
        barred = ("tool", "assistant") if begins_with_question else ("tool",)
        firsts = [*self._loose[1:], last]
        allowed = [
            n for n, at in enumerate(firsts, 1) if turns[at].role not in barred or at == last
        ]
        self.cuts = [0, *(n for n in allowed if n <= len(self._loose))]

    def kept(self, n_dropped: int) -> tuple[Turn, ...]:
        """What is left without the oldest loose turns."""
        gone = set(self._loose[:n_dropped])
        return tuple(turn for at, turn in enumerate(self.turns) if at not in gone)

    def n_chars(self, n_dropped: int) -> int:
        """How long that is, about."""
        return self._left[n_dropped]


def _first_of_the_last(turns: Sequence[Turn]) -> int:
    """Where the last message begins, with all that it cannot stand without."""
    at = len(turns) - 1
    if at > 0 and turns[at].role == "assistant" and not turns[at].extra.get("tool_calls"):
        at -= 1  # a begun answer
    while at > 0 and turns[at].role == "tool":
        at -= 1
    return at


def _n_chars(turn: Turn) -> int:
    extra = len(json.dumps(turn.extra, default=str)) if turn.extra else 0
    return len(turn.content) + extra + _TURN_CHARS


def fewest_dropped(
    history: History, measure: Callable[[int], int], limit: int, *, n_whole: int | None
) -> int:
    """How few turns must go so that the rest fits.

    Args:
        history: Does not fit as a whole.
        measure: Counts the tokens of what is left without so many turns; raises TemplateFailed
            where the template does not take that, which is then no way to cut.
        limit: Tokens that there is room for.
        n_whole: Tokens of the whole, where they are known.

    Raises:
        PromptTooLong: If nothing fits; `needed` is the least that was found.
        TemplateFailed: If the template takes nothing that is shorter.
    """
    search = _Search(history, measure, limit)
    if n_whole is not None:
        search.learn(0, n_whole)
    return search.run()


class _Search:
    def __init__(self, history: History, measure: Callable[[int], int], limit: int) -> None:
        self._history, self._measure, self._limit = history, measure, limit
        self._cuts = list(history.cuts)
        self._per_char = _TOKENS_PER_CHAR
        self._least: int | None = None
        self._too_long, self._fits = 0, len(self._cuts)

    def learn(self, n_dropped: int, n_tokens: int) -> None:
        """Take a count into the estimate."""
        self._per_char = n_tokens / max(self._history.n_chars(n_dropped), 1)
        self._least = n_tokens if self._least is None else min(n_tokens, self._least)

    def run(self) -> int:
        """Close in until the cut before the one that fits does not."""
        refusals: list[TemplateFailed] = []
        n_tries = 0
        while self._fits - self._too_long > 1:
            at = self._estimated() if n_tries < _N_ESTIMATES else self._middle()
            n_tries += 1
            try:
                self._try(at)
            except TemplateFailed as error:
                refusals.append(error)
                if len(refusals) > _MAX_REFUSALS:
                    raise
                del self._cuts[at]
                self._fits -= 1
        if self._fits < len(self._cuts):
            return self._cuts[self._fits]
        if refusals and len(self._cuts) == 1:
            raise refusals[0]
        raise PromptTooLong((self._least or self._limit + 1) + 1, self._limit + 1)

    def _try(self, at: int) -> None:
        n_tokens = self._measure(self._cuts[at])
        self.learn(self._cuts[at], n_tokens)
        if n_tokens <= self._limit:
            self._fits = at
        else:
            self._too_long = at

    def _middle(self) -> int:
        return (self._too_long + self._fits) // 2

    def _estimated(self) -> int:
        """The first cut between the two that should fit by its length."""
        for at in range(self._too_long + 1, self._fits):
            if self._history.n_chars(self._cuts[at]) * self._per_char <= self._limit:
                return at
        return self._fits - 1
