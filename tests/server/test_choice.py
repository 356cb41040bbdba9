"""Which backend answers for a model."""

import pytest

from localrun.config import Settings
from localrun.errors import BadRequest, BadSetting
from localrun.server.choice import Choice, find_daemon, is_of_cloud

CATALOG = """
[llama9]
backend = "ollama"
default = "8b"
[llama9.tags]
"1b" = { repo = "a/b", backend = "llamacpp" }
"8b" = "a/c"
"""


@pytest.fixture
def settings(tmp_path):
    return lambda **changes: Settings(home=tmp_path, models=tmp_path, **changes)


def test_nobody_chose(settings):
    choice = Choice(settings())
    assert (choice.of("x"), choice.needs_name, choice.wants_daemon) == ("", False, False)


@pytest.mark.parametrize(
    ("name", "asked", "backend"),
    [
        ("other", "", "ollama"),
        ("mine", "", "llamacpp"),
        ("library/MINE:latest", "", "llamacpp"),
        ("mine", "ollama", "ollama"),
        ("no name at all", "", "ollama"),
    ],
)
def test_the_request_wins_then_the_model_then_the_default(settings, name, asked, backend):
    choice = Choice(settings(backend="ollama", backends=("mine=llamacpp",)))
    assert choice.of(name, asked) == backend


def test_an_unknown_backend_is_refused(settings):
    with pytest.raises(BadRequest, match="'vllm': llamacpp, ollama"):
        Choice(settings()).of("x", "vllm")


@pytest.mark.parametrize(
    ("name", "backend"),
    [("llama9", "ollama"), ("llama9:8b", "ollama"), ("llama9:1b", "llamacpp"), ("llama8", "")],
)
def test_the_users_catalog_chooses_for_its_models(settings, tmp_path, name, backend):
    file = tmp_path / "models.toml"
    file.write_text(CATALOG)
    choice = Choice(settings(catalog=file))
    assert choice.of(name) == backend
    assert choice.wants_daemon
    assert Choice(settings(catalog=file, backend="llamacpp")).of(name) == "llamacpp"


def test_a_catalog_with_an_unknown_backend_stops_the_start(settings, tmp_path):
    file = tmp_path / "models.toml"
    file.write_text(CATALOG.replace('"ollama"', '"vllm"'))
    with pytest.raises(BadSetting, match="backend 'vllm' is none of"):
        Choice(settings(catalog=file))


@pytest.mark.parametrize(
    ("changes", "url", "is_expected"),
    [
        ({"ollama": "off"}, None, None),
        ({}, None, None),
        ({"host": "0.0.0.0"}, None, None),
        ({"port": 11435}, "http://127.0.0.1:11434", False),
        ({"port": 11435, "backend": "ollama"}, "http://127.0.0.1:11434", True),
        ({"host": "192.168.1.5"}, "http://127.0.0.1:11434", False),
        ({"ollama": "http://box:1"}, "http://box:1", True),
    ],
)
def test_a_daemon_is_looked_for_where_we_are_not(settings, changes, url, is_expected):
    found = settings(**changes)
    daemon = find_daemon(found, Choice(found))
    assert (daemon and daemon.url) == url
    assert daemon is None or daemon.is_expected == is_expected


@pytest.mark.parametrize(
    ("name", "is_so"),
    [("a:cloud", True), ("a:20b-Cloud", True), ("cloud", False), ("a:7b", False), ("a", False)],
)
def test_models_of_the_cloud_are_known_by_their_tags(name, is_so):
    assert is_of_cloud(name) == is_so
