"""A llama_context that turns texts into vectors, or pairs of a rerank model into scores."""

import ctypes
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from localrun.errors import BadRequest, RunnerFailed, Unsupported
from localrun.llama.batch import Batch
from localrun.llama.context import Context, ContextSettings, Decoded
from localrun.llama.library import native
from localrun.llama.model import Model

if TYPE_CHECKING:
    from array import array

_MEAN, _LAST, _RANK = 1, 3, 4
_MODELS_OWN = -1


@dataclass(frozen=True, slots=True)
class _Call:
    """Rows of a decode call: (sequence, first position, tokens). The last one of a group pools."""

    rows: tuple[tuple[int, int, "array[int]"], ...]
    pools: bool


class EmbeddingContext:
    """Computes one group of texts at a time, in as many calls as that takes.

    Pooled as the GGUF says. Where it says nothing, the last token of a causal model speaks for the
    text, as it alone has seen all of it, and the mean of all tokens where each sees every other.

    A model whose pooling needs all tokens in one graph gets each group in a single call, so
    `n_ubatch` is its window. Where the last token is enough, the others are computed as a prompt,
    without outputs: these would be a row of logits each.

    Args:
        model: The model.
        settings: Sizes; outputs and, for a model that needs it, batch sizes are set here.

    Raises:
        Unsupported: If the model is an encoder with a decoder, which pools nothing.
        OutOfMemory: If the context does not fit.
    """

    def __init__(self, model: Model, settings: ContextSettings) -> None:
        if model.has_encoder and model.has_decoder:
            raise Unsupported("this kind of model gives no embeddings")
        pooling = model.pooling or (_LAST if model.is_causal else _MEAN)
        self.is_rank = pooling == _RANK
        self.in_pieces = model.is_causal and pooling in (_LAST, _RANK)
        n_ctx = settings.n_cells
        settings = replace(
            settings,
            n_batch=settings.n_batch if self.in_pieces else n_ctx,
            n_ubatch=settings.n_ubatch if self.in_pieces else n_ctx,
            n_seq_max=min(settings.n_seq_max, n_ctx),
            pooling=_MODELS_OWN if model.pooling else pooling,
        )
        n_outputs = settings.n_seq_max if self.in_pieces else settings.n_batch
        settings = replace(settings, n_outputs_max=n_outputs)
        self.context = Context(model, settings)
        self.n_ctx, self.n_texts = n_ctx, settings.n_seq_max
        self._n_values = (
            1 if self.is_rank else int(native().low.llama_model_n_embd_out(model.pointer))
        )
        self._batch = Batch(
            n_batch=settings.n_batch,
            n_outputs_max=n_outputs,
            n_seq_max=settings.n_seq_max,
            n_vocab=model.vocabulary.n_tokens,
            n_ctx=n_ctx,
        )
        self._calls: deque[_Call] = deque()
        self._n_group = 0
        self.vectors: list[bytes | BadRequest] = []

    @property
    def is_busy(self) -> bool:
        """Whether a group has calls left."""
        return bool(self._calls)

    def begin(self, texts: Sequence["array[int]"], n_rows: int) -> None:
        """Take a group of texts, in place of an unfinished one.

        Args:
            texts: At most `n_texts`, and `n_ctx` tokens together.
            n_rows: Tokens of a call, where the model lets us choose.

        Raises:
            ValueError: If there are too many texts or tokens, or an empty text.
        """
        n_tokens = sum(map(len, texts))
        if not 0 < len(texts) <= self.n_texts or n_tokens > self.n_ctx or not all(map(len, texts)):
            raise ValueError(f"{len(texts)} texts of {n_tokens} tokens are no group")
        self.context.clear()
        self._n_group, self.vectors = len(texts), []
        self._calls = deque(self._pieces(texts, n_rows) if self.in_pieces else _in_one(texts))

    def step(self) -> Decoded:
        """Make the next call; after the last one the vectors are there, in the order of the texts.

        On anything but DONE the group is to be begun again.

        Raises:
            RunnerFailed: If llama.cpp fails for good.
        """
        call = self._calls.popleft()
        self._batch.clear()
        for seq_id, pos, tokens in call.rows:
            self._batch.add(seq_id, pos, tokens, wants_logits=False)
        if call.pools:
            self._batch.want_all()
        native().short.llama_set_embeddings(self.context.pointer, call.pools)
        outcome = self.context.decode(self._batch)
        if outcome is not Decoded.DONE:
            self.drop()
        elif call.pools:
            self.vectors = [self._vector(seq_id) for seq_id in range(self._n_group)]
            self.context.clear()
        return outcome

    def drop(self) -> None:
        """Forget the group."""
        self._calls.clear()

    def close(self) -> None:
        """Free the context."""
        self.context.close()

    def _pieces(self, texts: Sequence["array[int]"], n_rows: int) -> list[_Call]:
        """Everything but the last tokens in full batches, then these together."""
        calls: list[_Call] = []
        rows: list[tuple[int, int, array[int]]] = []
        room = size = min(n_rows, self.context.settings.n_batch)
        for seq_id, text in enumerate(texts):
            at, end = 0, len(text) - 1
            while at < end:
                n = min(room, end - at)
                rows.append((seq_id, at, text[at : at + n]))
                at, room = at + n, room - n
                if not room:
                    calls.append(_Call(tuple(rows), pools=False))
                    rows, room = [], size
        if rows:
            calls.append(_Call(tuple(rows), pools=False))
        last = tuple((i, len(text) - 1, text[-1:]) for i, text in enumerate(texts))
        return [*calls, _Call(last, pools=True)]

    def _vector(self, seq_id: int) -> bytes | BadRequest:
        import numpy as np

        pointer = native().short.llama_get_embeddings_seq(self.context.pointer, seq_id)
        if not pointer:
            raise RunnerFailed("llama.cpp pooled nothing for this text")
        block = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float * self._n_values)).contents
        values: Any = np.asarray(memoryview(block).cast("B").cast("f")).astype("<f4")
        if not np.isfinite(values).all():
            return BadRequest("embedding contains NaN or Inf values")
        norm = 1.0 if self.is_rank else float(np.linalg.norm(values.astype(np.float64)))
        return bytes((values / norm).astype("<f4").tobytes()) if norm else bytes(values.tobytes())


def _in_one(texts: Sequence["array[int]"]) -> list[_Call]:
    return [_Call(tuple((i, 0, text) for i, text in enumerate(texts)), pools=True)]
