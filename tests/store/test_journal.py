"""Parts, the journal and the crew."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from localrun.store.crew import Crew
from localrun.store.journal import open_journal, plan_part_bytes, plan_parts, read_completed

MIB = 1 << 20


@given(st.integers(0, 1 << 42))
def test_parts_cover_a_file_without_gap_or_overlap(size: int) -> None:
    parts = plan_parts(min(size, 1 << 36), plan_part_bytes(size))
    assert [part.start for part in parts] == [0, *(part.end for part in parts)][: len(parts)]
    assert sum(part.size for part in parts) == min(size, 1 << 36)
    assert all(8 * MIB <= part.size <= 64 * MIB for part in parts[:-1])


@given(size=st.integers(1, 1 << 34), data=st.data())
def test_a_journal_keeps_what_was_recorded(
    size: int, data: st.DataObject, tmp_path_factory: object
) -> None:
    path = tmp_path_factory.mktemp("j") / "x.journal"  # type: ignore[attr-defined]
    journal = open_journal(path, "key", size)
    for part in journal.parts[:5]:
        part.done = data.draw(st.integers(0, part.size))
        journal.record(part)
    journal.close()
    again = open_journal(path, "key", size)
    again.close()
    assert again.parts == journal.parts
    assert read_completed(path) == again.completed == journal.completed


def test_another_key_or_size_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    for key, size in (("a", 100), ("b", 100), ("b", 101)):
        journal = open_journal(path, key, size)
        assert journal.completed == 0
        journal.parts[0].done = 50
        journal.record(journal.parts[0])
        journal.close()
    assert read_completed(tmp_path / "none") == 0


def test_there_are_more_connections_as_long_as_they_bring_more() -> None:
    now = [0.0]
    crew = Crew(100, clock=lambda: now[0])
    wanted, completed = [crew.wanted(0)], 0
    for _ in range(6):
        now[0] += 0.5
        completed += min(wanted[-1], 4) * 10 * MIB  # four connections fill the line
        wanted.append(crew.wanted(completed))
    assert wanted == [1, 2, 4, 8, 8, 8, 8]


def test_a_new_connection_has_time_to_begin() -> None:
    now = [0.0]
    crew = Crew(100, clock=lambda: now[0])
    completed, wanted = 0, [crew.wanted(0)]
    for n_bringing in (1, 1, 1, 2, 2, 4, 4):  # each begins two looks after it was wanted
        now[0] += 0.5
        completed += n_bringing * MIB
        wanted.append(crew.wanted(completed))
    assert wanted == [1, 2, 2, 2, 4, 4, 8, 8]


def test_a_line_that_one_connection_fills_gets_few() -> None:
    now = [0.0]
    crew = Crew(100, clock=lambda: now[0])
    wanted = [crew.wanted(0)]
    for step in range(1, 6):
        now[0] += 0.5
        wanted.append(crew.wanted(step * 10 * MIB))
    assert wanted == [1, 2, 2, 2, 2, 2]


@given(st.integers(0, 20), st.lists(st.integers(0, 1 << 30), max_size=30))
def test_there_are_never_more_connections_than_parts(n_parts: int, arrivals: list[int]) -> None:
    now = [0.0]
    crew = Crew(n_parts, clock=lambda: now[0])
    completed = 0
    for arrived in arrivals:
        now[0] += 0.3
        completed += arrived
        assert crew.wanted(completed) <= min(8, n_parts)
