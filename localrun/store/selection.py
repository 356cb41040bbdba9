"""Which of a source's models to take: what was asked for, or what suits this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from localrun.config import Settings
from localrun.errors import OutOfMemory, SourceMissing
from localrun.gguf import ModelInfo, read_header
from localrun.hardware.plan import Budget, Candidate, Choice, Row, Wish, choose
from localrun.store.quantization import FileGroup, select_group
from localrun.store.sources.base import Source

_REFERENCE = ("Q4_K_M", "Q4_K_S", "Q8_0", "MXFP4")


@dataclass(frozen=True, slots=True)
class Selection:
    """What is taken.

    Attributes:
        group: Its files.
        reason: Why, in a few words.
        rows: Every candidate with its verdict.
        unusable: What could not be considered; each says why.
        advice: What else to consider; empty if nothing.
        info: From the header that was read; None if there was none to read.
    """

    group: FileGroup
    reason: str
    rows: tuple[Row, ...] = ()
    unusable: tuple[FileGroup, ...] = ()
    advice: str = ""
    info: ModelInfo | None = None


def choose_group(
    groups: Sequence[FileGroup],
    source: Source,
    quantization: str,
    budget: Budget,
    settings: Settings,
) -> Selection:
    """Take what the tag names, or choose by weights, KV cache and compute buffers.

    One header is read for the choice, from the candidate that would be taken by default; the
    others of the repository have the same dimensions.

    Raises:
        SourceMissing: If there is nothing to take, or not what was asked for.
        OutOfMemory: If nothing fits this machine.
        PullFailed: If the header cannot be read.
    """
    usable = [group for group in groups if not group.unusable]
    unusable = tuple(group for group in groups if group.unusable)
    if not usable:
        raise _nothing(unusable)
    asked = select_group(usable, quantization) if quantization else None
    if quantization and asked is None:
        have = ", ".join(dict.fromkeys(group.quantization for group in usable))
        raise SourceMissing(
            f"there is no quantization {quantization!r} in the repository", hint=f"it has {have}"
        )
    choice = choose(_candidates(usable, source, asked), budget, wish_of(settings))
    if asked is not None:
        row = choice.rows[usable.index(asked)]
        advice = "" if row.fits else f"it does not fit this machine: {row.reason}"
        return Selection(asked, "as asked", choice.rows, unusable, advice, _known(choice))
    if choice.chosen is None:
        if len(usable) == 1:
            advice = f"it does not fit this machine: {choice.rows[0].reason}"
            return Selection(
                usable[0], "the only one there is", choice.rows, unusable, advice, _known(choice)
            )
        raise _nothing_fits(usable, choice, budget)
    group = usable[choice.rows.index(choice.chosen)]
    reason = choice.chosen.reason if len(usable) > 1 else "the only one there is"
    return Selection(group, reason, choice.rows, unusable, choice.advice, _known(choice))


def wish_of(settings: Settings) -> Wish:
    """What the settings ask of every placement."""
    return Wish(
        num_ctx=settings.context_length or None,
        num_parallel=settings.num_parallel,
        kv_cache_type=settings.kv_cache_type,
        flash_attention=settings.flash_attention,
    )


def describe_rows(selection: Selection) -> list[dict[str, object]]:
    """The verdicts as JSON objects, what could not be considered at the end."""
    rows: list[dict[str, object]] = []
    for row in selection.rows:
        is_chosen = row.candidate.label == selection.group.label
        rows.append(
            {
                "quantization": row.candidate.quantization,
                "label": row.candidate.label,
                "n_bytes": row.candidate.n_bytes,
                "fits": row.fits,
                "is_chosen": is_chosen,
                "reason": selection.reason if is_chosen else row.reason,
            }
        )
    for group in selection.unusable:
        rows.append(  # noqa: PERF401 (as above)
            {
                "quantization": group.quantization,
                "label": group.label,
                "n_bytes": group.n_bytes,
                "fits": False,
                "is_chosen": False,
                "reason": group.unusable,
            }
        )
    return rows


def _candidates(
    usable: Sequence[FileGroup], source: Source, asked: FileGroup | None
) -> list[Candidate]:
    measured = asked or _reference(usable)
    info = _info_of(measured, source)
    return [
        Candidate(
            group.quantization, group.n_bytes, info if group is measured else None, group.label
        )
        for group in usable
    ]


def _reference(usable: Sequence[FileGroup]) -> FileGroup:
    whole = [group for group in usable if len(group.files) == 1] or list(usable)
    for quantization in _REFERENCE:
        for group in whole:
            if group.quantization == quantization:
                return group
    return min(whole, key=lambda group: group.n_bytes)


def _info_of(group: FileGroup, source: Source) -> ModelInfo | None:
    first = group.files[0]
    read = source.reader(first)
    return read_header(read, first.size).info if read is not None else None


def _known(choice: Choice) -> ModelInfo | None:
    infos = (row.candidate.info for row in choice.rows)
    return next((info for info in infos if info is not None), None)


def _nothing(unusable: Sequence[FileGroup]) -> SourceMissing:
    if unusable:
        what = "; ".join(f"{group.label}: {group.unusable}" for group in unusable[:3])
        return SourceMissing(f"the repository has no model that can be taken ({what})")
    return SourceMissing(
        "the repository has no GGUF model",
        hint="look for one of the same name that ends in -GGUF",
    )


def _nothing_fits(usable: Sequence[FileGroup], choice: Choice, budget: Budget) -> OutOfMemory:
    smallest = min(usable, key=lambda group: group.n_bytes)
    free = budget.free_bytes
    device = max(free, key=lambda name: free[name])
    return OutOfMemory(
        smallest.n_bytes,
        free[device],
        device,
        hint=f"{choice.advice}; to take one all the same, name it: …:{smallest.quantization}",
    )
