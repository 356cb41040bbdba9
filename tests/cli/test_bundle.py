"""`localrun bundle` carries a model from one store to another."""

from pathlib import Path

from tests.cli.conftest import Run
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny


def test_a_model_is_carried_to_another_store(run: Run, tmp_path: Path) -> None:
    store_model(tmp_path / "models", "mine", make_tiny(tmp_path / "t.gguf"))
    made = run("bundle", "create", str(tmp_path / "b.tar"), "mine")
    assert made.stdout.startswith("1 models in ")
    there = {"LOCALRUN_HOME": str(tmp_path / "there")}
    taken = run("bundle", "import", str(tmp_path / "b.tar"), **there)
    assert taken.stdout == "imported mine:latest\n"
    assert "mine:latest" in run("list", LOCALRUN_HOST="127.0.0.1:1", **there).stdout
