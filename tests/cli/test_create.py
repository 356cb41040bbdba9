"""create, cp, show and rm as real processes, against a real server over a store of their own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from localrun.cli.ingredients import gather, hash_file
from localrun.config import child_environment
from localrun.errors import BadRequest, LocalrunError, NotFound, Unsupported
from localrun.modelfile import parse
from localrun.store.library import Library
from tests.fakes.tinygguf import make_tiny, shard_paths
from tests.server.conftest import Running, running

ROOT = Path(__file__).resolve().parents[2]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("home")) as state:
        yield state


@pytest.fixture
def cli(server: Running) -> Cli:
    env = child_environment(
        LOCALRUN_HOME=str(server.settings.home),
        LOCALRUN_HOST=f"127.0.0.1:{server.port}",
        PYTHONPATH=str(ROOT),
        PYTHONUTF8="1",
    )

    def call(
        *arguments: str, stdin: str = "", cwd: Path | None = None, **extra: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "localrun", *arguments],
            input=stdin, capture_output=True, text=True, encoding="utf-8", env=env | extra,
            cwd=cwd, timeout=30, check=False,
        )  # fmt: skip

    return call


@pytest.fixture
def library(server: Running) -> Library:
    return Library(server.settings.models)


MODELFILE = '''FROM ./weights.gguf
SYSTEM """You are
a "pirate"."""
PARAMETER temperature 0
PARAMETER mirostat 2
PARAMETER stop <|end|>
TEMPLATE "{{ .Prompt }}"
MESSAGE user hi
'''


def test_a_model_is_made_of_a_modelfile_beside_its_file(cli: Cli, library: Library, tmp_path: Path):
    file = make_tiny(tmp_path / "weights.gguf")
    (tmp_path / "Modelfile").write_text(MODELFILE)
    done = cli("create", "pirate", "-f", str(tmp_path / "Modelfile"))
    assert done.returncode == 0, done.stderr
    assert "warning: parameter mirostat is deprecated" in done.stderr
    assert done.stderr.splitlines()[-1] == "success"
    model = library.find("pirate")
    assert (model.system, model.params) == (
        'You are\na "pirate".', {"stop": ["<|end|>"], "temperature": 0},
    )  # fmt: skip
    assert model.messages == ({"role": "user", "content": "hi"},)
    assert model.model_paths[0].samefile(file)  # linked: it takes no second place on the disk

    shown = cli("show", "pirate", "--modelfile").stdout
    assert parse(shown).last("system") == model.system
    assert cli("show", "pirate", "--system").stdout == model.system
    assert cli("show", "pirate", "--template").stdout == "{{ .Prompt }}"
    assert cli("show", "pirate", "--parameters").stdout.splitlines()[0].split() == [
        "stop", '"<|end|>"',
    ]  # fmt: skip
    both = cli("show", "pirate", "--system", "--license")
    assert (both.returncode, "only one of" in both.stderr) == (2, True)

    assert cli("cp", "pirate", "me/other").stdout == "copied 'pirate' to 'me/other'\n"
    (tmp_path / "Again").write_text(shown)
    assert cli("create", "again", "-f", str(tmp_path / "Again")).returncode == 0
    assert library.find("again").params == model.params


def test_another_users_server_gets_the_bytes(cli: Cli, library: Library, tmp_path: Path):
    file = make_tiny(tmp_path / "weights.gguf", seed=9)
    done = cli("create", "sent", "-f", "-", stdin=f"FROM {file}", LOCALRUN_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    path = library.find("sent").model_paths[0]
    assert path.read_bytes() == file.read_bytes()
    assert not path.samefile(file)


def test_without_a_modelfile_the_folder_is_the_model(cli: Cli, library: Library, tmp_path: Path):
    make_tiny(tmp_path / "s.gguf", shards=2, seed=4)
    done = cli("create", "folder", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(library.find("folder").model_paths) == 1


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["create", "x", "-f", "none"], "", "there is no file none"),
        (["create", "x", "-f", "-"], "SYSTEM x", "no FROM line"),
        (["create", "x", "-f", "-"], "FROM x\nBAD y", "(line 2): command must be one of"),
        (["create", "x", "-f", "-"], "FROM x\nPARAMETER tmperature 1", "unknown parameter"),
        (["create", "x", "-f", "-"], "FROM x\nADAPTER none.gguf", "there is no file"),
        (["create", "a b", "-f", "-"], "FROM x", "invalid model name"),
        (["create", "x", "-f", "-", "--draft-quantize", "Q8_0"], "FROM x", "requires a DRAFT"),
        (["cp", "none", "x"], "", 'model "none" not found'),
    ],
)
def test_what_cannot_be_made_ends_with_a_sentence(cli: Cli, arguments, stdin, words, tmp_path):
    done = cli(*arguments, stdin=stdin, cwd=tmp_path)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


# ── what a Modelfile names ────────────────────────────────────────────────────────────────────


def test_what_is_no_file_is_a_models_name(tmp_path: Path) -> None:
    found = gather(parse("FROM llama2:7b\nLICENSE a\nLICENSE b\nREQUIRES v1.2.3"), tmp_path)
    assert found.fields == {"from": "llama2:7b", "license": ["a", "b"], "requires": "1.2.3"}
    assert found.files == {}


def test_files_of_a_folder_are_its_gguf_files(tmp_path: Path) -> None:
    first = make_tiny(tmp_path / "m.gguf", shards=2)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "x.bin").write_bytes(b"no model")
    (tmp_path / "broken.gguf").write_bytes(b"<html>")
    files = gather(parse("FROM ."), tmp_path).files
    assert list(files.values()) == list(shard_paths(first))
    assert list(files) == [path.name for path in shard_paths(first)]


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make_tiny(tmp_path / name / "m.gguf")
    files = gather(parse("FROM a/m.gguf\nFROM b/m.gguf"), tmp_path).files
    assert list(files) == ["0/m.gguf", "1/m.gguf"]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("model.safetensors", Unsupported, "cannot be converted here"),
        ("readme.txt", NotFound, "no Modelfile or safetensors files found"),
    ],
)
def test_a_folder_without_gguf_files_is_refused(tmp_path: Path, name, error, words) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(error, match=words):
        gather(parse("FROM ."), tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="links ask for a privilege")
def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    make_tiny(tmp_path / "outside.gguf")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "m.gguf").symlink_to(tmp_path / "outside.gguf")
    with pytest.raises(BadRequest, match="insecure path"):
        gather(parse("FROM ."), inside)


def test_a_draft_is_another_file_than_its_model(tmp_path: Path) -> None:
    make_tiny(tmp_path / "m.gguf")
    with pytest.raises(BadRequest, match="DRAFT must not reference the same local path"):
        gather(parse("FROM m.gguf\nDRAFT ./m.gguf"), tmp_path)
    with pytest.raises(LocalrunError, match="there is no file"):
        gather(parse("FROM m.gguf\nDRAFT none"), tmp_path)


def test_hashing_tells_how_far_it_is(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"a" * (3 << 20))
    told: list[int] = []
    assert hash_file(file, told.append).startswith("sha256:")
    assert told == [1 << 20, 2 << 20, 3 << 20]
