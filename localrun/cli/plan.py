"""`probe MODEL`: how a model would be placed on this machine, and which quantization to take."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from localrun.cli.tables import size_text, table
from localrun.config import Settings
from localrun.gguf import open_header
from localrun.hardware.machine import EngineBuild, Machine
from localrun.hardware.plan import Candidate, Choice, Placement, Wish, budget_of, choose
from localrun.store.library import Library


def print_plan(
    model: str, machine: Machine, build: EngineBuild, settings: Settings, *, as_json: bool
) -> None:
    """Print every candidate with its verdict, and the placement of the one chosen.

    Raises:
        LocalrunError: If there is no such model, or its header cannot be read.
    """
    candidates = _candidates(model, settings)
    overhead = settings.gpu_overhead_bytes
    budget = budget_of(machine, overhead_bytes=overhead, engine_uses_gpu=build.uses_gpu)
    choice = choose(candidates, budget, wish_of(settings))
    if as_json:
        print(json.dumps(to_json(choice), ensure_ascii=False, indent=2))
    else:
        sys.stdout.write(describe(choice))


def wish_of(settings: Settings) -> Wish:
    """What the settings ask of every placement."""
    return Wish(
        num_ctx=settings.context_length or None,
        num_parallel=settings.num_parallel,
        kv_cache_type=settings.kv_cache_type,
        flash_attention=settings.flash_attention,
    )


def describe(choice: Choice) -> str:
    """The choice for people: a row each, then where the chosen one goes."""
    rows = [
        (
            "★" if row.is_chosen else " ",
            row.candidate.label or row.candidate.quantization,
            size_text(row.candidate.n_bytes),
            row.placement.where if row.placement else ("?" if row.fits else "does not fit"),
            row.reason,
        )
        for row in choice.rows
    ]
    text = table(("", "QUANTIZATION", "SIZE", "RUNS ON", "REASON"), rows)
    if choice.chosen is not None and choice.chosen.placement is not None:
        text += "\n" + _describe_placement(choice.chosen.placement)
    return text + (f"\n{choice.advice}\n" if choice.advice else "")


def _describe_placement(placement: Placement) -> str:
    needs = ", ".join(f"{size_text(n)} on {name}" for name, n in placement.need_bytes.items())
    kv = placement.type_k
    if placement.type_v != kv:
        kv += f"/{placement.type_v}"
    rows = [
        ("Runs on", placement.where),
        ("Takes", needs),
        ("Context", f"{placement.n_ctx} tokens a sequence, KV cache {kv}"),
        ("At once", f"{placement.n_slots} requests, {placement.n_cells} cells together"),
        *(("Note", note) for note in placement.notes),
    ]
    return "".join(f"{name:<11}{value}\n" for name, value in rows)


def to_json(choice: Choice) -> dict[str, object]:
    """The choice for programs."""
    rows: list[dict[str, object]] = [
        {
            "quantization": row.candidate.quantization,
            "n_bytes": row.candidate.n_bytes,
            "fits": row.fits,
            "reason": row.reason,
            "is_chosen": row.is_chosen,
            "placement": asdict(row.placement) if row.placement else None,
        }
        for row in choice.rows
    ]
    return {"rows": rows, "advice": choice.advice}


def _candidates(model: str, settings: Settings) -> list[Candidate]:
    """The files that the name could mean: a path, a model here, or what its source offers."""
    file = Path(model).expanduser()
    if file.suffix == ".gguf" and file.is_file():
        return [_candidate([file])]
    return [_candidate(Library(settings.models).find(model).model_paths)]


def _candidate(paths: Sequence[Path]) -> Candidate:
    info = open_header(paths[0]).info
    n_bytes = sum(path.stat().st_size for path in paths)
    return Candidate(info.file_type or "unknown", n_bytes, info)
