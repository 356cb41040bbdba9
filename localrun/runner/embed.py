"""Texts to vectors: several waiting texts share a call, and answers beside them are not held up."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localrun.errors import BadRequest, Cancelled, LocalrunError, PromptTooLong, RunnerFailed
from localrun.llama import Decoded, EmbeddingContext, Model
from localrun.messages import Embed, Embedded, Failed, Stats, failed
from localrun.runner.check import check_prompt

if TYPE_CHECKING:
    from array import array

GROUP_TOKENS = 512
"""Tokens of the texts that share a call, unless one alone is longer. More would only cost: each
token is compared with every other of the call before those of foreign texts are left out."""

ROWS_BESIDE = 32
"""Tokens of a call beside running answers, where the model can be called with a part of a text."""


@dataclass(frozen=True, slots=True)
class _Text:
    request_id: int
    tokens: "array[int]"


class Embedder:
    """The texts of one model, in order of arrival, from one thread.

    Args:
        model: The model.
        n_ctx: Tokens of one text at most.
        ask: Asks for the context's memory; called once until `answered`.
        open_context: Makes the context, after a yes.
        is_beside: Tells whether answers are being made: then calls are short.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        ask: Callable[[], None],
        open_context: Callable[[], EmbeddingContext],
        is_beside: Callable[[], bool] = lambda: False,
    ) -> None:
        self._model, self.n_ctx = model, n_ctx
        self._ask, self._open, self._is_beside = ask, open_context, is_beside
        self._context: EmbeddingContext | None = None
        self._is_asking = False
        self.in_flight: frozenset[int] = frozenset()
        self._waiting: list[_Text] = []
        self._group: list[_Text] = []
        self._frames: list[Embedded | Failed] = []
        self._n_tokens = self._n_steps = 0

    def submit(self, request: Embed, tokens: "array[int]") -> None:
        """Queue a text; a wrong one fails on its own."""
        try:
            if any(text.request_id == request.request_id for text in self._texts):
                raise BadRequest(f"request {request.request_id} is already running")
            check_prompt(tokens, request.n_prompt, self._model.vocabulary.n_tokens)
            if len(tokens) > self.n_ctx:
                raise PromptTooLong(len(tokens), self.n_ctx, self._model.n_ctx_train)
        except LocalrunError as error:
            self._frames.append(failed(request.request_id, error))
            return
        self._waiting.append(_Text(request.request_id, tokens))

    def cancel(self, request_id: int) -> None:
        """Drop a text; unknown ids are ignored. The others of its group are computed again."""
        if any(text.request_id == request_id for text in self._group):
            self._regroup()
        kept = [text for text in self._waiting if text.request_id != request_id]
        if len(kept) < len(self._waiting):
            self._waiting = kept
            self._frames.append(failed(request_id, Cancelled("the request was cancelled")))

    def open(self) -> None:
        """Make the context now; the memory is granted.

        Raises:
            LocalrunError: If it cannot be made.
        """
        self._is_asking = False
        self._context = self._open()

    def refused(self, error: LocalrunError) -> None:
        """There is no context: the waiting texts fail, the next one asks again."""
        self._is_asking = False
        for text in self._waiting:
            self._frames.append(failed(text.request_id, error))
        self._waiting = []

    def abort(self) -> None:
        """Break off the running call. The one method for another thread."""
        if (context := self._context) is not None:
            context.context.abort(wanted=True)

    def step(self, *, interrupted: Callable[[], bool] = lambda: False) -> bool:
        """Make one call, if there is one to make.

        Args:
            interrupted: Asked right before the call: true ends the turn, as messages wait.

        Returns:
            Whether there was anything to compute.
        """
        context = self._ready()
        if context is None:
            return False
        self.in_flight = frozenset(text.request_id for text in self._group)
        context.context.abort(wanted=False)
        if not interrupted():
            self._n_steps += 1
            outcome = context.step()
            if outcome is Decoded.NO_ROOM:
                raise RunnerFailed("the embedding context is smaller than its window")
            if outcome is Decoded.ABORTED:
                self._regroup()
            elif not context.is_busy:
                self._send(context)
        self.in_flight = frozenset()
        return True

    def _ready(self) -> EmbeddingContext | None:
        """The context with a group begun; None if nothing waits or memory is not granted yet."""
        context = self._context
        if not self._texts:
            return None
        if context is None:
            if not self._is_asking:
                self._is_asking = True
                self._ask()
            return None
        if not context.is_busy:
            self._begin(context)
        return context

    @property
    def is_urgent(self) -> bool:
        """Whether there is something to send."""
        return bool(self._frames)

    def stats(self) -> Stats:
        """Counters since the load, and the state of now."""
        return Stats(
            n_running=len(self._group),
            n_waiting=len(self._waiting),
            n_kept=0,
            n_cells=0,
            n_cells_used=0,
            n_prompt_tokens=self._n_tokens,
            n_prompt_computed=self._n_tokens,
            n_completion_tokens=0,
            n_steps=self._n_steps,
        )

    def take_frames(self) -> list[Embedded | Failed]:
        """What the last turns produced; empties it."""
        frames, self._frames = self._frames, []
        return frames

    @property
    def _texts(self) -> list[_Text]:
        return [*self._group, *self._waiting]

    def _begin(self, context: EmbeddingContext) -> None:
        """Take as many waiting texts as share a call well."""
        n_tokens = n_texts = 0
        for text in self._waiting[: context.n_texts]:
            n_tokens += len(text.tokens)
            if n_texts and n_tokens > min(GROUP_TOKENS, context.n_ctx):
                break
            n_texts += 1
        self._group, self._waiting = self._waiting[:n_texts], self._waiting[n_texts:]
        n_rows = ROWS_BESIDE if self._is_beside() else context.n_ctx
        context.begin([text.tokens for text in self._group], n_rows)

    def _regroup(self) -> None:
        self._waiting, self._group = self._texts, []
        if self._context is not None:
            self._context.drop()

    def _send(self, context: EmbeddingContext) -> None:
        for text, vector in zip(self._group, context.vectors, strict=True):
            self._n_tokens += len(text.tokens)
            if isinstance(vector, LocalrunError):
                self._frames.append(failed(text.request_id, vector))
            else:
                self._frames.append(Embedded(text.request_id, vector, len(text.tokens)))
        self._group = []
