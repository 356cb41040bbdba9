"""`probe`: what this machine has, what the engine uses of it, how a model would be placed."""

import json
import sys
from dataclasses import asdict

import click

from localrun.cli.completion import complete_model
from localrun.cli.tables import size_text
from localrun.config import child_environment, load_settings
from localrun.hardware.advice import advise
from localrun.hardware.machine import EngineBuild, Gpu, Machine


@click.command()
@click.argument("model", required=False, shell_complete=complete_model)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def probe(model: str | None, *, as_json: bool) -> None:
    """Show what this machine can run; with MODEL, how that model would be placed."""
    from localrun.hardware.probe import describe_engine
    from localrun.hardware.probe import probe as probe_machine

    settings = load_settings()
    machine = probe_machine(nvml_library=settings.nvml_library)
    build = describe_engine(child_environment())
    if model is not None:
        from localrun.cli.plan import print_plan

        print_plan(model, machine, build, settings, as_json=as_json)
    elif as_json:
        print(json.dumps(to_json(machine, build), ensure_ascii=False, indent=2))
    else:
        sys.stdout.write(describe(machine, build))


def to_json(machine: Machine, build: EngineBuild) -> dict[str, object]:
    """All facts, for programs."""
    return {
        "machine": machine.to_json(),
        "engine": asdict(build) | {"uses_gpu": build.uses_gpu},
        "advice": [asdict(advice) for advice in advise(machine, build)],
    }


def describe(machine: Machine, build: EngineBuild) -> str:
    """The same for people: a line each, what is wrong at the end."""
    rows = [
        ("Machine", f"{machine.system} {machine.arch}, {machine.cpu}"),
        ("Cores", _cores(machine)),
        ("Memory", _memory(machine)),
        *(("GPU", _gpu(gpu)) for gpu in machine.gpus),
        ("8 GB rule", machine.verdict_8gb),
        ("Engine", _engine(build)),
        *(("Note", note) for note in machine.notes),
    ]
    return "".join(f"{name:<11}{value}\n" for name, value in (*rows, *to_mend(machine, build)))


def to_mend(machine: Machine, build: EngineBuild) -> list[tuple[str, str]]:
    """Rows of what keeps this machine from its full speed, each with the command that mends it."""
    rows: list[tuple[str, str]] = []
    for advice in advise(machine, build):
        rows += [("To mend", advice.text)]
        rows += [("", f"  {advice.command}")] if advice.command else []
    return rows


def _cores(machine: Machine) -> str:
    features = " ".join(machine.cpu_features) or "no features known"
    return f"{machine.cores_usable} usable of {machine.cores_physical} ({features})"


def _memory(machine: Machine) -> str:
    total, free = size_text(machine.ram_total_bytes), size_text(machine.ram_available_bytes)
    limit = ", the limit of this container" if machine.ram_limit_bytes is not None else ""
    return f"{total} RAM{limit}, {free} available"


def _gpu(gpu: Gpu) -> str:
    size = f"{size_text(gpu.total_bytes)}, {size_text(gpu.free_bytes)} free"
    facts = [f"driver {gpu.driver}"] if gpu.driver else []
    if gpu.compute_capability:
        facts.append(f"compute capability {gpu.compute_capability}")
    return f"{gpu.device} {gpu.name}, {size}" + (f" ({', '.join(facts)})" if facts else "")


def _engine(build: EngineBuild) -> str:
    if build.error:
        return "does not work"
    where = ", ".join(device.description for device in build.gpus) if build.uses_gpu else "CPU only"
    return f"llama.cpp {build.llama_version}, {where}"
