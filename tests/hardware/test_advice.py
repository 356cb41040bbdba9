"""What is said about a machine that cannot use what it has."""

from dataclasses import replace

import pytest

from localrun.hardware.advice import advise
from localrun.hardware.budget import budget_of
from localrun.hardware.machine import EngineBuild, EngineDevice, Gpu, Machine, Vendor, with_engine

GIB = 1 << 30
CARD = Gpu(0, "NVIDIA RTX 4060", "nvidia", 8 * GIB, 7 * GIB, "560.35", "8.9", device="CUDA0")
MACHINE = Machine("linux", "x86_64", "cpu", 8, 16, 8, ("avx", "avx2"), 32 * GIB, 28 * GIB)
WITH_CARD = replace(MACHINE, gpus=(CARD,))
CPU_BUILD = EngineBuild("b1", "CPU : AVX = 1 | AVX2 = 1 |")
SEEN = EngineDevice("CUDA0", "NVIDIA RTX 4060", "gpu", 8 * GIB, 7 * GIB)
CUDA_BUILD = replace(CPU_BUILD, supports_gpu_offload=True, devices=(SEEN,))


def test_a_good_build_needs_no_advice() -> None:
    assert advise(MACHINE, CPU_BUILD) == []
    assert advise(WITH_CARD, CUDA_BUILD) == []


@pytest.mark.parametrize(
    ("driver", "flavour"), [("580.82", "cu130"), ("560.35", "cu124"), ("470.1", "cu118")]
)
def test_a_cpu_build_on_a_gpu_machine_names_the_build_for_its_driver(
    driver: str, flavour: str
) -> None:
    machine = replace(MACHINE, gpus=(replace(CARD, driver=driver),))
    (advice,) = advise(machine, CPU_BUILD)
    assert "CPU only and leaves NVIDIA RTX 4060 idle" in advice.text
    assert f"/whl/{flavour} " in advice.command


@pytest.mark.parametrize(("vendor", "flavour"), [("amd", "rocm72"), ("apple", "metal")])
def test_other_vendors_get_their_own_build(vendor: Vendor, flavour: str) -> None:
    machine = replace(MACHINE, gpus=(replace(CARD, vendor=vendor),))
    assert f"/whl/{flavour} " in advise(machine, CPU_BUILD)[0].command


def test_a_cuda_wheel_without_avx2_is_told_and_rebuilt_with_cuda() -> None:
    engine = replace(CUDA_BUILD, system_info="CPU : SSE3 = 1 | AVX = 1 |")
    (advice,) = advise(WITH_CARD, engine)
    assert "without AVX2" in advice.text
    assert "-DGGML_CUDA=ON" in advice.command
    assert "--no-binary llama-cpp-python " in advice.command  # its build tools may come as wheels
    assert (
        "-DGGML_CUDA" not in advise(MACHINE, replace(engine, supports_gpu_offload=False))[0].command
    )


def test_an_amd_build_without_avx2_is_rebuilt_with_hip() -> None:
    machine = replace(MACHINE, gpus=(replace(CARD, vendor="amd"),))
    engine = replace(CUDA_BUILD, system_info="CPU : AVX = 1 |")
    assert "-DGGML_HIP=ON" in advise(machine, engine)[0].command


def test_a_gpu_build_that_sees_no_gpu_is_told() -> None:
    (advice,) = advise(WITH_CARD, replace(CUDA_BUILD, devices=()))
    assert "sees none" in advice.text


def test_a_missing_engine_comes_first_with_its_own_hint() -> None:
    (advice,) = advise(WITH_CARD, EngineBuild(error="not installed", hint="do this"))
    assert advice.command == "do this"
    assert "pip install" in advise(WITH_CARD, EngineBuild(error="gone"))[0].command


def test_only_gpus_that_the_engine_sees_count_and_under_its_names() -> None:
    slow = replace(CARD, index=0, name="NVIDIA GT 710", total_bytes=2 * GIB)
    fast = replace(CARD, index=1, free_bytes=6 * GIB)
    machine = replace(MACHINE, gpus=(slow, fast))
    (gpu,) = with_engine(machine, CUDA_BUILD).gpus
    assert (gpu.name, gpu.device, gpu.index) == ("NVIDIA RTX 4060", "CUDA0", 0)
    assert gpu.free_bytes == 6 * GIB  # the driver's number, which is fresher
    assert with_engine(machine, CPU_BUILD).gpus == ()


def test_a_gpu_that_only_the_engine_knows_counts_with_its_numbers() -> None:
    vulkan = EngineDevice("Vulkan0", "Intel Arc A770", "gpu", 16 * GIB, 15 * GIB)
    (gpu,) = with_engine(MACHINE, replace(CUDA_BUILD, devices=(vulkan,))).gpus
    assert (gpu.device, gpu.vendor, gpu.free_bytes) == ("Vulkan0", "other", 15 * GIB)


def test_an_amd_card_is_known_by_vendor_and_size_as_sysfs_has_no_name() -> None:
    card = replace(CARD, vendor="amd", name="AMD GPU 0x744c", total_bytes=16 * GIB, free_bytes=9)
    seen = EngineDevice("ROCm0", "AMD Radeon RX 7800 XT", "gpu", 16 * GIB, 15 * GIB)
    machine = replace(MACHINE, gpus=(card,))
    (gpu,) = with_engine(machine, replace(CUDA_BUILD, devices=(seen,))).gpus
    assert (gpu.vendor, gpu.device, gpu.free_bytes) == ("amd", "ROCm0", 9)


def test_an_integrated_gpu_counts_only_where_there_is_no_other() -> None:
    inside = EngineDevice("Vulkan1", "Intel UHD", "igpu", 16 * GIB, 15 * GIB)
    both = replace(CUDA_BUILD, devices=(inside, SEEN))
    assert [gpu.device for gpu in with_engine(WITH_CARD, both).gpus] == ["CUDA0"]
    alone = with_engine(MACHINE, replace(CUDA_BUILD, devices=(inside,)))
    assert alone.gpus[0].is_unified
    room = budget_of(alone, engine_uses_gpu=True)
    assert room.is_unified
    assert room.free_bytes["Vulkan1"] == 15 * GIB


def test_margins_stay_free_on_every_device() -> None:
    budget = budget_of(WITH_CARD, engine_uses_gpu=True, overhead_bytes=GIB // 2)
    assert budget.free_bytes["CUDA0"] == 7 * GIB - GIB - GIB // 2
    assert budget.free_bytes["cpu"] == 28 * GIB - 2 * GIB
    small = replace(MACHINE, gpus=(replace(CARD, total_bytes=4 * GIB, free_bytes=4 * GIB),))
    assert budget_of(small, engine_uses_gpu=True).free_bytes["CUDA0"] == 4 * GIB - GIB // 2


def test_gpus_do_not_count_where_the_engine_cannot_use_them() -> None:
    assert budget_of(WITH_CARD, engine_uses_gpu=False).free_bytes.keys() == {"cpu"}
