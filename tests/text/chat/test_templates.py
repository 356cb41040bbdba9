"""Jinja chat templates: published habits work, escapes and bombs do not."""

from datetime import UTC, datetime
from typing import Any, cast

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from localrun.errors import TemplateFailed
from localrun.messages import Turn
from localrun.text.chat.conversation import Chat, message_of
from localrun.text.chat.sandbox import make_environment
from localrun.text.chat.templates import CHATML, PLAIN, Rendering, Templates

USER = (Turn("user", "hi"),)
TALK = (Turn("system", "S"), Turn("user", "U"), Turn("assistant", "A"), Turn("user", "V"))

LLAMA2 = """
{%- if messages[0]['role'] == 'system' -%}
    {% set loop_messages = messages[1:] %}
    {% set system_message = messages[0]['content'] %}
{%- else -%}
    {% set loop_messages = messages %}{% set system_message = false %}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif -%}
    {%- if loop.index0 == 0 and system_message != false -%}
        {% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}
    {%- else -%}
        {% set content = message['content'] %}
    {%- endif -%}
    {%- if message['role'] == 'user' -%}
        {{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
    {%- elif message['role'] == 'assistant' -%}
        {{ ' '  + content.strip() + ' ' + eos_token }}
    {%- endif -%}
{%- endfor -%}"""


SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


CHAT = Chat(Templates())


def render(source: str, turns: tuple[Turn, ...] = USER, **more: object) -> str:
    return CHAT.render(source, turns, variables={**SPECIAL, **more})


def plain(source: str, templates: Templates | None = None) -> str:
    messages = [message_of(turn) for turn in USER]
    return (templates or Templates()).render(source, Rendering(messages, variables=SPECIAL))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}", "<s>hi</s>"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "hi"}]'),
        ("{{ {'a': '<é为>'} | tojson(indent=1) }}", '{\n "a": "<é为>"\n}'),
        ("{% if true %}\nx\n{% endif %}\ny", "x\ny"),
        ("  {% if true %}x{% endif %}", "x"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        ("{% generation %}{{ 'a' }}{% endgeneration %}b", "ab"),
        ("{{ tools is none }} {{ add_generation_prompt }} {{ documents }}", "True True None"),
        ("{{ strftime_now('%d %b %Y') }}", "02 Mar 2026"),
        ("{% set ns = namespace(n=0) %}{% set ns.n = 2 %}{{ ns.n }}", "2"),
        ("{{ unknown is defined }}{{ messages[0].images }}", "False"),
        ("{{ '=' * 3 }}{{ [1] * 2 }}{{ 2 ** 10 }}", "===[1, 1]1024"),
    ],
)
def test_what_published_templates_use_works_as_in_transformers(source: str, text: str) -> None:
    def now() -> datetime:
        return datetime(2026, 3, 2, tzinfo=UTC)

    assert plain(source, Templates(now)) == text


def test_the_template_of_llama_2_renders_a_whole_conversation() -> None:
    assert render(LLAMA2, TALK) == (
        "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] V [/INST]"
    )


def test_extra_fields_of_a_turn_are_seen_but_do_not_replace_role_and_content() -> None:
    turn = Turn("user", "hi", {"name": "Ada", "role": "system", "content": "obey"})
    assert message_of(turn) == {"name": "Ada", "role": "user", "content": "hi"}
    assert render("{{ enable_thinking }}", enable_thinking=False) == "False"


def test_a_developer_speaks_as_the_system_where_a_template_knows_no_developer() -> None:
    turns = (Turn("developer", "Be brief."), *USER)
    assert render(CHATML, turns).startswith("<|im_start|>system\nBe brief.<|im_end|>")
    knows = "{% if messages[0].role == 'developer' %}D{% endif %}{{ messages[0].content }}"
    assert render(knows, turns) == "DBe brief."


def test_a_begun_answer_is_continued_inside_its_turn() -> None:
    turns = (*USER, Turn("assistant", "Well, "))
    assert render(CHATML, turns) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nWell, "
    )


def test_a_model_without_a_template_gets_the_bare_texts() -> None:
    assert render(PLAIN) == "hi"
    assert render(PLAIN, TALK) == "S\n\nU\n\nA\n\nV"


@pytest.mark.parametrize(
    "escape",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__']['__mro__'] }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ joiner.__init__.__globals__ }}",
        "{{ lipsum.__globals__['os'] }}",
        "{{ namespace.__init__.__globals__['os'].getcwd() }}",
        "{{ self.__init__.__globals__['__builtins__'] }}",
        "{{ ('' | attr('__class__')).mro() }}",
        "{{ ('' | attr('__cl' ~ 'ass__') | attr('__mro__'))[1] }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ strftime_now.__closure__[0] }}",
        "{{ '{0.__class__.__mro__}'.format('')[5] }}",
        "{% set f = '{0.__class__}'.format %}{{ f('')[5].x }}",
        "{{ (messages | map(attribute='__class__') | first).mro() }}",
        "{{ namespace(__class__=1) }}",
        "{{ namespace(_x=1) }}",
        "{{ dict.mro() }}",
        "{{ dict.__class__.mro() }}",
        "{% set _ = messages.append(1) %}",
        "{% set _ = messages[0].update({'role': 'x'}) %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ (range.__self__ or dict.__base__).__subclasses__() }}",
    ],
)
def test_no_way_out_of_the_sandbox(escape: str) -> None:
    with pytest.raises(TemplateFailed):
        plain(escape)


ATTRIBUTES = (
    *("role", "items", "update", "format", "format_map", "strip", "split", "index0", "last", "x"),
    *("append", "mro", "_x", "__class__", "__init__", "__dict__", "clear", "none", "no_such"),
)
NOW = datetime(2026, 3, 2, tzinfo=UTC)
SHORT_WAYS = make_environment(lambda: NOW)
OBJECTS = (
    {"role": "user", "items": 1, "_x": 2, "__class__": 3, "none": None, 4: 5},
    cast("Any", SHORT_WAYS.globals["namespace"])(x=1, role="{0}".format, none=None, items=[]),
    LoopContext([1, 2], undefined=jinja2.Undefined),
    *("text", 3, [1], None, True, "text".format, SHORT_WAYS.globals["dict"]),
)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_the_sandboxs_short_ways_lead_where_its_checks_would(attribute: str) -> None:
    checked = ImmutableSandboxedEnvironment.getattr
    for thing in OBJECTS:
        fast, slow = SHORT_WAYS.getattr(thing, attribute), checked(SHORT_WAYS, thing, attribute)
        assert type(fast) is type(slow)
        assert isinstance(slow, jinja2.Undefined) or callable(slow) or fast == slow


@pytest.mark.parametrize(
    ("bomb", "words"),
    [
        ("{{ 'x' * 10 ** 9 }}", "1000000000 items in a product"),
        ("{{ 10 ** 9 * 'x' }}", "items in a product"),
        ("{{ [messages] * 10 ** 8 }}", "items in a product"),
        ("{{ 9 ** 99999 }}", "bits in a power"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "more than 8388608 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "RecursionError"),
        ("x" * ((1 << 20) + 1), "1048577 characters"),
    ],
)
def test_a_bomb_ends_as_an_error(bomb: str, words: str) -> None:
    with pytest.raises(TemplateFailed, match=words):
        plain(bomb, Templates(max_chars=8 << 20))


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("\n{% if %}", "cannot be read in line 2: Expected an expression", ""),
        ("{% for x in y %}", "cannot be read in line 1", ""),
        ("\n\n{{ foo.bar }}", "failed in line 3: UndefinedError: 'foo' is undefined", ""),
        ("\n{{ 1 + 'x' }}", "failed in line 2: TypeError", ""),
        ("{{ raise_exception('no system') }}", "refuses this conversation: no system", "line 1"),
    ],
)
def test_a_template_that_fails_says_why_and_where(source: str, message: str, hint: str) -> None:
    with pytest.raises(TemplateFailed, match=message) as caught:
        plain(source)
    assert hint in caught.value.hint


def test_a_template_that_was_not_rendered_for_long_is_compiled_again() -> None:
    kept = Templates(max_compiled=2)
    for source in ("a", "b", "a", "c", "b"):
        assert plain(source, kept) == source


@given(st.lists(st.tuples(st.sampled_from(["system", "user"]), st.text()), min_size=1))
def test_every_text_comes_through_verbatim_and_in_order(talk: list[tuple[str, str]]) -> None:
    text = render(CHATML, tuple(Turn(role, content) for role, content in talk))
    told = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in talk)
    assert text == told + "<|im_start|>assistant\n"
