"""What crosses a process border: server ⇄ text worker and server ⇄ runner. Pure.

A frame on the wire is a little-endian u32 length and a msgpack body. Token lists travel as packed
little-endian int32 (`pack_tokens`), because a 100k-token prompt as msgpack integers costs ten times
as much to read. Every request ends exactly once: `Prepared` or `Failed` from the text worker, `End`
(inside a `Step`) or `Failed` from a runner.
"""

import sys
from array import array
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from localrun.errors import LocalrunError, error_classes

MAX_FRAME_BYTES = 64 << 20
"""No side may send a longer frame; a longer announced length means the stream is broken."""

TOKENS_PER_FRAME = 16_384
"""Prompts are sent to a runner in pieces of this many tokens, so that a cancel overtakes them."""

FinishReason: TypeAlias = Literal["stop", "length", "cancelled"]


class Frame(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of every message."""


class Failed(Frame, frozen=True):
    """A request ended with an error. `facts` are the error's own numbers."""

    request_id: int
    code: str
    message: str
    hint: str = ""
    facts: dict[str, int | str] = {}


# ── server → text worker ──────────────────────────────────────────────────────────────────────


class Vocab(Frame, frozen=True):
    """Which vocabulary to use.

    Attributes:
        key: Content digest of the model, the cache key.
        paths: The GGUF file, or all shards in order.
    """

    key: str
    paths: tuple[str, ...]


class Turn(Frame, frozen=True):
    """One message of a conversation as it stands in a request; `extra` holds further fields."""

    role: str
    content: str
    extra: dict[str, Any] = {}


class Prepare(Frame, frozen=True):
    """Render, tokenize and fit one prompt.

    Attributes:
        request_id: Names the answer.
        vocab: Tokenizer and, unless `template` is given, the chat template.
        kind: `raw` takes `prompt` verbatim, `chat` renders `turns` through the template, `fill`
            puts the completion between `prompt` and `suffix`.
        prompt: Used by `raw` and `fill`.
        turns: Used by `chat`.
        template: Text that replaces the model's own template; None keeps it.
        context: Tokens of an earlier answer, put in front (Ollama's deprecated `context`).
        n_ctx: The context window in tokens that the prompt and one more token must fit; 0 takes
            any length.
        n_ctx_train: For the error's hint; 0 if unknown.
        template_language: What `template` is written in.
        suffix: Used by `fill`: the text behind the completion.
        tools: What the model may call, as the client wrote them, keys in their order.
        think: Whether, or how hard, the model is to reason; None leaves it to the template.
        variables: Further variables of the template.
        truncate: Drop the oldest turns, system ones and the last one aside, until the rest fits.
        markers: Texts of special tokens that the reader of the answer wants to see.
        reasoning_end: What closes the reasoning; its tokens come back as `Prepared.closing`.
    """

    request_id: int
    vocab: Vocab
    kind: Literal["raw", "chat", "fill"]
    prompt: str = ""
    turns: tuple[Turn, ...] = ()
    template: str | None = None
    context: bytes = b""
    n_ctx: int = 0
    n_ctx_train: int = 0
    template_language: Literal["jinja", "go"] = "jinja"
    suffix: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    think: bool | str | None = None
    variables: dict[str, Any] = {}
    truncate: bool = False
    markers: tuple[str, ...] = ()
    reasoning_end: str = ""


class CheckGrammar(Frame, frozen=True):
    """Ask whether a grammar can be held with this vocabulary; answered by an empty `Prepared`.

    Attributes:
        request_id: Names the answer.
        vocab: Its special tokens may stand in the grammar.
        grammar: Lark, in llguidance's dialect.
    """

    request_id: int
    vocab: Vocab
    grammar: str


class Tokenize(Frame, frozen=True):
    """Turn text into tokens; answered by `Prepared` with the text unchanged."""

    request_id: int
    vocab: Vocab
    text: str
    add_special: bool = True


class TokenizePair(Frame, frozen=True):
    """Turn a question and a text that may answer it into a rerank model's prompt; as `Tokenize`."""

    request_id: int
    vocab: Vocab
    query: str
    document: str


class Detokenize(Frame, frozen=True):
    """Turn tokens into text; answered by `Prepared` with the tokens unchanged."""

    request_id: int
    vocab: Vocab
    tokens: bytes
    render_special: bool = False


class Forget(Frame, frozen=True):
    """The client of a request is gone; no answer is wanted any more."""

    request_id: int


# ── text worker → server ──────────────────────────────────────────────────────────────────────


class WorkerReady(Frame, frozen=True):
    """The text worker takes requests."""

    pid: int


class Started(Frame, frozen=True):
    """The text worker began a part of this request; the part's time limit counts from here.

    Attributes:
        request_id: Which request; the worker does one at a time.
        phase: `native` loads a vocabulary or tokenizes, `render` runs a template.
    """

    request_id: int
    phase: Literal["native", "render"] = "native"


class Prepared(Frame, frozen=True):
    """A prompt that fits.

    Attributes:
        request_id: Which request.
        tokens: Packed.
        text: What they came from.
        n_dropped: Turns that were left out because the history did not fit.
        preserved: Special tokens behind the request's `markers`, those that the vocabulary has.
        closing: Packed tokens of the request's `reasoning_end`.
    """

    request_id: int
    tokens: bytes
    text: str
    n_dropped: int = 0
    preserved: tuple[int, ...] = ()
    closing: bytes = b""


TextRequest: TypeAlias = Prepare | CheckGrammar | Tokenize | TokenizePair | Detokenize | Forget
TextAnswer: TypeAlias = WorkerReady | Started | Prepared | Failed


# ── server → runner ───────────────────────────────────────────────────────────────────────────


class Load(Frame, frozen=True):
    """Load one model. The counts come from the placement that the planner made.

    Attributes:
        paths: The GGUF file, or all shards in order.
        n_ctx: Tokens one sequence may hold.
        n_cells: Cells of the KV pool that all sequences share.
        n_slots: Sequences that run at once.
        n_seq_max: Sequence ids, running and kept; at most 256.
        n_batch: Tokens of one decode call at most.
        n_ubatch: Tokens of one compute graph at most.
        n_threads: CPU threads of a step.
        n_gpu_layers: Layers on the GPU; 0 is the CPU only.
        main_gpu: GPU for a model that is not split, None to split over all.
        use_mmap: Map the weights instead of reading them.
        type_k: KV cache type of the keys, a GGML name such as `f16` or `q8_0`.
        type_v: The same of the values; a quantized one needs flash attention.
        flash_attention: None lets llama.cpp decide.
        weights_bytes: What the weights take, by device name.
        cell_bytes: What one KV cell takes, by device name.
        compute_bytes: What the compute buffers take, by device name. The runner asks for memory
            in these numbers, for the load and for every context it opens later.
        adapts_threads: Use fewer threads while another program takes their cores.
        embeds: The model only turns texts into vectors: no pool, the embedding context at once.
        adapters: LoRA files to lay over the weights.
    """

    paths: tuple[str, ...]
    n_ctx: int
    n_cells: int
    n_slots: int
    n_seq_max: int
    n_batch: int = 2048
    n_ubatch: int = 512
    n_threads: int = 0
    n_gpu_layers: int = 0
    main_gpu: int | None = None
    use_mmap: bool = True
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attention: bool | None = None
    weights_bytes: dict[str, int] = {}
    cell_bytes: dict[str, int] = {}
    compute_bytes: dict[str, int] = {}
    adapts_threads: bool = True
    embeds: bool = False
    adapters: tuple[str, ...] = ()


class MemoryGranted(Frame, frozen=True):
    """The scheduler's yes to `MemoryAsked`."""

    ask_id: int


class MemoryRefused(Frame, frozen=True):
    """The scheduler's no to `MemoryAsked`, after every eviction that could help."""

    ask_id: int
    needed_bytes: int
    free_bytes: int
    device: str


class Sampling(Frame, frozen=True):
    """How tokens are drawn; the meanings are those of `options.Options`."""

    seed: int = -1
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


class Tokens(Frame, frozen=True):
    """A piece of a prompt (packed tokens), sent before its `Submit`."""

    request_id: int
    tokens: bytes


class Reasoning(msgspec.Struct, frozen=True, array_like=True):
    """How a completion reasons, and how long it may.

    Attributes:
        is_open: The prompt ends inside the reasoning.
        start: Text that opens it.
        end: Text that closes it.
        closing: Packed tokens that are put into the completion to close it early.
        budget: Reasoning tokens at most; negative for no limit.
    """

    is_open: bool
    start: str
    end: str
    closing: bytes
    budget: int = -1


class Submit(Frame, frozen=True):
    """Complete the prompt whose `Tokens` came before.

    Attributes:
        request_id: Names deltas and the end.
        n_prompt: Tokens that must have arrived; another count is a `Failed`.
        scope: Cache scope, derived by the server; prefixes are shared inside one scope only.
        sampling: How tokens are drawn.
        stop: Strings that end the completion; they are not part of it.
        n_predict: Completion tokens at most; negative until the window is full.
        n_ctx: Tokens this sequence may hold, at most the loaded `n_ctx`.
        deterministic: Run alone, on fixed chunks and threads, in a context of its own.
        grammar: What the whole completion must match, Lark in llguidance's dialect; empty is all.
            It is held over the text: a marker is a literal (`"<tool_call>"`), which the model may
            write as one token or spell. `<name>` is a special token that has no text.
        n_logprobs: Alternatives told with each token's log-probability; negative tells none.
        logit_bias: Token id → what is added to its logit.
        preserved: Special tokens that are part of the text.
        reasoning: How the model reasons; None where nothing is to be counted or limited.
    """

    request_id: int
    n_prompt: int
    scope: str
    sampling: Sampling
    stop: tuple[str, ...] = ()
    n_predict: int = -1
    n_ctx: int = 0
    deterministic: bool = False
    grammar: str = ""
    n_logprobs: int = -1
    logit_bias: dict[int, float] = {}
    preserved: tuple[int, ...] = ()
    reasoning: Reasoning | None = None


class EndReasoning(Frame, frozen=True):
    """Have a request that is still reasoning answer now; ignored if it is not."""

    request_id: int


class Embed(Frame, frozen=True):
    """Turn the text whose `Tokens` came before into a vector, or a rerank model's into a score.

    Attributes:
        request_id: Names the answer, `Embedded` or `Failed`.
        n_prompt: Tokens that must have arrived.
    """

    request_id: int
    n_prompt: int


class Cancel(Frame, frozen=True):
    """Stop a request now; it ends with reason `cancelled`. Unknown ids are ignored."""

    request_id: int


class Credit(Frame, frozen=True):
    """The client has taken `n_bytes` of UTF-8 more; a sequence without credit is paused."""

    request_id: int
    n_bytes: int


class AskStats(Frame, frozen=True):
    """Ask for `Stats`."""


RunnerRequest: TypeAlias = (
    Load
    | MemoryGranted
    | MemoryRefused
    | Tokens
    | Submit
    | EndReasoning
    | Embed
    | Cancel
    | Credit
    | AskStats
)


# ── runner → server ───────────────────────────────────────────────────────────────────────────


class RunnerReady(Frame, frozen=True):
    """The runner has its engine and waits for `Load`."""

    pid: int
    llama_version: str


class MemoryAsked(Frame, frozen=True):
    """The runner is about to take memory and waits for the answer.

    Attributes:
        ask_id: Names the answer.
        purpose: `load` for weights, pool and compute buffers; `context` for one more context.
        need_bytes: Device name (`cpu`, `CUDA0`, …) → bytes at the peak.
    """

    ask_id: int
    purpose: Literal["load", "context"]
    need_bytes: dict[str, int]


class Loaded(Frame, frozen=True):
    """The model takes requests. `used_bytes` is what it holds per device."""

    n_ctx: int
    n_cells: int
    n_slots: int
    n_ctx_train: int
    n_vocab: int
    n_gpu_layers: int
    used_bytes: dict[str, int]
    load_s: float


class LoadFailed(Frame, frozen=True):
    """The model did not load; the runner exits after this."""

    code: str
    message: str
    hint: str = ""


class Logprob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How likely a token was, in natural logarithms of the model's own distribution.

    Attributes:
        piece: Bytes of the token.
        logprob: Of the token that was drawn.
        top: The likeliest alternatives, (bytes, logprob), best first.
    """

    piece: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


class Delta(Frame, frozen=True, gc=False):
    """New text of one request and its tokens; text lags while UTF-8 or a stop string is open.

    `logprobs` has one item for each of `tokens` where the request asked for them.
    """

    request_id: int
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[Logprob, ...] = ()


class Embedded(Frame, frozen=True, gc=False):
    """The vector of one text.

    Attributes:
        request_id: Which request.
        vector: Little-endian float32, pooled as the model says, of length 1 (L2); of a rerank
            model one raw score.
        n_prompt: Tokens of the text.
    """

    request_id: int
    vector: bytes
    n_prompt: int


class End(Frame, frozen=True, gc=False):
    """The one ending of a request that was not an error.

    Attributes:
        request_id: Which request.
        reason: `stop` (end token or stop string), `length` or `cancelled`.
        n_prompt: Tokens of the prompt, cached ones included.
        n_cached: Of these, how many came from the KV cache.
        n_completion: Completion tokens.
        wait_s: From arrival to the first prompt token computed.
        prefill_s: From there to the first completion token.
        decode_s: From there to the end.
        stop: The stop string that ended it; empty if none did.
        n_reasoning: Of the completion tokens, those of the reasoning, where it was counted.
    """

    request_id: int
    reason: FinishReason
    n_prompt: int
    n_cached: int
    n_completion: int
    wait_s: float
    prefill_s: float
    decode_s: float
    stop: str = ""
    n_reasoning: int = 0


class Step(Frame, frozen=True, gc=False):
    """All that one engine step produced; a request's deltas precede its end."""

    deltas: tuple[Delta, ...]
    ends: tuple[End, ...] = ()


class Stats(Frame, frozen=True):
    """Counters since the load, and the state of now."""

    n_running: int
    n_waiting: int
    n_kept: int
    n_cells: int
    n_cells_used: int
    n_prompt_tokens: int
    n_prompt_computed: int
    n_completion_tokens: int
    n_steps: int


RunnerAnswer: TypeAlias = (
    RunnerReady | MemoryAsked | Loaded | LoadFailed | Step | Embedded | Failed | Stats
)

Message: TypeAlias = TextRequest | TextAnswer | RunnerRequest | RunnerAnswer

_encoder = msgspec.msgpack.Encoder()
_text_request = msgspec.msgpack.Decoder(TextRequest)
_text_answer = msgspec.msgpack.Decoder(TextAnswer)
_runner_request = msgspec.msgpack.Decoder(RunnerRequest)
_runner_answer = msgspec.msgpack.Decoder(RunnerAnswer)


def encode(message: Message) -> bytes:
    """The message as a whole frame, length included."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "little") + body


def decode_text_request(body: bytes) -> TextRequest:
    """Read what the text worker receives. Raises `msgspec.DecodeError` on anything else."""
    message: TextRequest = _text_request.decode(body)
    return message


def decode_text_answer(body: bytes) -> TextAnswer:
    """Read what the text worker sends. Raises `msgspec.DecodeError` on anything else."""
    message: TextAnswer = _text_answer.decode(body)
    return message


def decode_runner_request(body: bytes) -> RunnerRequest:
    """Read what a runner receives. Raises `msgspec.DecodeError` on anything else."""
    message: RunnerRequest = _runner_request.decode(body)
    return message


def decode_runner_answer(body: bytes) -> RunnerAnswer:
    """Read what a runner sends. Raises `msgspec.DecodeError` on anything else."""
    message: RunnerAnswer = _runner_answer.decode(body)
    return message


def pack_tokens(tokens: Iterable[int]) -> bytes:
    """Token ids as little-endian int32."""
    packed = array("i", tokens)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_tokens(packed: bytes) -> "array[int]":
    """The inverse of `pack_tokens`."""
    tokens = array("i")
    tokens.frombytes(packed)
    if sys.byteorder == "big":
        tokens.byteswap()
    return tokens


def failed(request_id: int, error: LocalrunError) -> Failed:
    """An error as the message that carries it over the border."""
    return Failed(request_id, error.code, error.message, error.hint, error.facts())


def error_of(
    code: str, message: str, hint: str, facts: Mapping[str, int | str] | None = None
) -> LocalrunError:
    """The error that a `Failed` or `LoadFailed` carried, as its own class, sentence kept."""
    cls = error_classes().get(code, LocalrunError)
    error = cls.__new__(cls, message)
    LocalrunError.__init__(error, message, hint=hint)
    for name, value in (facts or {}).items():
        setattr(error, name, value)
    return error
