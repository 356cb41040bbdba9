"""Who holds which KV cells: the pool's room, shared cells counted once. Pure.

llama.cpp does not tell how full its pool is. Sequences share cells by prefix (`seq_cp`), so each
sequence is a list of runs, and a run may belong to several sequences.
"""

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _Run:
    length: int
    n_holders: int


class CellLedger:
    """Cells in use, by sequence id."""

    def __init__(self, n_cells: int) -> None:
        self.n_cells = n_cells
        self.n_used = 0
        self._runs: dict[int, list[_Run]] = {}

    @property
    def n_free(self) -> int:
        """Cells that hold nothing."""
        return self.n_cells - self.n_used

    def append(self, seq_id: int, n_tokens: int) -> None:
        """Cells for `n_tokens` more of a sequence."""
        runs = self._runs.setdefault(seq_id, [])
        if runs and runs[-1].n_holders == 1:
            runs[-1].length += n_tokens
        else:
            runs.append(_Run(n_tokens, 1))
        self.n_used += n_tokens

    def share(self, source: int, target: int, n_tokens: int) -> None:
        """Let an empty sequence hold the first `n_tokens` of another.

        Raises:
            ValueError: If `target` holds something or `source` holds less.
        """
        if self._runs.get(target) or self.length(source) < n_tokens:
            raise ValueError(f"cannot share {n_tokens} cells of {source} with {target}")
        self._cut(source, n_tokens)
        shared: list[_Run] = []
        left = n_tokens
        for run in self._runs.get(source, []):
            if not left:
                break
            run.n_holders += 1
            left -= run.length
            shared.append(run)
        self._runs[target] = shared

    def trim(self, seq_id: int, n_keep: int) -> None:
        """Keep the first `n_keep` tokens of a sequence; 0 forgets it."""
        self._cut(seq_id, n_keep)
        kept = 0
        runs = self._runs.get(seq_id, [])
        for index, run in enumerate(runs):
            if kept >= n_keep:
                for gone in runs[index:]:
                    self._leave(gone)
                del runs[index:]
                break
            kept += run.length
        if not runs:
            self._runs.pop(seq_id, None)

    def length(self, seq_id: int) -> int:
        """Tokens a sequence holds."""
        return sum(run.length for run in self._runs.get(seq_id, ()))

    def n_own(self, seq_id: int) -> int:
        """Cells that would be free if this sequence went."""
        return sum(run.length for run in self._runs.get(seq_id, ()) if run.n_holders == 1)

    def _leave(self, run: _Run) -> None:
        run.n_holders -= 1
        if not run.n_holders:
            self.n_used -= run.length

    def _cut(self, seq_id: int, at: int) -> None:
        """Make a boundary between runs at token `at`, for every holder of the run."""
        start = 0
        for run in self._runs.get(seq_id, ()):
            if start < at < start + run.length:
                tail = _Run(start + run.length - at, run.n_holders)
                run.length = at - start
                for runs in self._runs.values():
                    if run in runs:
                        runs.insert(runs.index(run) + 1, tail)
                return
            start += run.length
