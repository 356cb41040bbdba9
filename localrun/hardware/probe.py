"""Ask the machine what it has. The only importer of psutil and pynvml; never raises.

GPUs by NVML, AMD's by sysfs, Apple's as unified memory; RAM and cores under a container's limits.
What cannot be asked becomes a note. Whether the installed engine can use it all is a second
question, answered by a child process, since a GPU's start-up is slow and can crash.
"""

import ctypes
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil
import pynvml as _pynvml

from localrun.hardware import linux
from localrun.hardware.advice import Advice, advise
from localrun.hardware.linux import Cores, Memory
from localrun.hardware.machine import EngineBuild, EngineDevice, Gpu, Machine, with_engine

__all__ = [
    "Advice",
    "EngineBuild",
    "Gpu",
    "Machine",
    "advise",
    "apple_gpu",
    "describe_engine",
    "probe",
    "process_rss_bytes",
    "read_description",
    "with_engine",
]

DESCRIBE_TIMEOUT_S = 30.0
"""A first CUDA start on a slow disk takes seconds; more than this is a hang."""

_WSL_NVML = Path("/usr/lib/wsl/lib/libnvidia-ml.so.1")
_GPU_SHARE = 0.75  # of an Apple machine's RAM, what Metal gives out by default

_NO_CPU: tuple[str, tuple[str, ...]] = ("", ())
_NO_GPUS: list[Gpu] = []

_T = TypeVar("_T")
pynvml: Any = _pynvml  # untyped, and its error classes are made at run time


def probe(*, nvml_library: Path | None = None, root: Path = Path("/")) -> Machine:
    """Look at the machine.

    Args:
        nvml_library: Another NVML than the system's.
        root: Where `/proc` and `/sys` are read below, on Linux.
    """
    notes: list[str] = []
    memory = _ask(notes, "RAM", lambda: _memory(root), Memory(0, 0))
    cores = _ask(notes, "the CPU's cores", lambda: _cores(root), Cores(1, 1, 1))
    cpu, features = _ask(notes, "the CPU's features", lambda: _cpu(root), _NO_CPU)
    gpus = (
        *_ask(notes, "NVIDIA GPUs", lambda: _nvidia_gpus(nvml_library, notes), _NO_GPUS),
        *_ask(notes, "AMD GPUs", lambda: _amd_gpus(root), _NO_GPUS),
        *_ask(notes, "the Apple GPU", lambda: _apple_gpus(cpu, memory), _NO_GPUS),
    )
    return Machine(
        system=sys.platform,
        arch=platform.machine(),
        cpu=cpu,
        cores_physical=cores.n_physical,
        cores_logical=cores.n_logical,
        cores_usable=cores.n_usable,
        cpu_features=features,
        ram_total_bytes=memory.total_bytes,
        ram_available_bytes=memory.available_bytes,
        ram_limit_bytes=memory.limit_bytes,
        gpus=gpus,
        notes=tuple(notes),
    )


def process_rss_bytes(pid: int) -> int:
    """Memory that a process holds now; 0 if it is gone or not ours to ask."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def describe_engine(
    env: Mapping[str, str], *, timeout_s: float = DESCRIBE_TIMEOUT_S
) -> EngineBuild:
    """Ask the installed llama.cpp what it can use, in a child process.

    Args:
        env: The child's whole environment.
        timeout_s: When to give up.
    """
    command = [sys.executable, "-m", "localrun.runner", "--describe"]
    try:
        done = subprocess.run(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return EngineBuild(error=f"llama.cpp did not answer within {timeout_s:.0f} s")
    except OSError as error:
        return EngineBuild(error=f"llama.cpp could not be asked: {error}")
    return read_description(done.stdout, done.stderr)


def read_description(stdout: bytes, stderr: bytes) -> EngineBuild:
    """The engine's answer to `--describe`; a crash is an answer too."""
    try:
        facts: dict[str, Any] = msgspec.json.decode(stdout, type=dict[str, Any])
        if "error" in facts:
            return EngineBuild(error=str(facts["error"]), hint=str(facts.get("hint", "")))
        devices = tuple(
            EngineDevice(
                name=str(d["name"]),
                description=str(d["description"]),
                kind=str(d["type"]),
                total_bytes=int(d["total_bytes"]),
                free_bytes=int(d["free_bytes"]),
            )
            for d in facts["devices"]
        )
        return EngineBuild(
            llama_version=str(facts["llama_version"]),
            system_info=str(facts["system_info"]),
            supports_gpu_offload=bool(facts["supports_gpu_offload"]),
            devices=devices,
        )
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        lines = stderr.decode("utf-8", "replace").strip().splitlines()
        return EngineBuild(error=lines[-1] if lines else "llama.cpp ended without a word")


def _ask(notes: list[str], what: str, question: Callable[[], _T], otherwise: _T) -> _T:
    try:
        return question()
    except Exception as error:  # noqa: BLE001 (drivers fail in ways of their own; we go on)
        notes.append(f"{what} could not be asked: {str(error) or type(error).__name__}")
        return otherwise


# ── memory and CPU ────────────────────────────────────────────────────────────────────────────


def _memory(root: Path) -> Memory:
    if sys.platform == "linux":
        return linux.read_memory(root)
    memory = psutil.virtual_memory()
    return Memory(memory.total, memory.available)


def _cores(root: Path) -> Cores:
    if sys.platform == "linux":
        try:
            return linux.read_cores(root)
        except (OSError, ValueError):  # no topology, as in some sandboxes
            pass
    logical = psutil.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    allowed = len(psutil.Process().cpu_affinity()) if sys.platform != "darwin" else logical
    return Cores(physical, logical, max(1, min(physical, allowed)))


def _cpu(root: Path) -> tuple[str, tuple[str, ...]]:
    if sys.platform == "linux":
        return linux.read_cpu(root)
    if sys.platform == "darwin":
        return _mac_cpu()
    return platform.processor(), _windows_features()


def _mac_cpu() -> tuple[str, tuple[str, ...]]:
    keys = {
        "hw.optional.neon": "neon",
        "hw.optional.arm.FEAT_DotProd": "dotprod",
        "hw.optional.arm.FEAT_I8MM": "i8mm",
        "hw.optional.avx1_0": "avx",
        "hw.optional.avx2_0": "avx2",
        "hw.optional.fma": "fma",
        "hw.optional.f16c": "f16c",
        "hw.optional.avx512f": "avx512",
    }
    found = tuple(word for key, word in keys.items() if _sysctl(key) == "1")
    return _sysctl("machdep.cpu.brand_string"), found


def _sysctl(key: str) -> str:
    done = subprocess.run(
        ["/usr/sbin/sysctl", "-n", key], capture_output=True, text=True, timeout=5, check=False
    )
    return done.stdout.strip()


def _windows_features() -> tuple[str, ...]:
    # Numbers of IsProcessorFeaturePresent: PF_AVX_INSTRUCTIONS_AVAILABLE and those that follow.
    kernel32: Any = getattr(ctypes, "windll").kernel32  # noqa: B009 (only Windows has it)
    asked = {39: "avx", 40: "avx2", 41: "avx512", 19: "neon", 43: "dotprod"}
    return tuple(word for n, word in asked.items() if kernel32.IsProcessorFeaturePresent(n))


# ── GPUs ──────────────────────────────────────────────────────────────────────────────────────


def _nvidia_gpus(library: Path | None, notes: list[str]) -> list[Gpu]:
    try:
        _load_nvml(library)
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return []  # no NVIDIA driver: nothing to say
    except pynvml.NVMLError as error:
        notes.append(_nvml_trouble(error))
        return []
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        count = int(pynvml.nvmlDeviceGetCount())
        found: list[Gpu] = []
        for index in range(count):  # one that has fallen off the bus does not hide the others
            ask = partial(_nvidia_gpu, index, driver)
            found += _ask(notes, f"GPU {index}", ask, _NO_GPUS)
        return found
    finally:
        pynvml.nvmlShutdown()


def _load_nvml(library: Path | None) -> None:
    """Have pynvml use a certain library; by itself it takes `libnvidia-ml.so.1`."""
    if library is None and sys.platform == "linux" and _WSL_NVML.exists():
        library = _WSL_NVML
    if library is not None:
        try:
            pynvml.nvmlLib = ctypes.CDLL(str(library))
        except OSError as error:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND) from error


def _nvidia_gpu(index: int, driver: str) -> list[Gpu]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        capability = f"{major}.{minor}"
    except pynvml.NVMLError:  # an old driver may not know; everything else still holds
        capability = ""
    gpu = Gpu(
        index=index,
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        vendor="nvidia",
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        driver=driver,
        compute_capability=capability,
        device=f"CUDA{index}",
    )
    return [gpu]


def _nvml_trouble(error: Exception) -> str:
    code = getattr(error, "value", None)
    if code == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return "the NVIDIA driver was updated while it runs: restart the machine to use the GPU"
    if code == pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return "the NVIDIA driver is installed but not loaded"
    return f"NVIDIA GPUs could not be asked: {error}"


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _amd_gpus(root: Path) -> list[Gpu]:
    return linux.read_amd_gpus(root) if sys.platform == "linux" else []


def _apple_gpus(cpu: str, memory: Memory) -> list[Gpu]:
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return []
    wired = _sysctl("iogpu.wired_limit_mb")
    return [apple_gpu(cpu, memory, int(wired) << 20 if wired.isdigit() else 0)]


def apple_gpu(cpu: str, memory: Memory, wired_limit_bytes: int = 0) -> Gpu:
    """The GPU of an Apple processor: a share of the RAM, which is not added to it."""
    share = wired_limit_bytes or int(memory.total_bytes * _GPU_SHARE)
    return Gpu(
        index=0,
        name=cpu or "Apple GPU",
        vendor="apple",
        total_bytes=share,
        free_bytes=min(share, memory.available_bytes),
        is_unified=True,
        device="Metal",
    )
