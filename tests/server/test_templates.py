"""Which of two templates a model is spoken to with."""

from dataclasses import replace

import pytest

from localrun.gguf import open_model
from localrun.server.templates import template_of
from localrun.store.library import Library
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import CHATML, make_tiny
from tests.server.conftest import THINKER, running

GO = "{{ .System }} {{ .Prompt }}"


@pytest.fixture
def store(tmp_path):
    for name, jinja in (("able", THINKER), ("plain", CHATML), ("none", None)):
        file = make_tiny(tmp_path / f"{name}.gguf", arch="qwen3", chat_template=jinja)
        store_model(tmp_path / "models", name, file, template=GO)
        store_model(tmp_path / "models", f"only-{name}", file)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "wish", "language", "is_from_file"),
    [
        ("able", None, "jinja", True),
        ("able", True, "go", False),
        ("able", False, "jinja", True),
        ("plain", None, "go", False),
        ("plain", True, "go", False),
        ("plain", False, "jinja", True),
        ("none", None, "go", False),
        ("none", False, "jinja", True),
        ("only-able", True, "jinja", True),
        ("only-none", True, "jinja", True),
    ],
)
def test_the_better_one_holds_unless_the_user_says_which(store, name, wish, language, is_from_file):
    model = Library(store / "models").find(name)
    found = template_of(replace(model, go_template=wish), open_model(model.model_paths))
    assert (found.language, found.is_from_file) == (language, is_from_file)
    assert found.text == (GO if language == "go" else open_model(model.model_paths).chat_template)


@pytest.mark.parametrize("wish", [True, False])
def test_the_setting_reaches_show_tags_and_prompts(store, wish):
    with running(store, go_template=wish) as server, server.client() as client:
        shown = client.post("/api/show", json={"model": "able"}).json()
        assert shown["template"] == (GO if wish else THINKER)
        assert ("thinking" in shown["capabilities"]) is not wish
        tags = {model["name"]: model for model in client.get("/api/tags").json()["models"]}
        assert ("thinking" in tags["able:latest"]["capabilities"]) is not wish
        body = {"model": "able", "messages": [{"role": "user", "content": "hi"}]}
        answer = client.post("/api/chat", json=body | {"_debug_render_only": True}).json()
        assert ("<|im_start|>" in answer["_debug_info"]["rendered_template"]) is not wish


@pytest.mark.parametrize(
    ("source", "told"),
    [("OLLAMA_NO_CLOUD", "env"), ("LOCALRUN_NO_CLOUD", "env"), ("/home/a/config.toml", "config")],
)
def test_status_says_who_has_switched_the_cloud_off(tmp_path, source, told):
    switched = running(tmp_path, no_cloud=True, sources={"no_cloud": source})
    with switched as server, server.client() as client:
        found = client.get("/api/status").json()
    assert found == {"cloud": {"disabled": True, "source": told}}
