"""Every template gives what Go's `text/template` and Ollama's `template` package give.

`expectations.json.xz` was written by Ollama 0.33.0 and Go 1.26 on these templates, snippets and
conversations: a text, or null where Go reports an error. The templates are those that Ollama's
repository holds (MIT licence) and the forms of well-known models. Left out is what differs from run
to run in Go: addresses.
"""

import datetime
import json
import lzma
from functools import cache
from pathlib import Path

import pytest

from localrun.errors import TemplateFailed
from localrun.gotemplate import infer_tags, render_go
from localrun.messages import Turn

HERE = Path(__file__).parent
TEMPLATES = {
    path.stem: path.read_bytes().decode("utf-8")
    for path in sorted((HERE / "templates").glob("*.gotmpl"))
}
SNIPPETS = json.loads((HERE / "snippets.json").read_text(encoding="utf-8"))
CONVERSATIONS = json.loads((HERE / "conversations.json").read_text(encoding="utf-8"))


@cache
def expectations() -> dict[str, dict[str, dict[str, object]]]:
    found: dict[str, dict[str, dict[str, object]]] = json.loads(
        lzma.decompress((HERE / "expectations.json.xz").read_bytes())
    )
    return found


def rendered(source: str, name: str) -> str | None:
    conversation = CONVERSATIONS[name]
    turns = [
        Turn(message.pop("role"), message.pop("content"), message)
        for message in map(dict, conversation["messages"])
    ]
    now = datetime.datetime.fromisoformat(f"{expectations()['today']}T12:00:00+00:00")
    try:
        return render_go(
            source,
            turns,
            tools=conversation.get("tools", ()),
            think=conversation.get("think"),
            prompt=conversation.get("prompt", ""),
            suffix=conversation.get("suffix", ""),
            now=now,
        )
    except TemplateFailed:
        return None


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_models_template_gives_what_ollama_gives(name: str) -> None:
    wanted = {where: texts[name] for where, texts in expectations()["texts"].items()}
    assert {where: rendered(TEMPLATES[name], where) for where in wanted} == wanted
    assert len(wanted) == len(CONVERSATIONS)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_every_construct_gives_what_go_gives(conversation: str) -> None:
    wanted = {
        source: text
        for source, text in expectations()["texts"][conversation].items()
        if source not in TEMPLATES
    }
    found = {source: rendered(source, conversation) for source in wanted}
    differing = {one: (found[one], wanted[one]) for one in wanted if found[one] != wanted[one]}
    assert not differing


def test_the_expectations_cover_texts_and_errors() -> None:
    texts = [text for found in expectations()["texts"].values() for text in found.values()]
    assert sum(text is None for text in texts) > 500
    assert sum(text is not None for text in texts) > 2000


def test_tags_and_names_are_what_ollama_infers() -> None:
    for name, (opening, closing, tool_call, names) in expectations()["tags"].items():
        tags = infer_tags(TEMPLATES.get(name, name))
        assert tags.thinking == (opening, closing), name
        assert tags.tool_call == tool_call, name
        assert sorted(tags.names) == sorted(names), name


def test_functions_work_in_the_last_turn_too() -> None:
    """Ollama loses its functions there, which helps nobody."""
    turns = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"))
    assert render_go("{{ json .Prompt }}{{ .Response }}", turns) == '"a"b"c"'
