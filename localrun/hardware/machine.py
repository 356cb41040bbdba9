"""What a machine has: the values that the probe fills in and the planner reads. Pure."""

from dataclasses import asdict, dataclass, replace
from typing import Literal, TypeAlias

Vendor: TypeAlias = Literal["nvidia", "amd", "apple", "other"]

EIGHT_GB = 7_600_000_000
"""Bytes from which a card counts as one of 8 GB: drivers keep up to 5 % for themselves."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        index: Number among its vendor's.
        name: As the driver calls it.
        vendor: Whose driver answered.
        total_bytes: Its memory.
        free_bytes: Of that, what nobody holds now.
        driver: Version of the driver, empty if unknown.
        compute_capability: Such as `8.6`; NVIDIA only.
        is_unified: Its memory is the machine's RAM.
        device: What llama.cpp calls it, such as `CUDA0`; see `with_engine`.
    """

    index: int
    name: str
    vendor: Vendor
    total_bytes: int
    free_bytes: int
    driver: str = ""
    compute_capability: str = ""
    is_unified: bool = False
    device: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine at one moment.

    Attributes:
        system: `linux`, `darwin` or `win32`.
        arch: Such as `x86_64` or `aarch64`.
        cpu: Name of the processor.
        cores_physical: Cores of the whole machine.
        cores_logical: With hyper-threads.
        cores_usable: Physical cores that this process may use (affinity, container quota).
        cpu_features: Those that matter to llama.cpp, such as `avx2` or `neon`.
        ram_total_bytes: RAM, or the container's limit where that is less.
        ram_available_bytes: Of that, what can be taken without swapping.
        ram_limit_bytes: The container's limit; None without one.
        gpus: In the drivers' order.
        notes: What could not be asked, and why.
    """

    system: str
    arch: str
    cpu: str
    cores_physical: int
    cores_logical: int
    cores_usable: int
    cpu_features: tuple[str, ...]
    ram_total_bytes: int
    ram_available_bytes: int
    ram_limit_bytes: int | None = None
    gpus: tuple[Gpu, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def has_8gb_gpu(self) -> bool:
        """Whether a GPU has 8 GB or more, enough for a 7-8B model wholly on it."""
        return any(gpu.total_bytes >= EIGHT_GB for gpu in self.gpus)

    @property
    def verdict_8gb(self) -> str:
        """The 8 GB rule in one sentence."""
        if not self.gpus:
            return "no GPU found: models run on the CPU"
        best = max(self.gpus, key=lambda gpu: gpu.total_bytes)
        size = f"{best.name} has {best.total_bytes / 2**30:.1f} GiB"
        if self.has_8gb_gpu:
            return f"{size}, 8 GB or more: 7-8B models fit wholly on the GPU"
        return f"{size}, less than 8 GB: 7-8B models are offloaded in part or quantized further"

    def to_json(self) -> dict[str, object]:
        """All facts and the verdict, for `--json`."""
        facts: dict[str, object] = asdict(self)
        facts["has_8gb_gpu"], facts["verdict_8gb"] = self.has_8gb_gpu, self.verdict_8gb
        return facts


@dataclass(frozen=True, slots=True)
class EngineDevice:
    """A device as the installed llama.cpp sees it; `kind` is `cpu`, `gpu`, `igpu` or `accel`."""

    name: str
    description: str
    kind: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class EngineBuild:
    """What the installed llama.cpp can use.

    Attributes:
        llama_version: Its version.
        system_info: llama.cpp's own line of CPU features and back ends.
        supports_gpu_offload: It was built with a GPU back end that loads here.
        devices: What it sees.
        error: Why it does not work; then the rest is empty.
        hint: The next thing to do about `error`.
    """

    llama_version: str = ""
    system_info: str = ""
    supports_gpu_offload: bool = False
    devices: tuple[EngineDevice, ...] = ()
    error: str = ""
    hint: str = ""

    @property
    def gpus(self) -> tuple[EngineDevice, ...]:
        """Its GPUs; like llama.cpp, an integrated one only where there is no other."""
        cards = tuple(d for d in self.devices if d.kind == "gpu")
        return cards or tuple(d for d in self.devices if d.kind == "igpu")

    @property
    def uses_gpu(self) -> bool:
        """Whether a model can be offloaded."""
        return self.supports_gpu_offload and bool(self.gpus)

    def has_cpu_feature(self, feature: str) -> bool:
        """Whether its CPU part was built for this feature and finds it here."""
        return f"{feature.upper()} = 1" in self.system_info.upper()


def with_engine(machine: Machine, engine: EngineBuild) -> Machine:
    """The machine with those GPUs only that the engine sees, under the engine's names.

    The drivers number GPUs by bus and see all of them; the engine has its own order and may have
    been told to see fewer. Where both know a GPU, the driver's numbers hold, as they are fresher.
    """
    left = list(machine.gpus)
    gpus: list[Gpu] = []
    for index, device in enumerate(engine.gpus if engine.uses_gpu else ()):
        known = next((gpu for gpu in left if _is_same(gpu, device)), None)
        if known is None:
            known = _unknown_gpu(index, device)
        else:
            left.remove(known)
        gpus.append(replace(known, index=index, device=device.name))
    return replace(machine, gpus=tuple(gpus))


_VENDORS: dict[str, Vendor] = {"CUDA": "nvidia", "ROCm": "amd", "Metal": "apple", "MTL": "apple"}


def _vendor_of(device: EngineDevice) -> Vendor:
    return _VENDORS.get(device.name.rstrip("0123456789"), "other")


def _is_same(gpu: Gpu, device: EngineDevice) -> bool:
    """By name; else, as sysfs has no names, by vendor and size."""
    if gpu.name == device.description:
        return True
    close = abs(gpu.total_bytes - device.total_bytes) <= gpu.total_bytes // 20
    return gpu.vendor == _vendor_of(device) != "nvidia" and close


def _unknown_gpu(index: int, device: EngineDevice) -> Gpu:
    vendor = _vendor_of(device)
    return Gpu(
        index=index,
        name=device.description or device.name,
        vendor=vendor,
        total_bytes=device.total_bytes,
        free_bytes=device.free_bytes,
        is_unified=device.kind == "igpu" or vendor == "apple",
    )
