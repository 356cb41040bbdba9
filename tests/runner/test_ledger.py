"""CellLedger: shared cells are counted once."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from localrun.runner.ledger import CellLedger


def test_shared_prefix_takes_no_cells() -> None:
    ledger = CellLedger(100)
    ledger.append(0, 40)
    ledger.share(0, 1, 30)
    ledger.append(1, 5)
    assert (ledger.n_used, ledger.length(1), ledger.n_own(0)) == (45, 35, 10)


def test_shared_cells_outlive_the_sequence_that_made_them() -> None:
    ledger = CellLedger(100)
    ledger.append(0, 40)
    ledger.share(0, 1, 30)
    ledger.trim(0, 0)
    assert ledger.n_used == 30


def test_sharing_more_than_the_source_holds_is_refused() -> None:
    ledger = CellLedger(100)
    ledger.append(0, 3)
    with pytest.raises(ValueError, match="cannot share 4 cells"):
        ledger.share(0, 1, 4)


class AgainstSets(RuleBasedStateMachine):
    """The ledger counts as a model does that names every cell."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = CellLedger(10_000)
        self.cells: dict[int, list[int]] = {i: [] for i in range(5)}
        self.next = 0

    @rule(seq=st.integers(0, 4), n=st.integers(1, 6))
    def append(self, seq: int, n: int) -> None:
        self.ledger.append(seq, n)
        self.cells[seq] += range(self.next, self.next + n)
        self.next += n

    @rule(source=st.integers(0, 4), to=st.integers(0, 4), share=st.floats(0, 1))
    def share(self, source: int, to: int, share: float) -> None:
        n = int(len(self.cells[source]) * share)
        if self.cells[to] or source == to or not n:
            return
        self.ledger.share(source, to, n)
        self.cells[to] = self.cells[source][:n]

    @rule(seq=st.integers(0, 4), keep=st.floats(0, 1))
    def trim(self, seq: int, keep: float) -> None:
        n = int(len(self.cells[seq]) * keep)
        self.ledger.trim(seq, n)
        del self.cells[seq][n:]

    @invariant()
    def counts_agree(self) -> None:
        assert self.ledger.n_used == len(set().union(*map(set, self.cells.values())))
        for seq, cells in self.cells.items():
            assert self.ledger.length(seq) == len(cells)


TestAgainstSets = AgainstSets.TestCase
TestAgainstSets.settings = settings(max_examples=30)  # of fifty steps each
