"""Settings say where each came from, and a bad one stops the start."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.config import (
    SETTINGS,
    Settings,
    child_environment,
    load_settings,
    prepare_hub_environment,
)
from localrun.errors import BadSetting
from localrun.values import parse_duration, parse_host

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def call(overrides: dict[str, object] | None = None, **environ: str) -> Settings:
        return load_settings({"LOCALRUN_HOME": str(tmp_path), **environ}, overrides)

    return call


def test_defaults_are_ollamas_address_and_our_own_store(load: Load, tmp_path: Path) -> None:
    settings = load()
    assert (settings.host, settings.port) == ("127.0.0.1", 11434)
    assert settings.models == tmp_path / "models"
    assert settings.keep_alive_s == 300
    assert settings.origin("keep_alive_s") == "default"
    assert settings.origin("home") == "LOCALRUN_HOME"


def test_without_a_variable_home_is_in_the_users_directory() -> None:
    settings = load_settings({"LOCALRUN_CONFIG": ""})
    assert settings.home == Path.home() / ".localrun"


def test_each_value_knows_where_it_came_from(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('keep_alive = "1h"\nmax_queue = 7\nnum_parallel = 2\norigins = ["a", "b"]\n')
    settings = load({"num_parallel": "3"}, OLLAMA_MAX_QUEUE="8", LOCALRUN_DEBUG="on")
    assert settings.keep_alive_s == 3600
    assert settings.origin("keep_alive_s") == str(file)
    assert (settings.max_queue, settings.origin("max_queue")) == (8, "OLLAMA_MAX_QUEUE")
    assert (settings.num_parallel, settings.origin("num_parallel")) == (3, "--num-parallel")
    assert (settings.debug, settings.origin("debug")) == (True, "LOCALRUN_DEBUG")
    assert settings.origins == ("a", "b")


def test_our_variable_wins_over_ollamas(load: Load) -> None:
    assert load(LOCALRUN_KEEP_ALIVE="1m", OLLAMA_KEEP_ALIVE="2m").keep_alive_s == 60


def test_ollamas_address_and_store_are_never_ours(load: Load, tmp_path: Path) -> None:
    settings = load(OLLAMA_HOST="0.0.0.0:1", OLLAMA_MODELS="/elsewhere")
    assert (settings.host, settings.port) == ("127.0.0.1", 11434)
    assert settings.models == tmp_path / "models"
    assert settings.ollama_models == Path("/elsewhere")


def test_the_hubs_cache_is_where_huggingface_hub_has_it(load: Load) -> None:
    assert load().hub_cache == Path.home() / ".cache" / "huggingface" / "hub"
    assert load(XDG_CACHE_HOME="/c").hub_cache == Path("/c/huggingface/hub")
    assert load(XDG_CACHE_HOME="/c", HF_HOME="/h").hub_cache == Path("/h/hub")
    assert load(HF_HOME="/h", HF_HUB_CACHE="/cache").hub_cache == Path("/cache")
    assert load(LOCALRUN_ADOPT="off").adopt is False


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("500ms", 0.5), ("30", 30), ("0", 0), ("-1", math.inf),
     ("-1m", math.inf), ("1.5h", 5400), (" \"10s\" ", 10)],
)  # fmt: skip
def test_keep_alive_is_a_go_duration_or_seconds(load: Load, text: str, seconds: float) -> None:
    assert load(OLLAMA_KEEP_ALIVE=text).keep_alive_s == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "seconds"), [("0", math.inf), ("-3s", math.inf), ("2m", 120)])
def test_no_load_timeout_is_said_by_zero(load: Load, text: str, seconds: float) -> None:
    assert load(OLLAMA_LOAD_TIMEOUT=text).load_timeout_s == seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("TRUE", True), ("2", True), ("yes please", True), ("0", False), ("F", False)],
)
def test_ollamas_booleans_are_gos(load: Load, text: str, value: bool) -> None:
    assert load(OLLAMA_FLASH_ATTENTION=text).flash_attention is value


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("", "127.0.0.1", 11434),
        ("1.2.3.4", "1.2.3.4", 11434),
        ("example.com", "example.com", 11434),
        ("example.com:1234", "example.com", 1234),
        (":1234", "0.0.0.0", 1234),
        (":", "0.0.0.0", 11434),
        ("example.com:", "example.com", 11434),
        ("http://example.com", "example.com", 80),
        ("http://example.com:56789/path", "example.com", 56789),
        ("0.0.0.0", "0.0.0.0", 11434),
        ("::", "::", 11434),
        ("::1", "::1", 11434),
        ("[::]", "::", 11434),
        ("[::1]:1234", "::1", 1234),
    ],
)
def test_address_is_read_in_all_of_ollamas_forms(
    load: Load, text: str, host: str, port: int
) -> None:
    settings = load(LOCALRUN_HOST=text)
    assert (settings.host, settings.port) == (host, port)


def test_port_flag_wins_over_the_address_and_the_variable_does_not(load: Load) -> None:
    assert load({"port": 5}, LOCALRUN_HOST="h:1").port == 5
    assert load(LOCALRUN_HOST="h:1", LOCALRUN_PORT="2").port == 1
    assert load(LOCALRUN_HOST="h", LOCALRUN_PORT="2").port == 2


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("box", "http://box:11434"),
        ("box:99", "http://box:99"),
        ("http://box/", "http://box:80"),
        ("https://box", "https://box:443"),
        ("[::1]:99", "http://[::1]:99"),
        ("OFF", "off"),
        ("0", "off"),
    ],
)
def test_a_daemons_address_becomes_a_url(load: Load, text: str, url: str) -> None:
    assert load(LOCALRUN_OLLAMA=text).ollama == url


def test_backends_of_single_models_are_words_or_a_table(load: Load, tmp_path: Path) -> None:
    assert load(LOCALRUN_BACKENDS="a:7b=ollama, b=LlamaCpp").backends == (
        "a:7b=ollama", "b=llamacpp",
    )  # fmt: skip
    (tmp_path / "config.toml").write_text('backend = "ollama"\n[backends]\n"a:7b" = "llamacpp"\n')
    settings = load()
    assert (settings.backend, settings.backends) == ("ollama", ("a:7b=llamacpp",))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("LOCALRUN_KEEP_ALIVE", "5x", "5m"),
        ("OLLAMA_KEEP_ALIVE", "nan", "5m"),
        ("OLLAMA_NUM_PARALLEL", "-2", "whole number"),
        ("LOCALRUN_NUM_PARALLEL", "two", "whole number"),
        ("LOCALRUN_NUM_PARALLEL", "9999", "up to 256"),
        ("LOCALRUN_HOST", "h:port", "port up to 65535"),
        ("LOCALRUN_HOST", "h:65536", "port up to 65535"),
        ("LOCALRUN_HOST", "https://h", "proxy"),
        ("OLLAMA_KV_CACHE_TYPE", "q9_9", "q8_0"),
        ("LOCALRUN_DEBUG", "maybe", "true or false"),
        ("LOCALRUN_OLLAMA", "ftp://h", "or off"),
        ("LOCALRUN_BACKEND", "vllm", "llamacpp, ollama"),
        ("LOCALRUN_BACKENDS", "x", "model=backend"),
        ("LOCALRUN_BACKENDS", "x=vllm", "llamacpp, ollama"),
    ],
)
def test_bad_value_names_its_variable_and_what_to_give(
    load: Load, name: str, text: str, expected: str
) -> None:
    with pytest.raises(BadSetting, match=f"^{name}: .*{text}") as caught:
        load(**{name: text})
    assert expected in caught.value.hint


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("max_queue = true", "max_queue cannot be True"),
        ("max_queue = [1]", "max_queue cannot be"),
        ("keep_alive = true", "keep_alive cannot be True"),
        ("host = 5", "host cannot be 5"),
        ("origins = 5", "origins cannot be 5"),
        ("kepalive = 5", "no setting 'kepalive'"),
        ("keep_alive = ", "Invalid value"),
    ],
)
def test_bad_file_is_named(load: Load, tmp_path: Path, toml: str, message: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(toml)
    with pytest.raises(BadSetting, match=message) as caught:
        load()
    assert str(file) in caught.value.message


def test_unknown_setting_gets_the_near_name(load: Load, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("kepalive = 5")
    with pytest.raises(BadSetting, match="kepalive") as caught:
        load()
    assert caught.value.hint == "did you mean keep_alive?"


def test_file_named_by_variable_must_exist(load: Load, tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="LOCALRUN_CONFIG"):
        load(LOCALRUN_CONFIG=str(tmp_path / "none.toml"))


def test_users_catalog_is_used_where_it_lies(load: Load, tmp_path: Path) -> None:
    assert load().catalog is None
    (tmp_path / "models.toml").write_text("")
    assert load().catalog == tmp_path / "models.toml"


def test_settings_of_the_table_are_the_fields() -> None:
    fields = set(Settings.__dataclass_fields__) - {"home", "sources"}
    assert {setting.field for setting in SETTINGS} == fields


def test_child_gets_our_environment_without_native_backtraces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANY", "thing")
    child = child_environment(EXTRA="1")
    assert child["ANY"] == "thing"
    assert (child["EXTRA"], child["GGML_NO_BACKTRACE"]) == ("1", "1")
    assert child["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_hub_library_is_told_mirror_and_silence(
    monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    prepare_hub_environment(load(LOCALRUN_HF_ENDPOINT="https://mirror", HF_HUB_OFFLINE="1"))
    child = child_environment()
    assert (child["HF_ENDPOINT"], child["HF_HUB_OFFLINE"]) == ("https://mirror", "1")
    assert (child["HF_HUB_DISABLE_TELEMETRY"], child["HF_HUB_DISABLE_PROGRESS_BARS"]) == ("1", "1")
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)


@given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from(["h", "m", "s", "ms"])), min_size=1))
def test_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    unit_s = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_duration(text) == pytest.approx(sum(n * unit_s[u] for n, u in parts))
    assert parse_duration(f"-{text}") == pytest.approx(-parse_duration(text))


@given(st.text(max_size=12))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        _, port = parse_host(text)
    except ValueError:
        return
    assert port is None or 0 <= port <= 65535
