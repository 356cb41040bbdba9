"""`localrun adopt` and what `list` and `rm` make of it, as a user types them."""

import json
from pathlib import Path

from tests.cli.conftest import Run
from tests.fakes.tinygguf import make_tiny

NO_SERVER = {"LOCALRUN_HOST": "127.0.0.1:1"}


def test_an_adopted_folder_is_listed_with_its_mark(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lm").mkdir()
    make_tiny(tmp_path / "lm" / "tiny-Q8_0.gguf")
    (tmp_path / "lm" / "bad.gguf").write_bytes(b"GGUF")
    adopted = run("adopt", str(tmp_path / "lm"))
    assert adopted.returncode == 0
    assert "tiny-Q8_0:latest" in adopted.stdout
    assert "left out" in adopted.stderr
    listed = run("list", **NO_SERVER)
    heads, row = listed.stdout.splitlines()
    assert heads.split()[-2:] == ["ADOPTED", "FROM"]
    assert row.split()[0] == "tiny-Q8_0:latest"
    assert row.endswith(str(tmp_path / "lm"))


def test_json_says_what_became_of_each_file(run: Run, tmp_path: Path) -> None:
    file = make_tiny(tmp_path / "m.gguf")
    (shown,) = json.loads(run("adopt", str(file), "--json").stdout)
    assert shown["kind"] == "folder"
    assert [model["files"] for model in shown["models"]] == [[str(file)]]


def test_a_user_without_other_programs_is_told_so(run: Run, tmp_path: Path) -> None:
    result = run("adopt", HOME=str(tmp_path), HF_HOME=str(tmp_path / "none"))
    assert result.returncode == 1
    assert "no other program's models" in result.stderr
    assert run("adopt", str(tmp_path / "none")).returncode == 1
