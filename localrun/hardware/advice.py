"""What keeps this machine from its full speed, and the one command that mends it. Pure.

Source: the engine's own wheel indexes as of November 2026: official CUDA wheels are built without
AVX2, CPU wheels need it.
"""

from dataclasses import dataclass

from localrun.hardware.machine import EngineBuild, Machine

ENGINE = "llama-cpp-python>=0.3.36,<0.3.37"
_INDEX = "https://abetlen.github.io/llama-cpp-python/whl"
_REINSTALL = "pip install --force-reinstall --no-deps --no-cache-dir"


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to mend; `command` is empty where no command does it."""

    text: str
    command: str = ""


def advise(machine: Machine, engine: EngineBuild) -> list[Advice]:
    """What to mend on this machine with this engine, the most important first."""
    if engine.error:
        return [Advice(f"the engine does not work: {engine.error}", engine.hint or _plain())]
    found: list[Advice] = []
    if machine.gpus and not engine.supports_gpu_offload:
        name = machine.gpus[0].name
        found.append(
            Advice(
                f"llama.cpp is built for the CPU only and leaves {name} idle", gpu_command(machine)
            )
        )
    elif machine.gpus and not engine.gpus:
        found.append(
            Advice(
                "llama.cpp is built for a GPU but sees none: its driver is too old, or hidden from"
                " this process"
            )
        )
    if _lacks_vector_units(machine, engine):
        found.append(
            Advice(
                "llama.cpp's CPU part is built without AVX2, which this processor has: layers that"
                " are not on a GPU run at less than half the speed",
                native_command(machine, engine),
            )
        )
    return found


def gpu_command(machine: Machine) -> str:
    """Installs a build of the engine for this machine's GPU."""
    return f'{_REINSTALL} --index-url {_INDEX}/{_flavour(machine)} "{ENGINE}"'


def native_command(machine: Machine, engine: EngineBuild) -> str:
    """Builds the engine for exactly this machine."""
    flags = ["-DGGML_NATIVE=ON"]
    if engine.supports_gpu_offload:
        vendors = {gpu.vendor for gpu in machine.gpus}
        if "nvidia" in vendors:
            flags.append("-DGGML_CUDA=ON")
        elif "amd" in vendors:
            flags.append("-DGGML_HIP=ON")
    return f'CMAKE_ARGS="{" ".join(flags)}" {_REINSTALL} --no-binary llama-cpp-python "{ENGINE}"'


def _plain() -> str:
    return f'pip install "{ENGINE}"'


def _flavour(machine: Machine) -> str:
    """Name of the wheel index. CUDA 13 needs a driver of 580 or newer, CUDA 12 one of 525."""
    gpu = machine.gpus[0]
    if gpu.vendor == "apple":
        return "metal"
    if gpu.vendor != "nvidia":
        return "rocm72" if gpu.vendor == "amd" and machine.system == "linux" else "vulkan"
    major = gpu.driver.partition(".")[0]
    number = int(major) if major.isdigit() else 0
    if number >= 580:
        return "cu130"
    return "cu124" if number >= 525 else "cu118"


def _lacks_vector_units(machine: Machine, engine: EngineBuild) -> bool:
    return "avx2" in machine.cpu_features and not engine.has_cpu_feature("avx2")
