"""Each published template and conversation gives the bytes that `transformers` gave.

The expectations come from `scripts/make_template_expectations`; `None` is a refusal.
"""

import json
import lzma
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from localrun.errors import TemplateFailed
from localrun.text.chat.templates import Rendering, Templates

HERE = Path(__file__).parent
NOW = datetime(2026, 3, 2, 9, 5)  # noqa: DTZ001 (as in the script)
EXPECTED: dict[str, dict[str, Any]] = json.loads(
    lzma.decompress((HERE / "expectations.json.xz").read_bytes())
)["templates"]
TALKS: dict[str, dict[str, Any]] = json.loads((HERE / "conversations.json").read_text())
TOOLS: dict[str, list[dict[str, Any]]] = json.loads((HERE / "tools.json").read_text())
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def given(talk: dict[str, Any]) -> Rendering:
    variables = {**SPECIAL, "documents": talk.get("documents"), **talk.get("variables", {})}
    tools = TOOLS[talk["tools"]] if "tools" in talk else None
    return Rendering(talk["messages"], tools, variables, talk.get("continues", ""))


def rendered(templates: Templates, source: str, talk: dict[str, Any]) -> str | None:
    try:
        return templates.render(source, given(talk))
    except TemplateFailed:
        return None


@pytest.mark.parametrize("name", EXPECTED)
def test_a_published_template_renders_as_in_transformers(name: str) -> None:
    templates, kept = Templates(lambda: NOW), EXPECTED[name]
    found = {talk: rendered(templates, kept["source"], TALKS[talk]) for talk in kept["prompts"]}
    assert found == kept["prompts"]


def test_most_templates_take_most_conversations_so_that_the_comparison_says_something() -> None:
    prompts = [prompt for kept in EXPECTED.values() for prompt in kept["prompts"].values()]
    assert len(EXPECTED) >= 70
    assert len(prompts) == len(EXPECTED) * len(TALKS)
    assert sum(prompt is not None for prompt in prompts) > 0.8 * len(prompts)
