"""Limits that a child puts on itself before it touches foreign input.

Linux: RLIMIT_DATA (private memory; maps of files do not count), no files written, no core dump.
macOS: the same calls, of which the kernel does not enforce the memory limit. Windows: a job with a
memory limit. A time limit cannot be set from inside: the parent keeps it.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Protocol, cast

from localrun.system.windows import Job, Kernel32, kernel32

_THIS_PROCESS = -1


class _Resource(Protocol):
    def getrlimit(self, resource: int, /) -> tuple[int, int]: ...

    def setrlimit(self, resource: int, limits: tuple[int, int], /) -> None: ...


def limit_self(
    *,
    memory_bytes: int,
    system: str = sys.platform,
    resource: _Resource | None = None,
    windows: Callable[[], Kernel32] = kernel32,
) -> dict[str, int]:
    """Limit this process for the rest of its life.

    Args:
        memory_bytes: Private memory it may take; more raises MemoryError or ends the process.
        system: Value of `sys.platform`.
        resource: The module that sets limits on POSIX.
        windows: Gives the library that sets limits on Windows.

    Returns:
        The limits that were set, by name.
    """
    if system == "win32":
        # A job inside the parent's own; kept by the system as long as the process is in it.
        Job(windows(), memory_bytes=memory_bytes).add(_THIS_PROCESS)
        return {"job memory": memory_bytes}
    module = resource or cast("_Resource", importlib.import_module("resource"))
    wanted = {"RLIMIT_DATA": memory_bytes, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    return {name: _lower(module, name, limit) for name, limit in wanted.items()}


def _lower(module: _Resource, name: str, limit: int) -> int:
    """Set soft and hard limit, but never above the hard limit that is already there."""
    number: int = getattr(module, name)
    infinity: int = getattr(module, "RLIM_INFINITY", -1)
    hard = module.getrlimit(number)[1]
    new = limit if hard == infinity else min(limit, hard)
    module.setrlimit(number, (new, new))
    return new
