"""Which backend answers for a model: what the request says, then the settings, then the catalog."""

from collections.abc import Mapping
from pathlib import Path

from localrun.backends.ollama import Daemon, DaemonLimits
from localrun.config import BACKENDS, DEFAULT_PORT, Settings
from localrun.errors import BadRequest, InvalidName
from localrun.names import parse_name

_HERE = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::", "")


class Choice:
    """What was chosen for which model; empty where nobody chose."""

    def __init__(self, settings: Settings) -> None:
        self._default = settings.backend
        self._catalog = _catalog_of(settings.catalog)
        pairs = (pair.rpartition("=") for pair in settings.backends)
        self._by_name = {_key(name): backend for name, _, backend in pairs}

    @property
    def needs_name(self) -> bool:
        """Whether it depends on the model at all."""
        return bool(self._by_name or self._catalog)

    @property
    def wants_daemon(self) -> bool:
        """Whether a daemon was chosen for anything."""
        return "ollama" in (self._default, *self._by_name.values(), *self._catalog.values())

    def of(self, name: str, asked: str = "") -> str:
        """The backend of a model.

        Args:
            name: As the client wrote it; empty where it does not matter.
            asked: What the request itself says.

        Raises:
            BadRequest: If the request names a backend that does not exist.
        """
        if asked:
            if asked not in BACKENDS:
                raise BadRequest(f"there is no backend {asked[:40]!r}: {', '.join(BACKENDS)}")
            return asked
        if name and self.needs_name:
            key = _key(name)
            return self._by_name.get(key) or self._default or self._catalog.get(key, "")
        return self._default


def find_daemon(
    settings: Settings, choice: Choice, limits: DaemonLimits | None = None
) -> Daemon | None:
    """The daemon of the settings, or the one that may be at Ollama's own address if we are not."""
    if settings.ollama == "off":
        return None
    if settings.ollama:
        return Daemon(settings.ollama, limits=limits)
    if settings.port == DEFAULT_PORT and settings.host.strip("[]") in _HERE:
        return None
    url = f"http://127.0.0.1:{DEFAULT_PORT}"
    return Daemon(url, is_expected=choice.wants_daemon, limits=limits)


def is_of_cloud(name: str) -> bool:
    """Whether Ollama would send a request for this model to its maker's servers."""
    tag = name.rpartition(":")[2] if ":" in name else ""
    return tag.lower() == "cloud" or tag.lower().endswith("-cloud")


def _catalog_of(file: Path | None) -> Mapping[tuple[str, ...], str]:
    """What the user's own catalog says of its models. Raises `BadSetting` if it is broken."""
    if file is None or not file.is_file():
        return {}
    from localrun.store.catalog import Catalog  # only who has a file pays for its reader

    catalog = Catalog.read(file)
    found: dict[tuple[str, ...], str] = {}
    for entry in catalog.entries:
        if entry.backend:
            found[_key(f"{entry.name}:{entry.tag}")] = entry.backend
            default = catalog.default_of(entry.name)
            if default is not None and default.tag == entry.tag:
                found[_key(entry.name)] = entry.backend
    return found


def _key(name: str) -> tuple[str, ...]:
    try:
        return parse_name(name).key
    except InvalidName:
        return (name.lower(),)
