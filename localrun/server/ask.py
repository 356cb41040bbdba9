"""What a client asks for and what it gets, in no dialect: the border between them and the core.

A dialect reads its request into an `Ask`, and writes pieces of the answer with a `Writer`;
`server/complete.py` does everything between.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from localrun.messages import End, Logprob, Prepare, Prepared
from localrun.output.pieces import CallDone, Piece
from localrun.store.library import StoredModel

PromptOf: TypeAlias = Callable[[StoredModel], Prepare]
"""From the model to what the text worker renders (`server/prompts.py` has the makers)."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One completion, or `n` of them.

    Attributes:
        model: Name as the client wrote it.
        prompt: Makes the prompt; tools, think and the rest below are laid into it by the core.
        verb: What the model must be able to do, for the error: `chat`, `generate`, `insert`.
        options: Ollama's options by name, checked where they are merged.
        stream: Answer as it comes.
        keep_alive_s: Stay of the model afterwards; None keeps what holds.
        think: Whether, or how hard (`low`, `medium`, `high`, `max`), to reason; None: as the model
            does by itself.
        forgives_think: Drop `think` where the model cannot, instead of a 400.
        thinking_budget: Reasoning tokens at most; negative for no limit.
        format: `json`, a JSON schema, or None.
        tools: `{"type": "function", "function": {…}}` each, keys in the client's order.
        tool_choice: `auto`, `none`, `required`, or `name:` and a tool's name.
        parallel_tool_calls: More than one call in one answer is wanted.
        truncate: Drop the oldest turns if the history does not fit; else that is a 400.
        n_logprobs: Alternatives to tell with each token; negative for no log-probabilities.
        logit_bias: Token id → what is added to its logit.
        variables: Further variables of the chat template.
        n: Completions of this one prompt.
        render_only: Answer with the rendered prompt.
        n_images: Images in the prompt; refused where the model has no eyes.
    """

    model: str
    prompt: PromptOf
    verb: str = "chat"
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    stream: bool = False
    keep_alive_s: float | None = None
    think: bool | str | None = None
    forgives_think: bool = False
    thinking_budget: int = -1
    format: str | Mapping[str, object] | None = None
    tools: Sequence[Mapping[str, object]] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    truncate: bool = True
    n_logprobs: int = -1
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    variables: Mapping[str, object] = field(default_factory=dict[str, object])
    n: int = 1
    render_only: bool = False
    n_images: int = 0


@dataclass(frozen=True, slots=True)
class Begin:
    """What is known when the first token is about to come.

    Attributes:
        prepared: The prompt: its tokens, its text, how many turns were left out.
        created_s: Unix time of the request.
    """

    prepared: Prepared
    created_s: float

    @property
    def n_prompt(self) -> int:
        """Tokens of the prompt."""
        return len(self.prepared.tokens) // 4


@dataclass(slots=True)
class Answer:
    """One completion, gathered while it comes; complete once it has an end.

    Attributes:
        index: Which of the `n` completions.
        content: Words for the reader.
        thinking: Words of the reasoning.
        calls: Tool calls, complete.
        logprobs: One item a token, where asked for.
        tokens: All token ids, reasoning and calls included.
        end: Reason and counts; set last.
        metrics: Ollama's counts and durations in ns, what is 0 left out; set last.
    """

    index: int
    begin: Begin
    content: str = ""
    thinking: str = ""
    calls: list[CallDone] = field(default_factory=list[CallDone])
    logprobs: list[Logprob] = field(default_factory=list[Logprob])
    tokens: list[int] = field(default_factory=list[int])
    end: End | None = None
    metrics: dict[str, object] = field(default_factory=dict[str, object])

    @property
    def finished(self) -> End:
        """The end, for those who are called when there is one."""
        assert self.end is not None
        return self.end


class Writer(Protocol):
    """One dialect's bytes for one request: no waiting, no state outside itself.

    Attributes:
        content_type: Of a streamed answer.
        ping: What keeps an idle stream's connection open; empty for a dialect without it.
    """

    content_type: bytes
    ping: bytes

    def begin(self, begin: Begin, /) -> bytes:
        """What a stream opens with; may be empty."""
        ...

    def text(self, text: str, /) -> bytes:
        """The hot path: a piece of content of the only completion, without log-probabilities."""
        ...

    def pieces(self, index: int, pieces: Sequence[Piece], logprobs: Sequence[Logprob], /) -> bytes:
        """Pieces of completion `index`, and the log-probabilities of the tokens behind them."""
        ...

    def end(self, answer: Answer, /) -> bytes:
        """What ends completion `answer.index` in a stream; its texts have been written."""
        ...

    def close(self, answers: Sequence[Answer], /) -> bytes:
        """What ends the stream, after all ends; may be empty."""
        ...

    def whole(self, answers: Sequence[Answer], /) -> bytes:
        """The whole answer as one body, of those who do not stream."""
        ...
