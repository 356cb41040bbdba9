"""What a conversation becomes, and where a template is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.errors import TemplateFailed
from localrun.gotemplate import render_go
from localrun.gotemplate.execute import Limits
from localrun.messages import Turn

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
    ("source", "words"),
    [
        ("{{ .Prompt", "line 1: unclosed action"),
        ('a\n{{ "half }}', "line 2: unterminated"),
        ("{{ if .Prompt }}x", "line 1: unexpected end"),
        ("{{ if .Prompt }}x{{ else }}y{{ else }}z{{ end }}", "expected end; found else"),
        ("{{ if .Prompt }}x{{ else with }}y{{ end }}", "unexpected 'with' in input"),
        ("{{ end }}", "unexpected {{end}}"),
        ("{{ if .Prompt }}" * 200, "nested more than 120 levels deep"),
        ("{{ if .Prompt }}" + "{{ else if .System }}" * 200 + "{{ end }}", "levels deep"),
        ("{{ " + "(" * 200 + ".Prompt" + ")" * 200 + " }}", "levels deep"),
        ("x" * ((1 << 20) + 1), "more than 1048576 characters"),
        ("{{ nothing . }}", "line 1: function 'nothing' not defined"),
        ("\n\n{{ $x }}", "line 3: undefined variable '\\$x'"),
        ("{{ .Messages }}\n{{ index .Tools 4 }}", "line 2: error calling index: index out of"),
        ('{{ template "x" }}', "template 'x' is invoked without a value"),
    ],
)
def test_a_broken_template_is_an_error_that_says_where(source: str, words: str) -> None:
    with pytest.raises(TemplateFailed, match=words):
        render_go(source, (U,))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('{{ define "x" }}{{ template "x" . }}{{ end }}{{ template "x" . }}', "levels deep"),
        ("{{ range 1000000000 }}{{ end }}{{ .Prompt }}", "more than 10000 steps"),
        ('{{ range 100 }}{{ print "0123456789" }}{{ end }}', "more than 500 characters"),
        ('{{ printf "%501d" 1 }}', "more than 500 characters"),
        (
            '{{ $x := "0123456789" }}{{ range 40 }}{{ $x = print $x $x }}{{ end }}',
            "more than 500 characters",
        ),
    ],
)
def test_a_template_that_does_too_much_is_stopped(source: str, words: str) -> None:
    limits = Limits(n_chars=500, n_steps=10_000, depth=20)
    with pytest.raises(TemplateFailed, match=words):
        render_go(source, (U,), limits=limits)


def test_limits_count_over_all_turns_together() -> None:
    turns = [Turn(role, "x" * 30) for role in ("user", "assistant") * 10]
    with pytest.raises(TemplateFailed, match="more than"):
        render_go("{{ .Prompt }}{{ .Response }}", turns, limits=Limits(n_chars=500))


@given(before=st.text(alphabet="ab {}\n-"), after=st.text(alphabet="ab {}\n-"), prompt=st.text())
def test_text_around_a_field_comes_through_verbatim(before: str, after: str, prompt: str) -> None:
    before, after = before.replace("{{", "").rstrip("{"), after.replace("{{", "").lstrip("}")
    source = before + "{{ .Prompt }}" + after
    assert render_go(source, (Turn("user", prompt),)) == before + prompt + after
