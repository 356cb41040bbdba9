"""The probe: GPUs through the real pynvml on a stand-in library, and Linux through its files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localrun.hardware import linux
from localrun.hardware.linux import Memory
from localrun.hardware.probe import (
    apple_gpu,
    describe_engine,
    probe,
    process_rss_bytes,
    read_description,
)
from tests.fakes.linuxroot import GIB, write_root
from tests.fakes.nvml import build_fake_nvml

PROBE = """
import json, sys
from pathlib import Path
from localrun.hardware.probe import probe
print(json.dumps(probe(nvml_library=Path(sys.argv[1])).to_json()))
"""


@pytest.fixture(scope="session")
def fake_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = build_fake_nvml(tmp_path_factory.mktemp("nvml"))
    if library is None:
        pytest.skip("no C compiler to build the stand-in for NVML")
    return library


def probe_with(library: Path | str, **env: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(library)],
        env=os.environ | {f"FAKE_NVML_{name}": value for name, value in env.items()},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_each_nvidia_gpu_is_described(fake_nvml: Path) -> None:
    found = probe_with(
        fake_nvml,
        COUNT="2",
        TOTAL=str(24 * GIB),
        FREE=str(20 * GIB),
        NAME="NVIDIA GeForce RTX 4090",
        DRIVER="580.82.07",
        CAPABILITY="8.9",
    )
    assert [gpu["device"] for gpu in found["gpus"]] == ["CUDA0", "CUDA1"]
    gpu = found["gpus"][1]
    assert (gpu["name"], gpu["driver"]) == ("NVIDIA GeForce RTX 4090", "580.82.07")
    assert (gpu["total_bytes"], gpu["free_bytes"]) == (24 * GIB, 20 * GIB)
    assert gpu["compute_capability"] == "8.9"
    assert found["has_8gb_gpu"]
    assert "8 GB or more" in found["verdict_8gb"]
    assert found["notes"] == []


@pytest.mark.parametrize(
    ("env", "note"),
    [
        ({"FAIL": "init", "ERROR": "18"}, "updated while it runs: restart"),
        ({"FAIL": "init", "ERROR": "9"}, "installed but not loaded"),
        ({"FAIL": "init", "ERROR": "999"}, "could not be asked"),
        ({"FAIL": "count", "ERROR": "15"}, "could not be asked"),
        ({"FAIL": "memory", "ERROR": "999"}, "GPU 0 could not be asked"),
    ],
)
def test_a_broken_nvml_becomes_a_note(fake_nvml: Path, env: dict[str, str], note: str) -> None:
    found = probe_with(fake_nvml, **env)
    assert found["gpus"] == []
    assert note in found["notes"][0]
    assert found["ram_total_bytes"] > 0


def test_a_gpu_off_the_bus_does_not_hide_the_others(fake_nvml: Path) -> None:
    found = probe_with(fake_nvml, COUNT="3", BAD_GPU="1")
    assert [gpu["index"] for gpu in found["gpus"]] == [0, 2]
    assert "GPU 1 could not be asked" in found["notes"][0]


def test_a_card_that_hides_its_capability_is_still_a_card(fake_nvml: Path) -> None:
    found = probe_with(fake_nvml, FAIL="capability", ERROR="3")
    assert found["gpus"][0]["compute_capability"] == ""


@pytest.mark.parametrize(
    ("total", "is_8gb"),
    [(8188 << 20, True), (8 * GIB, True), (6144 << 20, False), (24 * GIB, True)],
)
def test_a_card_sold_as_8_gb_counts_as_one(fake_nvml: Path, total: int, is_8gb: bool) -> None:
    assert probe_with(fake_nvml, TOTAL=str(total))["has_8gb_gpu"] is is_8gb


def test_no_driver_is_no_trouble(tmp_path: Path) -> None:
    found = probe_with(tmp_path / "libnothing.so")
    assert found["gpus"] == []
    assert found["notes"] == []
    assert found["verdict_8gb"] == "no GPU found: models run on the CPU"


def test_a_library_that_is_no_nvml_becomes_a_note() -> None:
    import ctypes.util

    libc = ctypes.util.find_library("c")
    if libc is None:
        pytest.skip("no C library by name")
    found = probe_with(libc)
    assert found["gpus"] == []
    assert "could not be asked" in found["notes"][0]


def test_this_machine_is_probed_without_a_note_about_memory_or_cores() -> None:
    machine = probe()
    assert machine.ram_total_bytes >= machine.ram_available_bytes > 0
    assert 1 <= machine.cores_usable <= machine.cores_physical <= machine.cores_logical
    json.dumps(machine.to_json())


def test_an_empty_machine_is_described_with_notes(tmp_path: Path) -> None:
    machine = probe(root=tmp_path)
    assert (machine.ram_total_bytes, machine.cpu_features) == (0, ())
    assert any(note.startswith("RAM could not be asked") for note in machine.notes)


def test_memory_and_cores_of_a_plain_machine_are_read(tmp_path: Path) -> None:
    root = write_root(tmp_path)
    assert linux.read_memory(root) == Memory(32 * GIB, 24 * GIB, None)
    assert linux.read_cores(root) == linux.Cores(8, 16, 8)
    assert linux.read_cpu(root) == (
        "Fake CPU 9000",
        ("sse4.2", "avx", "avx2", "fma", "f16c", "bmi2"),
    )


CGROUPS: dict[str, tuple[str, dict[str, str], Memory]] = {
    "version 2, inside a container": (
        "0::/",
        {
            "memory.max": f"{4 * GIB}\n",
            "memory.current": f"{3 * GIB}\n",
            "memory.stat": f"anon {GIB}\ninactive_file {2 * GIB}\n",
        },
        Memory(4 * GIB, 3 * GIB, 4 * GIB),
    ),
    "version 2, the limit is set above our group": (
        "0::/user.slice/app.scope",
        {
            "user.slice/memory.max": f"{2 * GIB}\n",
            "user.slice/memory.current": f"{GIB}\n",
            "user.slice/app.scope/memory.max": "max\n",
        },
        Memory(2 * GIB, GIB, 2 * GIB),
    ),
    "version 2, a group that is not there": (
        "0::/../other",
        {"memory.max": f"{GIB}\n", "memory.current": "0\n"},
        Memory(GIB, GIB, GIB),
    ),
    "version 1": (
        "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc",
        {
            "memory/docker/abc/memory.limit_in_bytes": f"{8 * GIB}\n",
            "memory/docker/abc/memory.usage_in_bytes": f"{6 * GIB}\n",
            "memory/docker/abc/memory.stat": f"total_inactive_file {GIB}\n",
            "memory/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n",
        },
        Memory(8 * GIB, 3 * GIB, 8 * GIB),
    ),
    "a limit beyond the RAM": (
        "0::/",
        {"memory.max": f"{64 * GIB}\n", "memory.current": "0\n"},
        Memory(32 * GIB, 24 * GIB, None),
    ),
    "no limit": ("0::/", {"memory.max": "max\n"}, Memory(32 * GIB, 24 * GIB, None)),
}


@pytest.mark.parametrize("case", CGROUPS)
def test_a_containers_memory_limit_counts(tmp_path: Path, case: str) -> None:
    cgroup, files, expected = CGROUPS[case]
    below = {f"sys/fs/cgroup/{path}": text for path, text in files.items()}
    assert linux.read_memory(write_root(tmp_path, cgroup=cgroup, files=below)) == expected


@pytest.mark.parametrize(
    ("cgroup", "files", "usable"),
    [
        ("0::/", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ("0::/", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ("0::/", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        (
            "3:cpu,cpuacct:/x",
            {
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "350000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        ("0::/", {"proc/self/status": "Cpus_allowed_list:\t0,2-3,8\n"}, 3),  # 8 is 0's twin
    ],
)
def test_affinity_and_quota_bound_the_usable_cores(
    tmp_path: Path, cgroup: str, files: dict[str, str], usable: int
) -> None:
    assert linux.read_cores(write_root(tmp_path, cgroup=cgroup, files=files)).n_usable == usable


def test_amd_gpus_are_found_in_sysfs(tmp_path: Path) -> None:
    device = "sys/class/drm/card1/device"
    files = {
        "sys/class/drm/card1-HDMI-A-1/status": "connected\n",
        f"{device}/vendor": "0x1002\n",
        f"{device}/device": "0x744c\n",
        f"{device}/mem_info_vram_total": f"{16 * GIB}\n",
        f"{device}/mem_info_vram_used": f"{GIB}\n",
        "sys/class/drm/card0/device/vendor": "0x8086\n",
        "sys/module/amdgpu/version": "6.10.5\n",
    }
    (gpu,) = probe(root=write_root(tmp_path, files=files)).gpus
    assert (gpu.vendor, gpu.device, gpu.driver) == ("amd", "ROCm0", "6.10.5")
    assert (gpu.name, gpu.free_bytes) == ("AMD GPU 0x744c", 15 * GIB)


def test_only_amd_cards_with_memory_of_their_own_count(tmp_path: Path) -> None:
    files: dict[str, str] = {}
    for i, vendor in enumerate(("0x1002", "0x8086")):
        device = f"sys/class/drm/card{i}/device"
        files |= {
            f"{device}/vendor": vendor,
            f"{device}/product_name": "Radeon Pro W7900\n",
            f"{device}/mem_info_vram_total": f"{48 * GIB}",
            f"{device}/mem_info_vram_used": "0",
        }
    (gpu,) = linux.read_amd_gpus(write_root(tmp_path, files=files))
    assert (gpu.name, gpu.driver) == ("Radeon Pro W7900", "")


def test_a_machine_that_hides_its_control_group_and_status_is_still_read(tmp_path: Path) -> None:
    root = write_root(tmp_path)
    (root / "proc/self/cgroup").unlink()
    (root / "proc/self/status").unlink()
    assert linux.read_cores(root) == linux.Cores(8, 16, 8)
    assert linux.read_memory(root).limit_bytes is None


def test_an_apple_gpu_is_a_share_of_the_memory() -> None:
    gpu = apple_gpu("Apple M3", Memory(16 * GIB, 10 * GIB))
    assert (gpu.total_bytes, gpu.free_bytes, gpu.is_unified) == (12 * GIB, 10 * GIB, True)
    assert apple_gpu("", Memory(16 * GIB, 15 * GIB), 14 * GIB).free_bytes == 14 * GIB


def test_a_process_has_memory_until_it_is_gone() -> None:
    assert process_rss_bytes(os.getpid()) > 1 << 20
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait(timeout=30)
    assert process_rss_bytes(done.pid) == 0


GOOD = {
    "llama_version": "b1",
    "system_info": "CPU : AVX = 1 | AVX2 = 1 | ",
    "supports_gpu_offload": True,
    "devices": [
        {
            "name": "CUDA0",
            "description": "NVIDIA Fake 4060",
            "type": "gpu",
            "total_bytes": 8,
            "free_bytes": 4,
        }
    ],
}


def test_the_engines_description_is_read() -> None:
    engine = read_description(json.dumps(GOOD).encode(), b"")
    assert engine.uses_gpu
    assert engine.has_cpu_feature("avx2")
    assert not engine.has_cpu_feature("avx512")
    assert engine.gpus[0].description == "NVIDIA Fake 4060"


@pytest.mark.parametrize(
    ("stdout", "stderr", "error"),
    [
        (b'{"error": "no llama.cpp", "hint": "pip install it"}', b"", "no llama.cpp"),
        (b"", b"a line\nIllegal instruction\n", "Illegal instruction"),
        (b'{"devices": [{}]}', b"", "ended without a word"),
        (b"[1, 2]", b"", "ended without a word"),
    ],
)
def test_an_engine_that_cannot_answer_is_an_error(stdout: bytes, stderr: bytes, error: str) -> None:
    engine = read_description(stdout, stderr)
    assert error in engine.error
    assert not engine.uses_gpu


def test_an_engine_that_hangs_is_given_up() -> None:
    assert "did not answer" in describe_engine(dict(os.environ), timeout_s=0.001).error
