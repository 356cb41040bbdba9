"""`scripts/verify_catalog`, run as people run it, against the loopback Hub."""

import subprocess
import sys
from pathlib import Path

import pytest

from localrun.config import child_environment
from tests.fakes.hub import FakeHub, Fault

ROOT = Path(__file__).resolve().parents[2]
CATALOG = """
[good]
license = "apache-2.0"
tags = { q = "me/r" }
[bad]
license = "mit"
tags = { x = "me/r", y = "me/nope" }
"""


@pytest.mark.parametrize(
    ("text", "faults", "status", "said"),
    [
        (CATALOG, [], 1, ["1 of 3 entries are wrong", "may be written for: good", "here mit"]),
        (CATALOG, [Fault("api", status=429, times=9)], 3, ["come back later"]),
        ("[a]\n", [], 3, ["has no tags"]),
    ],
    ids=["one is wrong", "rate limited", "broken"],
)
def test_the_catalog_is_checked_entry_by_entry(
    text: str, faults: list[Fault], status: int, said: list[str], hub: FakeHub, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    hub.faults = [Fault(**vars(fault)) for fault in faults]
    ended = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "verify_catalog"), str(tmp_path / "mine.toml")],
        env=child_environment(HF_ENDPOINT=hub.url, LOCALRUN_HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    for words in said:
        assert words in ended.stdout + ended.stderr
