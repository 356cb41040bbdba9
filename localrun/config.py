"""Settings: environment variables, then `config.toml`; each value knows where it came from.

The only reader of the environment. Conversion is our own instead of pydantic-settings, because
importing pydantic costs every command more than the whole of `localrun --version` may take.

Order of what wins: a flag, `LOCALRUN_X`, the matching `OLLAMA_X`, `config.toml`, the default.
`OLLAMA_HOST` never becomes our address, nor `OLLAMA_MODELS` our store: models there are only read.
Source: reading rules of `OLLAMA_*` in Ollama's envconfig (trimmed quotes, Go booleans).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import NamedTuple, cast

from localrun.errors import BadSetting
from localrun.values import parse_duration, parse_host

DEFAULT_PORT = 11434
BACKENDS = ("llamacpp", "ollama")
KV_CACHE_TYPES = ("f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")

_TRUE, _FALSE = {"1", "t", "true", "on", "yes"}, {"0", "f", "false", "off", "no"}


class _Unfit(ValueError):
    """Raised when a value is no value of its setting; says what is."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one process, ready to use.

    Attributes:
        home: Our directory: configuration, history, token.
        models: Root of the store.
        host: Address that the server binds and the CLI talks to.
        port: TCP port; 0 lets the system choose.
        keep_alive_s: Seconds a runner stays after its last request; `inf` is forever.
        context_length: Default context window in tokens; 0 is the planner's choice.
        num_parallel: Slots of a runner; 0 is the planner's choice.
        max_loaded_models: Runners at once; 0 is as many as fit.
        max_queue: Requests that may wait for a load.
        load_timeout_s: Seconds a load may take; `inf` is no limit.
        origins: Further browser origins that may call us.
        hosts: Further names that a `Host` header may carry.
        api_keys: Keys of which a request must carry one; empty asks for none.
        kv_cache_type: GGML type of the KV cache; empty is the planner's choice.
        flash_attention: None lets llama.cpp decide.
        gpu_overhead_bytes: Bytes left free on each GPU.
        go_template: Whether a model's Go template wins over its Jinja template; None lets the
            better one win.
        no_cloud: Say that models of a cloud are switched off; there are none here anyway.
        no_prune: Keep files that no model uses any more.
        debug: Log more.
        hf_endpoint: Address of the Hub or a mirror; empty is the Hub's own.
        hf_offline: Never ask the Hub.
        catalog: The user's own `models.toml`, if there is one.
        nvml_library: Another NVML than the system's.
        no_history: Keep no history of the prompt.
        editor: Command that Ctrl-G opens a message with.
        keep_nonces: Leave what agents change in each prompt as it was sent.
        adopt: List and run the models of Ollama's store and of the Hub's cache where they lie.
        ollama_models: Ollama's store, which is only read; None if there is none.
        hub_cache: The Hub's cache, which is only read; None if nobody looked for it.
        ollama: Address of an Ollama daemon as a URL; `off` asks none; empty looks for one at its
            own address.
        backend: Which of `BACKENDS` runs the models; empty: ours, and a daemon what only it has.
        backends: The same for single models, each as `name=backend`.
        sources: Where each value that is not a default came from; see `origin`.
    """

    home: Path
    models: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    keep_alive_s: float = 300.0
    context_length: int = 0
    num_parallel: int = 0
    max_loaded_models: int = 0
    max_queue: int = 512
    load_timeout_s: float = 300.0
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    api_keys: tuple[str, ...] = ()
    kv_cache_type: str = ""
    flash_attention: bool | None = None
    gpu_overhead_bytes: int = 0
    go_template: bool | None = None
    no_cloud: bool = False
    no_prune: bool = False
    debug: bool = False
    hf_endpoint: str = ""
    hf_offline: bool = False
    catalog: Path | None = None
    nvml_library: Path | None = None
    no_history: bool = False
    editor: str = "vi"
    keep_nonces: bool = False
    adopt: bool = True
    ollama_models: Path | None = None
    hub_cache: Path | None = None
    ollama: str = ""
    backend: str = ""
    backends: tuple[str, ...] = ()
    sources: Mapping[str, str] = dataclass_field(default_factory=dict[str, str])

    def origin(self, name: str) -> str:
        """Where a field's value came from: `default`, a variable, a flag or the file's path."""
        return self.sources.get(name, "default")


class Setting(NamedTuple):
    """One setting as a user writes it.

    Attributes:
        field: Name in `Settings`.
        key: Name in `config.toml`; upper-cased behind `LOCALRUN_` the variable.
        convert: Raises `_Unfit` with what is expected.
        default: Shown in help.
        meaning: Shown in help.
        other: Further variables, tried after ours, before `config.toml`.
    """

    field: str
    key: str
    convert: Callable[[object], object]
    default: str
    meaning: str
    other: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable of this setting."""
        return f"LOCALRUN_{self.key.upper()}"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Unfit("text")
    return value


def _path(value: object) -> Path:
    return Path(_text(value)).expanduser().absolute()


def _flag(value: object) -> bool:
    word = str(value).lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise _Unfit("true or false")


def _go_flag(value: object) -> bool:
    """Ollama's reading: what is no boolean counts as true, so `OLLAMA_DEBUG=2` is."""
    return str(value).lower() not in {"0", "f", "false"}


def _count(highest: int) -> Callable[[object], int]:
    def convert(value: object) -> int:
        text = str(value)
        if isinstance(value, bool) or not (text.isascii() and text.isdecimal()):
            raise ValueError("a whole number, 0 or more")
        if int(text) > highest:
            raise ValueError(f"a whole number up to {highest}")
        return int(text)

    return convert


def _seconds(forever_below: float) -> Callable[[object], float]:
    """Go duration or seconds; what is below `forever_below` (or equal, if that is 0) is `inf`."""

    def convert(value: object) -> float:
        try:
            seconds = float(str(value))
        except ValueError:
            seconds = parse_duration(str(value))
        if isinstance(value, bool) or seconds != seconds:
            raise ValueError("a duration such as 30s, 5m or 1h30m")
        endless = seconds < 0 or (forever_below == 0 and seconds == 0)
        return float("inf") if endless else seconds

    return convert


def _words(value: object) -> tuple[str, ...]:
    words: object = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list | tuple):
        raise _Unfit("a list of words, separated by commas")
    return tuple(str(word).strip() for word in cast("list[object]", words) if str(word).strip())


def _kv_type(value: object) -> str:
    word = _text(value).lower()
    if word and word not in KV_CACHE_TYPES:
        raise ValueError(f"one of {', '.join(KV_CACHE_TYPES)}")
    return word


def _address(value: object) -> tuple[str, int | None]:
    return parse_host(_text(value))


def _daemon(value: object) -> str:
    """The URL of a daemon, whose port is Ollama's where none is said."""
    word = _text(value).rstrip("/")
    if not word or word.lower() in _FALSE:
        return "off" if word else ""
    scheme, found, rest = word.rpartition("://")
    if scheme not in ("", "http", "https"):
        raise ValueError("an address such as 127.0.0.1:11434 or https://name, or off")
    host, port = parse_host(rest)
    port = port or (443 if scheme == "https" else 80 if found else DEFAULT_PORT)
    return f"{scheme or 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _backend(value: object) -> str:
    word = _text(value).lower()
    if word not in BACKENDS:
        raise ValueError(f"one of {', '.join(BACKENDS)}")
    return word


def _backends(value: object) -> tuple[str, ...]:
    """`name=backend` of a table, or of words with commas between them."""
    if isinstance(value, dict):
        table = cast("dict[str, object]", value)
        return tuple(f"{name}={_backend(backend)}" for name, backend in table.items())
    pairs = [word.rpartition("=") for word in _words(value)]
    if not all(name for name, _, _ in pairs):
        raise ValueError("model=backend, separated by commas")
    return tuple(f"{name}={_backend(backend)}" for name, _, backend in pairs)


_keep_alive, _load_timeout = _seconds(-1), _seconds(0)


def _ours(field: str, convert: Callable[[object], object], default: str, meaning: str) -> Setting:
    return Setting(field, _key(field), convert, default, meaning)


def _both(field: str, convert: Callable[[object], object], default: str, meaning: str) -> Setting:
    """A setting that Ollama has too, under the same name."""
    key = _key(field)
    return Setting(field, key, convert, default, meaning, (f"OLLAMA_{key.upper()}",))


def _key(field: str) -> str:
    return field.removesuffix("_s").removesuffix("_bytes")


SETTINGS = (
    _ours("host", _address, "127.0.0.1:11434", "address of the server"),
    _ours("port", _count(65535), "11434", "its port, where the address names none"),
    _ours("models", _path, "~/.localrun/models", "where models are stored"),
    _both("keep_alive_s", _keep_alive, "5m", "stay of a model after its last use; -1: forever"),
    _both("context_length", _count(1 << 24), "what fits", "context window in tokens"),
    _both("num_parallel", _count(256), "what fits", "requests one model answers at once"),
    _both("max_loaded_models", _count(1024), "what fits", "models in memory at once"),
    _both("max_queue", _count(1 << 20), "512", "requests that wait; more are refused"),
    _both("load_timeout_s", _load_timeout, "5m", "how long a load may take; 0: no limit"),
    _both("origins", _words, "none", "further browser origins that may call, by commas"),
    _ours("hosts", _words, "none", "further names in a Host header, by commas"),
    _ours("api_keys", _words, "none", "keys that open the server, by commas"),
    _both("kv_cache_type", _kv_type, "what fits", "KV cache numbers: f16, q8_0, …"),
    _both("flash_attention", _flag, "llama.cpp decides", "flash attention on or off"),
    _both("gpu_overhead_bytes", _count(1 << 50), "0", "bytes left free on each GPU"),
    _both("go_template", _flag, "the better", "a Go template wins over a Jinja template"),
    _both("no_cloud", _flag, "off", "report Ollama's cloud as switched off"),
    Setting("no_prune", "noprune", _flag, "off", "keep files that no model uses any more",
            ("OLLAMA_NOPRUNE",)),
    _both("debug", _flag, "off", "log more"),
    Setting("hf_endpoint", "hf_endpoint", _text, "https://huggingface.co",
            "address of the Hub or of a mirror", ("HF_ENDPOINT",)),
    Setting("hf_offline", "hf_offline", _flag, "off", "never ask the Hub", ("HF_HUB_OFFLINE",)),
    _ours("catalog", _path, "~/.localrun/models.toml", "your own catalog of models"),
    _ours("nvml_library", _path, "the driver's", "another NVML to ask for NVIDIA GPUs"),
    Setting("no_history", "nohistory", _flag, "off", "keep no history of prompts",
            ("OLLAMA_NOHISTORY",)),
    Setting("editor", "editor", _text, "vi", "what Ctrl-G writes a message with",
            ("OLLAMA_EDITOR", "VISUAL", "EDITOR")),
    _ours("keep_nonces", _flag, "off", "render the prompts of agents as they were sent"),
    _ours("adopt", _flag, "on", "list the models of Ollama's store and the Hub's cache"),
    Setting("ollama_models", "ollama_models", _path, "~/.ollama/models",
            "Ollama's store, only read", ("OLLAMA_MODELS",)),
    Setting("hub_cache", "hub_cache", _path, "~/.cache/huggingface/hub",
            "the Hub's cache, only read", ("HF_HUB_CACHE",)),
    _ours("ollama", _daemon, "looked for", "address of an Ollama to use as a backend, or off"),
    _ours("backend", _backend, "the models' own", "what runs models: llamacpp or ollama"),
    _ours("backends", _backends, "none", "the same for single models, as name=backend"),
)  # fmt: skip


def load_settings(
    environ: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
) -> Settings:
    """Read all settings.

    Args:
        environ: Environment; None is the process's own.
        overrides: Values by field, from flags of the command line; None values are ignored.

    Raises:
        BadSetting: If a value cannot be used; the message names where it came from.
    """
    environ = os.environ if environ is None else environ
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    home = _path(_trim(environ.get("LOCALRUN_HOME", "")) or "~/.localrun")
    file = _config_file(environ, home)
    written: Mapping[str, object] = _read_config(file) if file else {}
    values: dict[str, object] = {"home": home, "models": home / "models"}
    sources: dict[str, str] = {"home": "LOCALRUN_HOME"} if environ.get("LOCALRUN_HOME") else {}
    values |= _others_folders(environ)
    if (home / "models.toml").is_file():
        values["catalog"] = home / "models.toml"
    for setting in SETTINGS:
        found = _find(setting, environ, given, (str(file), written))
        if found is not None:
            _take(setting, found, values, sources)
    return Settings(**values, sources=sources)  # type: ignore[arg-type]  # converted by SETTINGS


def _others_folders(environ: Mapping[str, str]) -> dict[str, object]:
    """Where other programs keep their models, unless a variable says otherwise."""
    stores = [_path("~/.ollama/models"), Path("/usr/share/ollama/.ollama/models")]
    cache = _trim(environ.get("XDG_CACHE_HOME", "")) or "~/.cache"
    hub = _trim(environ.get("HF_HOME", "")) or f"{cache}/huggingface"
    found: dict[str, object] = {"hub_cache": _path(hub) / "hub"}
    if store := next((path for path in stores if path.is_dir()), None):
        found["ollama_models"] = store
    return found


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a child of ours: this process's own and `extra`."""
    return {
        **os.environ,
        # Without this an assert in native code forks a debugger and can hang for seconds.
        "GGML_NO_BACKTRACE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **extra,
    }


def prepare_hub_environment(settings: Settings) -> None:
    """Tell huggingface_hub our settings; it reads them once, when it is first imported."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    if settings.hf_endpoint:
        os.environ["HF_ENDPOINT"] = settings.hf_endpoint
    if settings.hf_offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


class _Found(NamedTuple):
    value: object
    source: str
    lax: bool = False


def _trim(text: str) -> str:
    return text.strip().strip("\"'")


def _find(
    setting: Setting,
    environ: Mapping[str, str],
    given: Mapping[str, object],
    written: tuple[str, Mapping[str, object]],
) -> _Found | None:
    if setting.field in given:
        return _Found(given[setting.field], f"--{setting.key.replace('_', '-')}")
    for variable in (setting.variable, *setting.other):
        if text := _trim(environ.get(variable, "")):
            return _Found(text, variable, lax=variable != setting.variable)
    file, values = written
    return _Found(values[setting.key], file) if setting.key in values else None


def _take(
    setting: Setting, found: _Found, values: dict[str, object], sources: dict[str, str]
) -> None:
    try:
        convert = _go_flag if found.lax and setting.convert is _flag else setting.convert
        value = convert(found.value)
    except ValueError as error:
        raise BadSetting(
            f"{found.source}: {setting.key} cannot be {found.value!r}", hint=f"give {error}"
        ) from error
    if setting.field == "host":
        value, port = cast("tuple[str, int | None]", value)
        if port is not None:
            values["port"], sources["port"] = port, found.source
    elif setting.field == "port" and "port" in values and not found.source.startswith("--"):
        return  # the address named a port
    values[setting.field], sources[setting.field] = value, found.source


def _config_file(environ: Mapping[str, str], home: Path) -> Path | None:
    named = _trim(environ.get("LOCALRUN_CONFIG", ""))
    file = _path(named) if named else home / "config.toml"
    if file.is_file():
        return file
    if named:
        raise BadSetting(f"LOCALRUN_CONFIG: there is no file {file}")
    return None


def _read_config(file: Path) -> Mapping[str, object]:
    import tomllib  # only who has the file pays for its reader

    try:
        written = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadSetting(f"{file}: {error}") from error
    known = {setting.key for setting in SETTINGS}
    for key in written:
        if key not in known:
            raise BadSetting(f"{file}: there is no setting {key!r}", hint=_near(key, known))
    return written


def _near(key: str, known: set[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key, known, 1)
    return f"did you mean {near[0]}?" if near else f"the settings are {', '.join(sorted(known))}"
