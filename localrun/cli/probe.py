"""`probe`: what this machine has, what the engine uses of it, how a model would be placed."""

import json
import subprocess
import sys
from dataclasses import asdict
from typing import cast

import click

from localrun.cli.completion import complete_model
from localrun.cli.tables import size_text
from localrun.cli.wire import Json, array, number, text
from localrun.config import child_environment, load_settings
from localrun.hardware.machine import EngineBuild, EngineDevice, Gpu, Machine

_ENGINE_S = 60.0
_REINSTALL = (
    "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python"
    " 'llama-cpp-python>=0.3.36,<0.3.37'"
)


@click.command()
@click.argument("model", required=False, shell_complete=complete_model)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def probe(model: str | None, *, as_json: bool) -> None:
    """Show what this machine can run; with MODEL, how that model would be placed."""
    from localrun.hardware.probe import probe as probe_machine

    machine, build = probe_machine(), ask_engine()
    if model is not None:
        from localrun.cli.plan import print_plan

        print_plan(model, machine, build, load_settings(), as_json=as_json)
    elif as_json:
        print(json.dumps(to_json(machine, build), ensure_ascii=False, indent=2))
    else:
        sys.stdout.write(describe(machine, build))


def ask_engine() -> EngineBuild:
    """What the installed llama.cpp says of itself; asked in a child: a crash is an answer too."""
    command = [sys.executable, "-m", "localrun.runner", "--describe"]
    try:
        asked = subprocess.run(
            command, capture_output=True, env=child_environment(), timeout=_ENGINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return EngineBuild(error=f"the engine does not answer: {error}")
    try:
        told = cast("Json", json.loads(asked.stdout))
    except ValueError:
        words = asked.stderr.decode("utf-8", "replace").strip().splitlines()
        last = words[-1] if words else f"exit status {asked.returncode}"
        return EngineBuild(error=f"the engine died: {last}", hint=_REINSTALL)
    if failure := text(told, "error"):
        return EngineBuild(error=failure, hint=text(told, "hint"))
    return EngineBuild(
        llama_version=text(told, "llama_version"),
        system_info=text(told, "system_info"),
        supports_gpu_offload=bool(told.get("supports_gpu_offload")),
        devices=tuple(_device(device) for device in array(told, "devices")),
    )


def _device(told: Json) -> EngineDevice:
    return EngineDevice(
        name=text(told, "name"),
        description=text(told, "description"),
        kind=text(told, "type"),
        total_bytes=int(number(told, "total_bytes")),
        free_bytes=int(number(told, "free_bytes")),
    )


def to_json(machine: Machine, build: EngineBuild) -> dict[str, object]:
    """All facts, for programs."""
    return {"machine": machine.to_json(), "engine": asdict(build) | {"uses_gpu": build.uses_gpu}}


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
    return "".join(f"{name:<11}{value}\n" for name, value in rows)


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
        return f"{build.error}\n{' ' * 11}{build.hint}".rstrip()
    where = ", ".join(device.description for device in build.gpus) if build.uses_gpu else "CPU only"
    return f"llama.cpp {build.llama_version}, {where}"
