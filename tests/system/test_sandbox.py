"""Limits that a process puts on itself, tried in a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from localrun.system.sandbox import limit_self

ROOT = Path(__file__).parents[2]


def limited(code: str) -> "subprocess.CompletedProcess[str]":
    head = "from localrun.system.sandbox import limit_self\nlimit_self(memory_bytes=256 << 20)\n"
    return subprocess.run(
        [sys.executable, "-c", head + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not enforce it")
def test_memory_beyond_the_limit_raises_and_the_process_goes_on() -> None:
    done = limited(
        "try:\n    'x' * (300 << 20)\nexcept MemoryError:\n    print('refused')\n"
        "print(len('x' * (10 << 20)))"
    )
    assert done.stdout.split() == ["refused", str(10 << 20)]


@pytest.mark.skipif(sys.platform == "win32", reason="rlimits are POSIX")
def test_a_limited_process_writes_no_file_but_its_pipes(tmp_path: Path) -> None:
    done = limited(f"with open({str(tmp_path / 'file')!r}, 'w') as file:\n    file.write('x')\n")
    assert "File too large" in done.stderr
    assert limited("print('heard')").stdout == "heard\n"


class FakeResource:
    """A system whose hard limit on files is already lower than what we ask."""

    RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_CORE, RLIM_INFINITY = 2, 1, 4, -1

    def __init__(self) -> None:
        self.hard = {2: 1000, 1: -1, 4: -1}
        self.limits: dict[int, tuple[int, int]] = {}

    def getrlimit(self, resource: int, /) -> tuple[int, int]:
        return -1, self.hard[resource]

    def setrlimit(self, resource: int, limits: tuple[int, int], /) -> None:
        self.limits[resource] = limits


def test_a_limit_is_never_raised_above_one_that_is_there() -> None:
    fake = FakeResource()
    limits = limit_self(memory_bytes=5000, system="linux", resource=fake)
    assert limits == {"RLIMIT_DATA": 1000, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    assert fake.limits == {2: (1000, 1000), 1: (0, 0), 4: (0, 0)}
