"""What a model takes on each device, for given sizes of a context and a split of layers. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from localrun.footprint import compute_bytes, layer_cell_bytes, layer_state_bytes, pools_whole
from localrun.gguf import ModelInfo
from localrun.hardware.budget import CPU, MIB, GpuBudget

RUNNER_BYTES = 224 * MIB
"""A runner's own memory: engine, interpreter, and 128 MiB for host copies of kept sequences."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a context; `n_cells` is padded as llama.cpp pads it."""

    n_ctx: int
    type_k: str
    type_v: str
    n_batch: int
    n_ubatch: int
    n_cells: int = 0
    n_slots: int = 1
    n_seq_max: int = 3
    flash_attention: bool = True


@dataclass(frozen=True, slots=True)
class Split:
    """How many layers go to which GPUs, counted from the output backwards."""

    n_gpu_layers: int = 0
    gpus: tuple[GpuBudget, ...] = ()


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes by device name.

    Attributes:
        weights: Weights, and on the CPU the runner itself.
        cells: One cell of the pool.
        compute: A context without its pool: compute buffers and recurrent state.
        total: All together, for the whole pool.
    """

    weights: dict[str, int]
    cells: dict[str, int]
    compute: dict[str, int]
    total: dict[str, int]


def needs_of(info: ModelInfo, shape: Shape, split: Split) -> Needs:
    """What loading this model takes.

    The output counts as the last layer and is offloaded first. The token embeddings stay on the
    CPU; where they are the output too, the GPU gets a copy of its own.
    """
    owners = _owners(info.n_layer + 1, split)
    weights = _dealt([*info.layer_bytes, info.output_bytes], owners)
    weights[CPU] += info.input_bytes + RUNNER_BYTES
    if info.is_tied and owners[-1] != CPU:
        weights[owners[-1]] += info.input_bytes
    cells = _dealt(layer_cell_bytes(info, type_k=shape.type_k, type_v=shape.type_v), owners)
    compute = _dealt(layer_state_bytes(info, shape.n_seq_max), owners)
    n_outputs = shape.n_ubatch if pools_whole(info) else shape.n_seq_max
    buffers = compute_bytes(
        info,
        n_ubatch=shape.n_ubatch,
        n_outputs_max=n_outputs,
        n_cells=shape.n_cells,
        type_k=shape.type_k,
        flash_attention=shape.flash_attention,
    )
    for device in compute:
        compute[device] += buffers if device in owners else 0
    # The logits' way back. llama.cpp keeps it even where a model has none, and clears it all.
    compute[CPU] += 4 * n_outputs * info.n_vocab
    total = {
        device: weights[device] + cells[device] * shape.n_cells + compute[device]
        for device in weights
    }
    return Needs(weights, cells, compute, total)


def _owners(n_layers: int, split: Split) -> list[str]:
    """The device of each layer: llama.cpp deals them out in proportion to free memory."""
    bounds: list[int] = []
    for gpu in split.gpus:
        bounds.append((bounds[-1] if bounds else 0) + max(gpu.free_bytes, 1))
    first = n_layers - split.n_gpu_layers
    owners = [CPU] * first
    for i in range(split.n_gpu_layers):
        at = bisect_right(bounds, i * bounds[-1] / split.n_gpu_layers)
        owners.append(split.gpus[min(at, len(bounds) - 1)].device)
    return owners


def _dealt(rows: Sequence[int], owners: Sequence[str]) -> dict[str, int]:
    """Sums of rows by their layer's device; the CPU is always there, GPUs first."""
    sums: dict[str, int] = {}
    for device in owners:
        sums.setdefault(device, 0)
    sums[CPU] = sums.pop(CPU, 0)
    for device, n_bytes in zip(owners, rows, strict=False):  # the output has no cache
        sums[device] += n_bytes
    return sums
