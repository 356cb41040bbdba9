"""Each published template and conversation gives the bytes that `transformers` gave.

The expectations come from `scripts/make_template_expectations`; `None` is a refusal.
"""

import json
import lzma
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from localrun.errors import TemplateFailed
from localrun.messages import Turn
from localrun.text.chat.conversation import Chat
from localrun.text.chat.templates import Rendering, Templates

HERE = Path(__file__).parent
NOW = datetime(2026, 3, 2, 9, 5)  # noqa: DTZ001 (as in the script)
EXPECTED: dict[str, dict[str, Any]] = json.loads(
    lzma.decompress((HERE / "expectations.json.xz").read_bytes())
)["templates"]
TALKS: dict[str, dict[str, Any]] = json.loads((HERE / "conversations.json").read_text())
TOOLS: dict[str, list[dict[str, Any]]] = json.loads((HERE / "tools.json").read_text())
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
ALWAYS_WHOLE = ("system", "user", "tool", "developer")

LOSES = {("mistralai-Mistral-Nemo-Instruct-2407", "parallel")}
"""It writes the system's words only before a last turn that is the user's."""

REFUSES = {
    ("mistralai-Ministral-3-14B-Reasoning-2512", "empty answer"): "must have a string",
    ("Cohere2MoE", "documents"): "'NoneType' object is not iterable",
    ("CohereForAI-c4ai-command-r7b-12-2024-tool_use", "documents"): "'NoneType' object is not",
}
"""Conversations that a template does not take in any form."""


def variables_of(talk: dict[str, Any]) -> dict[str, object]:
    return {**SPECIAL, "documents": talk.get("documents"), **talk.get("variables", {})}


def tools_of(talk: dict[str, Any]) -> list[dict[str, Any]] | None:
    return TOOLS[talk["tools"]] if "tools" in talk else None


def rendered(templates: Templates, source: str, talk: dict[str, Any]) -> str | None:
    given = (talk["messages"], tools_of(talk), variables_of(talk), talk.get("continues", ""))
    try:
        return templates.render(source, Rendering(*given))
    except TemplateFailed:
        return None


@pytest.mark.parametrize("name", EXPECTED)
def test_a_published_template_renders_as_in_transformers_and_loses_no_word(name: str) -> None:
    templates, kept = Templates(lambda: NOW), EXPECTED[name]  # compiled once for both halves
    found = {talk: rendered(templates, kept["source"], TALKS[talk]) for talk in kept["prompts"]}
    assert found == kept["prompts"]
    check_what_it_does_not_take(templates, name)


def test_most_templates_take_most_conversations_so_that_the_comparison_says_something() -> None:
    prompts = [prompt for kept in EXPECTED.values() for prompt in kept["prompts"].values()]
    assert len(EXPECTED) >= 70
    assert len(prompts) == len(EXPECTED) * len(TALKS)
    assert sum(prompt is not None for prompt in prompts) > 0.8 * len(prompts)


def conversations() -> Iterator[tuple[str, dict[str, Any], tuple[Turn, ...]]]:
    for name, talk in TALKS.items():
        fields = [dict(message) for message in talk["messages"]]
        if all(isinstance(message["content"], str) for message in fields):
            yield name, talk, tuple(Turn(f.pop("role"), f.pop("content"), f) for f in fields)


def changed_by(chat: Chat, source: str) -> set[str]:
    """Conversations that the template does not take as they are."""
    able = chat.abilities(source, SPECIAL)
    checks = {
        "developer": able.takes_developer,
        "late system": able.takes_late_system,
        "parallel": able.takes_tools and able.takes_parallel and able.takes_results,
        "call": able.takes_tools and able.takes_calls and able.takes_results,
        "tools": able.takes_tools,
        "tools alone": able.takes_tools,
        "call as string": able.wants_text_arguments,
    }
    return {told for told, is_able in checks.items() if not is_able}


def check_what_it_does_not_take(templates: Templates, name: str) -> None:
    """What a template takes reaches it unchanged, and of the rest no word is lost."""
    chat, source, prompts = Chat(templates), EXPECTED[name]["source"], EXPECTED[name]["prompts"]
    changed = changed_by(chat, source)
    for told, talk, turns in conversations():
        given: dict[str, Any] = {"tools": tools_of(talk) or (), "variables": variables_of(talk)}
        if (name, told) in REFUSES:
            with pytest.raises(TemplateFailed, match=REFUSES[name, told]):
                chat.render(source, turns, **given)
            continue
        text = chat.render(source, turns, **given)
        if prompts[told] is not None and told not in changed:
            assert text == prompts[told]
        if (name, told) not in LOSES:
            whole = [turn.content for turn in turns if turn.role in ALWAYS_WHOLE]
            assert [words for words in whole if not _holds(text, words)] == [], told


def _holds(text: str, words: str) -> bool:
    """Whether the words stand there, verbatim or as a JSON string."""
    return words.strip() in text or json.dumps(words, ensure_ascii=False)[1:-1] in text
