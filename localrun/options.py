"""Ollama's `options`: defaults, types and merging. Pure.

Source: Ollama's `api.Options` and `api.Runner` (reference of 2026-08): a JSON null keeps the
previous value, floats given for integers are truncated, unknown names are ignored by the API.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import cast

from localrun.errors import InvalidOption


@dataclass(frozen=True, slots=True)
class Options:
    """What a request may set; `None` means "chosen by localrun".

    Attributes:
        num_ctx: Context window of one sequence in tokens; None is the planner's choice.
        num_batch: Tokens of one decode call; None is the planner's choice.
        num_gpu: Layers on the GPU; -1 is the planner's choice, 0 the CPU only.
        main_gpu: Index of the GPU for a model that is not split.
        use_mmap: Map the weights; None is the planner's choice.
        num_thread: Threads of a step; 0 is the planner's choice.
        num_keep: Prompt tokens kept by a context shift (used where `shift` is asked).
        seed: Sampling seed; negative is random.
        num_predict: Completion tokens at most; -1 until the window is full, -2 the same.
        top_k: Candidates kept; 0 keeps all.
        top_p: Nucleus mass, 1.0 keeps all.
        min_p: Smallest probability relative to the best, 0.0 keeps all.
        typical_p: Locally typical mass, 1.0 keeps all.
        repeat_last_n: Window of the penalties in tokens; 0 off, -1 the context window.
        temperature: 0 is greedy.
        repeat_penalty: 1.0 is off.
        presence_penalty: 0.0 is off.
        frequency_penalty: 0.0 is off.
        stop: Strings that end the completion.
        deterministic: Run alone on fixed chunks: the same prompt, options and seed give the
            same bytes, whatever else runs.
        thinking_budget: Reasoning tokens at most; negative for no limit.
    """

    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int = -1
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int = 0
    num_keep: int = 4
    seed: int = -1
    num_predict: int = -1
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    temperature: float = 0.8
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = field(default=())
    deterministic: bool = False
    thinking_budget: int = -1

    @property
    def sampling_seed(self) -> int:
        """The seed to sample with: who asks for determinism without one gets the same always."""
        return 0 if self.deterministic and self.seed < 0 else self.seed


_KINDS = {
    f.name: f.type.__name__ if isinstance(f.type, type) else str(f.type) for f in fields(Options)
}
_RANGES: dict[str, tuple[float, float]] = {
    "num_ctx": (4, 1 << 24),
    "num_batch": (1, 1 << 16),
    "num_gpu": (-1, 1 << 16),
    "main_gpu": (0, 255),
    "num_thread": (0, 1024),
    "num_keep": (-1, 1 << 24),
    "seed": (-(1 << 63), (1 << 63) - 1),
    "num_predict": (-2, 1 << 31),
    "thinking_budget": (-1, 1 << 31),
    "top_k": (-(1 << 31), 1 << 31),
    "repeat_last_n": (-1, 1 << 24),
    "temperature": (0.0, 1e6),
    "top_p": (0.0, 1e6),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1e6),
    "repeat_penalty": (1e-3, 1e6),
    "presence_penalty": (-1e6, 1e6),
    "frequency_penalty": (-1e6, 1e6),
}
_AUTOMATIC: dict[str, int | None] = {
    "num_ctx": None, "num_batch": None, "num_gpu": -1, "num_thread": 0,
}  # fmt: skip
"""What a number below the range means, where Ollama has a meaning for it."""
_CLAMPED = {"temperature", "top_k", "top_p", "min_p", "typical_p", "num_predict", "thinking_budget"}
"""Options whose engine takes a number beyond the range for the end of the range."""
_CHECKED_ONLY = {"draft_num_predict"}
"""Ollama's options for what there is not here: a wrong type is refused all the same."""
_MAX_STOPS, _MAX_STOP_BYTES = 64, 4096


def merge_options(base: Options, changes: Mapping[str, object]) -> Options:
    """Lay `changes` over `base`, as Ollama merges built-ins, model parameters and a request.

    Args:
        base: What holds where `changes` is silent.
        changes: JSON object; unknown names are ignored, nulls keep the base.

    Raises:
        InvalidOption: If a known option has a wrong type or is out of its range.
    """
    given = {
        name: _convert(name, value)
        for name, value in changes.items()
        if name in _KINDS and value is not None
    }
    for name in _CHECKED_ONLY & changes.keys():
        if changes[name] is not None:
            _number(name, changes[name], "integer")
    return replace(base, **given) if given else base  # type: ignore[arg-type]  # _convert checked


def _convert(name: str, value: object) -> object:
    kind = _KINDS[name]
    if kind.startswith("bool"):
        return _typed(name, value, bool, "boolean")
    if kind.startswith("tuple"):
        return _stops(name, value)
    number = _number(name, value, "float32" if kind == "float" else "integer")
    return _in_range(name, float(number) if kind == "float" else int(number))


def _number(name: str, value: object, word: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(f'option "{name}" must be of type {word}')
    if value != value or value in (float("inf"), float("-inf")):
        raise InvalidOption(f'option "{name}" must be a finite number')
    return value


def _in_range(name: str, number: float) -> int | float | None:
    low, high = _RANGES[name]
    if low <= number <= high:
        return number
    if name in _CLAMPED:
        return min(max(number, low), high)
    if name in _AUTOMATIC and number < min(low, 1):
        return _AUTOMATIC[name]
    if name == "seed":
        return int(number) & 0x7FFF_FFFF_FFFF_FFFF
    raise InvalidOption(f'option "{name}" must be between {low} and {high}')


def _typed(name: str, value: object, cls: type, word: str) -> object:
    if not isinstance(value, cls):
        raise InvalidOption(f'option "{name}" must be of type {word}')
    return value


def _stops(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidOption(f'option "{name}" must be of type array')
    items = cast("Sequence[object]", value)
    if not all(isinstance(item, str) for item in items):
        raise InvalidOption(f'option "{name}" must be of an array of strings')
    stops = tuple(item for item in items if isinstance(item, str) and item)
    if len(stops) > _MAX_STOPS or any(len(s.encode()) > _MAX_STOP_BYTES for s in stops):
        raise InvalidOption(
            f'option "{name}" takes at most {_MAX_STOPS} strings of {_MAX_STOP_BYTES} bytes'
        )
    return stops
