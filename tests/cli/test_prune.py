"""`localrun prune` shows first and removes when told."""

import json
from pathlib import Path

from tests.cli.conftest import Run


def test_what_goes_is_shown_and_asked_for(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "models" / "quarantine" / "bad.part"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(bytes(2000))
    asked = run("prune", stdin="n\n")
    assert "2 KB" in asked.stdout
    assert bad.exists()
    assert json.loads(run("prune", "--json").stdout)["size"] == 2000
    assert bad.exists()
    assert "removed 2 KB" in run("prune", "--yes").stdout
    assert not bad.exists()
    assert run("prune").stdout == "nothing to remove\n"
