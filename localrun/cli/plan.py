"""`probe MODEL`: how a model would be placed on this machine, and which quantization to take."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from localrun.cli.probe import to_mend
from localrun.cli.pull import short_names
from localrun.cli.tables import size_text, table
from localrun.config import Settings
from localrun.errors import InvalidName, ModelNotFound
from localrun.gguf import open_model
from localrun.hardware.machine import EngineBuild, Machine
from localrun.hardware.plan import Budget, Candidate, Placement, Row, budget_of, choose
from localrun.store.adopt.adopted import open_library
from localrun.store.catalog import Catalog
from localrun.store.pull import understand
from localrun.store.selection import choose_group, wish_of


@dataclass(frozen=True, slots=True)
class Plan:
    """What could be taken of a model.

    Attributes:
        rows: Every candidate with its verdict; one is the chosen one.
        advice: What else to consider; empty if nothing.
        unusable: Label and reason of what could not be considered.
    """

    rows: tuple[Row, ...]
    advice: str = ""
    unusable: tuple[tuple[str, str], ...] = ()


def print_plan(
    model: str, machine: Machine, build: EngineBuild, settings: Settings, *, as_json: bool
) -> None:
    """Print every candidate with its verdict, and the placement of the one chosen.

    A model that is not here is looked up at its source; only headers are fetched.

    Raises:
        LocalrunError: If there is no such model, or its header cannot be read.
    """
    overhead = settings.gpu_overhead_bytes
    budget = budget_of(machine, overhead_bytes=overhead, engine_uses_gpu=build.uses_gpu)
    plan = make_plan(model, budget, settings)
    if as_json:
        print(json.dumps(to_json(plan), ensure_ascii=False, indent=2))
    else:
        sys.stdout.write(describe(plan))
        for name, value in to_mend(machine, build):
            print(f"{name:<11}{value}")


def make_plan(model: str, budget: Budget, settings: Settings) -> Plan:
    """Find the model and place it: a file, one that is here, or one at its source.

    Raises:
        LocalrunError: If there is no such model, or its header cannot be read.
    """
    library = open_library(settings)
    try:
        return _plan_of_files(library.find(model).model_paths, budget, settings)
    except (ModelNotFound, InvalidName):  # a path is no name
        pass
    errand = understand(model, library, Catalog.load(settings.catalog), settings, allow_files=True)
    groups = errand.source.offer().groups
    chosen = choose_group(groups, errand.source, errand.quantization, budget, settings)
    label = chosen.group.label
    rows = tuple(
        replace(
            row,
            is_chosen=row.candidate.label == label,
            reason=chosen.reason if row.candidate.label == label else row.reason,
        )
        for row in chosen.rows
    )
    unusable = tuple((group.label, group.unusable) for group in chosen.unusable)
    return Plan(rows, chosen.advice, unusable)


def _plan_of_files(paths: Sequence[Path], budget: Budget, settings: Settings) -> Plan:
    info = open_model(paths)
    n_bytes = sum(path.stat().st_size for path in paths)
    candidate = Candidate(info.file_type or "unknown", n_bytes, info)
    choice = choose([candidate], budget, wish_of(settings))
    return Plan(choice.rows, choice.advice)


def describe(plan: Plan) -> str:
    """The plan for people: a row each, then where the chosen one goes."""
    names = short_names([(row.candidate.quantization, row.candidate.label) for row in plan.rows])
    rows = [
        (
            "★" if row.is_chosen else " ",
            name,
            size_text(row.candidate.n_bytes),
            row.placement.where if row.placement else ("?" if row.fits else "does not fit"),
            row.reason,
        )
        for row, name in zip(plan.rows, names, strict=True)
    ]
    rows += [(" ", label, "", "cannot be taken", reason) for label, reason in plan.unusable]
    text = table(("", "QUANTIZATION", "SIZE", "RUNS ON", "REASON"), rows)
    for row in plan.rows:
        if row.is_chosen and row.placement is not None:
            text += "\n" + _describe_placement(row.placement)
    return text + (f"\n{plan.advice}\n" if plan.advice else "")


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


def to_json(plan: Plan) -> dict[str, object]:
    """The plan for programs."""
    rows: list[dict[str, object]] = [
        {
            "quantization": row.candidate.quantization,
            "label": row.candidate.label,
            "n_bytes": row.candidate.n_bytes,
            "fits": row.fits,
            "reason": row.reason,
            "is_chosen": row.is_chosen,
            "placement": asdict(row.placement) if row.placement else None,
        }
        for row in plan.rows
    ]
    unusable = [{"label": label, "reason": reason} for label, reason in plan.unusable]
    return {"rows": rows, "unusable": unusable, "advice": plan.advice}
