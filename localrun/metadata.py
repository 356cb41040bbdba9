"""Typed reading of GGUF metadata. Pure."""

from collections.abc import Mapping
from typing import TypeAlias

from localrun.errors import BadModelFile

MetadataValue: TypeAlias = "str | int | float | bool | list[MetadataValue] | None"
"""A metadata value; None stands for an array that was not kept."""

FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""`general.file_type` ids and the names that people know them by."""

GUESSED = 1024
"""llama.cpp's flag on a file type that was guessed from the tensors."""

_MAX_COUNT = 1 << 31


class Keys:
    """Typed reading of metadata; keys of the architecture are named without its prefix.

    Counts raise BadModelFile where the value is none; texts and flags fall back.
    """

    def __init__(self, metadata: Mapping[str, MetadataValue], lengths: Mapping[str, int]) -> None:
        self._metadata, self._lengths = metadata, lengths
        self.architecture = self.text("general.architecture")

    def value(self, key: str) -> MetadataValue:
        """The value of a key of the architecture."""
        return self._metadata.get(f"{self.architecture}.{key}")

    def length(self, key: str) -> int:
        """Length of an array, by whole key; 0 without one."""
        return self._lengths.get(key, 0)

    def text(self, key: str) -> str:
        """A text by whole key, empty if unsaid."""
        value = self._metadata.get(key)
        return value if isinstance(value, str) else ""

    def flag(self, key: str, *, default: bool) -> bool:
        """A flag of the architecture."""
        value = self.value(key)
        return value if isinstance(value, bool) else default

    def optional_flag(self, key: str) -> bool | None:
        """A flag by whole key, None if unsaid."""
        value = self._metadata.get(key)
        return value if isinstance(value, bool) else None

    def token(self, word: str) -> int | None:
        """A token id such as `bos`, None if unsaid."""
        value = self._metadata.get(f"tokenizer.ggml.{word}_token_id")
        return value if type(value) is int else None

    def whole_count(self, key: str) -> int:
        """A count by whole key, 0 if unsaid."""
        return _count(key, self._metadata.get(key), 0)

    def optional_count(self, key: str) -> int | None:
        """A count of the architecture, None if unsaid."""
        return None if self.value(key) is None else self.count(key)

    def count(self, key: str, default: int = 0) -> int:
        """A count of the architecture; the largest where it is given per layer."""
        value = self.value(key)
        if isinstance(value, list):
            return self.widest(key)
        return _count(key, value, default)

    def widest(self, key: str) -> int:
        """The largest of a count that may be given per layer, 0 if unsaid."""
        value = self.value(key)
        return (
            max((_count(key, v, 0) for v in value), default=0)
            if isinstance(value, list)
            else (_count(key, value, 0))
        )

    def per_layer(
        self, key: str, n_layer: int, *, default: int | tuple[int, ...]
    ) -> tuple[int, ...]:
        """A count for each layer."""
        value = self.value(key)
        if value is None:
            return default if isinstance(default, tuple) else (default,) * n_layer
        if not isinstance(value, list):
            return (_count(key, value, 0),) * n_layer
        if len(value) < n_layer:
            raise BadModelFile(f"{key} has {len(value)} values for {n_layer} layers")
        return tuple(_count(key, v, 0) for v in value[:n_layer])


def _count(key: str, value: MetadataValue, default: int) -> int:
    if value is None:
        return default
    if type(value) is not int or not 0 <= value < _MAX_COUNT:
        raise BadModelFile(f"{key} is {str(value)[:40]!r}, which is not a count")
    return value
