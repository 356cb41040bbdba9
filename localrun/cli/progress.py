"""Progress on standard error: bars on a terminal, one line a step elsewhere.

Plain ANSI instead of rich, which takes longer to import than a short pull takes to run.
"""

import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TextIO

from localrun.cli.tables import seconds_text, size_text

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_REDRAW_S = 0.1
_REPEAT_S = 10.0
_RATE_WINDOW_S = 10.0


@dataclass(slots=True)
class Bar:
    """One transfer; `completed` and `total` in bytes, the clock in seconds."""

    label: str
    total: int
    completed: int = 0
    seen: "deque[tuple[float, int]]" = field(default_factory=deque[tuple[float, int]])

    def advance(self, completed: int, now: float) -> None:
        """Take a new count; the rate is over the last ten seconds."""
        self.completed = completed
        self.seen.append((now, completed))
        while len(self.seen) > 2 and now - self.seen[0][0] > _RATE_WINDOW_S:
            self.seen.popleft()

    @property
    def rate(self) -> float:
        """Bytes per second; 0 while unknown."""
        if len(self.seen) < 2 or self.seen[-1][0] <= self.seen[0][0]:
            return 0.0
        (t0, n0), (t1, n1) = self.seen[0], self.seen[-1]
        return (n1 - n0) / (t1 - t0)

    def draw(self, width: int) -> str:
        """The bar as one line of at most `width` columns."""
        share = self.completed / self.total if self.total else 0.0
        before = f"{self.label}: {share:4.0%} "
        after = f" {self._figures()}"
        room = width - len(before) - len(after) - 2
        if room < 4:
            return (before + after)[:width]
        full = int(share * room)
        return f"{before}▕{'█' * full}{' ' * (room - full)}▏{after}"

    def _figures(self) -> str:
        if self.completed >= self.total:
            return size_text(self.total)
        figures = f"{size_text(self.completed)}/{size_text(self.total)}"
        if self.rate > 0:
            left = seconds_text((self.total - self.completed) / self.rate)
            figures += f"  {size_text(self.rate)}/s  {left}"
        return figures


class Progress:
    """A stack of lines: what was done, what is going on. Use as a context manager.

    One thread redraws on a terminal; elsewhere each step is one line, and a long transfer says
    every ten seconds how far it is.
    """

    def __init__(
        self, out: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out = sys.stderr if out is None else out
        self._clock = clock
        self._is_drawn = self._out.isatty()
        self._lines: list[str | Bar] = []
        self._by_digest: dict[str, Bar] = {}
        self._drawn = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._animate, name="progress", daemon=True)
        self._said_at = clock()

    def __enter__(self) -> "Progress":
        if self._is_drawn:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._is_drawn:
            self._thread.join()
            self._redraw(frame=None)

    def status(self, text: str) -> None:
        """Begin a step; the one before is done."""
        with self._lock:
            if self._lines and self._lines[-1] == text:
                return
            self._lines.append(text)
        self._say(text)

    def transfer(self, label: str, digest: str, total: int, completed: int) -> None:
        """Say how far a transfer is, in bytes."""
        now = self._clock()
        with self._lock:
            bar = self._by_digest.get(digest)
            if bar is None:
                bar = self._by_digest[digest] = Bar(label, total)
                self._lines.append(bar)
            was_done = bool(bar.seen) and bar.completed >= bar.total
            bar.total = total
            bar.advance(completed, now)
        if not was_done and completed >= total:
            self._say(f"{label}: {size_text(total)}")
        elif completed < total and now - self._said_at > _REPEAT_S:
            self._say(bar.draw(100).replace("▕", "").replace("▏", ""), squeeze=True)

    def note(self, text: str) -> None:
        """Print lines that stay, such as a table."""
        with self._lock:
            self._lines += text.rstrip("\n").split("\n")
        self._say(text.rstrip("\n"))

    def erase(self) -> None:
        """Forget everything drawn so far and take it off the terminal."""
        with self._lock:
            self._lines.clear()
            self._by_digest.clear()

    def _say(self, line: str, *, squeeze: bool = False) -> None:
        if self._is_drawn:
            return
        self._said_at = self._clock()
        self._out.write((" ".join(line.replace("█", "").split()) if squeeze else line) + "\n")
        self._out.flush()

    def _animate(self) -> None:
        step = 0
        while not self._stop.wait(_REDRAW_S):
            self._redraw(_FRAMES[step % len(_FRAMES)])
            step += 1

    def _redraw(self, frame: str | None) -> None:
        """Draw all lines over the ones of before; without a frame, nothing turns any more."""
        size = shutil.get_terminal_size()
        with self._lock:
            settled = _wrapped(self._take_settled(), size.columns)
            lines = self._lines[-(size.lines - 1) :]
        moving = [line.draw(size.columns) if isinstance(line, Bar) else line for line in lines]
        if frame and lines and isinstance(lines[-1], str):
            moving[-1] = f"{moving[-1]} {frame}".lstrip()
        moving = _wrapped(moving, size.columns)[-(size.lines - 1) :]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"\x1b[2K{line}\n" for line in (*settled, *moving))
        hide = "\x1b[?25l" if frame else "\x1b[?25h"
        self._out.write(f"\x1b[?2026h{hide}{up}\r{body}\x1b[0J\x1b[?2026l")
        self._out.flush()
        self._drawn = len(moving)

    def _take_settled(self) -> list[str]:
        """Take off the lines that change no more: drawn once, they may scroll out of sight."""
        columns, settled = shutil.get_terminal_size().columns, list[str]()
        while len(self._lines) > 1:
            first = self._lines[0]
            if isinstance(first, Bar) and first.completed < first.total:
                break
            del self._lines[0]
            settled.append(first.draw(columns) if isinstance(first, Bar) else first)
        return settled


def _wrapped(lines: list[str], columns: int) -> list[str]:
    """Lines that are too long go on in the next one: what they say is not to be lost."""
    rows: list[str] = []
    for line in lines:
        rest = line
        while len(rest) > columns:
            at = rest.rfind(" ", columns // 2, columns + 1)
            at = at if at > 0 else columns
            rows.append(rest[:at].rstrip())
            rest = "  " + rest[at:].lstrip()
        rows.append(rest)
    return rows
