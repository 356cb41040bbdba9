"""Windows: a job that ends with the server, as no child there dies with its parent by itself.

Nothing here runs on import, and the system's calls come as an argument, so that the logic is
tested on every system.
"""

import ctypes
from typing import Protocol

_EXTENDED_LIMITS = 9
_KILL_ON_CLOSE, _PROCESS_MEMORY = 0x2000, 0x100


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("per_process_user_time", ctypes.c_int64),
        ("per_job_user_time", ctypes.c_int64),
        ("flags", ctypes.c_uint32),
        ("least_working_set", ctypes.c_size_t),
        ("most_working_set", ctypes.c_size_t),
        ("active_processes", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("priority_class", ctypes.c_uint32),
        ("scheduling_class", ctypes.c_uint32),
    )


class ExtendedLimits(ctypes.Structure):
    """`JOBOBJECT_EXTENDED_LIMIT_INFORMATION`."""

    _fields_ = (
        ("basic", _BasicLimits),
        ("io_counters", ctypes.c_uint64 * 6),
        ("process_memory", ctypes.c_size_t),
        ("job_memory", ctypes.c_size_t),
        ("peak_process_memory", ctypes.c_size_t),
        ("peak_job_memory", ctypes.c_size_t),
    )


class Kernel32(Protocol):
    """The calls of kernel32 that a job needs; a result of 0 or None is a failure."""

    def CreateJobObjectW(  # noqa: N802 (the system's name)
        self, attributes: None, name: None, /
    ) -> int | None:
        """Make a job and return its handle."""
        ...

    def SetInformationJobObject(  # noqa: N802 (the system's name)
        self, job: int, kind: int, limits: object, size: int, /
    ) -> int:
        """Set a job's limits."""
        ...

    def AssignProcessToJobObject(  # noqa: N802 (the system's name)
        self, job: int, process: int, /
    ) -> int:
        """Put a process into a job."""
        ...

    def CloseHandle(self, handle: int, /) -> int:  # noqa: N802 (the system's name)
        """Close a handle; closing a job's last one ends its processes."""
        ...


def kernel32() -> Kernel32:
    """The system's own library. Raises OSError on any system but Windows."""
    load = getattr(ctypes, "WinDLL", None)
    if load is None:
        raise OSError("kernel32 is a library of Windows")
    library = load("kernel32", use_last_error=True)
    handle = ctypes.c_void_p
    library.CreateJobObjectW.restype = handle
    library.CreateJobObjectW.argtypes = (handle, handle)
    library.SetInformationJobObject.argtypes = (handle, ctypes.c_int, handle, ctypes.c_uint32)
    library.AssignProcessToJobObject.argtypes = (handle, handle)
    library.CloseHandle.argtypes = (handle,)
    found: Kernel32 = library
    return found


class Job:
    """Processes that the system ends when this process ends, however it ends.

    Args:
        system: The calls to use.
        memory_bytes: What each process may commit; 0 sets no limit.
    """

    def __init__(self, system: Kernel32, *, memory_bytes: int = 0) -> None:
        self._system = system
        handle = system.CreateJobObjectW(None, None)
        if not handle:
            raise OSError("Windows made no job object")
        self._handle = handle
        limits = ExtendedLimits()
        limits.basic.flags = _KILL_ON_CLOSE | (_PROCESS_MEMORY if memory_bytes else 0)
        limits.process_memory = memory_bytes
        size = ctypes.sizeof(limits)
        if not system.SetInformationJobObject(handle, _EXTENDED_LIMITS, ctypes.byref(limits), size):
            self.close()
            raise OSError("Windows refused the limits of a job object")

    def add(self, process_handle: int) -> None:
        """Put a process into the job. Raises OSError if Windows refuses."""
        if not self._system.AssignProcessToJobObject(self._handle, process_handle):
            raise OSError("Windows did not put the child into its job object")

    def close(self) -> None:
        """Close the job, which ends its processes."""
        self._system.CloseHandle(self._handle)
