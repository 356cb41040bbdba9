"""Where a model goes: context window, pool, KV type and layers per device, within a budget. Pure.

Ways to place a model are tried from the best to the most modest; the first that fits is taken, and
then given as many slots and cells as come cheaply.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from localrun.errors import OutOfMemory
from localrun.footprint import (
    CELL_PADDING,
    kv_bytes_per_cell,
    pad_cells,
    pools_whole,
    takes_kv_type,
)
from localrun.gguf import ModelInfo
from localrun.hardware.budget import CPU, MIB, Budget, GpuBudget
from localrun.hardware.needs import Shape, Split, needs_of

GPU_CONTEXTS = (32768, 16384, 8192, 4096)
CPU_CONTEXTS = (8192, 4096)
COMFORTABLE_CONTEXT = 8192
"""On a GPU, above this a smaller window is preferred to a quantized KV cache, below it is not."""

N_BATCH, N_UBATCH, N_UBATCH_SHORT = 2048, 512, 128
MAX_KEPT, MAX_SEQUENCES = 64, 256
ENCODER_CONTEXTS = (8192, 4096, 2048, 1024, 512)
EMBEDDER_SLOTS, EMBEDDER_SEQUENCES = 8, 32
"""Requests of a model that only embeds, and texts that share a call."""
POOL_BYTES = 128 * MIB
"""What cells beyond one context window may take, and no more than a quarter of what is free."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request or the settings ask of a placement; the defaults leave it to us.

    Attributes:
        num_ctx: Context window in tokens.
        num_gpu: Layers on the GPU, as Ollama counts them; -1 for as many as fit.
        num_batch: Tokens of one decode call.
        num_thread: CPU threads; 0 for all usable cores.
        num_parallel: Slots; 0 for our choice.
        kv_cache_type: GGML name for keys and values; empty for our choice.
        flash_attention: None lets llama.cpp decide.
        use_mmap: Map the weights.
        main_gpu: Use this GPU only.
    """

    num_ctx: int | None = None
    num_gpu: int = -1
    num_batch: int | None = None
    num_thread: int = 0
    num_parallel: int = 0
    kv_cache_type: str = ""
    flash_attention: bool | None = None
    use_mmap: bool | None = None
    main_gpu: int | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """A whole plan for one load; the fields of `messages.Load` without the paths.

    Attributes:
        n_ctx: Tokens one sequence may hold.
        n_cells: Cells of the pool.
        n_slots: Sequences that run at once.
        n_seq_max: Sequences, running and kept.
        n_batch: Tokens of one decode call.
        n_ubatch: Tokens of one graph.
        n_threads: CPU threads.
        n_gpu_layers: Layers on GPUs, the output counted as one.
        n_layers: Layers there are, the output counted as one.
        main_gpu: The one GPU used among several; None otherwise.
        use_mmap: Map the weights.
        type_k: Format of the keys.
        type_v: Format of the values.
        flash_attention: None lets llama.cpp decide.
        need_bytes: Device name → bytes that the load takes at its peak: the sum of the next three.
        weights_bytes: Of that, weights and the runner itself.
        cell_bytes: What one cell of the pool takes.
        compute_bytes: What a context takes whatever its pool: buffers and recurrent state.
        notes: Where a wish was not followed to the letter, and why.
    """

    n_ctx: int
    n_cells: int
    n_slots: int
    n_seq_max: int
    n_batch: int
    n_ubatch: int
    n_threads: int
    n_gpu_layers: int
    n_layers: int
    main_gpu: int | None
    use_mmap: bool
    type_k: str
    type_v: str
    flash_attention: bool | None
    need_bytes: dict[str, int]
    weights_bytes: dict[str, int]
    cell_bytes: dict[str, int]
    compute_bytes: dict[str, int]
    notes: tuple[str, ...] = ()

    @property
    def is_on_gpu(self) -> bool:
        """All layers and the output are on GPUs."""
        return self.n_gpu_layers >= self.n_layers

    @property
    def where(self) -> str:
        """In words, such as `CUDA0`, `20 of 33 layers on CUDA0, the rest on the CPU`, `the CPU`."""
        devices = " and ".join(name for name in self.need_bytes if name != CPU)
        if not self.n_gpu_layers:
            return "the CPU"
        if self.is_on_gpu:
            return devices
        return f"{self.n_gpu_layers} of {self.n_layers} layers on {devices}, the rest on the CPU"


@dataclass(frozen=True, slots=True)
class _Case:
    """One question: a model, a budget and a wish that has been settled, with the notes of that."""

    info: ModelInfo
    budget: Budget
    wish: Wish
    notes: tuple[str, ...]

    @property
    def n_layers(self) -> int:
        return self.info.n_layer + 1


def place(info: ModelInfo, budget: Budget, wish: Wish) -> Placement:
    """Plan one load.

    Args:
        info: The whole model, shards joined.
        budget: What is free now.
        wish: What is asked for.

    Raises:
        OutOfMemory: If no way to place the model fits; with the tightest device's numbers.
    """
    wish, notes = _settled(info, budget, wish)
    case = _Case(info, budget, wish, notes)
    shortest: dict[str, int] | None = None
    for shape, split in _ways(case):
        needs = needs_of(info, shape, split).total
        if _fits(needs, budget):
            return _placement(case, _widened(case, shape, split), split)
        if shortest is None or _excess(needs, budget) < _excess(shortest, budget):
            shortest = needs
    assert shortest is not None  # there is always the CPU
    raise _out_of_memory(case, shortest)


# ── the ways, best first ──────────────────────────────────────────────────────────────────────


def _settled(info: ModelInfo, budget: Budget, wish: Wish) -> tuple[Wish, tuple[str, ...]]:
    """The wish without what this machine has not, and what was dropped."""
    notes: list[str] = []
    gpus = [gpu.index for gpu in budget.gpus]
    if wish.num_gpu > 0 and not gpus:
        notes.append("no GPU that the engine can use: num_gpu has no effect")
    if wish.main_gpu is not None and gpus and wish.main_gpu not in gpus:
        notes.append(f"there is no GPU {wish.main_gpu}: main_gpu has no effect")
    n_gpu = min(wish.num_gpu, info.n_layer + 1) if gpus else 0
    main = wish.main_gpu if wish.main_gpu in gpus else None
    return replace(wish, num_gpu=n_gpu, main_gpu=main), tuple(notes)


def _ways(case: _Case) -> Iterator[tuple[Shape, Split]]:
    gpus, wish = _gpus(case), case.wish
    if wish.num_gpu > 0:
        for shape in _shapes(case, GPU_CONTEXTS):
            yield shape, Split(wish.num_gpu, gpus)
        return
    if wish.num_gpu < 0:
        alone = [(gpu,) for gpu in sorted(gpus, key=lambda g: -g.usable_bytes)]
        for shape in _shapes(case, GPU_CONTEXTS):
            for chosen in [*alone, gpus] if len(gpus) > 1 else alone:
                yield shape, Split(case.n_layers, chosen)
        for shape in _shapes(case, CPU_CONTEXTS):
            yield shape, _deepest(case, shape, gpus)
    for shape in _shapes(case, CPU_CONTEXTS):
        yield shape, Split()


def _gpus(case: _Case) -> tuple[GpuBudget, ...]:
    main = case.wish.main_gpu
    return tuple(gpu for gpu in case.budget.gpus if main is None or gpu.index == main)


def _shapes(case: _Case, ladder: Sequence[int]) -> list[Shape]:
    """Context, KV type and graph size in order of preference, each with its smallest pool."""
    info, wish = case.info, case.wish
    contexts, types = _contexts(case, ladder), _kv_types(info, wish)
    comfortable = COMFORTABLE_CONTEXT if ladder is GPU_CONTEXTS else contexts[-1]
    wide = [n for n in contexts if n > comfortable]
    narrow = [n for n in contexts if n <= comfortable]
    pairs = [(n, types[0]) for n in wide]
    pairs += [(n, kinds) for n in narrow or wide for kinds in types]
    n_slots = max(1, wish.num_parallel)
    shapes: list[Shape] = []
    for n_batch, n_ubatch in _batches(wish):
        for n_ctx, (type_k, type_v) in pairs:
            shape = Shape(n_ctx, type_k, type_v, n_batch, n_ubatch)
            shape = replace(shape, flash_attention=wish.flash_attention is not False)
            if pools_whole(info):  # an input must go through in one graph
                shape = replace(shape, n_batch=n_ctx, n_ubatch=n_ctx)
            shapes.append(_with_slots(info, shape, n_slots, pad_cells(n_ctx)))
    return shapes


def _contexts(case: _Case, ladder: Sequence[int]) -> list[int]:
    info, wish = case.info, case.wish
    trained = info.n_ctx_train or COMFORTABLE_CONTEXT
    if wish.num_ctx is not None:
        return [min(wish.num_ctx, trained) if info.n_ctx_train else wish.num_ctx]
    if pools_whole(info):
        # Each token takes a row of logits in llama.cpp, used or not. They may not take the machine.
        comfortable = case.budget.cpu_bytes // 2 // (4 * max(info.n_vocab, 1))
        smaller = [n for n in ENCODER_CONTEXTS if n < trained]
        return [n for n in (trained, *smaller) if n <= comfortable] or smaller[-1:] or [trained]
    return sorted({min(n, trained) for n in ladder}, reverse=True)


def _kv_types(info: ModelInfo, wish: Wish) -> list[tuple[str, str]]:
    if wish.kv_cache_type:
        kind = wish.kv_cache_type if takes_kv_type(info, wish.kv_cache_type) else "f16"
        # Without flash attention llama.cpp refuses quantized values.
        values = "f16" if wish.flash_attention is False and kind not in _WHOLE else kind
        return [(kind, values)]
    types = [("f16", "f16")]
    if wish.flash_attention is not False and takes_kv_type(info, "q8_0") and not info.is_embedder:
        types.append(("q8_0", "q8_0"))
    return types


_WHOLE = ("f16", "bf16", "f32")


def _batches(wish: Wish) -> list[tuple[int, int]]:
    """`(n_batch, n_ubatch)`, the second pair only for when memory is short."""
    n_batch = wish.num_batch or N_BATCH
    sizes = [(n_batch, min(n_batch, N_UBATCH))]
    if wish.num_batch is None:
        sizes.append((N_UBATCH, N_UBATCH_SHORT))
    return sizes


def _with_slots(info: ModelInfo, shape: Shape, n_slots: int, n_cells: int) -> Shape:
    if info.is_embedder:
        n_seq_max = 1 if info.n_recurrent else min(EMBEDDER_SEQUENCES, shape.n_ctx)
        n_slots = min(n_slots, n_seq_max)
        return replace(shape, n_slots=n_slots, n_seq_max=n_seq_max, n_cells=n_cells)
    kept = 2 * n_slots if not info.n_recurrent else 1  # recurrent state is paid per sequence
    n_seq_max = min(max(n_slots, min(n_slots + kept, MAX_KEPT)), MAX_SEQUENCES)
    # A step returns a row per sequence, and llama.cpp aborts where a batch cannot hold them.
    n_batch = max(shape.n_batch, n_seq_max)
    return replace(
        shape,
        n_slots=min(n_slots, n_seq_max),
        n_seq_max=n_seq_max,
        n_batch=n_batch,
        n_cells=n_cells,
    )


def _deepest(case: _Case, shape: Shape, gpus: tuple[GpuBudget, ...]) -> Split:
    """As many layers on the GPUs as fit there; what is left must fit the CPU."""
    low, high = 0, case.n_layers - 1
    while low < high:
        middle = (low + high + 1) // 2
        needs = needs_of(case.info, shape, Split(middle, gpus)).total
        if all(needs.get(gpu.device, 0) <= gpu.usable_bytes for gpu in gpus):
            low = middle
        else:
            high = middle - 1
    return Split(low, gpus if low else ())


# ── bytes ─────────────────────────────────────────────────────────────────────────────────────


def _fits(needs: Mapping[str, int], budget: Budget) -> bool:
    return _excess(needs, budget) <= 0


def _excess(needs: Mapping[str, int], budget: Budget) -> int:
    """Bytes over the budget on the tightest device; negative is room."""
    free = budget.free_bytes
    excess = max(n_bytes - free[device] for device, n_bytes in needs.items())
    if budget.is_unified:
        return max(excess, sum(needs.values()) - budget.cpu_bytes)
    return excess


# ── what comes on top ─────────────────────────────────────────────────────────────────────────


def _widened(case: _Case, shape: Shape, split: Split) -> Shape:
    """The same with as many slots and cells as come cheaply."""
    if case.info.is_embedder:
        n_slots = min(case.wish.num_parallel or EMBEDDER_SLOTS, shape.n_seq_max)
        return replace(shape, n_slots=n_slots)
    needs = needs_of(case.info, shape, split).total
    free = sum(case.budget.free_bytes[device] for device in needs)
    asked = case.wish.num_parallel
    is_small = case.info.weights_bytes * 2 <= free
    for n_slots in (asked,) if asked else (8, 4, 2) if is_small else (4, 2):
        for n_cells in _pool_sizes(case, shape, n_slots, free - sum(needs.values())):
            wider = _with_slots(case.info, shape, n_slots, n_cells)
            if _fits(needs_of(case.info, wider, split).total, case.budget):
                return wider
    return shape


def _pool_sizes(case: _Case, shape: Shape, n_slots: int, spare: int) -> list[int]:
    """Cells to try: what was asked for, what is cheap, one context window."""
    one, all_ = pad_cells(shape.n_ctx), pad_cells(shape.n_ctx * n_slots)
    per_cell = kv_bytes_per_cell(case.info, type_k=shape.type_k, type_v=shape.type_v)
    cheap = min(spare // 4, POOL_BYTES) // max(per_cell, 1) // CELL_PADDING * CELL_PADDING
    sizes = [max(one, min(all_, cheap)), one]
    return [all_, *sizes] if case.wish.num_parallel else sizes


def _placement(case: _Case, shape: Shape, split: Split) -> Placement:
    wish = case.wish
    quantized = shape.type_v not in _WHOLE
    needs = needs_of(case.info, shape, split)
    one_of_many = len(split.gpus) == 1 and len(case.budget.gpus) > 1
    return Placement(
        n_ctx=shape.n_ctx,
        n_cells=shape.n_cells,
        n_slots=shape.n_slots,
        n_seq_max=shape.n_seq_max,
        n_batch=shape.n_batch,
        n_ubatch=shape.n_ubatch,
        n_threads=wish.num_thread or case.budget.n_threads,
        n_gpu_layers=split.n_gpu_layers,
        n_layers=case.n_layers,
        main_gpu=split.gpus[0].index if one_of_many else None,
        use_mmap=True if wish.use_mmap is None else wish.use_mmap,
        type_k=shape.type_k,
        type_v=shape.type_v,
        flash_attention=True
        if quantized and wish.flash_attention is None
        else wish.flash_attention,
        need_bytes=needs.total,
        weights_bytes=needs.weights,
        cell_bytes=needs.cells,
        compute_bytes=needs.compute,
        notes=tuple(_notes(case, shape)),
    )


def _notes(case: _Case, shape: Shape) -> Iterator[str]:
    wish, info = case.wish, case.info
    yield from case.notes
    if wish.num_ctx is not None and shape.n_ctx < wish.num_ctx:
        yield f"num_ctx {wish.num_ctx} is more than the {info.n_ctx_train} tokens of the training"
    if wish.kv_cache_type and shape.type_k != wish.kv_cache_type:
        yield f"the model's heads do not divide into blocks of {wish.kv_cache_type}; f16 is used"
    elif wish.kv_cache_type and shape.type_v != wish.kv_cache_type:
        yield "values stay f16: a quantized cache of values needs flash attention"
    elif shape.type_k == "q8_0" and not wish.kv_cache_type:
        yield "the KV cache is q8_0, as f16 did not fit"
    if wish.num_parallel and shape.n_slots < wish.num_parallel:
        yield f"{shape.n_slots} slots instead of {wish.num_parallel}"
    if wish.num_batch and shape.n_batch > wish.num_batch:
        yield f"num_batch is {shape.n_batch}: a step must hold a row of every sequence"


def _out_of_memory(case: _Case, needs: Mapping[str, int]) -> OutOfMemory:
    """The error of the way that came closest, with what would fit."""
    free = case.budget.free_bytes
    device = max(needs, key=lambda name: needs[name] - free[name])
    return OutOfMemory(needs[device], free[device], device, hint=_way_out(case))


def _way_out(case: _Case) -> str:
    """What would fit instead."""
    wish = case.wish
    if wish.num_gpu > 0:
        return "leave options.num_gpu out: as many layers as fit are then put on the GPU"
    if wish.num_ctx is None and wish.num_batch is None:
        return "pull a smaller quantization or a smaller model"
    try:
        fitting = place(case.info, case.budget, replace(wish, num_ctx=None, num_batch=None))
    except OutOfMemory:
        return "pull a smaller quantization or a smaller model"
    return f"options.num_ctx={fitting.n_ctx} would fit"
