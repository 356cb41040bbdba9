"""`localrun export` writes the file and says how."""

from pathlib import Path

from tests.cli.conftest import Run
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny


def test_the_file_is_there(run: Run, tmp_path: Path) -> None:
    model = store_model(tmp_path / "models", "mine", make_tiny(tmp_path / "t.gguf"))
    done = run("export", "mine", str(tmp_path / "out.gguf"), "--copy")
    assert done.stdout.startswith("copied mine:latest to ")
    assert (tmp_path / "out.gguf").read_bytes() == model.model_paths[0].read_bytes()
    again = run("export", "mine", str(tmp_path / "out.gguf"))
    assert again.returncode == 1
    assert "is there already" in again.stderr
