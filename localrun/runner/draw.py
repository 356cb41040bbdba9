"""How a sequence gets its next token: grammar, bias, chain, log-probabilities, end of reasoning."""

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localrun.llama import Context, Matcher, Model, Sampler, Scores
from localrun.messages import Logprob, Submit
from localrun.runner.reasoning import ReasoningTrack

if TYPE_CHECKING:
    from array import array


@dataclass(frozen=True, slots=True)
class Drawn:
    """One token of a completion, the bytes of its text and how likely it was, if asked."""

    token: int
    piece: bytes
    logprob: Logprob | None = None


class Drawer:
    """Draws for one sequence. Independent of its KV cells, so it survives a preemption.

    Args:
        model: Whose vocabulary is drawn from.
        request: How.
        prompt: Its last tokens fill the window of the penalties.
        n_ctx: Window for `repeat_last_n` -1.
        matcher: Holds the completion to the request's grammar; the drawer owns it.
        reasoning: Follows the completion's reasoning.
    """

    def __init__(
        self,
        model: Model,
        request: Submit,
        prompt: "array[int]",
        *,
        n_ctx: int,
        matcher: Matcher | None = None,
        reasoning: ReasoningTrack | None = None,
    ) -> None:
        self._vocabulary, self._n_logprobs = model.vocabulary, request.n_logprobs
        self._preserved = frozenset(request.preserved)
        self._matcher, self._reasoning = matcher, reasoning
        self._sampler = Sampler(
            model, request.sampling, n_ctx=n_ctx, prompt=prompt, bias=request.logit_bias
        )

    @property
    def is_complete(self) -> bool:
        """Whether the grammar lets nothing more follow."""
        return self._matcher is not None and self._matcher.is_complete

    def draw(self, context: Context, row: int) -> Items[Drawn]:
        """The next token; or several, put there to end the reasoning.

        Raises:
            GrammarFailed: If the completion cannot be held to its grammar.
        """
        reasoning = self._reasoning
        if reasoning is not None and reasoning.must_close:
            return self._close_reasoning(context, row, reasoning)
        scores = self._scores(context, row)
        if self._matcher is None:
            token = self._sampler.sample(context, row)
        else:
            token = self._held_token(context, row, self._matcher)
        piece = self._piece(token)
        if reasoning is not None:
            reasoning.feed(piece)
        return (Drawn(token, piece, None if scores is None else self._logprob(token, scores)),)

    def close(self) -> None:
        """Free what is native."""
        self._sampler.close()
        if self._matcher is not None:
            self._matcher.close()

    def _held_token(self, context: Context, row: int, matcher: Matcher) -> int:
        """Draw what the grammar allows.

        Most of the time that is what the model wants anyway. So it is asked first, and only where
        it is wrong the other tokens are ruled out, which takes ten times as long.
        """
        token = -1
        if not self._sampler.remembers:
            token = self._sampler.sample(context, row)
        if token < 0 or not matcher.allows(token):
            matcher.hold(context, row)
            token = self._sampler.sample(context, row)
        if not self._vocabulary.is_end(token):
            matcher.accept(token)
        return token

    def _close_reasoning(
        self, context: Context, row: int, reasoning: ReasoningTrack
    ) -> list[Drawn]:
        """Put the closing tokens in as if they had been drawn.

        The model has an opinion on the first alone, as the others were never asked for.
        """
        scores = self._scores(context, row)
        drawn: list[Drawn] = []
        for token in reasoning.closing:
            self._sampler.accept(token)
            if self._matcher is not None:
                self._matcher.accept(token)
            piece = self._piece(token)
            reasoning.feed(piece)
            logprob = None
            if scores is not None:
                certain = Logprob(self._bytes(token), 0.0)
                logprob = certain if drawn else self._logprob(token, scores)
            drawn.append(Drawn(token, piece, logprob))
        reasoning.closed()
        return drawn

    def _piece(self, token: int) -> bytes:
        return self._vocabulary.piece(token, render_special=token in self._preserved)

    def _bytes(self, token: int) -> bytes:
        return self._vocabulary.piece(token, render_special=True)

    def _scores(self, context: Context, row: int) -> Scores | None:
        return Scores(context, row, self._n_logprobs) if self._n_logprobs >= 0 else None

    def _logprob(self, token: int, scores: Scores) -> Logprob:
        top = tuple((self._bytes(other), logprob) for other, logprob in scores.top)
        return Logprob(self._bytes(token), scores.logprob(token), top)
