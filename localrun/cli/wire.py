"""Read JSON objects of the server with their types checked. Pure.

A missing field reads as empty: the CLI may talk to an older or newer server than itself.
"""

from collections.abc import Mapping
from typing import TypeAlias, cast

Json: TypeAlias = Mapping[str, object]
"""A JSON object."""


def text(record: Json, key: str) -> str:
    """A string field; anything else is empty."""
    value = record.get(key)
    return value if isinstance(value, str) else ""


def number(record: Json, key: str) -> int | float:
    """A number field; anything else is 0."""
    value = record.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def record(parent: Json, key: str) -> Json:
    """An object field; anything else is an empty object."""
    value = parent.get(key)
    return cast("Json", value) if isinstance(value, dict) else {}


def array(parent: Json, key: str) -> list[Json]:
    """The objects of an array field; anything else in it is left out."""
    value = parent.get(key)
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Json", item) for item in items if isinstance(item, dict)]


def words(parent: Json, key: str) -> list[str]:
    """The strings of an array field."""
    value = parent.get(key)
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [item for item in items if isinstance(item, str)]
