"""One request inside the engine: its tokens, how far they are computed, its text and its times."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from localrun.messages import Submit
from localrun.runner.reasoning import ReasoningTrack
from localrun.runner.stops import TextAssembler

if TYPE_CHECKING:
    from array import array

    from localrun.llama import Matcher
    from localrun.messages import Logprob
    from localrun.runner.draw import Drawer
    from localrun.runner.lane import Lane

CREDIT_WINDOW_BYTES = 64 << 10
"""Text a client may be behind before its sequence is paused."""


@dataclass(slots=True, eq=False)
class Sequence:
    """A request from its arrival to its end.

    Attributes:
        request: As submitted.
        tokens: The prompt and, after it, the completion so far.
        n_prompt: Tokens of the prompt.
        arrived_s: When it came, on the engine's clock.
        text: Turns token bytes into text.
        lane: Where its KV cells are; None while it waits or after a preemption.
        seq_id: Its id in that lane.
        n_past: Tokens that are in the KV cache.
        n_cached: Prompt tokens that were there already when it was first admitted.
        n_completion: Tokens drawn, the end token included.
        leader: A running sequence that computes a prefix this one waits for.
        leader_target: Tokens of the leader that must be computed.
        started_s: When its first token was planned, 0 before.
        first_token_s: When its first completion token was drawn, 0 before.
        n_uncredited: Bytes of text sent that the client has not taken yet.
        unsent: Tokens drawn since the last delta.
        logprobs: Of each of these, where the request asks for them.
        reasoning: Follows the completion's reasoning, where the request has one.
        awaits_grammar: Its grammar is being made; it is not admitted before.
        matcher: Its grammar, from when it is made; the drawer takes it.
        drawer: Made at the first admission; survives a preemption.
    """

    request: Submit
    tokens: "array[int]"
    n_prompt: int
    arrived_s: float
    text: TextAssembler
    lane: "Lane | None" = None
    seq_id: int = -1
    n_past: int = 0
    n_cached: int = -1
    n_completion: int = 0
    leader: "Sequence | None" = None
    leader_target: int = 0
    started_s: float = 0.0
    first_token_s: float = 0.0
    n_uncredited: int = 0
    unsent: list[int] = field(default_factory=list[int])
    logprobs: "list[Logprob]" = field(default_factory=list["Logprob"])
    reasoning: ReasoningTrack | None = None
    awaits_grammar: bool = False
    matcher: "Matcher | None" = None
    drawer: "Drawer | None" = None

    @classmethod
    def begin(cls, request: Submit, prompt: "array[int]", now_s: float) -> "Sequence":
        """A request that has just come."""
        return cls(
            request,
            prompt,
            len(prompt),
            now_s,
            TextAssembler(request.stop),
            reasoning=ReasoningTrack(request.reasoning) if request.reasoning else None,
            awaits_grammar=bool(request.grammar),
        )

    def close(self) -> None:
        """Free what is native."""
        if self.drawer is not None:
            self.drawer.close()
        elif self.matcher is not None:
            self.matcher.close()

    @property
    def n_pending(self) -> int:
        """Tokens that are not in the KV cache yet."""
        return len(self.tokens) - self.n_past

    @property
    def is_decoding(self) -> bool:
        """Whether the one token to feed is one it has just drawn."""
        return self.n_completion > 0 and self.n_pending == 1

    @property
    def is_paused(self) -> bool:
        """Whether its client is too far behind to be given more."""
        return self.n_uncredited > CREDIT_WINDOW_BYTES

    @property
    def is_parked(self) -> bool:
        """Whether it still waits for a leader to compute the prefix they share."""
        leader = self.leader
        return leader is not None and leader.lane is not None and leader.n_past < self.leader_target
