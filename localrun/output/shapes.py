"""What a value of a JSON document is, for a reader that expects no more than JSON. Pure."""

from collections.abc import Mapping, Sequence
from typing import cast


def object_in(value: object) -> Mapping[str, object] | None:
    """The value if it is an object."""
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else None


def array_in(value: object) -> Sequence[object] | None:
    """The value if it is an array."""
    return cast("list[object]", value) if isinstance(value, list) else None
