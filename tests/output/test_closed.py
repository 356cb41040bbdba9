"""Which objects of a schema have the named keys only."""

import pytest

from localrun.output.grammar.closed import closed

A = {"a": {"type": "integer"}}
SHUT = {"properties": A, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "held"),
    [
        ({"properties": A}, SHUT),
        ({"properties": A, "required": ["a"]}, {**SHUT, "required": ["a"]}),
        ({"type": "array", "items": {"properties": A}}, {"type": "array", "items": SHUT}),
        ({"properties": {"o": {"properties": A}}},
         {"properties": {"o": SHUT}, "additionalProperties": False}),
        ({"anyOf": [{"properties": A}, {"type": "null"}]}, {"anyOf": [SHUT, {"type": "null"}]}),
        ({"$defs": {"d": {"properties": A}}, "$ref": "#/$defs/d"},
         {"$defs": {"d": SHUT}, "$ref": "#/$defs/d"}),
    ],
)  # fmt: skip
def test_an_object_that_names_its_keys_has_no_others(schema, held):
    assert closed(schema) == held


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"properties": A, "additionalProperties": True},
        {"properties": A, "additionalProperties": {"type": "string"}},
        {"properties": A, "patternProperties": {"^x": {}}},
        {"properties": A, "required": ["b"]},
        {"properties": A, "minProperties": 3},
        {"allOf": [{"properties": A}, {"properties": {"b": {}}}]},
        {"properties": A, "anyOf": [{"properties": {"b": {}}}, {"required": ["a"]}]},
        {"properties": A, "$ref": "#/$defs/d", "$defs": {"d": {"properties": {"b": {}}}}},
        {"const": {"properties": A}},
        {"enum": [{"properties": A}]},
    ],
)
def test_it_stays_open_where_something_else_could_name_keys_of_it(schema):
    assert closed(schema) == schema
