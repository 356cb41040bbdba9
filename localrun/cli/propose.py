"""Which model a bare `localrun run` takes: what is here, or the best one for this machine."""

import http.client
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

import click

from localrun.cli.client import Client
from localrun.cli.tables import size_text
from localrun.cli.wire import array, text, words
from localrun.config import Settings, child_environment
from localrun.hardware.budget import Budget, budget_of

EMBEDDED_DEFAULT = "smollm2:135m"
_HUB = "https://huggingface.co"
_HUB_S = 3.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A chat model and the bytes that its Q4_K_M with a usual context window takes."""

    name: str
    need_bytes: int
    download_bytes: int


LADDER = (
    Proposal("gemma3:27b", 20_000_000_000, 16_500_000_000),
    Proposal("gemma3:12b", 9_500_000_000, 7_300_000_000),
    Proposal("llama3.1:8b", 6_400_000_000, 4_920_000_000),
    Proposal("gemma3:4b", 3_600_000_000, 2_490_000_000),
    Proposal("llama3.2:1b", 1_400_000_000, 808_000_000),
)
"""Best first. Models that think aloud are left out until their thoughts are told apart."""

_MOST_ON_CPU = {1: "llama3.2:1b", 2: "llama3.2:1b", 3: "llama3.2:1b"}


def propose(budget: Budget) -> Proposal | None:
    """The best chat model that runs well in this budget; None if none of them fits.

    On a GPU that is the largest that fits it wholly; on a CPU, where each token reads all the
    weights, the largest that still answers at reading speed.
    """
    gpu_bytes = sum(gpu.usable_bytes for gpu in budget.gpus)
    for proposal in LADDER:
        if budget.gpus and not budget.is_unified and proposal.need_bytes <= gpu_bytes:
            return proposal
        if _is_quick_on_cpu(proposal, budget) and proposal.need_bytes <= budget.cpu_bytes:
            return proposal
    return None


def _is_quick_on_cpu(proposal: Proposal, budget: Budget) -> bool:
    if budget.is_unified:
        return proposal.need_bytes <= budget.cpu_bytes * 0.7
    limit = _MOST_ON_CPU.get(budget.n_threads, "gemma3:4b")
    names = [step.name for step in LADDER]
    return names.index(proposal.name) >= names.index(limit)


def choose_model(client: Client, settings: Settings) -> str:
    """The model of a bare `run`.

    The newest chat model on this machine, if there is one beside the embedded default; else, with
    the Hub in reach and a person to ask, the proposal; else the embedded default.
    """
    here = [
        text(model, "name")
        for model in array(client.get("/api/tags"), "models")
        if "embedding" not in words(model, "capabilities")
    ]
    own = [name for name in here if name != EMBEDDED_DEFAULT]
    if own:
        print(f"Using {own[0]}, the newest model here", file=sys.stderr)
        return own[0]
    if sys.stdin.isatty() and sys.stderr.isatty() and is_hub_reachable(settings):
        return _ask(settings)
    print(f"Using {EMBEDDED_DEFAULT}, a small test model", file=sys.stderr)
    return EMBEDDED_DEFAULT


def _ask(settings: Settings) -> str:
    from localrun.hardware.probe import describe_engine, probe

    uses_gpu = describe_engine(child_environment()).uses_gpu
    machine = probe(nvml_library=settings.nvml_library)
    overhead = settings.gpu_overhead_bytes
    budget = budget_of(machine, overhead_bytes=overhead, engine_uses_gpu=uses_gpu)
    proposal = propose(budget)
    if proposal is None:
        return EMBEDDED_DEFAULT
    size = size_text(proposal.download_bytes)
    click.echo(f"The best chat model for this machine is {proposal.name} (about {size}).", err=True)
    answer: str = click.prompt(
        f"Enter fetches it, n takes the small test model {EMBEDDED_DEFAULT}, or name another",
        default=proposal.name,
        show_default=False,
        err=True,
    )
    return EMBEDDED_DEFAULT if answer.strip().lower() in {"n", "no"} else answer.strip()


def is_hub_reachable(settings: Settings) -> bool:
    """Whether the Hub, or the mirror in its place, answers within three seconds."""
    if settings.hf_offline:
        return False
    parts = urlsplit(settings.hf_endpoint or _HUB)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_HUB_S)
    try:
        connection.request("HEAD", "/")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
