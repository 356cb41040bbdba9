"""What Linux says about itself in files: memory, container limits, cores, CPU features, AMD GPUs.

Reads only below `root`, so that a test can hand in another machine's files. Raises OSError or
ValueError where a file is missing or odd; the probe turns those into notes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from localrun.hardware.machine import Gpu

_NO_LIMIT = 1 << 60  # control groups of version 1 write about 2^63 for "no limit"
_AMD = "0x1002"

# As in /proc/cpuinfo → as llama.cpp calls them.
_FEATURES = {
    "sse4_2": "sse4.2", "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "bmi2": "bmi2",
    "avx512f": "avx512", "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16",
    "avx_vnni": "avx_vnni", "amx_int8": "amx_int8", "asimd": "neon", "asimddp": "dotprod",
    "asimdhp": "fp16", "i8mm": "i8mm", "sve": "sve", "sme": "sme", "v": "rvv", "vx": "vxe",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Memory:
    """RAM in bytes; `limit_bytes` is the container's, None without one."""

    total_bytes: int
    available_bytes: int
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores of the machine, and how many physical ones this process may use."""

    n_physical: int
    n_logical: int
    n_usable: int


def read_memory(root: Path) -> Memory:
    """RAM that is there and can be taken, under the limits of all control groups above us."""
    facts = dict(_pairs((root / "proc/meminfo").read_text()))
    total, available = _kib(facts["MemTotal"]), _kib(facts["MemAvailable"])
    limit: int | None = None
    for group in _groups(root, "memory"):
        bound, used = _memory_of_group(group)
        if bound is not None and bound < total:
            limit = bound if limit is None else min(limit, bound)
            available = min(available, max(0, bound - used))
    return Memory(min(total, limit or total), available, limit)


def read_cores(root: Path) -> Cores:
    """Cores by the topology, bounded by affinity and by the quota of all control groups above."""
    cores = dict(_topology(root))
    if not cores:
        raise ValueError("no CPU topology")
    allowed = _allowed_cpus(root) & set(cores) or set(cores)
    usable = len({cores[cpu] for cpu in allowed})
    for group in _groups(root, "cpu"):
        quota = _quota_of_group(group)
        if quota is not None:
            usable = min(usable, max(1, int(quota)))
    return Cores(len(set(cores.values())), len(cores), usable)


def read_cpu(root: Path) -> tuple[str, tuple[str, ...]]:
    """Name of the processor (may be empty) and its features that matter to llama.cpp."""
    name, flags = "", set[str]()
    for key, value in _pairs((root / "proc/cpuinfo").read_text(errors="replace")):
        word = key.lower()
        if word in ("flags", "features"):
            flags.update(value.split())
        elif word in ("model name", "hardware", "cpu model") and not name:
            name = value
    return name, tuple(known for flag, known in _FEATURES.items() if flag in flags)


def read_amd_gpus(root: Path) -> list[Gpu]:
    """GPUs that the amdgpu driver runs."""
    version = root / "sys/module/amdgpu/version"
    driver = version.read_text().strip() if version.exists() else ""
    gpus: list[Gpu] = []
    for card in sorted((root / "sys/class/drm").glob("card[0-9]*")):
        device = card / "device"
        if "-" in card.name or not (device / "mem_info_vram_total").exists():
            continue
        if (device / "vendor").read_text().strip() != _AMD:
            continue
        total = int((device / "mem_info_vram_total").read_text())
        used = int((device / "mem_info_vram_used").read_text())
        index = len(gpus)
        gpus.append(
            Gpu(
                index=index,
                name=_amd_name(device),
                vendor="amd",
                total_bytes=total,
                free_bytes=max(0, total - used),
                driver=driver,
                device=f"ROCm{index}",
            )
        )
    return gpus


def _amd_name(device: Path) -> str:
    for path in (device / "product_name",):
        if path.exists() and (name := path.read_text().strip()):
            return name
    return f"AMD GPU {(device / 'device').read_text().strip()}"


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()


def _kib(value: str) -> int:
    return int(value.split()[0]) * 1024


# ── control groups ────────────────────────────────────────────────────────────────────────────


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Directories of our control group and of all above it, of version 2 or 1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _upwards(root / "sys/fs/cgroup", path)
        elif controller in controllers.split(","):
            yield from _upwards(root / "sys/fs/cgroup" / controller, path)


def _upwards(top: Path, path: str) -> Iterator[Path]:
    """From the group up to the top; inside a container its own group often is the top."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for n in range(len(parts), -1, -1):
        group = top.joinpath(*parts[:n])
        if group.is_dir():
            yield group


def _memory_of_group(group: Path) -> tuple[int | None, int]:
    """Limit in bytes, None without one, and what is used and cannot be given back."""
    for limit_name, used_name, stat_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit = _number(group / limit_name)
        if limit is None or limit >= _NO_LIMIT:
            continue
        used = _number(group / used_name) or 0
        return limit, max(0, used - _stat(group / "memory.stat", stat_name))
    return None, 0


def _stat(path: Path, key: str) -> int:
    if not path.exists():
        return 0
    rows = (line.split() for line in path.read_text().splitlines())
    return next((int(row[1]) for row in rows if row[0] == key), 0)


def _quota_of_group(group: Path) -> float | None:
    """CPUs' worth of time, None without a limit."""
    modern = group / "cpu.max"
    if modern.exists():
        quota, _, period = modern.read_text().strip().partition(" ")
        return None if quota == "max" else int(quota) / int(period or 100_000)
    quota_us = _number(group / "cpu.cfs_quota_us")
    period_us = _number(group / "cpu.cfs_period_us")
    if quota_us is None or not period_us or quota_us <= 0:
        return None
    return quota_us / period_us


def _number(path: Path) -> int | None:
    if not path.exists():
        return None
    text = path.read_text().strip()
    return None if text == "max" else int(text)


# ── cores ─────────────────────────────────────────────────────────────────────────────────────


def _topology(root: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    """Logical CPU → its package and core."""
    for topology in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology"):
        package = (topology / "physical_package_id").read_text().strip()
        core = (topology / "core_id").read_text().strip()
        yield int(topology.parent.name[3:]), (package, core)


def _allowed_cpus(root: Path) -> set[int]:
    try:
        status = dict(_pairs((root / "proc/self/status").read_text()))
    except OSError:
        return set()
    return set(_ranges(status.get("Cpus_allowed_list", "").split(",")))


def _ranges(parts: Iterable[str]) -> Iterator[int]:
    for part in parts:
        first, _, last = part.strip().partition("-")
        if first:
            yield from range(int(first), int(last or first) + 1)
