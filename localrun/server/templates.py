"""Which chat template a stored model speaks with. Pure.

A model may bring two: Jinja in its file, and one that its maker laid beside it, in Go's language
where it comes from Ollama. The one beside it holds unless the file's can clearly do more, or the
user has said which one does.

Source: Ollama's `shouldPreferChatTemplate`.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from localrun.gguf import ModelInfo
from localrun.output.family import Family, family_of
from localrun.store.library import StoredModel

Language: TypeAlias = Literal["jinja", "go"]

_GO = re.compile(r"\{\{-?\s*(\.|\$|/\*|if\b|else\b|end\b|range\b|with\b|block\b|template\b)")
_ANSWERS_TOOLS = (
    "tool_response", "tool_results", "role'] == 'tool'", "role'] == \"tool\"", "role\"] == 'tool'",
    'role"] == "tool"', "message.role == 'tool'", 'message.role == "tool"', "ipython",
)  # fmt: skip
_GO_ANSWERS_TOOLS = ('eq .Role "tool"', "tool_response", "TOOL_RESULTS")


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A chat template.

    Attributes:
        text: None where the model has none at all.
        language: What it is written in.
        is_from_file: It stands in the model's own file.
        architecture: Of the model.
    """

    text: str | None
    language: Language
    is_from_file: bool
    architecture: str

    @property
    def family(self) -> Family:
        """How a model answers that is spoken to like this."""
        return family_in(self.text, self.language, self.architecture)

    @property
    def fills(self) -> bool:
        """It says how a gap is filled."""
        return self.language == "go" and ".Suffix" in (self.text or "")


def family_in(text: str | None, language: Language, architecture: str) -> Family:
    """The family of a model with this template."""
    go, jinja = (text, None) if language == "go" else (None, text)
    return family_of(jinja=jinja, go=go, architecture=architecture)


def template_of(model: StoredModel, info: ModelInfo | None) -> ChatTemplate:
    """The template that a model speaks with where a request does not bring its own."""
    architecture = info.architecture if info else model.config.model_family
    own = info.chat_template if info else None
    beside, language = model.chat_template, "jinja"
    if beside is None and model.template is not None:
        beside = model.template
        language = "go" if looks_like_go(beside) else "jinja"
    if beside is None or (language == "go" and _own_wins(model, own, beside, architecture)):
        return ChatTemplate(own, "jinja", is_from_file=True, architecture=architecture)
    found: Language = "go" if language == "go" else "jinja"
    return ChatTemplate(beside, found, is_from_file=False, architecture=architecture)


def _own_wins(model: StoredModel, own: str | None, go: str, architecture: str) -> bool:
    """The template of the file holds, not the Go template beside it."""
    if model.go_template is not None:
        return not model.go_template
    return bool(own and (model.config.renderer or _can_more(own, go, architecture)))


def looks_like_go(template: str) -> bool:
    """Whether a template is Go's; a request does not say in which language it writes."""
    return "{%" not in template and (_GO.search(template) is not None or "{{" not in template)


@lru_cache(maxsize=64)
def _can_more(jinja: str, go: str, architecture: str) -> bool:
    """The file's Jinja can do more than the Go template, and loses nothing that that can."""
    theirs = _abilities(jinja, "jinja", architecture)
    ours = _abilities(go, "go", architecture)
    theirs_returns = ("tool_calls" in jinja or "assistant_tool_call" in jinja) and any(
        mark in jinja for mark in _ANSWERS_TOOLS
    )
    ours_returns = ".ToolCalls" in go and any(mark in go for mark in _GO_ANSWERS_TOOLS)
    if len(theirs) > len(ours):
        return theirs_returns or not ours_returns
    return theirs == ours and "tools" in ours and theirs_returns and not ours_returns


def _abilities(text: str, language: Language, architecture: str) -> set[str]:
    family = family_in(text, language, architecture)
    found = {"tools"} if family.calls_tools else set[str]()
    if family.thinks:
        found.add("thinking")
    if language == "go" and ".Suffix" in text:
        found.add("insert")
    return found
