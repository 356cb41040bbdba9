"""What is mended in the prompts of agents, and what is not."""

import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.messages import Turn
from localrun.server.agents import Agents, without_nonces

HEAD = "x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch=fa690;"
CLAUDE = "You are Claude Code, Anthropic's official CLI for Claude."


def tool(name: str, **properties: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {k: {"type": v} for k, v in properties.items()}}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (HEAD + CLAUDE, CLAUDE),
        (HEAD + "\n" + CLAUDE, CLAUDE),
        ("\n" + HEAD + "\n\n" + CLAUDE, CLAUDE),
        (HEAD.replace("cch=fa690;", "cch=00000; cc_workload=cron;") + CLAUDE, CLAUDE),
        ("x-anthropic-billing-header: cc_version=2.1.77; cc_entrypoint=sdk-cli;" + CLAUDE, CLAUDE),
        ("x-anthropic-billing-header: cc_version=2.1.77; cch=ab12c", None),
        (HEAD, None),
        (CLAUDE, CLAUDE),
        (CLAUDE + "\n" + HEAD, CLAUDE + "\n" + HEAD),
        ("x-anthropic-billing-header: what is it?", "x-anthropic-billing-header: what is it?"),
        ("Today's date is 2026-11-24. It is 12:03.", "Today's date is 2026-11-24. It is 12:03."),
        ("", ""),
    ],
)  # fmt: skip
def test_the_attribution_line_is_left_out_and_nothing_else(text, rest):
    kept = without_nonces([Turn("system", text), Turn("user", "hi")])
    assert kept == (*(() if rest is None else (Turn("system", rest),)), Turn("user", "hi"))


@pytest.mark.parametrize("role", ["user", "assistant", "tool"])
def test_what_a_user_a_tool_or_the_model_says_is_never_touched(role):
    turns = (Turn(role, HEAD + CLAUDE),)
    assert without_nonces(turns) == turns


def test_two_requests_of_one_session_get_the_same_turns():
    one, two = (
        [Turn("system", f"{HEAD[:-6]}{nonce};{CLAUDE}"), Turn("user", "hi")]
        for nonce in ("36ee5", "0aaa9")
    )
    assert without_nonces(one) == without_nonces(two)


def test_a_known_set_of_tools_is_rendered_as_it_was_the_first_time():
    agents = Agents()
    first = (tool("b", x="string", y="number"), tool("a"))
    later = (tool("a"), tool("b", y="number", x="string"))
    assert agents.normalise((), first, scope="s")[1] == first
    # Equal dictionaries may differ in the order of their keys, which the template shows.
    assert json.dumps(agents.normalise((), later, scope="s")[1]) == json.dumps(first)


@pytest.mark.parametrize(
    "tools",
    [
        (tool("a"), tool("b"), tool("c")),
        (tool("a"), tool("b", x="number")),
        (tool("a"),),
        (tool("a"), tool("b"), tool("a")),
        (),
    ],
)
def test_another_set_of_tools_stands_as_the_client_wrote_it(tools):
    agents = Agents()
    agents.normalise((), (tool("b"), tool("a")), scope="s")
    assert agents.normalise((), tools, scope="s")[1] == tools


def test_an_order_is_not_learnt_from_another_scope():
    agents = Agents()
    agents.normalise((), (tool("b"), tool("a")), scope="one")
    assert agents.normalise((), (tool("a"), tool("b")), scope="two")[1] == (tool("a"), tool("b"))


def test_who_wants_it_gets_every_prompt_as_it_was_sent():
    agents = Agents(keeps_nonces=True)
    turns = (Turn("system", HEAD + CLAUDE),)
    for tools in itertools.permutations((tool("a"), tool("b"))):
        assert agents.normalise(turns, tools, scope="s") == (turns, tools)


def test_only_so_many_sets_are_remembered():
    agents = Agents()
    agents.normalise((), (tool("b"), tool("a")), scope="s")
    for i in range(100):
        agents.normalise((), (tool(f"t{i}"),), scope="s")
    assert agents.normalise((), (tool("a"), tool("b")), scope="s")[1] == (tool("a"), tool("b"))


@given(st.lists(st.text("abcdef", min_size=1), unique=True, max_size=6), st.randoms())
def test_every_order_of_a_set_of_tools_becomes_the_first(names, chance: random.Random):
    agents, tools = Agents(), tuple(map(tool, names))
    agents.normalise((), tools, scope="s")
    shuffled = chance.sample(tools, len(tools))
    assert agents.normalise((), shuffled, scope="s")[1] == tools


@given(st.text(), st.sampled_from(["system", "developer", "user", "assistant"]))
def test_a_text_without_the_line_is_the_same_afterwards(text, role):
    turns = (Turn(role, text),)
    assert without_nonces(turns) == turns
