"""What the policy is told, what it wants done, and what it remembers. Pure.

Events are past participles, effects are imperatives. Requests and runners are numbers that the
scheduler gives out; models are named by the digest of their weights, so that two tags of one file
share a runner.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

from localrun.errors import LocalrunError
from localrun.messages import Load

Bytes: TypeAlias = Mapping[str, int]
"""Device name (`cpu`, `CUDA0`, …) → bytes."""

Purpose: TypeAlias = Literal["load", "context"]

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request needs of a runner.

    Attributes:
        model: Digest of the weights.
        load: How the model would be loaded for this request alone.
        needs: Bytes that this load takes at its peak, per device.
        n_ctx: Tokens that the request's sequence must be able to hold.
        fixed: Settings of `load` that the request insists on; others may differ.
        keep_alive_s: How long the runner stays after its last request; None keeps what holds.
    """

    model: str
    load: Load
    needs: Bytes
    n_ctx: int
    fixed: tuple[tuple[str, object], ...] = ()
    keep_alive_s: float | None = None

    def __post_init__(self) -> None:
        if not self.is_met_by(self.load, self.load.n_ctx):
            raise ValueError("a demand must be met by its own load")

    def is_met_by(self, load: Load, n_ctx: int) -> bool:
        """Whether a runner loaded like this, with windows of `n_ctx`, can serve the request."""
        if self.n_ctx > n_ctx:
            return False
        return all(getattr(load, name) == value for name, value in self.fixed)


class Status(StrEnum):
    """Where a runner's life stands."""

    BARE = "bare"  # a process without a model
    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"  # told to go; its memory comes back when it is gone


@dataclass(frozen=True, slots=True)
class Runner:
    """A runner as the policy sees it.

    Attributes:
        id: Its number.
        status: Where its life stands.
        demand: The request that it was loaded for; None while bare.
        n_ctx: Tokens a sequence may hold, as loaded.
        n_slots: Sequences that run at once, as loaded.
        held: Bytes granted to it, per device.
        leases: Requests that use it.
        keep_alive_s: Stay after the last lease.
        used_at: The policy's count when it was last used; the smallest goes first.
        timed: A keep-alive timer runs.
        draining: The request that waits for its end; newer ones queue behind it.
        n_overtaken: Newer requests that were let in before that one.
    """

    id: int
    status: Status = Status.BARE
    demand: Demand | None = None
    n_ctx: int = 0
    n_slots: int = 1
    held: Bytes = field(default_factory=dict[str, int])
    leases: frozenset[int] = frozenset()
    keep_alive_s: float = 0.0
    used_at: int = 0
    timed: bool = False
    draining: int | None = None
    n_overtaken: int = 0

    @property
    def model(self) -> str:
        """Digest of its weights; empty while bare."""
        return self.demand.model if self.demand else ""

    @property
    def is_idle(self) -> bool:
        """Loaded and used by nobody."""
        return self.status is Status.READY and not self.leases


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request without a runner. `runner` is the load that is under way for it."""

    id: int
    demand: Demand
    runner: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A runner's unanswered wish for memory. `total` is what it would hold after a yes."""

    runner: int
    ask: int
    total: Bytes
    needs: Bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings allow.

    Attributes:
        max_queue: Requests that may wait.
        max_loaded: Runners with a model at once; 0 is as many as fit.
        keep_alive_s: Default stay of a runner after its last request.
        load_timeout_s: Longest load, not counting the wait for memory.
        spare_s: Stay of a process that was started for a request which never came.
    """

    max_queue: int = 512
    max_loaded: int = 0
    keep_alive_s: float = 300.0
    load_timeout_s: float = 300.0
    spare_s: float = 30.0


@dataclass(frozen=True, slots=True)
class State:
    """Everything the policy remembers. `waiting` and `asks` are in order of arrival."""

    limits: Limits
    budget: Bytes
    runners: Mapping[int, Runner] = field(default_factory=dict[int, Runner])
    waiting: Mapping[int, Waiting] = field(default_factory=dict[int, Waiting])
    asks: tuple[Ask, ...] = ()
    next_runner: int = 1
    clock: int = 0
    closing: bool = False

    def held(self, device: str) -> int:
        """Bytes of a device that runners hold, those on their way out included."""
        return sum(runner.held.get(device, 0) for runner in self.runners.values())


# ── events ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Expected:
    """A request for this model is being prepared and will probably need a runner."""

    model: str


@dataclass(frozen=True, slots=True)
class Requested:
    """A request wants a lease."""

    request: int
    demand: Demand


@dataclass(frozen=True, slots=True)
class Released:
    """A request is over: its lease ended, or its client went away while it waited."""

    request: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A runner takes requests now. `used` is what it holds, per device."""

    runner: int
    n_ctx: int
    n_slots: int
    used: Bytes


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """A runner could not load its model and is on its way out."""

    runner: int
    error: LocalrunError


@dataclass(frozen=True, slots=True)
class Exited:
    """A runner's process is gone, asked or not."""

    runner: int
    error: LocalrunError


@dataclass(frozen=True, slots=True)
class MemoryAsked:
    """A runner is about to take memory and waits for the answer."""

    runner: int
    ask: int
    purpose: Purpose
    needs: Bytes


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The runner's timer ran out: keep-alive, load or spare, by what the runner is now."""

    runner: int


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """A model shall go as soon as nobody uses it."""

    model: str


@dataclass(frozen=True, slots=True)
class BudgetMeasured:
    """What the runners may hold together was measured anew, while none held anything."""

    budget: Bytes


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """The server stops: nobody new is let in, idle runners go."""


Event: TypeAlias = (
    Expected | Requested | Released | Loaded | LoadFailed | Exited | MemoryAsked | TimerFired
    | UnloadAsked | BudgetMeasured | CloseAsked
)  # fmt: skip


# ── effects ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class StartRunner:
    """Start a bare process under this number."""

    runner: int


@dataclass(frozen=True, slots=True)
class SendLoad:
    """Have the process load this."""

    runner: int
    demand: Demand


@dataclass(frozen=True, slots=True)
class StopRunner:
    """End the process; it is no longer used by anybody."""

    runner: int


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Let the request use the runner."""

    request: int
    runner: int


@dataclass(frozen=True, slots=True)
class RefuseLease:
    """End the request with this error."""

    request: int
    error: LocalrunError


@dataclass(frozen=True, slots=True)
class GrantMemory:
    """Say yes to the runner."""

    runner: int
    ask: int


@dataclass(frozen=True, slots=True)
class RefuseMemory:
    """Say no to the runner, with the device that is too small."""

    runner: int
    ask: int
    device: str
    needed: int
    free: int


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Report `TimerFired` after so many seconds; replaces the runner's former timer."""

    runner: int
    after_s: float


@dataclass(frozen=True, slots=True)
class ClearTimer:
    """Forget the runner's timer."""

    runner: int


Effect: TypeAlias = (
    StartRunner | SendLoad | StopRunner | GrantLease | RefuseLease | GrantMemory | RefuseMemory
    | SetTimer | ClearTimer
)  # fmt: skip
