"""Arguments as the gemma models write them: `{city:<|"|>Paris<|"|>,days:3}`. Pure."""

from collections.abc import Mapping

from localrun.output.grammar.rules import Rules, listed, quoted
from localrun.output.parameters import parameters_of
from localrun.output.shapes import array_in, object_in

_NUMBER = r"/-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/"
_PLAIN = {
    "number": _NUMBER,
    "integer": r"/-?(0|[1-9][0-9]*)/",
    "boolean": '"true" | "false"',
    "null": '"null"',
}
MAX_DEPTH = 8


def braced(rules: Rules, schema: Mapping[str, object], quote: str, depth: int = 0) -> str:
    """A body for an object that holds to a schema.

    Args:
        rules: Gets the rules.
        schema: Of the object.
        quote: What strings stand in.
        depth: Of the object in the arguments.
    """
    items: list[tuple[str, bool]] = []
    for parameter in parameters_of(schema):
        value = _value(rules, parameter.schema, parameter.types, quote, depth)
        items.append(
            (rules.add("argument", f"{quoted(parameter.key + ':')} {value}"), parameter.is_required)
        )
    return f'"{{" {listed(items, _COMMA)} "}}"'


_COMMA = '","'


def _value(
    rules: Rules, schema: Mapping[str, object], types: frozenset[str], quote: str, depth: int
) -> str:
    if depth >= MAX_DEPTH or not types:
        return _any(rules, quote)
    choices = [_one(rules, schema, kind, quote, depth) for kind in sorted(types)]
    return rules.add("value", " | ".join(choices))


def _one(rules: Rules, schema: Mapping[str, object], kind: str, quote: str, depth: int) -> str:
    if kind == "string":
        return _string(rules, schema, quote)
    if kind == "object" and "properties" in schema:
        return braced(rules, schema, quote, depth + 1)
    items = object_in(schema.get("items"))
    if kind == "array" and items is not None:
        shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        item = parameters_of({"properties": {"item": items}, **shared})[0]
        value = _value(rules, item.schema, item.types, quote, depth + 1)
        return f'"[" ({value} ({_COMMA} {value})*)? "]"'
    return _PLAIN.get(kind) or _any(rules, quote)


def _string(rules: Rules, schema: Mapping[str, object], quote: str) -> str:
    values = array_in(schema.get("enum"))
    if values is not None:
        return " | ".join(quoted(f"{quote}{value}{quote}") for value in values)
    return f"{quoted(quote)} {rules.until(quote)}"


def _any(rules: Rules, quote: str) -> str:
    """A body for any value."""
    string = f"{quoted(quote)} {rules.until(quote)}"
    name = "any_value"
    pair = f"/[A-Za-z_][A-Za-z0-9_]*:/ {name}"
    return rules.named(
        name,
        f'{string} | {_NUMBER} | "true" | "false" | "null" '
        f'| "[" ({name} ({_COMMA} {name})*)? "]" | "{{" ({pair} ({_COMMA} {pair})*)? "}}"',
    )
