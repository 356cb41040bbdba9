"""What the store reports while it works: Ollama's statuses, and a little beside them. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class PullEvent:
    """One line of the progress of a pull, a push or a creation.

    Attributes:
        status: What is being done.
        digest: Of the blob on its way; empty where there is none.
        total: Its bytes.
        completed: Of them, how many are here.
        plan: What could be taken, and why which was.
        hint: Something worth knowing that stops nothing.
        name: Set by `success`: the name under which the model is now here.
    """

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0
    plan: list[dict[str, object]] | None = None
    hint: str = ""
    name: str = ""


Report: TypeAlias = Callable[[PullEvent], None]


def tell_blob(
    report: Report, digest: str, total: int, completed: int, *, verb: str = "pulling"
) -> None:
    """Report how far a blob is."""
    short = digest.removeprefix("sha256:")[:12]
    report(PullEvent(f"{verb} {short}", digest, total, completed))
