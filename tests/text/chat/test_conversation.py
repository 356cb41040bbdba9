"""What a template does not take is put into a form that it takes; no word is lost."""

import contextlib
import json
from typing import Any

import pytest

from localrun.errors import TemplateFailed
from localrun.messages import Turn
from localrun.text.chat.abilities import Abilities
from localrun.text.chat.conversation import Chat, message_of
from localrun.text.chat.templates import Rendering, Templates

EACH = "{% for m in messages %}"
LINES = EACH + "[{{ m.role }}] {{ m.content }}\n{% endfor %}"
STRICT = """{% for m in messages %}
{% if m.role not in ('user', 'assistant') or (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('roles must alternate') }}{% endif %}
[{{ m.role }}] {{ m.content }}
{% endfor %}"""
FIRST_SYSTEM = """{% if messages[0].role == 'system' %}
({{ messages[0].content }})
{% set messages = messages[1:] %}{% endif %}
{% for m in messages if m.role != 'system' %}
[{{ m.role }}] {{ m.content }}
{% endfor %}"""
PARTS = EACH + "{% for p in m.content %}{{ m.role }}:{{ p.text }};{% endfor %}{% endfor %}"
WITH_CALLS = """{% if tools %}
T {{ tools | tojson }}
{% endif %}
{% for m in messages %}
[{{ m.role }}] {{ m.content }}
{% for c in m.tool_calls or [] %}
C {{ c.id }} {{ c.type }} {{ c.function.name }} {{ c.function.arguments | tojson }}
{% endfor %}
{% if m.role == 'tool' %}
R {{ m.tool_call_id }} {{ m.name }}
{% endif %}
{% endfor %}"""
ONE_CALL = WITH_CALLS.replace(
    "{% for c in", "{% if (m.tool_calls or []) | length > 1 %}{{ no.such }}{% endif %}{% for c in"
)
TEXT_ARGUMENTS = WITH_CALLS.replace(
    "{{ c.function.arguments | tojson }}", "{{ '' + c.function.arguments }}"
)
SHORT_IDS = WITH_CALLS.replace(
    "C {{ c.id }}", "{% if c.id | length != 9 %}{{ raise_exception('9') }}{% endif %}C {{ c.id }}"
)

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}


def turns(*said: str) -> tuple[Turn, ...]:
    roles = {"s": "system", "d": "developer", "u": "user", "a": "assistant", "t": "tool"}
    return tuple(Turn(roles[one[0]], one[2:]) for one in said)


def render(source: str, said: tuple[Turn, ...], **more: Any) -> str:
    return Chat(Templates()).render(source, said, **more)


def call(name: str = "f", **more: object) -> dict[str, object]:
    return {"function": {"name": name, "arguments": {"é": 1}}, **more}


@pytest.mark.parametrize(
    ("source", "said", "text"),
    [
        (LINES, ("s S", "u U", "s T", "u V"), "[system] S\n[user] U\n[system] T\n[user] V\n"),
        (LINES, ("d D", "u U"), "[system] D\n[user] U\n"),
        (STRICT, ("s S", "u U"), "[user] S\nU\n"),
        (STRICT, ("d D", "u U"), "[user] D\nU\n"),
        (STRICT, ("s S",), "[user] S\n"),
        (STRICT, ("s S", "s T", "u U"), "[user] S\nT\nU\n"),
        (STRICT, ("u U", "a A", "s S", "u V"), "[user] U\n[assistant] A\n[user] S\nV\n"),
        (STRICT, ("u U", "u V", "a A", "u W"), "[user] U\n\nV\n[assistant] A\n[user] W\n"),
        (FIRST_SYSTEM, ("s S", "u U"), "(S)\n[user] U\n"),
        (FIRST_SYSTEM, ("s S", "s T", "u U"), "(S\n\nT)\n[user] U\n"),
        (
            FIRST_SYSTEM,
            ("s S", "u U", "a A", "s T", "u V"),
            "(S)\n[user] U\n[assistant] A\n[user] T\nV\n",
        ),
        (PARTS, ("s S", "u U"), "system:S;user:U;"),
    ],
)
def test_every_turn_stands_where_the_template_takes_it(
    source: str, said: tuple[str, ...], text: str
) -> None:
    assert render(source, turns(*said)) == text


def test_calls_of_every_dialect_get_what_templates_ask_for() -> None:
    asked = Turn("assistant", "", {"tool_calls": [call(), call("g", id="x7", type="function")]})
    given = (
        *turns("u U"),
        asked,
        Turn("tool", "2", {"tool_name": "g"}),
        Turn("tool", "1"),
        Turn("tool", "3", {"tool_call_id": "lost", "name": "h"}),
    )
    assert render(WITH_CALLS, given, tools=[TOOL]) == (
        "T [" + json.dumps(TOOL) + "]\n[user] U\n[assistant] \n"
        'C call00000 function f {"é": 1}\nC x7 function g {"é": 1}\n'
        "[tool] 2\nR x7 g\n[tool] 1\nR call00000 f\n[tool] 3\nR lost h\n"
    )


@pytest.mark.parametrize(
    ("source", "arguments", "line"),
    [
        (WITH_CALLS, '{"b": 1, "a": 2}', '{"b": 1, "a": 2}'),
        (WITH_CALLS, "", "{}"),
        (WITH_CALLS, None, "{}"),
        (WITH_CALLS, "broken {", '"broken {"'),
        (WITH_CALLS, "[1]", '"[1]"'),
        (WITH_CALLS, "[" * 100_000, json.dumps("[" * 100_000)),
        (TEXT_ARGUMENTS, {"b": 1, "a": "é"}, '{"b": 1, "a": "é"}'),
        (TEXT_ARGUMENTS, '{"b":1}', '{"b":1}'),
    ],
)
def test_arguments_are_an_object_or_text_as_the_template_wants(
    source: str, arguments: object, line: str
) -> None:
    extra = {"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    text = render(source, (*turns("u U"), Turn("assistant", "", extra), *turns("t R")))
    assert f"C call00000 function f {line}\n" in text


def test_ids_are_nine_letters_where_the_template_wants_that_and_still_belong_together() -> None:
    asked = Turn("assistant", "", {"tool_calls": [call(id="call_0123456789abcdef")]})
    answer = Turn("tool", "R", {"tool_call_id": "call_0123456789abcdef"})
    lines = render(SHORT_IDS, (*turns("u U"), asked, answer)).splitlines()
    call_id = lines[2].split()[1]
    assert len(call_id) == 9
    assert call_id.isalnum()
    assert lines[4] == f"R {call_id} f"


def test_several_calls_follow_each_other_where_one_is_the_most() -> None:
    asked = Turn("assistant", "A", {"tool_calls": [call("f", id="1"), call("g", id="2")]})
    answers = (Turn("tool", "G", {"tool_call_id": "2"}), Turn("tool", "F", {"tool_call_id": "1"}))
    text = render(ONE_CALL, (*turns("u U"), asked, *answers, *turns("u V")))
    assert text == (
        '[user] U\n[assistant] A\nC 1 function f {"é": 1}\n[tool] F\nR 1 f\n'
        '[assistant] \nC 2 function g {"é": 1}\n[tool] G\nR 2 g\n[user] V\n'
    )


def test_tools_calls_and_results_are_written_out_for_a_template_without_them() -> None:
    asked = Turn("assistant", "A", {"tool_calls": [call("f"), call("g")]})
    text = render(STRICT, (*turns("s S", "u U"), asked, *turns("t F", "t G")), tools=[TOOL])
    assert text == (
        "[user] S\n\nYou may call one or more of these tools:\n<tools>\n"
        + json.dumps(TOOL)
        + "\n</tools>\nTo call one, write its name and arguments as a JSON object between these "
        'tags:\n<tool_call>\n{"name": "…", "arguments": {…}}\n</tool_call>\nU\n'
        '[assistant] A\n<tool_call>\n{"name": "f", "arguments": {"é": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {"é": 1}}\n</tool_call>\n'
        "[user] <tool_response>\nF\n</tool_response>\n<tool_response>\nG\n</tool_response>\n"
    )


def test_a_template_that_knows_calls_but_not_tools_keeps_its_own_form_of_calls() -> None:
    source = WITH_CALLS.replace("{% if tools %}", "{% if false %}")
    text = render(source, turns("u U"), tools=[TOOL])
    assert text.startswith("[system] You may call one or more of these tools:\n<tools>\n")
    assert "<tool_call>" not in text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ functions }}|{{ datetime[-3:] }}", json.dumps([TOOL], indent=2) + "|GMT"),
        ("{{ xml_tools | tojson }}", json.dumps([TOOL])),
    ],
)
def test_tools_come_under_other_names_too(source: str, text: str) -> None:
    assert render(source, turns("u U"), tools=[TOOL]) == text


def test_a_template_that_goes_through_tools_gets_an_empty_list_without_them() -> None:
    source = "{% for t in tools %}{{ t }}{% endfor %}{{ messages[0].content }}"
    assert render(source, turns("u U")) == "U"


@pytest.mark.parametrize(
    "calls", [[], "x", [1], [{}], [{"function": 3}], [{"function": {}}], {"a": 1}, None]
)
@pytest.mark.parametrize("source", [STRICT, WITH_CALLS, ONE_CALL, TEXT_ARGUMENTS, SHORT_IDS])
def test_calls_in_no_form_end_as_text_or_as_the_templates_error(source: str, calls: object) -> None:
    asked = Turn("assistant", "A", {"tool_calls": calls})
    with contextlib.suppress(TemplateFailed):
        assert "U" in render(source, (*turns("u U"), asked, *turns("t R", "u V")))


THINKING = (
    EACH + "{% if m.role == 'assistant' %}<a>{% if m.reasoning_content is defined %}<t>"
    "{{ m.reasoning_content }}</t>{% endif %}{{ m.content }}</a>{% else %}{{ m.content }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.mark.parametrize(
    ("source", "last", "text"),
    [
        (THINKING, Turn("assistant", "Well, "), "U<a>Well, "),
        (THINKING, Turn("assistant", "", {"thinking": "hm"}), "U<a><t>hm"),
        (THINKING, Turn("assistant", "Well", {"thinking": "hm"}), "U<a><t>hm</t>Well"),
        (THINKING, Turn("assistant", ""), "U<a>"),
        (THINKING.replace("{{ m.content }}</a>", "</a>"), Turn("assistant", "Well"), "U<a>Well"),
        (LINES, Turn("assistant", "", {"thinking": "hm"}), "[user] U\nhm"),
        (PARTS, Turn("assistant", "Well, "), "user:U;assistant:Well, "),
    ],
)
def test_a_begun_answer_is_continued_where_its_template_would_write_it(
    source: str, last: Turn, text: str
) -> None:
    assert render(source, (*turns("u U"), last)) == text


@pytest.mark.parametrize("name", ["thinking", "reasoning_content", "reasoning"])
def test_reasoning_is_seen_under_both_names_whatever_the_client_called_it(name: str) -> None:
    source = EACH + "{{ m.thinking }}|{{ m.reasoning_content }};{% endfor %}"
    said = (Turn("assistant", "A", {name: "hm"}), *turns("u U"))
    assert render(source, said) == "hm|hm;|;"


def test_a_client_cannot_name_a_variable_over_the_conversation() -> None:
    given = {"messages": [], "tools": 3, "add_generation_prompt": 0, "bos_token": "B"}
    source = "{{ messages[0].content }}{{ tools }}{{ add_generation_prompt }}{{ bos_token }}"
    assert render(source, turns("u U"), variables=given) == "UNoneTrueB"


def test_a_field_that_is_null_is_as_one_that_is_not_there() -> None:
    said = Turn("user", "U", {"name": None})
    assert render("{{ messages[0].name is defined }}", (said,)) == "False"


def test_what_a_template_can_is_asked_once() -> None:
    class Counting(Templates):
        n_renders = 0

        def render(self, source: str, given: Rendering) -> str:
            self.n_renders += 1
            return super().render(source, given)

    templates = Counting()
    chat = Chat(templates, max_known=1)
    chat.render(STRICT, turns("s S", "u U"))
    before = templates.n_renders
    chat.render(STRICT, turns("s S", "u U"))
    assert templates.n_renders == before + 1
    chat.render(LINES, turns("u U"))
    chat.render(STRICT, turns("s S", "u U"))
    assert templates.n_renders > before + 3


def test_a_template_that_always_fails_is_found_able_of_nothing() -> None:
    able = Abilities(Templates(), "{{ no.such }}", {})
    found = {name for name in dir(able) if name.startswith("takes_") and getattr(able, name)}
    assert found == set()
    assert message_of(Turn("user", "U")) == {"role": "user", "content": "U"}


PICKY = (
    "{% for t in tools %}{{ t.type + ' ' + t.function.name + ': ' + t.function.description }}"
    "{% for name, p in t.function.parameters.properties.items() %}"
    "{{ ' ' + name + '=' + p.type + ' ' + p.description }}{% endfor %};{% endfor %}"
    "{% for m in messages %}{{ m.role + ' ' + m.content }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        ({"name": "f"}, "function f: ;"),
        ({"name": "f", "parameters": {"type": "object"}}, "function f: ;"),
        (
            {"name": "f", "parameters": {"properties": {"a": {"type": ["null", "integer"]}}}},
            "function f:  a=integer ;",
        ),
        (
            {
                "name": "f",
                "description": "F.",
                "parameters": {"properties": {"a": {"anyOf": [{"type": "number"}]}, "b": {}}},
            },
            "function f: F. a=number  b=string ;",
        ),
    ],
)
def test_a_tool_that_says_too_little_for_a_template_is_completed(function, shown) -> None:
    assert render(PICKY, turns("u U"), tools=[{"function": function}]) == f"{shown}user U"


def test_a_tool_that_says_enough_is_shown_as_it_was_written() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    assert '{"type": "function", "function": {"name": "f"}}' in render(
        "{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}",
        turns("u U"),
        tools=[tool],
    )


def test_a_template_that_fails_on_more_than_the_tools_still_fails() -> None:
    with pytest.raises(TemplateFailed):
        render(PICKY + "{{ raise_exception('no') }}", turns("u U"), tools=[{"function": {}}])
