"""The import rules of the house, checked on the source itself."""

import ast
import io
import subprocess
import sys
import tokenize
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


def imported(path: Path) -> set[str]:
    """Dotted names that a module imports anywhere, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def code_lines(source: str) -> int:
    """Lines that hold code: no blank ones, comments or docstrings."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


each_module = pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())


@each_module
def test_module_imports_only_what_its_room_may(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        assert not [name for name in imported(path) if name.startswith("localrun")]
        return
    assert room in MAY_IMPORT, f"say in MAY_IMPORT what the new room {room} may import"
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top == "localrun" and rest and rest != "__version__":
            target = rest.split(".")[0]
            assert target == room or target in MAY_IMPORT[room], f"{room} may not import {name}"


@each_module
def test_foreign_library_stays_in_its_room(path: Path) -> None:
    here = path.relative_to(ROOT).as_posix()
    for name in imported(path):
        home = ONLY_IN.get(name.split(".")[0])
        assert home is None or here.startswith(home), f"only {home} may import {name}"


@each_module
def test_module_is_short_enough_to_read(path: Path) -> None:
    n_lines = code_lines(path.read_text(encoding="utf-8"))
    assert n_lines <= MAX_CODE_LINES, f"{n_lines} lines of code are too many for one module"


@each_module
def test_only_config_reads_the_environment(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    reads = [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    assert room_of(path) == "config" or not {"environ", "getenv", "environb"} & set(reads)


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
