"""The simple form of Go templates, against what Ollama makes of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.errors import TemplateFailed, Unsupported
from localrun.messages import Turn
from localrun.text.chat.gotemplate import render_go

S, U, A, V = Turn("system", "S"), Turn("user", "U"), Turn("assistant", "A"), Turn("user", "V")

LLAMA2 = "[INST] {{ if .System }}<<SYS>>{{ .System }}<</SYS>>\n\n{{ end }}{{ .Prompt }} [/INST] "
CHATML = """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>
"""


@pytest.mark.parametrize(
    ("source", "turns", "text"),
    [
        ("{{ .Prompt }}", (U,), "U"),
        (LLAMA2, (U,), "[INST] U [/INST] "),
        (LLAMA2, (S, U, A, V), "[INST] <<SYS>>S<</SYS>>\n\nU [/INST] A[INST] V [/INST] "),
        (CHATML, (U,), "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"),
        (
            CHATML,
            (S, U, A, V),
            (
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
                "<|im_start|>assistant\nA<|im_end|>\n"
                "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n"
            ),
        ),
        (CHATML, (U, A), "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA"),
        ("{{ .Prompt }}|", (U, V), "U\n\nV|"),
        ("[{{ .System }}|{{ .Prompt }}]", (U, S, V), "[|U][S|V]"),
        ("{{if .System}}s{{else if .Prompt}}p{{else}}n{{end}}", (U,), "p"),
        ("{{ if .System }}s{{ else if .Prompt }}p{{ else }}n{{ end }}", (Turn("user", ""),), "n"),
        ("a \n{{- .Prompt -}}\n b", (U,), "aUb"),
        ("a {{- /* a } comment */ -}} b{{ .Prompt }}", (U,), "abU"),
        ("{{ if .Prompt }}<{{ .Response }}>{{ else }}?{{ end }}tail", (U,), "<"),
        ("{ {{ .Prompt }} } }}", (U,), "{ U } }}"),
    ],
)
def test_a_simple_template_renders_as_in_ollama(
    source: str, turns: tuple[Turn, ...], text: str
) -> None:
    assert render_go(source, turns) == text


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("{{ range .Messages }}x{{ end }}", "range .Messages"),
        ("{{ if and .System .Prompt }}x{{ end }}", "if and .System .Prompt"),
        ("{{ .Suffix }}", ".Suffix"),
        ("{{ $x := .Prompt }}", r"\$x := .Prompt"),
        ("{{ .Prompt | json }}", r".Prompt \| json"),
        ('{{ "}}" }}', '"}}"'),
        ("{{-3}}", "-3"),
        ("{{ }}", "{{  }}"),
    ],
)
def test_anything_else_is_refused_by_its_name(source: str, named: str) -> None:
    with pytest.raises(Unsupported, match=named):
        render_go(source, (U,))


def test_a_role_without_a_place_is_refused() -> None:
    with pytest.raises(Unsupported, match="no place for the role 'tool'"):
        render_go("{{ .Prompt }}", (Turn("tool", "4"),))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ .Prompt", "not closed"),
        ('{{ "half }}', "not closed"),
        ("{{ if .Prompt }}x", "has no {{ end }}"),
        ("{{ if .Prompt }}x{{ else }}y{{ else }}z{{ end }}", "cannot go on with 'else'"),
        ("{{ if .Prompt }}x{{ else with }}y{{ end }}", "cannot go on with 'else with'"),
        ("{{ end }}", "unexpected {{ end }}"),
        ("{{ if .Prompt }}" * 200, "nested too deeply"),
        ("{{ if .Prompt }}" + "{{ else if .System }}" * 200 + "{{ end }}", "nested too deeply"),
        ("x" * ((1 << 20) + 1), "more than 1048576 characters"),
    ],
)
def test_a_broken_template_is_an_error(source: str, words: str) -> None:
    with pytest.raises(TemplateFailed, match=words):
        render_go(source, (U,))


@given(before=st.text(alphabet="ab {}\n-"), after=st.text(alphabet="ab {}\n-"), prompt=st.text())
def test_text_around_a_field_comes_through_verbatim(before: str, after: str, prompt: str) -> None:
    before, after = before.replace("{{", "").rstrip("{"), after.replace("{{", "").lstrip("}")
    source = before + "{{ .Prompt }}" + after
    assert render_go(source, (Turn("user", prompt),)) == before + prompt + after
