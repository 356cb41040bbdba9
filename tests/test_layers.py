"""The import rules of the house, checked on the source itself."""

import ast
import io
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "localrun"
MODULES = sorted(ROOT.rglob("*.py"))
MAX_CODE_LINES = 300

VOCABULARY = {
    "errors", "names", "options", "messages", "metadata", "modelinfo", "gguf", "footprint",
}  # fmt: skip
"""Pure modules that every room may import."""

MAY_IMPORT: dict[str, set[str]] = {
    # vocabulary
    "errors": set(),
    "names": {"errors"},
    "options": {"errors"},
    "messages": {"errors"},
    "metadata": {"errors"},
    "modelinfo": {"errors", "metadata"},
    "gguf": {"errors", "metadata", "modelinfo"},
    "footprint": {"errors", "modelinfo", "gguf"},
    "gotemplate": {"errors", "messages"},
    "modelfile": {"errors", "names", "options", "gotemplate"},
    # rooms, from the bottom up
    "values": set(),
    "config": {"errors", "values"},
    "system": VOCABULARY,
    "llama": VOCABULARY,
    "hardware": VOCABULARY,
    "store": VOCABULARY | {"hardware", "config", "system", "modelfile"},
    "text": VOCABULARY | {"system", "llama", "gotemplate"},
    "runner": VOCABULARY | {"system", "llama"},
    "backends": VOCABULARY | {"config", "system", "hardware"},
    "scheduler": VOCABULARY | {"config", "hardware", "store", "backends"},
    "output": VOCABULARY | {"gotemplate"},
    "server": VOCABULARY
    | {"config", "system", "hardware", "store", "backends", "scheduler", "output", "modelfile"}
    | {"gotemplate"},
    "cli": VOCABULARY | {"config", "hardware", "store", "server", "modelfile"},
    "__main__": {"cli"},
}
"""Top-level module or package → what it may import beside itself."""

ONLY_IN = {
    "llama_cpp": "llama/",
    "huggingface_hub": "store/sources/hub.py",
    "psutil": "hardware/",
    "pynvml": "hardware/",
    "fastapi": "server/",
    "starlette": "server/",
    "uvicorn": "server/",
    "prometheus_client": "server/",
    "click": "cli/",
    "jinja2": "text/",
    "llguidance": "llama/",
}
"""Foreign library → the one room that may import it."""

HEAVY = {
    "asyncio", "fastapi", "httpx2", "huggingface_hub", "llama_cpp", "msgspec", "numpy", "psutil",
    "pydantic", "pynvml", "rich", "tomllib", "uvicorn",
}  # fmt: skip


def room_of(path: Path) -> str:
    """The first part of a module's dotted path inside the package."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """All nodes of a module's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imported(path: Path) -> set[str]:
    """Dotted names that a module imports anywhere, inside functions too."""
    names: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank ones, comments or docstrings; 0 for a short module."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    source = path.read_text(encoding="utf-8")
    if len(source.splitlines()) <= MAX_CODE_LINES:
        return 0  # whatever they hold
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in nodes_of(path):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_module_imports_only_what_its_room_may() -> None:
    wrong: list[str] = []
    for path in MODULES:
        room, names = room_of(path), imported(path)
        ours = {name for name in names if name.startswith("localrun.")} - {"localrun.__version__"}
        if room == "__init__":
            assert not ours
            continue
        assert room in MAY_IMPORT, f"say in MAY_IMPORT what the new room {room} may import"
        allowed = MAY_IMPORT[room] | {room}
        wrong += [f"{path}: {name}" for name in ours if name.split(".")[1] not in allowed]
    assert not wrong


def test_foreign_library_stays_in_its_room() -> None:
    wrong: list[str] = []
    for path in MODULES:
        here = path.relative_to(ROOT).as_posix()
        for name in imported(path):
            home = ONLY_IN.get(name.split(".")[0])
            if home is not None and not here.startswith(home):
                wrong.append(f"{here}: only {home} may import {name}")
    assert not wrong


def test_module_is_short_enough_to_read() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): code_lines(path) for path in MODULES}
    assert not {path: n for path, n in lengths.items() if n > MAX_CODE_LINES}


def test_only_config_reads_the_environment() -> None:
    readers = {
        path
        for path in MODULES
        for node in nodes_of(path)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "environb"}
    }
    assert {room_of(path) for path in readers} == {"config"}


def test_rooms_do_not_import_each_other_in_a_circle() -> None:
    settled: set[str] = set()
    waiting = dict(MAY_IMPORT)
    while waiting:
        free = [room for room, needs in waiting.items() if needs <= settled | {room}]
        assert free, f"a circle among {sorted(waiting)}"
        settled.update(free)
        waiting = {room: needs for room, needs in waiting.items() if room not in settled}


@pytest.mark.parametrize(
    "module",
    [
        "localrun.config",
        "localrun.names",
        "localrun.options",
        "localrun.cli.models",
        "localrun.cli.app",
    ],
)
def test_start_up_imports_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys; print(*sorted({sorted(HEAVY)} & sys.modules.keys()))"
    code = code.replace("[", "{").replace("]", "}")
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == ""
