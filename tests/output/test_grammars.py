"""Grammars, held by the genuine llguidance over a vocabulary of bytes, token by token."""

import json

import jsonschema
import pytest
from llguidance import LLMatcher

from localrun.output.family import family_of
from tests.output.formats import FEW, FORMATS, TOOLS, Format
from tests.output.holding import TOKENIZER, refused_at, walk

PLAIN = family_of(jinja=None, go=None, architecture="")
QWEN3 = next(f for f in FORMATS if f.name == "qwen3").family
HERMES = next(f for f in FORMATS if f.name == "hermes").family
CODER = next(f for f in FORMATS if f.name == "qwen3-coder").family
HELD = [f for f in FORMATS if f.name != "generic"]
FREE = {"llama3", "llama4", "generic"}
"""Families whose calls nothing marks: without a choice they are not held."""

each_held = pytest.mark.parametrize("fmt", HELD, ids=lambda f: f"{f.name}-{f.one[:14]}")
each_of_a_few = pytest.mark.parametrize("fmt", [f for f in FEW if f in HELD], ids=lambda f: f.name)


def answer(fmt: Format, text: str) -> str:
    return (fmt.thought or "") + text.removesuffix("<|call|>")  # an end token, without text


@each_held
def test_own_calls_of_a_family_pass(fmt: Format) -> None:
    for choice in ("required", "auto"):
        grammar = fmt.family.grammar(format=None, tools=TOOLS, tool_choice=choice)
        for name in ("one", "two"):
            text = getattr(fmt, name)
            if text and name not in fmt.loose:
                assert refused_at(grammar, answer(fmt, text)) is None
        if choice == "required":
            assert refused_at(grammar, answer(fmt, fmt.words)) is not None
        elif fmt.name not in FREE:
            assert refused_at(grammar, answer(fmt, fmt.words + fmt.one)) is None
        if choice == "auto" and fmt.name != "harmony":  # its words come before a call or in `final`
            assert refused_at(grammar, answer(fmt, fmt.words.removesuffix(">>>"))) is None


@each_of_a_few
def test_call_of_no_tool_or_with_wrong_arguments_is_refused(fmt: Format) -> None:
    for choice in ["required"] + ["auto"] * (fmt.name not in FREE):
        grammar = fmt.family.grammar(format=None, tools=TOOLS, tool_choice=choice)
        for right, wrong in (("get_weather", "get_money"), ("city", "town"), ("3", "three")):
            refused = refused_at(grammar, answer(fmt, fmt.one.replace(right, wrong)))
            assert refused not in {None, "the end"}


@each_of_a_few
def test_only_the_named_tool_may_be_called(fmt: Format) -> None:
    grammar = fmt.family.grammar(format=None, tools=TOOLS, tool_choice="name:get_weather")
    assert refused_at(grammar, answer(fmt, fmt.one)) is None
    if fmt.empty and "empty" not in fmt.loose:
        assert refused_at(grammar, answer(fmt, fmt.empty)) is not None


@each_of_a_few
def test_second_call_is_refused_where_one_is_wanted(fmt: Format) -> None:
    for choice in ["required"] + ["auto"] * (fmt.name not in FREE):
        grammar = fmt.family.grammar(
            format=None, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False
        )
        assert refused_at(grammar, answer(fmt, fmt.one)) is None
        assert refused_at(grammar, answer(fmt, fmt.two)) is not None


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f"{f.name}-{f.one[:14]}")
def test_format_is_held_behind_the_reasoning(fmt: Format) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    start, end = fmt.words.removesuffix("\n>>>").split("Well.")
    if fmt.name == "harmony":
        start, end = start.replace("commentary", "final"), ""
    for opened in [False] + [True] * bool(fmt.prompt_open):
        thought = fmt.thought or ""
        head = "Hm." + thought.partition("Hm.")[2] if opened else thought
        grammar = fmt.family.grammar(format=schema, is_open=opened)
        assert refused_at(grammar, f'{head}{start}{{"n": 3}}{end}') is None
        assert refused_at(grammar, f'{head}{start}{{"n": "3"}}{end}') is not None
        assert refused_at(grammar, f"{head}{fmt.words}") is not None


def test_format_is_held_at_once_where_the_model_does_not_reason() -> None:
    grammar = QWEN3.grammar(format="json", think=False)
    assert refused_at(grammar, '{"a": [1, {}]}') is None
    assert refused_at(grammar, "<think>") == "<think>"
    assert refused_at(grammar, "[1]") == "[1]"


def test_format_beside_tools_is_either_the_one_or_the_other() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    grammar = HERMES.grammar(format=schema, tools=TOOLS)
    assert refused_at(grammar, '{"n": 1}') is None
    assert (
        refused_at(grammar, '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>') is None
    )
    assert refused_at(grammar, "Well.") == "Well."


@pytest.mark.parametrize("family", [PLAIN, HERMES, QWEN3])
def test_nothing_wanted_is_no_grammar(family) -> None:
    assert family.grammar(format=None) == ""
    assert family.grammar(format=None, tools=TOOLS, tool_choice="none") == ""


ORDINARY = {
    "pydantic": {
        "$defs": {
            "Kind": {"enum": ["cat", "dog"], "title": "Kind", "type": "string"},
            "Toy": {
                "properties": {"name": {"minLength": 1, "type": "string"}},
                "required": ["name"],
                "title": "Toy",
                "type": "object",
            },
        },
        "additionalProperties": False,
        "properties": {
            "name": {"maxLength": 9, "pattern": "^[A-Z][a-z]*$", "type": "string"},
            "age": {"anyOf": [{"minimum": 0, "type": "integer"}, {"type": "null"}]},
            "kind": {"$ref": "#/$defs/Kind"},
            "toys": {"items": {"$ref": "#/$defs/Toy"}, "maxItems": 2, "type": "array"},
            "born": {"format": "date-time", "type": "string"},
            "file": {"format": "binary", "type": "string"},
            "home": {"format": "uri", "type": "string", "default": "http://a"},
        },
        "required": ["name", "age", "kind"],
        "title": "Pet",
        "type": "object",
    },
    "zod": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "shape": {
                "oneOf": [
                    {"type": "object", "properties": {"t": {"const": "dot"}}, "required": ["t"]},
                    {"type": "object", "properties": {"t": {"const": "box"}}, "required": ["t"]},
                ]
            },
            "tags": {
                "type": "object",
                "propertyNames": {"type": "string"},
                "additionalProperties": {"type": "string"},
            },
            "email": {"type": "string", "format": "email"},
            "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]},
        },
        "required": ["shape"],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize("schema", ORDINARY.values(), ids=ORDINARY)
def test_schemas_of_the_usual_libraries_are_held(schema) -> None:
    grammar = PLAIN.grammar(format=schema)
    for seed in range(4):
        text = walk(grammar, seed)
        jsonschema.validate(json.loads(text), schema)


def test_schema_that_cannot_be_held_is_llguidances_own_error() -> None:
    grammar = PLAIN.grammar(format={"type": "object", "not": {"required": ["a"]}})
    assert 'Unimplemented keys: ["not"]' in LLMatcher(TOKENIZER, grammar, log_level=0).get_error()


@pytest.mark.parametrize(
    "part",
    [
        {"type": "array", "uniqueItems": True, "items": {"type": "integer"}},
        {"type": "any"},
        {"type": ["array", "list"]},
        {"type": "array", "items": None, "not": {"type": "string"}},
        {"anyOf": [{"type": "array"}, {"type": "string", "pattern": "(?!x)a"}]},
        {"type": "array", "format": "list-of-lists", "if": {}, "then": {}},
    ],
)
@pytest.mark.parametrize("family", [HERMES, CODER])
def test_tool_whose_schema_cannot_be_held_is_held_as_far_as_it_can_be(family, part) -> None:
    parameters = {"type": "object", "properties": {"a": part}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    grammar = family.grammar(format=None, tools=[tool], tool_choice="required")
    if family is HERMES:
        text = '<tool_call>{"name": "f", "arguments": {"a": [1]}}</tool_call>'
    else:
        text = "<tool_call><function=f><parameter=a>[1]</parameter></function></tool_call>"
    assert refused_at(grammar, text) is None


def test_strict_tool_is_refused_where_its_schema_cannot_be_held() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "any"}}}
    function = {"name": "f", "strict": True, "parameters": parameters}
    grammar = HERMES.grammar(format=None, tools=[{"type": "function", "function": function}])
    assert "Invalid type: any" in LLMatcher(TOKENIZER, grammar, log_level=0).get_error()


@pytest.mark.parametrize("family", [PLAIN, HERMES, QWEN3])
def test_a_format_has_no_white_space_around_it(family) -> None:
    grammar = family.grammar(format="json", think=False)
    assert refused_at(grammar, '{"a": 1}') is None
    for text in ('\n{"a": 1}', ' {"a": 1}', '{"a": 1}\n', '{"a": 1} '):
        assert refused_at(grammar, text) is not None


def test_white_space_between_reasoning_and_format_is_the_models() -> None:
    grammar = QWEN3.grammar(format="json", is_open=True)
    for text in ('Hm.</think>{"a": 1}', 'Hm.\n</think>\n\n{"a": 1}'):
        assert refused_at(grammar, text) is None


def test_an_object_and_arguments_have_the_keys_that_are_named() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    grammar = PLAIN.grammar(format=schema)
    assert refused_at(grammar, '{"a": 1}') is None
    assert refused_at(grammar, '{"a": 1, "b": 2}') is not None
    assert refused_at(PLAIN.grammar(format=schema | {"additionalProperties": True}),
                      '{"a": 1, "b": 2}') is None  # fmt: skip
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    called = HERMES.grammar(format=None, tools=[tool], tool_choice="required")
    form = '<tool_call>\n{{"name": "f", "arguments": {}}}\n</tool_call>'
    assert refused_at(called, form.format('{"a": 1}')) is None
    assert refused_at(called, form.format('{"a": 1, "b": 2}')) is not None
