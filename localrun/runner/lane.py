"""One context and the sequences in it: ids, cells, prefixes, and the decode call."""

import time
from collections import OrderedDict
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localrun.llama import Batch, Context, Decoded, Model
from localrun.runner.ledger import CellLedger
from localrun.runner.plan import Chunk
from localrun.runner.prefix import PrefixIndex
from localrun.runner.threads import Threads

if TYPE_CHECKING:
    from array import array

    from localrun.runner.sequence import Sequence

MIN_SHARED_TOKENS = 16
"""Shorter prefixes are not worth waiting for another sequence, nor keeping."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """The best prefix for a prompt.

    Attributes:
        source: Sequence id to share from, None if nothing helps.
        n_shared: Tokens that are ready there.
        leader: A running sequence that is computing more of the prompt, worth waiting for.
        n_ahead: Tokens the leader will have.
    """

    source: int | None = None
    n_shared: int = 0
    leader: "Sequence | None" = None
    n_ahead: int = 0


class Lane:
    """A KV pool with the sequences that run in it and those kept for their prefixes.

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
        self._index = PrefixIndex()
        self._free_ids = list(range(settings.n_seq_max - 1, -1, -1))

    def find_prefix(self, sequence: "Sequence") -> Prefix:
        """The best source for a prompt, and a leader if waiting for it saves work."""
        if not self.shares:
            return Prefix()
        self._sync()
        limit = len(sequence.tokens) - 1  # the last token is always computed: its logits are wanted
        live = {running.seq_id: running for running in self.running}
        best = Prefix()
        for owner, match in self._index.matches(sequence.request.scope, sequence.tokens).items():
            n = min(match, limit)
            ready = min(n, live[owner].n_past) if owner in live else n
            if ready > best.n_shared:
                best = Prefix(owner, ready, best.leader, best.n_ahead)
            if n > max(best.n_ahead, ready):
                best = Prefix(best.source, best.n_shared, live[owner], n)
        if best.n_ahead < best.n_shared + MIN_SHARED_TOKENS:
            best = Prefix(best.source, best.n_shared)
        return best

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
        if prefix.source is not None:
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
        if keep and self.shares and n_past >= MIN_SHARED_TOKENS:
            self._index.remove(seq_id)
            held = sequence.tokens[:n_past]
            self._drop_prefixes_of(sequence.request.scope, held)
            self._index.insert(sequence.request.scope, seq_id, held)
            self.kept[seq_id] = None
        else:
            self._forget(seq_id)

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

    def _drop_prefixes_of(self, scope: str, tokens: "array[int]") -> None:
        """Forget kept sequences that say no more than `tokens` does."""
        for owner, match in self._index.matches(scope, tokens).items():
            if owner in self.kept and match == self._index.n_tokens(owner):
                self._forget(owner)

    def _forget(self, seq_id: int) -> None:
        self.kept.pop(seq_id, None)
        self._index.remove(seq_id)
        self.context.trim(seq_id, 0)
        self.ledger.trim(seq_id, 0)
        self._free_ids.append(seq_id)
