"""Typed access to OpenAI's requests, and the fields that several of them share. Pure.

Types and words are those of Ollama's structs; what Ollama ignores and OpenAI knows is read here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import cast

from localrun.errors import BadRequest
from localrun.server.durations import parse_keep_alive
from localrun.server.openai.errors import InvalidField, UnsupportedField
from localrun.server.schema.decode import Fields, parse_json, plain

MAX_N = 128
MAX_BIASES = 1024
MAX_TOP_LOGPROBS = 20

_EFFORTS: dict[str, bool | str | None] = {
    "": None,
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
    "xhigh": "max",
    "ultra": "max",
}
_FURTHER_OPTIONS = (
    "top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n", "num_ctx", "deterministic",
)  # fmt: skip
"""Options of Ollama that stand beside OpenAI's fields, as other local servers take them."""


class Body(Fields):
    """An object of a request, in OpenAI's types."""

    def number(self, name: str) -> float | None:
        """A number."""
        value = self.all.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, value, "float64")
        if not math.isfinite(value):
            raise self.wrong(name, value, "float64")
        return float(value)

    def whole(self, name: str, low: int, high: int) -> int | None:
        """A whole number between two others."""
        value = self.count(name)
        if value is not None and not low <= value <= high:
            raise InvalidField(f"{name} must be between {low} and {high}", name)
        return value

    def inner(self, name: str, go_type: str) -> "Body | None":
        """An object with fields of its own."""
        value = self.all.get(name)
        if value is None:
            return None
        return Body(value, self._struct, f"{self._path}{name}.", go_type)

    def inners(self, name: str, go_type: str) -> "list[Body]":
        """An array of such objects; empty if absent."""
        values = self.array(name, go_type) or []
        item_type = go_type.removeprefix("[]")
        return [Body(value, self._struct, f"{self._path}{name}.", item_type) for value in values]


def read_body(body: bytes, struct: str) -> Body:
    """The fields of a request's body.

    Raises:
        BadRequest: If it is no JSON object, in Go's words.
    """
    if not body.strip():
        raise BadRequest("EOF")
    return Body(plain(parse_json(body)), struct, "", f"openai.{struct}")


def read_name(body: Body) -> str:
    """The model's name, empty without one: what that means the routes say."""
    return body.text("model") or ""


def read_options(
    body: Body,
    limits: Sequence[str],
    defaults: Mapping[str, object] = {"temperature": 1.0, "top_p": 1.0},
) -> dict[str, object]:
    """Ollama's options from OpenAI's fields.

    Args:
        body: The request.
        limits: Fields that limit the completion, the first one given counts.
        defaults: What holds where nothing is said, instead of the model's own parameters.

    Raises:
        BadRequest: If one has a wrong type; ranges are checked where options are merged.
    """
    given = body.record("options") or {}
    options: dict[str, object] = {**defaults, **given}
    for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty"):
        if (number := body.number(name)) is not None:
            options[name] = number
    for name in _FURTHER_OPTIONS:
        if (value := body.all.get(name)) is not None:
            options[name] = value
    if (seed := body.count("seed")) is not None:
        options["seed"] = seed
    if (n_tokens := _first_count(body, limits)) is not None:
        options["num_predict"] = n_tokens
    if (stops := _read_stops(body)) is not None:
        options["stop"] = stops
    return options


def _first_count(body: Body, names: Sequence[str]) -> int | None:
    counts = [count for name in names if (count := body.count(name)) is not None]
    return counts[0] if counts else None


def _read_stops(body: Body) -> list[str] | None:
    value = body.all.get("stop")
    if value is None:
        return None
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, str):
            raise InvalidField(f"invalid type for 'stop' field: {go_type(item)}", "stop")
    return cast("list[str]", items)


def go_type(value: object) -> str:
    """The type that Go decodes a JSON value of no known type to."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "float64"
    kinds: tuple[tuple[type, str], ...] = (
        (list, "[]interface {}"),
        (dict, "map[string]interface {}"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "<nil>")


def read_keep_alive(body: Body) -> float | None:
    """How long the model stays; our extension."""
    return parse_keep_alive(body.all.get("keep_alive"))


def read_think(body: Body, path: str = "reasoning_effort") -> bool | str | None:
    """Whether, or how hard, to reason: `reasoning.effort`, else `reasoning_effort`.

    Raises:
        InvalidField: If there is no such effort.
    """
    reasoning = body.inner("reasoning", "openai.Reasoning")
    effort = body.text("reasoning_effort") if reasoning is None else reasoning.text("effort")
    if (effort or "") not in _EFFORTS:
        raise InvalidField(
            f'invalid reasoning value: "{effort}" (must be "minimal", "low", "medium", "high",'
            ' "xhigh", "ultra", "max", or "none")',
            path if reasoning is None else "reasoning.effort",
        )
    return _EFFORTS[effort or ""]


def read_n_logprobs(body: Body) -> int:
    """Alternatives to tell with each token; -1 without log-probabilities.

    Raises:
        BadRequest: If there are too many.
    """
    n_top = body.count("top_logprobs") or 0
    if not 0 <= n_top <= MAX_TOP_LOGPROBS:
        raise InvalidField("top_logprobs must be between 0 and 20", "top_logprobs")
    return n_top if body.flag("logprobs") or n_top else -1


def read_biases(body: Body) -> dict[int, float]:
    """`logit_bias`: token ids as strings, and what is added to their logits.

    Raises:
        InvalidField: If one is no id, or a number out of its range.
    """
    given = body.record("logit_bias") or {}
    if len(given) > MAX_BIASES:
        raise InvalidField(f"logit_bias takes at most {MAX_BIASES} tokens", "logit_bias")
    biases: dict[int, float] = {}
    for key, value in given.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise InvalidField(f"logit_bias: {key!r} is no token id", "logit_bias")
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 100:
            raise InvalidField(
                f"logit_bias: the bias of token {key} must be between -100 and 100", "logit_bias"
            )
        biases[int(key)] = float(value)
    return biases


def read_variables(body: Body) -> dict[str, object]:
    """Further variables of the chat template, as vLLM and llama-server take them."""
    return body.record("chat_template_kwargs") or {}


def refuse_fields(body: Body, names: Mapping[str, str]) -> None:
    """Refuse fields that would be ignored, each with the hint that stands beside its name.

    Raises:
        UnsupportedField: For the first one that says something.
    """
    for name, hint in names.items():
        if body.all.get(name):
            raise UnsupportedField(f"{name} is not supported", name, hint=hint)
