"""Progress: plain lines where it is piped, rates from the last seconds."""

import io
import re

import pytest

from localrun.cli.progress import Bar, Progress


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        return re.sub("\x1b\\[[?0-9]*[a-zA-Z]", "", self.getvalue())


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_piped_progress_says_each_step_once() -> None:
    out = io.StringIO()
    with Progress(out) as progress:
        progress.status("pulling manifest")
        progress.status("pulling manifest")
        progress.transfer("pulling ab", "sha256:ab", 2_000_000, 1_000_000)
        progress.transfer("pulling ab", "sha256:ab", 2_000_000, 2_000_000)
        progress.transfer("pulling ab", "sha256:ab", 2_000_000, 2_000_000)
        progress.note("a\nb\n")
    assert out.getvalue() == "pulling manifest\npulling ab: 2 MB\na\nb\n"


def test_long_piped_transfer_says_how_far_it_is() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(out, clock=clock) as progress:
        for second in range(26):
            clock.now = float(second)
            progress.transfer("pulling ab", "sha256:ab", 100_000_000, second * 1_000_000)
    first, second_line = out.getvalue().splitlines()
    assert first == "pulling ab: 11% 11 MB/100 MB 1 MB/s 1m29s"
    assert second_line.startswith("pulling ab: 22% ")


def test_rate_is_of_the_last_ten_seconds() -> None:
    bar = Bar("x", 1000)
    for second in range(30):
        bar.advance(second * (1 if second < 15 else 10), float(second))
    assert 9.9 < bar.rate < 12


def test_bar_fits_its_line_and_shows_its_share() -> None:
    bar = Bar("pulling 0123456789ab", 2_900_000_000)
    bar.advance(1_218_000_000, 0.0)
    line = bar.draw(80)
    assert len(line) == 80
    assert line.startswith("pulling 0123456789ab:  42% ▕█")
    assert line.endswith("▏ 1.2 GB/2.9 GB")
    assert len(bar.draw(20)) <= 20


def test_resumed_transfer_starts_its_rate_anew() -> None:
    bar = Bar("x", 1000)
    bar.advance(900, 5.0)
    assert bar.rate == 0.0


def test_nothing_is_lost_on_a_small_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "5")
    out = Terminal()
    with Progress(out) as progress:
        progress.status("chose Q4_K_M (3.96 GB): the best there is; licence llama2")
        progress.note("\n".join(f"row {n}" for n in range(20)))
        progress.transfer("pulling ab", "sha256:ab", 2, 1)
    shown = out.shown().splitlines()
    assert "; licence llama2" in " ".join(out.shown().split())
    assert [line for line in shown if line.startswith("row ")] == [f"row {n}" for n in range(20)]
    assert max(map(len, shown)) <= 30


def test_lines_that_change_no_more_are_drawn_once() -> None:
    out = Terminal()
    progress = Progress(out)
    progress.status("pulling manifest")
    progress.transfer("pulling ab", "sha256:ab", 2, 1)
    for _ in range(3):
        progress._redraw("-")
    assert out.shown().count("pulling manifest") == 1
    assert out.shown().count("pulling ab") == 3
