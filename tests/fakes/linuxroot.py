"""A `/proc` and `/sys` of another machine, written into a folder."""

from pathlib import Path

GIB = 1 << 30


def write_root(
    folder: Path,
    *,
    ram_bytes: int = 32 * GIB,
    available_bytes: int = 24 * GIB,
    n_cores: int = 8,
    threads_per_core: int = 2,
    flags: str = "fpu sse4_2 avx avx2 fma f16c bmi2",
    cgroup: str = "0::/",
    files: dict[str, str] | None = None,
) -> Path:
    """Write the files that the probe reads.

    Args:
        folder: Becomes the root.
        ram_bytes: All RAM.
        available_bytes: Of that, available.
        n_cores: Physical cores, on one package.
        threads_per_core: Logical CPUs of each.
        flags: CPU features as the kernel writes them.
        cgroup: What `/proc/self/cgroup` says.
        files: Further files, such as those of control groups, by path below the root.
    """
    n_cpus = n_cores * threads_per_core
    cpu = f"processor\t: 0\nmodel name\t: Fake CPU 9000\nflags\t\t: {flags}\n"
    content = {
        "proc/meminfo": (
            f"MemTotal:       {ram_bytes // 1024} kB\nMemFree:        1 kB\n"
            f"MemAvailable:   {available_bytes // 1024} kB\n"
        ),
        "proc/cpuinfo": cpu,
        "proc/self/status": f"Name:\tpython\nCpus_allowed_list:\t0-{n_cpus - 1}\n",
        "proc/self/cgroup": cgroup + "\n",
    }
    for i in range(n_cpus):
        topology = f"sys/devices/system/cpu/cpu{i}/topology"
        content[f"{topology}/physical_package_id"] = "0\n"
        content[f"{topology}/core_id"] = f"{i % n_cores}\n"
    for path, text in (content | (files or {})).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder
