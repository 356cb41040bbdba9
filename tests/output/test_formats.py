"""Every family's own way of writing, read whole and cut into pieces of any size."""

from itertools import product

import pytest

from localrun.output.family import family_of
from localrun.output.pieces import CallDone
from tests.output.formats import FORMATS, PARIS, ROME, Format
from tests.output.reading import calls, content, is_coherent, read, thinking

each_format = pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f"{f.name}-{f.one[:14]}")
SIZES = (1, 10_000)
BARE = {"llama3", "llama4", "generic"}
"""Families whose calls nothing marks: behind words they are an example."""


@each_format
def test_family_is_told_by_its_template(fmt: Format) -> None:
    family = fmt.family
    assert (family.name, family.calls_tools) == (fmt.name, True)
    assert family.thinks is (fmt.thought is not None)


@each_format
def test_call_is_read_alone_and_behind_reasoning_and_words(fmt: Format) -> None:
    texts = {fmt.one: ("", ""), (fmt.thought or "") + fmt.words + fmt.one: ("Hm.", "Well.")}
    for (text, (thought, words)), size in product(texts.items(), SIZES):
        pieces = read(fmt.family, text, size, prompt=fmt.prompt)
        assert is_coherent(pieces)
        assert thinking(pieces) == (thought if fmt.thought else "")
        if words and fmt.name in BARE and fmt.one[:1] in "{[":
            assert not calls(pieces)
        else:
            assert (calls(pieces), content(pieces)) == ([("get_weather", PARIS)], words)


@pytest.mark.parametrize("fmt", [f for f in FORMATS if f.two], ids=lambda f: f.name)
def test_parallel_calls_are_read_in_order(fmt: Format) -> None:
    for size in SIZES:
        pieces = read(fmt.family, (fmt.thought or "") + fmt.two, size, prompt=fmt.prompt)
        assert calls(pieces) == [("get_weather", PARIS), ("get_weather", ROME)]
        assert [p.index for p in pieces if isinstance(p, CallDone)] == [0, 1]
        assert content(pieces) == ""
        assert is_coherent(pieces)


@pytest.mark.parametrize("fmt", [f for f in FORMATS if f.empty], ids=lambda f: f.name)
def test_call_without_arguments_has_an_empty_object(fmt: Format) -> None:
    assert calls(read(fmt.family, fmt.empty, 2, prompt=fmt.prompt)) == [("now", {})]


@pytest.mark.parametrize("fmt", [f for f in FORMATS if f.prompt_open], ids=lambda f: f.name)
def test_reasoning_that_the_prompt_opened_is_reasoning(fmt: Format) -> None:
    assert fmt.family.opens_reasoning(fmt.prompt_open)
    assert fmt.thought is not None
    text = "Hm." + fmt.thought.partition("Hm.")[2] + fmt.words
    for size in SIZES:
        pieces = read(fmt.family, text, size, prompt=fmt.prompt_open)
        assert (thinking(pieces), content(pieces)) == ("Hm.", "Well.")


@each_format
def test_words_alone_are_content_and_so_are_calls_where_no_tool_was_offered(fmt: Format) -> None:
    pieces = read(fmt.family, fmt.words, 1, prompt=fmt.prompt)
    assert (content(pieces), thinking(pieces), calls(pieces)) == ("Well.", "", [])
    pieces = read(fmt.family, fmt.one, 1, prompt=fmt.prompt, tools=[])
    assert not calls(pieces)
    assert "Paris" in content(pieces)


GO_QWEN = """{{- range .Messages }}{{ if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Thinking }}<think>{{ .Thinking }}</think>
{{ end }}{{ .Content }}{{ if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>{{ end }}{{ end }}{{ end }}{{ .Tools }}"""
GO_OTHER = GO_QWEN.replace("tool_call>", "my_call>").replace("think>", "musing>")
GO_BARE = """{{ .Tools }}{{- range .Messages }}{{ if .ToolCalls }}
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "parameters": {{ .Function.Arguments }}}
{{ end }}{{ end }}{{ .Content }}{{ end }}"""


@pytest.mark.parametrize(
    ("template", "name", "thought", "call"),
    [
        (GO_QWEN, "hermes", "<think>Hm.</think>\n", FORMATS[0].one),
        (GO_OTHER, "go", "<musing>Hm.</musing>", FORMATS[0].one.replace("tool_call>", "my_call>")),
        (GO_BARE, "go", "", '{"name": "get_weather", "parameters": {"city": "Paris", "days": 3}}'),
    ],
)
def test_go_template_tells_how_its_model_answers(template, name, thought, call) -> None:
    family = family_of(jinja=None, go=template, architecture="llama")
    assert (family.name, family.calls_tools, family.thinks) == (name, True, bool(thought))
    pieces = read(family, thought + call, 3)
    assert calls(pieces) == [("get_weather", PARIS)]
    assert (thinking(pieces), content(pieces)) == ("Hm." if thought else "", "")


def test_go_template_that_is_broken_is_for_its_renderer_to_refuse() -> None:
    family = family_of(jinja=None, go="{{ if .Tools }}", architecture="llama")
    assert (family.name, family.reads(tools=True)) == ("go", False)
