"""The arguments of a tool, one by one, as its JSON schema tells them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from localrun.output.shapes import array_in, object_in
from localrun.output.typed import types_of

_STRING = frozenset({"string"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument.

    Attributes:
        key: Its name.
        schema: Of its value, with the definitions that it may refer to.
        types: JSON types of its value; empty if the schema says nothing.
        is_required: It must be there.
    """

    key: str
    schema: Mapping[str, object]
    types: frozenset[str]
    is_required: bool

    @property
    def is_text(self) -> bool:
        """The value may be written as plain text."""
        return not self.types or "string" in self.types

    @property
    def choices(self) -> tuple[str, ...]:
        """All values, where they are strings and named."""
        values = array_in(self.schema.get("enum"))
        if self.types != _STRING or values is None:
            return ()
        return tuple(value for value in values if isinstance(value, str))


def parameters_of(schema: Mapping[str, object]) -> tuple[Parameter, ...]:
    """The arguments of a tool, in its schema's order.

    Args:
        schema: The tool's `parameters`.
    """
    properties = object_in(schema.get("properties")) or {}
    required = array_in(schema.get("required")) or ()
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    return tuple(
        Parameter(
            key,
            {**shared, **(object_in(part) or {})},
            types_of(part, schema),
            key in required,
        )
        for key, part in properties.items()
    )
