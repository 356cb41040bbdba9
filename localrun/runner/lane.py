"""One context and the sequences in it: ids, cells, prefixes, and the decode call."""

import time
from collections import OrderedDict
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from localrun.llama import Batch, Context, Decoded, Model
from localrun.runner.ledger import CellLedger
from localrun.runner.plan import Chunk
from localrun.runner.prefix import PrefixIndex
from localrun.runner.threads import Threads

if TYPE_CHECKING:
    import ctypes
    from array import array

    from localrun.runner.sequence import Sequence

MIN_SHARED_TOKENS = 16
"""Shorter prefixes are not worth waiting for another sequence, nor keeping."""


SPILL_BYTES, LARGEST_SPILL_BYTES = 128 << 20, 32 << 20
"""Host memory for kept sequences, and the largest one: copying it may not hold up a step."""
_FIRST_SPILLED = 1 << 20


@dataclass(frozen=True, slots=True)
class _Spilled:
    """A kept sequence's cells in host memory."""

    n_tokens: int
    cells: "ctypes.Array[ctypes.c_uint8]"


@dataclass(frozen=True, slots=True)
class Prefix:
    """The best prefix for a prompt.

    Attributes:
        source: Sequence id to share from, or the key of a spilled one; None if nothing helps.
        n_shared: Tokens that are ready there.
        n_restored: Cells that a spilled source takes before it is cut to what is shared.
        leader: A running sequence that is computing more of the prompt, worth waiting for.
        n_ahead: Tokens the leader will have.
    """

    source: int | None = None
    n_shared: int = 0
    n_restored: int = 0
    leader: "Sequence | None" = None
    n_ahead: int = 0


class Lane:
    """A KV pool with the sequences that run in it and those kept for their prefixes.

    Kept sequences go to host memory, because every used cell of the pool taxes each step, on a CPU
    by a fifth for 6k cells of a small model. Large ones stay in the pool until it is needed.

    Args:
        model: Whose weights the context is on.
        context: The pool; the lane owns it.
        n_ctx: Positions one sequence may use.
        shares: Whether sequences may share prefixes and be kept; false for recurrent models,
            whose state cannot be cut, and for the deterministic lane.
        threads: Adapts the number of threads to the machine; None leaves it, as the deterministic
            lane must.
    """

    def __init__(
        self,
        model: Model,
        context: Context,
        *,
        n_ctx: int,
        shares: bool,
        threads: Threads | None = None,
    ) -> None:
        settings = context.settings
        self.context, self.shares, self._threads = context, shares, threads
        self.n_ctx = n_ctx
        self.batch = Batch(
            n_batch=settings.n_batch,
            n_outputs_max=settings.n_outputs_max,
            n_seq_max=settings.n_seq_max,
            n_vocab=model.vocabulary.n_tokens,
            n_ctx=n_ctx,
        )
        self.running: list[Sequence] = []
        self.kept: OrderedDict[int, None] = OrderedDict()
        self.ledger = CellLedger(context.n_cells)
        self.spilled: OrderedDict[int, _Spilled] = OrderedDict()
        self._n_spilled_bytes, self._next_spilled = 0, _FIRST_SPILLED
        self.spill_bytes, self.largest_spill_bytes = SPILL_BYTES, LARGEST_SPILL_BYTES
        self._index = PrefixIndex()
        self._free_ids = list(range(settings.n_seq_max - 1, -1, -1))

    def find_prefix(self, sequence: "Sequence") -> Prefix:
        """The best source for a prompt, and a leader if waiting for it saves work."""
        if not self.shares:
            return Prefix()
        self._sync()
        limit = len(sequence.tokens) - 1  # the last token is always computed: its logits are wanted
        found = self._index.matches(sequence.request.scope, sequence.tokens)
        matches = {owner: min(n, limit) for owner, n in found.items()}
        best = self._best_source(matches)
        ahead = [s for s in self.running if matches.get(s.seq_id, 0) > s.n_past]
        leader = max(ahead, key=lambda s: matches[s.seq_id], default=None)
        if leader is None or matches[leader.seq_id] < best.n_shared + MIN_SHARED_TOKENS:
            return best
        return replace(best, leader=leader, n_ahead=matches[leader.seq_id])

    def _best_source(self, matches: dict[int, int]) -> Prefix:
        """The longest prefix that is ready; one in the pool unless a spilled one gives more."""
        live = {running.seq_id: running.n_past for running in self.running}
        pooled, spilled = Prefix(), Prefix()
        for owner, n in matches.items():
            if owner in self.spilled:
                if n > spilled.n_shared:
                    spilled = Prefix(owner, n, self.spilled[owner].n_tokens)
            elif (ready := min(n, live.get(owner, n))) > pooled.n_shared:
                pooled = Prefix(owner, ready)
        gains = spilled.n_shared >= pooled.n_shared + MIN_SHARED_TOKENS
        return spilled if gains else pooled

    def make_room(self, n_tokens: int, *, protect: int | None = None) -> bool:
        """Evict kept sequences, the least recently used first, until `n_tokens` cells are free."""
        for seq_id in list(self.kept):
            if self.ledger.n_free >= n_tokens:
                break
            if seq_id != protect:
                self._forget(seq_id)
        return self.ledger.n_free >= n_tokens

    def admit(self, sequence: "Sequence", prefix: Prefix) -> None:
        """Give a sequence an id and the shared prefix; it runs from the next step on."""
        if not self._free_ids:
            self._forget(next(seq_id for seq_id in self.kept if seq_id != prefix.source))
        seq_id = self._free_ids.pop()
        sequence.lane, sequence.seq_id, sequence.n_past = self, seq_id, prefix.n_shared
        if prefix.source in self.spilled:
            self._restore(sequence, prefix)
        elif prefix.source is not None:
            self.context.share_prefix(prefix.source, seq_id, prefix.n_shared)
            self.ledger.share(prefix.source, seq_id, prefix.n_shared)
            if prefix.source in self.kept:
                self.kept.move_to_end(prefix.source)
        if self.shares:
            self._index.insert(sequence.request.scope, seq_id, sequence.tokens[:])
        self.running.append(sequence)
        self.running.sort(key=lambda s: s.arrived_s)

    def release(self, sequence: "Sequence", *, keep: bool) -> None:
        """Take a sequence out; `keep` leaves its cells for later prompts that begin like it."""
        seq_id, n_past = sequence.seq_id, sequence.n_past
        self.running.remove(sequence)
        sequence.lane, sequence.seq_id, sequence.n_past = None, -1, 0
        if not keep or not self.shares or n_past < MIN_SHARED_TOKENS:
            self._forget(seq_id)
            return
        scope, held = sequence.request.scope, sequence.tokens[:n_past]
        self._index.remove(seq_id)
        self._drop_prefixes_of(scope, held)
        if self._spill(scope, seq_id, held):
            self._forget(seq_id)
        else:
            self._index.insert(scope, seq_id, held)
            self.kept[seq_id] = None

    def decode(self, chunks: Items[Chunk], by_key: "dict[int, Sequence]") -> Decoded:
        """Run the chunks. Afterwards `rows` of those that wanted logits are in `batch`.

        On anything but DONE the cache is as before the call.
        """
        self.batch.clear()
        for chunk in chunks:
            sequence = by_key[chunk.key]
            tokens = sequence.tokens[sequence.n_past : sequence.n_past + chunk.n_tokens]
            self.batch.add(
                sequence.seq_id, sequence.n_past, tokens, wants_logits=chunk.wants_logits
            )
        outcome = self._timed_decode()
        for chunk in chunks:
            sequence = by_key[chunk.key]
            if outcome is Decoded.DONE:
                sequence.n_past += chunk.n_tokens
                self.ledger.append(sequence.seq_id, chunk.n_tokens)
            elif outcome is Decoded.ABORTED:
                self._roll_back(sequence)
        return outcome

    def _timed_decode(self) -> Decoded:
        """Decode, and follow the machine with the number of threads."""
        if self._threads is None:
            return self.context.decode(self.batch)
        begun, cpu_begun, n_threads = time.monotonic(), time.process_time(), self._threads.n
        outcome = self.context.decode(self.batch)
        now, cpu_s = time.monotonic(), time.process_time() - cpu_begun
        if self._threads.observe(now - begun, cpu_s, now) != n_threads:
            self.context.set_threads(self._threads.n)
        return outcome

    def clear(self) -> None:
        """Empty the pool; nothing may run."""
        self.context.clear()
        self.ledger = CellLedger(self.context.n_cells)

    def _roll_back(self, sequence: "Sequence") -> None:
        """Drop what an aborted call left behind; a recurrent state starts over."""
        if not self.context.trim(sequence.seq_id, sequence.n_past):
            self.context.trim(sequence.seq_id, 0)
            self.ledger.trim(sequence.seq_id, 0)
            sequence.n_past = 0

    def _sync(self) -> None:
        """Tell the index what the running sequences have drawn since the last look."""
        for sequence in self.running:
            known = self._index.n_tokens(sequence.seq_id)
            if known < len(sequence.tokens):
                self._index.extend(sequence.seq_id, sequence.tokens[known:])

    def _spill(self, scope: str, seq_id: int, held: "array[int]") -> bool:
        """Copy a finished sequence to host memory; the oldest copies make room for it."""
        n_bytes = self.context.saved_bytes(seq_id)
        if n_bytes > self.largest_spill_bytes or (cells := self.context.save(seq_id)) is None:
            return False
        key = self._next_spilled
        self._next_spilled += 1
        self.spilled[key] = _Spilled(len(held), cells)
        self._index.insert(scope, key, held)
        self._n_spilled_bytes += n_bytes
        while self._n_spilled_bytes > self.spill_bytes:
            self._drop_spilled(next(iter(self.spilled)))
        return True

    def _restore(self, sequence: "Sequence", prefix: Prefix) -> None:
        """Bring a spilled sequence's cells back, as far as they are shared."""
        assert prefix.source is not None
        seq_id, n_shared = sequence.seq_id, prefix.n_shared
        self.spilled.move_to_end(prefix.source)
        if not self.context.restore(seq_id, self.spilled[prefix.source].cells):
            self.context.trim(seq_id, 0)
            sequence.n_past = 0
            return
        self.context.trim(seq_id, n_shared)
        self.ledger.append(seq_id, n_shared)

    def _drop_spilled(self, key: int) -> None:
        self._n_spilled_bytes -= len(self.spilled.pop(key).cells)
        self._index.remove(key)

    def _drop_prefixes_of(self, scope: str, tokens: "array[int]") -> None:
        """Forget kept sequences that say no more than `tokens` does."""
        for owner, match in self._index.matches(scope, tokens).items():
            if match < self._index.n_tokens(owner):
                continue
            if owner in self.kept:
                self._forget(owner)
            elif owner in self.spilled:
                self._drop_spilled(owner)

    def _forget(self, seq_id: int) -> None:
        self.kept.pop(seq_id, None)
        self._index.remove(seq_id)
        self.context.trim(seq_id, 0)
        self.ledger.trim(seq_id, 0)
        self._free_ids.append(seq_id)
