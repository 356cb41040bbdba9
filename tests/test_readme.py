"""What the README tells people to type exists."""

import os
import re
import shlex
from pathlib import Path

import click
import pytest

from localrun.cli.app import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
LINES = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("line", [line for line in LINES if "localrun " in line.split("#")[0]])
def test_command_and_its_flags_exist(line: str) -> None:
    words = shlex.split(line, comments=True)
    words = words[words.index("localrun") + 1 :]
    command = cli.get_command(click.Context(cli), words[0])
    while isinstance(command, click.Group):  # such as `bundle create`
        words = words[1:]
        command = command.get_command(click.Context(command), words[0])
    assert command is not None
    with command.make_context(words[0], words[1:], resilient_parsing=True) as context:
        assert context.args == []


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("scripts/")])
def test_script_is_there_to_be_run(line: str) -> None:
    assert os.access(ROOT / line.split()[0], os.X_OK)


def test_every_command_is_shown() -> None:
    shown = {line.split("localrun ")[1].split()[0] for line in LINES if "localrun " in line}
    assert shown >= set(cli.list_commands(click.Context(cli)))


def test_the_request_is_shown_in_english_and_chinese() -> None:
    asked = [line for line in LINES if line.startswith("curl ")]
    assert any("Why is the sky blue?" in line for line in asked)
    assert any("为什么天空是蓝色的" in line for line in asked)


def test_architecture_names_every_room_and_no_file_that_is_gone() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    package = ROOT / "localrun"
    rooms = {f"{file.parent.name}/" for file in package.glob("*/__init__.py")}
    rooms |= {file.name for file in package.glob("*.py") if not file.name.startswith("__")}
    assert {room for room in rooms if room not in page} == set()
    files = {file.name for file in [*package.rglob("*.py"), *ROOT.glob("*/*.py")]}
    assert set(re.findall(r"[a-z_]+\.py\b", page)) - files == set()
