"""Which quantization of a model this machine should take. Pure.

Source: llama.cpp's perplexity tables (README of `tools/perplexity`, Llama 3 8B) for the order of
quality, and measurements of prefill on AVX2 for what is quick on a CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from localrun.errors import OutOfMemory
from localrun.gguf import ModelInfo
from localrun.hardware.budget import Budget
from localrun.hardware.placement import Placement, Wish, place
from localrun.modelinfo import spread_weights

BEST_FIRST = (
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "MXFP4", "Q4_K_S", "IQ4_NL", "NVFP4", "IQ4_XS",
    "Q5_1", "Q5_0", "Q4_1", "Q4_0", "Q3_K_L", "Q3_K_M", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS",
    "Q3_K_S", "IQ2_M", "Q2_K", "IQ2_S", "IQ2_XS", "Q2_K_S", "IQ2_XXS", "TQ2_0", "TQ1_0", "IQ1_M",
    "IQ1_S",
)  # fmt: skip
"""Quality, best first, of what a pull takes by itself."""

WHOLE = ("F16", "BF16", "F32")
"""Not quantized; taken when nothing else is there, and for embedding models."""

DOMINATED = {
    "Q4_0": "Q4_K_S", "Q4_1": "Q4_K_M", "Q5_0": "Q5_K_S", "Q5_1": "Q5_K_M", "Q3_K_S": "IQ3_M",
    "Q2_K": "IQ2_M", "Q2_K_S": "IQ2_S",
}  # fmt: skip
"""Formats that another of the same size or smaller beats."""

_LOWEST_GOOD = "IQ3_M"  # below it, a part of a better one on the GPU is preferred to all of it
_DEFAULT = "Q4_K_M"
_FINER = ("Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S")
_FOUR_BITS = ("Q4_K_M", "MXFP4", "Q4_K_S", "IQ4_NL", "NVFP4", "IQ4_XS")
_EMBED_FIRST = ("Q8_0", "F16", "BF16", "Q6_K", "Q5_K_M", "Q4_K_M")
# Formats with quick kernels on AVX2 and NEON. Prefill of a 135M model, two AVX2 cores, tokens per
# second: IQ4_NL 470, Q6_K 415, Q8_0 330, Q4_K_M 300, but Q4_0, Q4_1 and Q5_K_M 190.
_CPU_FIRST = ("Q4_K_M", "IQ4_NL", "Q4_K_S", "MXFP4", "IQ4_XS", "Q6_K", "Q8_0")
_CPU_TINY_FIRST = ("Q8_0", "Q6_K", "Q4_K_M", "IQ4_NL")
_SMALL, _TINY = 3_500_000_000, 1_500_000_000
_LOW_BITS = 3.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One file, or set of shards, that could be taken.

    Attributes:
        quantization: Such as `Q4_K_M` or `UD-Q4_K_XL`.
        n_bytes: All its files together.
        info: From its header, or from another quantization's of the same model; None if unread.
        label: What to call it in the table; its own name for it.
    """

    quantization: str
    n_bytes: int
    info: ModelInfo | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """What was found about one candidate.

    Attributes:
        candidate: It.
        fits: It can run here.
        reason: Why it was chosen, or why not.
        placement: How it would run; None where it does not fit or its dimensions are unknown.
        is_chosen: This is the one.
    """

    candidate: Candidate
    fits: bool
    reason: str
    placement: Placement | None = None
    is_chosen: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer.

    Attributes:
        rows: One per candidate, in the candidates' order.
        chosen: The row taken; None if nothing fits.
        advice: What else to consider; empty if nothing.
    """

    rows: tuple[Row, ...]
    chosen: Row | None
    advice: str = ""


@dataclass(frozen=True, slots=True)
class _Tried:
    """A candidate with its placement, or why there is none."""

    candidate: Candidate
    kind: str
    placement: Placement | None
    refusal: str
    is_roomy: bool

    @property
    def fits(self) -> bool:
        return not self.refusal


@dataclass(frozen=True, slots=True)
class _Field:
    """All candidates that were tried, and what holds for the model as a whole."""

    has_gpu: bool
    n_params: int
    is_embedder: bool


def choose(candidates: Sequence[Candidate], budget: Budget, wish: Wish) -> Choice:
    """Pick the quantization to take, and give a reason for each that was not.

    On a GPU: the best default that fits wholly, Q4_K_M first; finer for small models and where
    there is twice the room; coarser until it fits, but not below three bits while a part of a
    better one can be offloaded. Without a GPU: what the CPU computes fastest among the good ones.

    Args:
        candidates: What is on offer.
        budget: What is free.
        wish: Context, KV type and the like, as for `place`.
    """
    known = next((c.info for c in candidates if c.info is not None), None)
    field = _Field(
        has_gpu=bool(budget.gpus) and wish.num_gpu != 0,
        n_params=known.n_params if known and known.split_count == 1 else 0,
        is_embedder=known is not None and known.is_embedder,
    )
    tried = [_try(candidate, known, budget, wish) for candidate in candidates]
    fitting = [t for t in tried if t.fits]
    chosen = min(fitting, key=lambda t: _rank(t, field), default=None)
    rows = tuple(
        Row(t.candidate, t.fits, _reason(t, chosen, field), t.placement, t is chosen) for t in tried
    )
    picked = next((row for row in rows if row.is_chosen), None)
    return Choice(rows, picked, _advice(chosen, field))


def plain_quantization(text: str) -> str:
    """The format that a tag stands for: `UD-Q4_K_XL`, `Q4_K_L` and `Q4_K` are kinds of `Q4_K_M`."""
    kind = text.upper().removeprefix("UD-").removeprefix("I1-")
    kind = {"FP16": "F16", "FP32": "F32", "MXFP4_MOE": "MXFP4"}.get(kind, kind)
    for ending in ("_XXL", "_XL", "_L"):
        if kind.endswith(ending) and kind != "Q3_K_L":
            kind = kind.removesuffix(ending)
    if kind in ("Q3_K", "Q4_K", "Q5_K"):
        return kind + "_M"
    return "Q8_0" if kind == "Q8_K" else kind


# ── one candidate ─────────────────────────────────────────────────────────────────────────────


def _try(candidate: Candidate, known: ModelInfo | None, budget: Budget, wish: Wish) -> _Tried:
    kind = plain_quantization(candidate.quantization)
    info = _info_of(candidate, known)
    if info is None:
        return _try_by_size(candidate, kind, budget)
    try:
        placement = place(info, budget, wish)
    except OutOfMemory as error:
        return _Tried(candidate, kind, None, error.message, is_roomy=False)
    return _Tried(candidate, kind, placement, "", _is_roomy(placement, budget))


def _info_of(candidate: Candidate, known: ModelInfo | None) -> ModelInfo | None:
    """Its own facts, or those of another quantization scaled to its size."""
    if candidate.info is not None:
        return spread_weights(candidate.info, candidate.n_bytes)
    if known is None or not known.weights_bytes:
        return None
    factor = candidate.n_bytes / known.weights_bytes
    return replace(
        known,
        weights_bytes=candidate.n_bytes,
        layer_bytes=tuple(int(n * factor) for n in known.layer_bytes),
        input_bytes=int(known.input_bytes * factor),
        output_bytes=int(known.output_bytes * factor),
    )


def _try_by_size(candidate: Candidate, kind: str, budget: Budget) -> _Tried:
    """Without a header: the weights and a quarter more, on the roomiest device."""
    need, free = candidate.n_bytes * 5 // 4, max(budget.free_bytes.values())
    refusal = ""
    if need > free:
        refusal = (
            f"the model needs about {need / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free"
        )
    return _Tried(candidate, kind, None, refusal, is_roomy=need * 2 <= free)


def _is_roomy(placement: Placement, budget: Budget) -> bool:
    """There is twice the room that it takes."""
    free = budget.free_bytes
    return all(n_bytes * 2 <= free[name] for name, n_bytes in placement.need_bytes.items())


# ── the order ─────────────────────────────────────────────────────────────────────────────────


def _rank(tried: _Tried, field: _Field) -> tuple[int, int, int]:
    """Smaller is better: how it would run, how well it answers, then bytes."""
    return _class(tried, field), _position(tried, field), tried.candidate.n_bytes


def _class(tried: _Tried, field: _Field) -> int:
    """0 good and as a whole, 1 good but in part, 2 poor, 3 poor and in part, 4 not quantized."""
    if tried.kind in WHOLE:
        return 0 if field.is_embedder else 4
    part = 0 if _is_whole(tried, field) else 1
    return part + (2 if _is_poor(tried.kind) else 0)


def _is_whole(tried: _Tried, field: _Field) -> bool:
    """Wholly on the GPU, or on a machine without one."""
    return not field.has_gpu or tried.placement is None or tried.placement.is_on_gpu


def _is_poor(kind: str) -> bool:
    return kind in BEST_FIRST and BEST_FIRST.index(kind) > BEST_FIRST.index(_LOWEST_GOOD)


def _position(tried: _Tried, field: _Field) -> int:
    """Place in the list for this kind of machine; unknown formats come with Q4_0."""
    order = _order(tried, field)
    kind = tried.kind if tried.kind in order else "Q4_0"
    return order.index(kind)


def _order(tried: _Tried, field: _Field) -> tuple[str, ...]:
    first: tuple[str, ...]
    if field.is_embedder:
        first = _EMBED_FIRST
    elif not field.has_gpu:
        first = _CPU_TINY_FIRST if 0 < field.n_params <= _TINY else _CPU_FIRST
    elif _may_be_finer(tried, field):
        first = (*_FINER, *_FOUR_BITS)
    else:
        # As many places as above, so that the positions of two candidates can be compared.
        first = (*("-" * len(_FINER)), *_FOUR_BITS, *reversed(_FINER))
    return (*first, *(kind for kind in (*BEST_FIRST, *WHOLE) if kind not in first))


def _may_be_finer(tried: _Tried, field: _Field) -> bool:
    return 0 < field.n_params <= _SMALL or tried.is_roomy


# ── the reasons ───────────────────────────────────────────────────────────────────────────────


def _reason(tried: _Tried, chosen: _Tried | None, field: _Field) -> str:
    if not tried.fits or chosen is None:
        return tried.refusal
    if tried is chosen:
        return _why(tried, field)
    if tried.kind in WHOLE:
        return "not quantized: far larger, and no better to the eye"
    if _class(tried, field) > _class(chosen, field):
        return _why_lower(tried)
    return _why_not(tried, chosen, field)


def _why_lower(tried: _Tried) -> str:
    if _is_poor(tried.kind):
        return "so few bits that answers suffer"
    where = tried.placement.where if tried.placement else "not wholly on the GPU"
    return f"fits only in part: {where}"


def _why_not(tried: _Tried, chosen: _Tried, field: _Field) -> str:
    if better := DOMINATED.get(tried.kind):
        return f"{better} is better at this size"
    if not _is_finer(tried, chosen):
        return f"{chosen.candidate.quantization} is better and fits"
    if not field.has_gpu:
        return "finer, but slower on a CPU"
    if not _is_whole(chosen, field):
        return "finer, but less of it fits on the GPU"
    return "finer, but takes more than half of what is free"


def _is_finer(tried: _Tried, chosen: _Tried) -> bool:
    known = (*WHOLE, *BEST_FIRST)
    if tried.kind not in known or chosen.kind not in known:
        return tried.candidate.n_bytes > chosen.candidate.n_bytes
    return known.index(tried.kind) < known.index(chosen.kind)


def _why(tried: _Tried, field: _Field) -> str:
    where = tried.placement.where if tried.placement else "this machine"
    if not field.has_gpu:
        return "the best balance of quality and speed on a CPU"
    if not _is_whole(tried, field):
        return f"the best that fits: {where}"
    if tried.kind in _FINER and _may_be_finer(tried, field):
        return f"fine weights, and there is room: wholly on {where}"
    return f"the best that fits wholly on {where}"


def _advice(chosen: _Tried | None, field: _Field) -> str:
    if chosen is None:
        return "none fits; take a smaller model"
    bits = chosen.candidate.n_bytes * 8 / field.n_params if field.n_params else 8.0
    if bits < _LOW_BITS or _is_poor(chosen.kind):
        return (
            f"at {chosen.candidate.quantization} answers suffer;"
            f" a smaller model at {_DEFAULT} would be better"
        )
    if not _is_whole(chosen, field):
        return (
            "part of the model runs on the CPU, which is slower; a smaller model would fit wholly"
        )
    return ""
