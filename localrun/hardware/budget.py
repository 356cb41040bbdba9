"""How many bytes a placement may take on each device. Pure."""

from dataclasses import dataclass

from localrun.hardware.machine import Gpu, Machine

MIB, GIB = 1 << 20, 1 << 30
CPU = "cpu"
"""Name of the CPU's memory among the devices."""


@dataclass(frozen=True, slots=True)
class GpuBudget:
    """Room on one GPU.

    Attributes:
        device: Name as llama.cpp has it.
        index: Its number, for `main_gpu`.
        free_bytes: Free now.
        usable_bytes: Of that, what we may take: a margin stays for the driver's own context.
    """

    device: str
    index: int
    free_bytes: int
    usable_bytes: int


@dataclass(frozen=True, slots=True)
class Budget:
    """Room on a machine.

    Attributes:
        cpu_bytes: RAM that we may take.
        gpus: Room on each GPU that the engine can use.
        is_unified: GPU and CPU share one memory: all needs together must fit `cpu_bytes`.
        n_threads: CPU threads of a step.
    """

    cpu_bytes: int
    gpus: tuple[GpuBudget, ...] = ()
    is_unified: bool = False
    n_threads: int = 1

    @property
    def free_bytes(self) -> dict[str, int]:
        """Device name → bytes that may be taken."""
        return {gpu.device: gpu.usable_bytes for gpu in self.gpus} | {CPU: self.cpu_bytes}


def budget_of(machine: Machine, *, overhead_bytes: int = 0, engine_uses_gpu: bool) -> Budget:
    """The room of a machine, margins taken off.

    Args:
        machine: As probed.
        overhead_bytes: What else to leave free on each GPU.
        engine_uses_gpu: Whether the installed engine can offload; if not, GPUs do not count.
    """
    margin = min(max(machine.ram_total_bytes // 10, 256 * MIB), 2 * GIB)
    ram = max(0, machine.ram_available_bytes - margin)
    gpus = tuple(
        GpuBudget(
            device=gpu.device,
            index=gpu.index,
            free_bytes=gpu.free_bytes,
            usable_bytes=max(0, gpu.free_bytes - _gpu_margin(gpu) - overhead_bytes),
        )
        for gpu in (machine.gpus if engine_uses_gpu else ())
    )
    unified = bool(gpus) and all(gpu.is_unified for gpu in machine.gpus)
    return Budget(ram, gpus, unified, max(1, machine.cores_usable))


def _gpu_margin(gpu: Gpu) -> int:
    """1 GiB, as llama.cpp's own fit leaves; an eighth on cards below 8 GB, 512 MiB at least."""
    if gpu.is_unified:
        return 0  # RAM's margin is there already
    return min(max(gpu.total_bytes // 8, 512 * MIB), GIB)
