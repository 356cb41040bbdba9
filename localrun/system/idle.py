"""How much of the machine nobody uses."""

import os
from pathlib import Path


def idle_core_seconds(stat: Path = Path("/proc/stat")) -> float | None:
    """Seconds that all cores together have idled since the start; None where it is not told.

    Source: proc(5), the fields `idle` and `iowait` of the first line, in clock ticks.
    """
    try:
        fields = stat.read_text(encoding="ascii").split("\n", 1)[0].split()
        return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
