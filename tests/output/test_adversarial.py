"""Single corners of what models write, each with what must become of it."""

import json

import pytest

from localrun.output.family import family_of
from localrun.output.pieces import CallArguments, CallBegun, CallBroken
from tests.output.formats import FORMATS, TOOLS
from tests.output.reading import broken, calls, content, read, read_both, thinking

BY_NAME = {f.name: f.family for f in reversed(FORMATS)}
HERMES, QWEN3, CODER = BY_NAME["hermes"], BY_NAME["qwen3"], BY_NAME["qwen3-coder"]


def hermes(arguments: str, name: str = "get_weather") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('{"city": "P}ar{is"}', {"city": "P}ar{is"}),
        ('{"city": "a \\"quoted\\" \\\\ \\u00e9 \\ud83c\\udf0d"}', {"city": 'a "quoted" \\ é 🌍'}),
        ('{"city": "</tool_call>"}', {"city": "</tool_call>"}),
        ('{"city": "<tool_call>{\\"name\\": 1}"}', {"city": '<tool_call>{"name": 1}'}),
        ('{"a": {"b": [{"c": [[]]}]}}', {"a": {"b": [{"c": [[]]}]}}),
        ('"{\\"city\\": \\"Paris\\"}"', {"city": "Paris"}),
        ('""', {}),
        ("null", {}),
        ('{"city": "Paris",}', {"city": "Paris"}),
        ('{"a": [1, 2,], }', {"a": [1, 2]}),
        ("{'city': 'it''s'}", None),
        ("{'city': 'say \"hi\"'}", {"city": 'say "hi"'}),
        ('{"ok": True, "no": False, "nil": None}', {"ok": True, "no": False, "nil": None}),
        ('{"city": "two\nlines\tand a tab"}', {"city": "two\nlines\tand a tab"}),
        ('{"path": "C:\\dir\\x"}', {"path": "C:\\dir\\x"}),
        ('{"half": "\\ud83c"}', {"half": "�"}),
        ("{city: 1}", {"city": 1}),
        ("[1]", None),
        ("3", None),
        ('{"a": 1 "b": 2}', None),
        ('{"a": }', None),
        ('{"a": nan}', None),
        ('{"a": ' + "[" * 200, None),
        ('{"a": ' + "9" * 5000 + "}", None),
    ],
)
def test_arguments_are_mended_only_where_they_can_mean_one_thing(written, meant) -> None:
    text = hermes(written)
    pieces = read_both(HERMES, text)
    if meant is None:
        assert not calls(pieces)
        assert broken(pieces) == [text]
    else:
        assert calls(pieces) == [("get_weather", meant)]
        told = "".join(p.text for p in pieces if isinstance(p, CallArguments))
        assert json.loads(told) == meant


@pytest.mark.parametrize(
    "text",
    [
        "Write `<tool_call>` and then JSON.",
        "<tool_call",
        "<tool_calls>[]</tool_calls>",
        '<tool_call>{"city": "Paris"}</tool_call>',
        "<tool_call></tool_call>",
        '{"name": "Anna", "arguments": {"for": 1}}',
        '{"name": "get_weather"}',
        '{"name": "get_weather", "age": 3}',
        '{"answer": {"name": "now", "arguments": {}}}',
        '```json\n{"a": 1}\n```',
        "```python\nnow()\n```",
        '[1, 2, {"name": "now"}]',
        "a < b </think> c",
        "Say <think> to think.",
        "{",
        "[[[[",
        "\n\n{\n",
    ],
)
def test_what_only_looks_like_a_call_or_a_thought_is_content(text: str) -> None:
    pieces = read_both(QWEN3, text)
    assert not [p for p in pieces if isinstance(p, CallBegun)]
    assert (content(pieces), thinking(pieces)) == (text, "")


def test_json_of_a_format_may_speak_of_calls() -> None:
    text = json.dumps({"how": "Write " + hermes("{}") + " or <think>."})
    pieces = read_both(QWEN3, text, is_formatted=True)
    assert (content(pieces), calls(pieces)) == (text, [])
    assert calls(read_both(QWEN3, hermes("{}"), is_formatted=True)) == [("get_weather", {})]


def test_cut_call_is_told_as_broken_with_all_that_was_written() -> None:
    whole = "Well. " + hermes('{"city": "Paris", "days": [1, 2]}')
    begun = whole.index("get_weather") + len('get_weather"')
    for end in range(begun, whole.index("}}")):
        pieces = read_both(HERMES, whole[:end])
        assert broken(pieces) == [whole[len("Well. ") : end]]
        assert content(pieces) == "Well."


def test_call_whose_end_marker_was_cut_is_whole() -> None:
    text = hermes('{"city": "Paris"}')
    for end in range(text.index("}}") + 1, len(text) + 1):
        assert calls(read_both(HERMES, text[:end])) == (
            [("get_weather", {"city": "Paris"})] if end > text.index("}}") + 1 else []
        )


def test_words_behind_a_broken_call_are_still_read() -> None:
    text = hermes('{"a": oops}') + "\nSorry. " + hermes('{"city": "Rome"}')
    pieces = read_both(HERMES, text)
    assert broken(pieces) == [hermes('{"a": oops}')]
    assert content(pieces) == "Sorry."
    assert calls(pieces) == [("get_weather", {"city": "Rome"})]
    assert [p.index for p in pieces if isinstance(p, CallBegun)] == [0, 1]


def test_unknown_tool_behind_the_familys_own_marker_is_a_call() -> None:
    assert calls(read_both(HERMES, hermes("{}", name="get_money"))) == [("get_money", {})]


@pytest.mark.parametrize("size", [1, 5])
def test_arguments_are_told_while_they_come(size: int) -> None:
    pieces = read(HERMES, hermes('{"city": "Paris, where it rains"}'), size)
    assert len([p for p in pieces if isinstance(p, CallArguments)]) > 3


@pytest.mark.parametrize(
    ("text", "prompt", "thought", "words"),
    [
        ("<think>a</think>b", "", "a", "b"),
        ("\n\n<think>\na\n</think>\n\nb", "", "a", "b"),
        ("<think>a", "", "a", ""),
        ("a</think>b", "<think>\n", "a", "b"),
        ("<think>a</think>b", "<think>\n", "a", "b"),
        ("a", "<think>", "a", ""),
        ("</think>\n\nb", "", "", "b"),
        ("b", "<think>\n\n</think>\n\n", "", "b"),
        ("<think></think>b", "", "", "b"),
        ("<think>a</think>\n<think>c</think>b", "", "ac", "b"),
        ("<think>a <tool_call> b</think>c", "", "a <tool_call> b", "c"),
        ("  b ", "", "", "  b "),
    ],
)
def test_reasoning_ends_and_begins_at_its_marks(text, prompt, thought, words) -> None:
    pieces = read_both(QWEN3, text, prompt=prompt)
    assert (thinking(pieces), content(pieces)) == (thought, words)


TYPED = {
    "type": "object",
    "$defs": {"Size": {"enum": [1, 2]}},
    "properties": {
        "text": {"type": "string"},
        "whole": {"type": "integer"},
        "real": {"type": "number"},
        "flag": {"type": "boolean"},
        "many": {"type": "array", "items": {"type": "integer"}},
        "deep": {"type": "object"},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "size": {"$ref": "#/$defs/Size"},
        "either": {"type": ["string", "integer"]},
        "open": {},
    },
}


@pytest.mark.parametrize(
    ("key", "written", "meant"),
    [
        ("text", "5123", "5123"),
        ("text", '{"a": 1}', '{"a": 1}'),
        ("text", "a\n\nb\n", "a\n\nb\n"),
        ("text", "", ""),
        ("whole", "42", 42),
        ("whole", "42.0", 42),
        ("whole", "forty", "forty"),
        ("real", "1.5e3", 1500.0),
        ("flag", "true", True),
        ("flag", "True", True),
        ("flag", "yes", "yes"),
        ("many", "[1, 2,]", [1, 2]),
        ("deep", "{'a': None}", {"a": None}),
        ("maybe", "null", None),
        ("maybe", "7", 7),
        ("size", "2", 2),
        ("either", "7", 7),
        ("either", "x", "x"),
        ("open", "[1]", [1]),
        ("open", "word", "word"),
        ("other", "1", 1),
    ],
)
def test_tagged_values_get_the_type_that_their_schema_asks_for(key, written, meant) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": TYPED}}
    value = f"<parameter={key}>\n{written}\n</parameter>"
    text = f"<tool_call>\n<function=f>\n{value}\n</function>\n</tool_call>"
    assert calls(read_both(CODER, text, tools=[tool])) == [("f", {key: meant})]


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis",
        "<tool_call>\n<function=get_weather>\n<parameter=city",
        "<tool_call>\n<function=get_weather>\nwords</function>\n</tool_call>",
    ],
)
def test_tags_that_do_not_fit_are_a_broken_call(text: str) -> None:
    pieces = read_both(CODER, text)
    assert broken(pieces) == [text]
    assert isinstance(pieces[-1], CallBroken)


def test_tags_without_the_marker_around_them_are_a_call() -> None:
    text = "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>"
    assert calls(read_both(CODER, text)) == [("get_weather", {"city": "Paris"})]
    assert calls(read_both(CODER, hermes('{"city": "Paris"}'))) == [
        ("get_weather", {"city": "Paris"})
    ]


HARMONY = BY_NAME["harmony"]
START = "<|start|>assistant"


@pytest.mark.parametrize(
    ("text", "thought", "words", "called"),
    [
        ("<|channel|>final<|message|>Well.<|return|>", "", "Well.", []),
        (
            f"<|channel|>analysis<|message|>Hm.<|end|>{START}<|channel|>final<|message|>Well.",
            "Hm.",
            "Well.",
            [],
        ),
        (" to=functions.now<|channel|>commentary json<|message|>{}", "", "", [("now", {})]),
        ("<|channel|>analysis to=functions.now code<|message|>{}", "", "", [("now", {})]),
        (
            "<|channel|>commentary to=assistant<|channel|>analysis<|message|>Hm.<|end|>"
            f"{START}<|channel|>final <|constrain|>json<|message|>" + '{"n": 1}',
            "Hm.",
            '{"n": 1}',
            [],
        ),
        ("Plain words.", "", "Plain words.", []),
        ("<|channel|>analysis<|message|>Hm", "Hm", "", []),
    ],
)
def test_harmony_headers_say_what_a_message_is(text, thought, words, called) -> None:
    pieces = read_both(HARMONY, text, prompt=START)
    assert (thinking(pieces), content(pieces), calls(pieces)) == (thought, words, called)


def test_harmony_prompt_that_ends_inside_a_message_goes_on_with_it() -> None:
    prompt = f"{START}<|channel|>analysis<|message|>"
    pieces = read_both(HARMONY, f"Hm.<|end|>{START}<|channel|>final<|message|>Well.", prompt=prompt)
    assert (thinking(pieces), content(pieces)) == ("Hm.", "Well.")
    assert HARMONY.opens_reasoning(prompt)


def test_llama_built_in_tools_are_calls() -> None:
    search = {"type": "function", "function": {"name": "brave_search"}}
    text = '<|python_tag|>brave_search.call(query="a, b")'
    pieces = read_both(BY_NAME["llama3"], text, tools=[search])
    assert calls(pieces) == [("brave_search", {"query": "a, b"})]


@pytest.mark.parametrize(
    ("template", "think", "variables"),
    [
        ("{% if enable_thinking %}</think>", True, {"enable_thinking": True}),
        ("{% if enable_thinking %}</think>", "high", {"enable_thinking": True}),
        ("{% if enable_thinking %}</think>", False, {"enable_thinking": False}),
        ("{% if enable_thinking %}</think>", None, {}),
        ("{% if not thinking is defined %}</think>", False, {"thinking": False}),
        ("{{ m.thinking }} talks of thinking</think>", True, {}),
        ("{{ reasoning_effort }}<|channel|><|message|>", "max", {"reasoning_effort": "high"}),
        ("{{ reasoning_effort }}<|channel|><|message|>", True, {"reasoning_effort": "medium"}),
        ("{% if enable_thinking %}", True, {}),
    ],
)
def test_think_is_told_in_the_variables_that_the_template_reads(template, think, variables) -> None:
    family = family_of(jinja=template, go=None, architecture="llama")
    assert family.variables(think) == variables


def test_model_without_a_template_is_plain() -> None:
    family = family_of(jinja=None, go=None, architecture="llama")
    assert (family.name, family.thinks, family.calls_tools) == ("plain", False, False)
    assert not family.reads(tools=True)
    assert content(read(family, hermes("{}"), 1, tools=TOOLS)) == hermes("{}")


@pytest.mark.parametrize("end", ["}}", "}"])
@pytest.mark.parametrize(("before", "after"), [("<tool_call>\n", "\n</tool_call>"), ("", "")])
def test_braces_that_the_template_doubles_are_read(before: str, after: str, end: str) -> None:
    text = f'{before}{{{{"name": "get_weather", "arguments": {{"city": "Paris"}}{end}{after}'
    pieces = read_both(HERMES, text)
    assert calls(pieces) == [("get_weather", {"city": "Paris"})]
    assert content(pieces) == ""
