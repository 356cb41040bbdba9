"""`scripts/setup` on machines that lack something, without building anything."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="bash scripts")


def put_tool(folder: Path, name: str, script: str) -> None:
    """An executable of this name."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def link_tools(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)


def run(command: list[str], path: Path, **extra: str) -> "subprocess.CompletedProcess[str]":
    """Run where only these tools are found."""
    env = {"PATH": str(path), "HOME": str(path), **extra}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)


def ask_install(code: str, path: Path, **extra: str) -> "subprocess.CompletedProcess[str]":
    """Run a line of Python with scripts/install.py imported as `install`."""
    line = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import install; {code}"
    return run([sys.executable, "-c", line], path, PYTHONDONTWRITEBYTECODE="1", **extra)


def test_an_old_python_gets_one_sentence(tmp_path: Path) -> None:
    tree, tools = tmp_path / "tree" / "scripts", tmp_path / "tools"
    tree.mkdir(parents=True)
    for name in ("run", "setup"):
        shutil.copy(SCRIPTS / name, tree / name)
    link_tools(tools, "bash", "dirname", "env")
    put_tool(tools, "python3", "exit 1")
    done = run([str(tree / "run"), "hi"], tools)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert "needs Python 3.11 or newer" in sentence
    assert "PYTHON=" in sentence


def test_a_missing_compiler_gets_one_sentence(tmp_path: Path) -> None:
    put_tool(tmp_path, "apt-get", "exit 1")
    done = ask_install("install.compile_engine('engine')", tmp_path)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert "C/C++ compiler is needed" in sentence
    assert sys.platform == "darwin" or "apt-get install build-essential" in sentence


@pytest.mark.skipif(sys.platform == "darwin", reason="no CUDA there")
@pytest.mark.parametrize(
    ("driver", "builds"),
    [
        ("echo 'CUDA Version: 13.1 '", "['cu130', 'cpu']"),
        ("echo 'CUDA Version: 12.4 '", "['cu124', 'cpu']"),
        ("echo 'CUDA Version: 11.0 '", "['cpu']"),
        ("exit 9", "['cpu']"),
    ],
)
def test_the_official_wheel_is_the_newest_that_the_driver_can_run(
    tmp_path: Path, driver: str, builds: str
) -> None:
    put_tool(tmp_path, "nvidia-smi", driver)
    assert ask_install("print(install.builds_for_this_machine())", tmp_path).stdout == f"{builds}\n"


def test_what_cannot_be_reached_costs_no_long_wait(tmp_path: Path) -> None:
    code = "print(install.take_official_wheel('engine'))"
    done = ask_install(code, tmp_path, LOCALRUN_ENGINE_INDEX="http://127.0.0.1:9")
    assert done.stdout == "False\n"
    assert "no official wheel" in done.stderr


def test_the_second_time_nothing_is_done(tmp_path: Path) -> None:
    (tmp_path / "python").touch()
    (tmp_path / "stamp").write_text(json.dumps({"key": "k", "dev": False}))
    code = (
        f"install.PYTHON, install.STAMP = map(install.Path, ({str(tmp_path / 'python')!r},"
        f" {str(tmp_path / 'stamp')!r}));"
        "print([install.is_done('k', dev=False), install.is_done('k', dev=True),"
        " install.is_done('other', dev=False)])"
    )
    assert ask_install(code, tmp_path).stdout == "[True, False, False]\n"


def test_an_engine_that_is_there_is_kept(tmp_path: Path) -> None:
    """`.venv/bin/python` here has an engine that it says to have, and pip must not be asked."""
    put_tool(
        tmp_path, "python", 'case "$*" in *version*) echo 0.3.36;; *pip*) touch "$0.pip";; esac'
    )
    code = (
        f"install.PYTHON = install.Path({str(tmp_path / 'python')!r});"
        f" install.LOG = install.Path({str(tmp_path / 'log')!r});"
        " install.check_engine = install.engine_works; install.provide_engine('engine')"
    )
    done = ask_install(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "python.pip").exists()
    put_tool(tmp_path, "python", 'case "$*" in *version*) echo 0.3.30;; *) exit 1;; esac')
    done = ask_install(code, tmp_path)
    assert done.returncode == 1
    assert "llama-cpp-python 0.3.30 is in .venv but does not work" in done.stderr
    assert "so it stays" in done.stderr
