"""Which registry a name means, and how it is spoken to. Pure."""

import re
from dataclasses import dataclass, field

from localrun.errors import PullFailed
from localrun.names import ModelName, parse_name


class RegistryFailed(PullFailed):
    """Raised when a registry does not do what is asked, or not as the protocol says.

    Attributes:
        http_status: Of its answer; 0 if that was no error by itself.
    """

    code = "registry_failed"

    def __init__(self, message: str, *, hint: str = "", http_status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.http_status = http_status


@dataclass(frozen=True, slots=True)
class Address:
    """A model at a registry.

    Attributes:
        name: The model's.
        base: The registry, such as `https://registry.example`.
    """

    name: ModelName
    base: str

    @property
    def repository(self) -> str:
        """The path under which the registry has it."""
        return f"{self.base}/v2/{self.name.namespace}/{self.name.model}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of a registry."""

    username: str
    password: str = field(repr=False)


def read_address(text: str, *, insecure: bool) -> Address:
    """The model that a name means, and its registry.

    Args:
        text: `[scheme://][host/][namespace/]model[:tag]`.
        insecure: Speak plain HTTP.

    Raises:
        InvalidName: If it is no name.
        RegistryFailed: If it asks for plain HTTP to another machine, and `insecure` is not set.
    """
    name = parse_name(text)
    asks_for_http = text.strip().startswith("http://")
    is_here = _is_loopback(name.host)
    if asks_for_http and not (insecure or is_here):
        raise RegistryFailed(
            "insecure protocol http", hint="leave http:// out, or allow it with insecure: true"
        )
    has_scheme = "://" in text
    is_plain = asks_for_http or insecure or (is_here and not has_scheme)
    return Address(name, f"{'http' if is_plain else 'https'}://{name.host}")


def names_registry(text: str) -> bool:
    """Whether a name itself says that the model is at a registry: `host/namespace/model`."""
    rest = text.strip().partition("://")[2] if "://" in text else text.strip()
    host, _, rest = rest.partition("/")
    if "/" not in rest:
        return False
    is_host = "." in host or ":" in host or host == "localhost"
    return is_host and not parse_name(text).is_hub


def _is_loopback(host: str) -> bool:
    name = host.partition(":")[0].lower()
    return name == "localhost" or bool(re.fullmatch(r"127(\.\d+){3}", name))
