"""`localrun verify` names what is damaged, and its exit says so."""

import json
from pathlib import Path

from tests.cli.conftest import Run
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny


def test_damage_is_named_with_who_needs_it(run: Run, tmp_path: Path) -> None:
    model = store_model(tmp_path / "models", "mine", make_tiny(tmp_path / "t.gguf"))
    whole = run("verify")
    assert (whole.returncode, whole.stdout) == (0, "1 models checked, 0 files damaged\n")
    with model.model_paths[0].open("ab") as file:
        file.write(b"more")
    damaged = run("verify", "mine", "--json")
    assert damaged.returncode == 1
    (record,) = json.loads(damaged.stdout)["damaged"]
    assert record["models"] == ["mine:latest"]
    assert record["is_mended"] is False
    assert "--repair" in run("verify").stderr
    told = run("verify", "--repair")
    assert told.returncode == 1
    assert "nobody is known" in told.stderr
    assert model.model_paths[0].exists()
