"""The protocol between the scheduler, the server and whatever completes a prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from localrun.errors import LocalrunError
from localrun.messages import Delta, Embedded, End, Load, Loaded, MemoryAsked, Submit


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt to complete.

    Attributes:
        tokens: The prompt, packed (`messages.pack_tokens`).
        submit: How; the runner's handle fills in its `request_id` and `n_prompt`.
    """

    tokens: bytes
    submit: Submit


Part: TypeAlias = Delta | End
"""What a completion is made of: any number of deltas, then one end."""

Sink: TypeAlias = Callable[[Sequence[Part]], bool]
"""Takes deltas on the spot, or says False: then they wait for `Completion.next`."""


class Completion(Protocol):
    """One running completion. Used by one task, on the event loop."""

    async def next(self) -> list[Part]:
        """Wait for what has come since the last call, at least one part, in order.

        Raises:
            LocalrunError: If the request failed; there is no end then.
        """
        ...

    def divert(self, sink: Sink) -> None:
        """Give deltas to `sink` while somebody waits in `next`, who is then not woken."""
        ...

    def taken(self, n_bytes: int) -> None:
        """The client has taken so many bytes of text: the runner may go on."""
        ...

    def end_reasoning(self) -> None:
        """Have the model answer now, if it is still reasoning."""
        ...

    def close(self) -> None:
        """No more is wanted; cancels the request if it has not ended."""
        ...


class Runner(Protocol):
    """A running child. All methods are called on the event loop."""

    @property
    def pid(self) -> int:
        """Process id."""
        ...

    def load(self, load: Load) -> None:
        """Have it load a model; called once."""
        ...

    def answer_memory(self, ask: int, refused: "Refused | None" = None) -> None:
        """Answer a `MemoryAsked`: yes, or no with the reason."""
        ...

    def complete(self, job: Job) -> Completion:
        """Begin to complete a prompt."""
        ...

    async def embed(self, tokens: bytes) -> Embedded:
        """Turn one text (packed tokens) into a vector; texts of several callers share a step.

        Raises:
            LocalrunError: If the runner cannot, or is gone.
        """
        ...

    def stop(self) -> None:
        """Ask it to leave; `RunnerEvents.exited` follows."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    async def closed(self, timeout_s: float) -> None:
        """Wait until it is gone; it is killed after `timeout_s` seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Refused:
    """Why memory is refused: what would be needed and is free on the device that is too small."""

    device: str
    needed_bytes: int
    free_bytes: int


class RunnerEvents(Protocol):
    """What a runner tells its owner, on the event loop."""

    def loaded(self, loaded: Loaded) -> None:
        """It takes requests."""
        ...

    def load_failed(self, error: LocalrunError) -> None:
        """It could not load, and leaves."""
        ...

    def memory_asked(self, asked: MemoryAsked) -> None:
        """It waits for `Runner.answer_memory`."""
        ...

    def exited(self, error: LocalrunError) -> None:
        """It is gone, asked or not; called once, after everything else."""
        ...


class StartRunner(Protocol):
    """Starts runners; the scheduler is given one, so that tests can give a fake."""

    async def __call__(self, events: RunnerEvents) -> Runner:
        """Start a bare runner.

        Raises:
            LocalrunError: If the process cannot be started.
        """
        ...

    def close(self) -> None:
        """Let go of what is kept ready; the runners that were started are their owners'."""
        ...
