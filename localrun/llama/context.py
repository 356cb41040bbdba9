"""One llama_context: a KV pool and the decode calls on it."""

import ctypes
import enum
from dataclasses import dataclass
from typing import Any

from localrun.errors import InvalidOption, OutOfMemory, RunnerFailed
from localrun.llama.batch import Batch
from localrun.llama.library import native
from localrun.llama.model import Model

MAX_SEQUENCES = 256
"""llama.cpp's LLAMA_MAX_SEQ: an id of 256 or more ends the process."""

KV_TYPES = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}
_FLASH = {None: -1, False: 0, True: 1}
_MAX_THREADS = 512


class Decoded(enum.Enum):
    """How a decode call ended.

    DONE: all rows are in the cache and the wanted logits are there.
    NO_ROOM: no KV cells; the cache is as before, fewer tokens may fit.
    ABORTED: `Context.abort` was called; finished parts stay, ask `Context.n_past`.
    """

    DONE = 0
    NO_ROOM = 1
    ABORTED = 2


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """Sizes of a context.

    Attributes:
        n_cells: Tokens the pool holds, shared by all sequences.
        n_seq_max: Sequence ids, 1..256.
        n_batch: Rows of one decode call.
        n_ubatch: Rows of one compute graph.
        n_outputs_max: Rows with logits in one call, at least `n_seq_max`.
        n_threads: CPU threads of a step.
        type_k: KV cache type of the keys.
        type_v: KV cache type of the values.
        flash_attention: None lets llama.cpp decide.
        pooling: The context turns sequences into vectors in this way of llama.cpp's, -1 for the
            model's own; None makes one for text.
    """

    n_cells: int
    n_seq_max: int
    n_batch: int
    n_ubatch: int
    n_outputs_max: int
    n_threads: int
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attention: bool | None = None
    pooling: int | None = None

    def check(self) -> None:
        """Raise InvalidOption where llama.cpp would end the process."""
        bounds = {
            "n_cells": (self.n_cells, 1, 1 << 26),
            "n_seq_max": (self.n_seq_max, 1, MAX_SEQUENCES),
            "n_batch": (self.n_batch, 1, 1 << 16),
            "n_ubatch": (self.n_ubatch, 1, self.n_batch),
            "n_outputs_max": (self.n_outputs_max, self.n_seq_max, self.n_batch),
            "n_threads": (self.n_threads, 1, _MAX_THREADS),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise InvalidOption(f"{name} {value} is not in {low}..{high}")
        for name in (self.type_k, self.type_v):
            if name not in KV_TYPES:
                raise InvalidOption(f"KV cache type {name!r} is not one of {', '.join(KV_TYPES)}")


class Context:
    """A KV pool on a model. All methods belong to one thread, except `abort`."""

    def __init__(self, model: Model, settings: ContextSettings) -> None:
        settings.check()
        self._engine, self.settings = native(), settings
        low = self._engine.low
        params = low.llama_context_default_params()
        params.n_ctx, params.n_seq_max = settings.n_cells, settings.n_seq_max
        params.n_batch, params.n_ubatch = settings.n_batch, settings.n_ubatch
        params.n_outputs_max = settings.n_outputs_max
        params.n_threads = params.n_threads_batch = settings.n_threads
        params.type_k, params.type_v = KV_TYPES[settings.type_k], KV_TYPES[settings.type_v]
        params.flash_attn_type = _FLASH[settings.flash_attention]
        params.kv_unified = True
        if settings.pooling is not None:
            params.embeddings, params.pooling_type = True, settings.pooling
        self._engine.log.errors = []
        self._pointer = low.llama_init_from_model(model.pointer, params)
        if not self._pointer:
            raise self._refused()
        self.n_cells: int = low.llama_n_ctx(self._pointer)
        self._memory = low.llama_get_memory(self._pointer)
        self._rows_with_logits: frozenset[int] = frozenset()
        self._abort = ctypes.create_string_buffer(b"0")
        self._install_abort()
        self._apply(model.adapters)

    @property
    def pointer(self) -> Any:
        """llama.cpp's context, for the other files of this room."""
        return self._pointer

    def _apply(self, adapters: list[Any]) -> None:
        """Lay the model's adapters over its weights, each at its full strength."""
        if not adapters:
            return
        low, n = self._engine.low, len(adapters)
        pointers = (low.llama_adapter_lora_p_ctypes * n)(*adapters)
        scales = (ctypes.c_float * n)(*[1.0] * n)
        if low.llama_set_adapters_lora(self._pointer, pointers, n, scales):
            raise RunnerFailed("llama.cpp does not take the adapter")

    def decode(self, batch: Batch) -> Decoded:
        """Run the batch through the model. Gives the interpreter's lock away meanwhile.

        Raises:
            ValueError: If the batch is empty, longer than the context allows or malformed.
            RunnerFailed: If llama.cpp fails for good; the context cannot be used any more.
        """
        if not 0 < batch.n_rows <= self.settings.n_batch:
            raise ValueError(f"a batch has 1 to {self.settings.n_batch} rows, not {batch.n_rows}")
        if len(batch.output_rows) > self.settings.n_outputs_max:
            raise ValueError("more rows want logits than the context reserved")
        self._rows_with_logits = frozenset()
        code = self._engine.low.llama_decode(self._pointer, batch.struct)
        if code == 0:
            self._rows_with_logits = frozenset(batch.output_rows)
        elif code == -1:
            raise ValueError("llama.cpp refuses the batch: " + " ".join(self._engine.log.errors))
        elif code < 0:
            raise RunnerFailed(f"llama_decode failed with {code}: {self._engine.log.errors}")
        return Decoded(code)

    def has_logits(self, row: int) -> bool:
        """Whether the last decode left logits for this row of its batch."""
        return row in self._rows_with_logits

    def logits(self, row: int) -> "memoryview[float]":
        """The scores of a row, one float a token; valid until the next decode.

        Raises:
            ValueError: If the row has none.
        """
        if row not in self._rows_with_logits:
            raise ValueError(f"row {row} has no logits")
        pointer = self._engine.short.llama_get_logits_ith(self._pointer, row)
        n_vocab = self._n_vocab
        block = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float * n_vocab)).contents
        return memoryview(block).cast("B").cast("f")

    def abort(self, *, wanted: bool) -> None:
        """Ask the running decode to stop (`wanted`) or let the next one run. Any thread.

        On a CPU it stops inside the compute graph within some milliseconds.
        """
        self._abort[0] = b"1" if wanted else b"0"

    def set_threads(self, n_threads: int) -> None:
        """Change the number of threads from the next step on (50 µs, no reload)."""
        if not 1 <= n_threads <= _MAX_THREADS:
            raise ValueError(f"n_threads {n_threads} is not in 1..{_MAX_THREADS}")
        self._engine.short.llama_set_n_threads(self._pointer, n_threads, n_threads)

    def n_past(self, seq_id: int) -> int:
        """Tokens of this sequence in the cache."""
        self._check_seq(seq_id)
        last: int = self._engine.short.llama_memory_seq_pos_max(self._memory, seq_id)
        return last + 1

    def first_pos(self, seq_id: int) -> int:
        """Smallest position the cache still holds for this sequence, -1 if it holds none.

        Above 0 for a sliding window that has dropped its start.
        """
        self._check_seq(seq_id)
        first: int = self._engine.short.llama_memory_seq_pos_min(self._memory, seq_id)
        return first

    def share_prefix(self, source: int, target: int, n_tokens: int) -> None:
        """Let `target` begin with the first `n_tokens` of `source`; no data is copied.

        Raises:
            ValueError: If an id is out of range, both are the same, or the count exceeds `source`.
        """
        self._check_seq(source)
        self._check_seq(target)
        if source == target or not 0 < n_tokens <= self.n_past(source):
            raise ValueError(f"cannot share {n_tokens} tokens of {source} with {target}")
        self._engine.short.llama_memory_seq_cp(self._memory, source, target, 0, n_tokens)

    def trim(self, seq_id: int, n_keep: int) -> bool:
        """Drop all tokens of a sequence from position `n_keep` on; 0 drops it whole.

        Returns:
            False if this kind of memory cannot be cut there (a recurrent state): drop it whole.
        """
        self._check_seq(seq_id)
        if n_keep < 0:
            raise ValueError(f"cannot keep {n_keep} tokens")
        return bool(self._engine.short.llama_memory_seq_rm(self._memory, seq_id, n_keep, -1))

    def saved_bytes(self, seq_id: int) -> int:
        """Bytes that `save` would take for this sequence."""
        self._check_seq(seq_id)
        return int(self._engine.low.llama_state_seq_get_size(self._pointer, seq_id))

    def save(self, seq_id: int) -> "ctypes.Array[ctypes.c_uint8] | None":
        """Copy a sequence's cells to host memory; None if llama.cpp cannot."""
        size = self.saved_bytes(seq_id)
        saved = (ctypes.c_uint8 * size)()
        n = self._engine.low.llama_state_seq_get_data(self._pointer, saved, size, seq_id)
        return saved if n == size else None

    def restore(self, seq_id: int, saved: "ctypes.Array[ctypes.c_uint8]") -> bool:
        """Give an empty sequence the cells of `save`; False, and still empty, without room.

        Only ever bytes of this very context: llama.cpp takes damaged ones without a word.
        """
        self._check_seq(seq_id)
        if self.n_past(seq_id):
            raise ValueError(f"sequence {seq_id} is not empty")
        low = self._engine.low
        n = low.llama_state_seq_set_data(self._pointer, saved, len(saved), seq_id)
        return bool(n == len(saved))

    def clear(self) -> None:
        """Forget every sequence; the cache is as new."""
        self._engine.low.llama_memory_clear(self._memory, True)  # noqa: FBT003 (native)

    def close(self) -> None:
        """Free the pool."""
        if self._pointer:
            self._engine.low.llama_free(self._pointer)
            self._pointer = None

    @property
    def _n_vocab(self) -> int:
        low = self._engine.low
        model = low.llama_get_model(self._pointer)
        n: int = low.llama_vocab_n_tokens(low.llama_model_get_vocab(model))
        return n

    def _check_seq(self, seq_id: int) -> None:
        if not 0 <= seq_id < self.settings.n_seq_max:
            raise ValueError(f"sequence {seq_id} is not in 0..{self.settings.n_seq_max - 1}")

    def _install_abort(self) -> None:
        """Let C read the flag itself: `atoi` on one digit needs no Python on the compute thread."""
        low = self._engine.low
        atoi = ctypes.cast(ctypes.CDLL(None).atoi, low.ggml_abort_callback)
        self._abort_callback = atoi
        low.llama_set_abort_callback(self._pointer, atoi, ctypes.cast(self._abort, ctypes.c_void_p))

    def _refused(self) -> Exception:
        reason = self._engine.log.errors[-1] if self._engine.log.errors else "no reason given"
        if "alloc" in reason or "memory" in reason:
            return OutOfMemory(0, 0, "the device", hint=f"llama.cpp said: {reason}")
        return RunnerFailed(f"llama.cpp cannot make a context: {reason}")
