"""Tables and figures look as people know them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.cli.tables import (
    processor_text,
    seconds_text,
    size_text,
    table,
    time_text,
    until_text,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_columns_are_four_apart() -> None:
    assert table(("A", "LONG"), [("wide", "1")]) == "A       LONG\nwide    1\n"


def test_empty_table_is_its_head() -> None:
    assert table(("NAME", "ID"), []) == "NAME    ID\n"


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 KB"), (1024, "1.0 KB"), (274_302_450, "274 MB"),
     (1_300_000_000, "1.3 GB"), (2_000_000_000, "2 GB"), (19_999_999_999, "19 GB")],
)  # fmt: skip
def test_bytes_are_decimal(n_bytes: int, text: str) -> None:
    assert size_text(n_bytes) == text


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(milliseconds=5), "Less than a second ago"),
        (timedelta(seconds=1), "1 second ago"),
        (timedelta(seconds=59), "59 seconds ago"),
        (timedelta(seconds=61), "About a minute ago"),
        (timedelta(minutes=5), "5 minutes ago"),
        (timedelta(minutes=61), "About an hour ago"),
        (timedelta(hours=47), "47 hours ago"),
        (timedelta(days=3), "3 days ago"),
        (timedelta(days=20), "2 weeks ago"),
        (timedelta(days=100), "3 months ago"),
        (timedelta(days=800), "2 years ago"),
        (-timedelta(minutes=4, seconds=1), "4 minutes from now"),
    ],
)
def test_distance_in_time_is_in_words(ago: timedelta, text: str) -> None:
    assert time_text((NOW - ago).isoformat(), NOW) == text


@pytest.mark.parametrize("moment", ["", "yesterday", "0001-01-01T00:00:00Z"])
def test_no_moment_is_never(moment: str) -> None:
    assert time_text(moment, NOW) == "Never"


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2318-01-01T00:00:00Z", "Forever"),
        ("2026-11-24T11:59:00Z", "Stopping..."),
        ("2026-11-24T12:04:59.123456789Z", "4 minutes from now"),
        ("soon", "Never"),
    ],
)
def test_until_is_when_a_model_leaves(moment: str, text: str) -> None:
    assert until_text(moment, NOW) == text


@pytest.mark.parametrize(
    ("size", "vram", "text"),
    [(10, 0, "100% CPU"), (10, 10, "100% GPU"), (0, 5, "Unknown"), (100, 52, "48%/52% CPU/GPU")],
)
def test_processor_says_the_share(size: int, vram: int, text: str) -> None:
    assert processor_text(size, vram) == text


def test_seconds_are_short() -> None:
    assert [seconds_text(s) for s in (5, 72, 7500)] == ["5s", "1m12s", "2h05m"]


cells = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=8)


@given(st.lists(st.tuples(cells, cells, cells), max_size=5))
def test_every_column_begins_where_its_head_does(rows: list[tuple[str, str, str]]) -> None:
    heads = ("ONE", "TWO", "THREE")
    lines = table(heads, rows).splitlines()
    starts = [lines[0].index(head) for head in heads]
    for row, line in zip(rows, lines[1:], strict=True):
        for cell, start in zip(row, starts, strict=True):
            assert line[start : start + len(cell)].rstrip() == cell.rstrip()
