"""From a `Load` to what a runner serves: the engine for text, the embedder for vectors."""

import importlib
import threading
import time
from collections.abc import Callable
from typing import Literal, TypeAlias

from localrun.llama import Context, ContextSettings, EmbeddingContext, Model
from localrun.messages import Load, Submit
from localrun.runner.embed import Embedder
from localrun.runner.engine import Engine
from localrun.runner.lane import Lane
from localrun.runner.solo import SoloLane
from localrun.runner.threads import Threads
from localrun.system.idle import idle_core_seconds

Purpose: TypeAlias = Literal["load", "context"]

TEXTS_AT_ONCE = 32
"""Texts that may share a call of a model that only embeds."""
_TEXTS_BESIDE = 8


def load_model(load: Load) -> Model:
    """Load the weights with their adapters. Raises as `Model.load` and `Model.adapt`."""
    # Masks, log-probabilities and vectors need numpy: imported here, it costs no request 80 ms.
    threading.Thread(target=importlib.import_module, args=("numpy",), daemon=True).start()
    model = Model.load(
        load.paths,
        n_gpu_layers=load.n_gpu_layers,
        main_gpu=load.main_gpu,
        use_mmap=load.use_mmap,
    )
    for path in load.adapters:
        model.adapt(path)
    return model


def make_engine(
    model: Model, load: Load, *, ask: Callable[[], None], make_grammar: Callable[[Submit], None]
) -> Engine:
    """The engine with its pool.

    Args:
        model: The weights.
        load: Sizes.
        ask: Asks for the memory of the deterministic lane.
        make_grammar: Has a grammar made beside the steps.

    Raises:
        LocalrunError: If the pool cannot be made.
    """
    n_ctx = _window(load)

    def open_solo() -> Lane:
        settings = _settings(load, n_ctx, 1, load.n_ubatch)
        return Lane(model, Context(model, settings), n_ctx=n_ctx, shares=False)

    # Beside a GPU the CPU threads wait on purpose, which looks like a taken core.
    adapts = load.adapts_threads and not load.n_gpu_layers
    lane = Lane(
        model,
        Context(model, _settings(load, load.n_cells, load.n_seq_max, load.n_batch)),
        n_ctx=n_ctx,
        shares=not model.is_recurrent,
        threads=Threads(load.n_threads, idle_core_seconds) if adapts else None,
    )
    return Engine(
        model,
        lane,
        SoloLane(ask, open_solo),
        n_slots=min(load.n_slots, load.n_seq_max),
        clock=time.monotonic,
        make_grammar=make_grammar,
    )


def make_embedder(
    model: Model, load: Load, *, ask: Callable[[], None], is_beside: Callable[[], bool]
) -> Embedder:
    """The embedder; of a model that only embeds, with its context.

    Args:
        model: The weights.
        load: Sizes.
        ask: Asks for the memory of the context.
        is_beside: Tells whether answers are being made.

    Raises:
        LocalrunError: If the context cannot be made.
    """
    n_ctx = load.n_ctx if load.embeds else _window(load)
    if load.embeds and model.n_ctx_train:  # a position beyond the table ends the process
        n_ctx = min(n_ctx, model.n_ctx_train)
    n_texts = TEXTS_AT_ONCE if load.embeds else _TEXTS_BESIDE
    settings = _settings(load, n_ctx, min(n_texts, load.n_seq_max, n_ctx), load.n_batch)
    embedder = Embedder(
        model,
        n_ctx=n_ctx,
        ask=ask,
        open_context=lambda: EmbeddingContext(model, settings),
        is_beside=is_beside,
    )
    if load.embeds:
        embedder.open()
    return embedder


def needed_bytes(load: Load, purpose: Purpose) -> dict[str, int]:
    """Bytes by device: a further context takes cells and compute, the load the weights as well."""
    n_cells = load.n_cells if purpose == "load" else _window(load)
    devices = {*load.weights_bytes, *load.cell_bytes, *load.compute_bytes}
    weights = load.weights_bytes if purpose == "load" else {}
    return {
        device: weights.get(device, 0)
        + n_cells * load.cell_bytes.get(device, 0)
        + load.compute_bytes.get(device, 0)
        for device in sorted(devices)
    }


def _window(load: Load) -> int:
    return min(load.n_ctx, load.n_cells)


def _settings(load: Load, n_cells: int, n_seq_max: int, n_batch: int) -> ContextSettings:
    return ContextSettings(
        n_cells=n_cells,
        n_seq_max=n_seq_max,
        n_batch=n_batch,
        n_ubatch=min(load.n_ubatch, n_batch),
        # Rows with logits reserve 4 bytes a vocabulary entry each: only as many as a step can want.
        n_outputs_max=n_seq_max,
        n_threads=load.n_threads,
        type_k=load.type_k,
        type_v=load.type_v,
        flash_attention=load.flash_attention,
    )
