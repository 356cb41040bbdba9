"""Tables and figures as people know them from Ollama. Pure.

Source: Ollama's `format` package and the tables of its commands.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

_BYTE_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB"))
_GAP = "    "


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under upper-case heads, left-aligned, without borders; ends with a newline."""
    lines = [headers, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    text = ""
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        text += _GAP.join(cells).rstrip() + "\n"
    return text


def size_text(n_bytes: float) -> str:
    """Bytes in decimal units: `274 MB`, `1.3 GB`, `2 GB`."""
    for unit_bytes, unit in _BYTE_UNITS:
        if n_bytes >= unit_bytes:
            value = n_bytes / unit_bytes
            if value >= 10 or value == int(value):
                return f"{int(value)} {unit}"
            return f"{value:.1f} {unit}"
    return f"{int(n_bytes)} B"


def time_text(moment: str, now: datetime, *, never: str = "Never") -> str:
    """How long ago or ahead an RFC 3339 moment is: `2 days ago`, `4 minutes from now`."""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return never
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    if then.year <= 1:
        return never
    distance = then - now
    if distance >= timedelta(0):
        return f"{_span_text(distance)} from now"
    return f"{_span_text(-distance)} ago"


def until_text(moment: str, now: datetime) -> str:
    """When a model leaves memory."""
    try:
        left = datetime.fromisoformat(moment) - now
    except (ValueError, TypeError):
        return "Never"
    if left > timedelta(days=20 * 365):
        return "Forever"
    return time_text(moment, now) if left > timedelta(0) else "Stopping..."


def processor_text(size: float, size_vram: float) -> str:
    """Where a model lies: `100% CPU`, `100% GPU` or `48%/52% CPU/GPU`."""
    if size_vram == 0:
        return "100% CPU"
    if size_vram == size:
        return "100% GPU"
    if size_vram > size or size == 0:
        return "Unknown"
    cpu = round((size - size_vram) / size * 100)
    return f"{cpu}%/{100 - cpu}% CPU/GPU"


def seconds_text(seconds: float) -> str:
    """A time to wait: `45s`, `1m12s`, `2h05m`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _span_text(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    minutes, hours = seconds // 60, round(seconds / 3600)
    steps = (
        (seconds < 1, "Less than a second"),
        (seconds == 1, "1 second"),
        (seconds < 60, f"{seconds} seconds"),
        (minutes == 1, "About a minute"),
        (minutes < 60, f"{minutes} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (hours < 24 * 7 * 2, f"{hours // 24} days"),
        (hours < 24 * 30 * 2, f"{hours // 24 // 7} weeks"),
        (hours < 24 * 365 * 2, f"{hours // 24 // 30} months"),
    )
    years = f"{hours // 24 // 365} years"
    return next((text for holds, text in steps if holds), years)
