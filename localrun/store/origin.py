"""What is fetched and where from: files, origins, the token's own, redirects that are followed.

Pure except for `is_private_host`, which asks the resolver.
"""

import hashlib
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

from localrun.errors import BrokenTransfer

_DEFAULT_PORTS = {"http": 80, "https": 443}
_CHECK_ENDPOINT = "check HF_ENDPOINT: it begins with https:// or http://"


@dataclass(frozen=True, slots=True)
class Location:
    """An address from which a file's bytes can be read.

    Attributes:
        url: The address; it may be signed and expire.
        home: Any address at the origin that the token belongs to.
        authorization: The `Authorization` header for that origin; empty for none.
    """

    url: str
    home: str
    authorization: str = field(default="", repr=False)

    def headers_for(self, url: str) -> dict[str, str]:
        """The token, if `url` is at its own origin, scheme and port included; else nothing."""
        if self.authorization and origin_of(url) == origin_of(self.home):
            return {"Authorization": self.authorization}
        return {}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch.

    Attributes:
        name: What to call it in messages.
        size: Bytes, as listed.
        sha256: 64 hex digits; empty where the source does not say.
        etag: Names the content where there is no `sha256`.
    """

    name: str
    size: int
    sha256: str = ""
    etag: str = ""

    @property
    def key(self) -> str:
        """Names the content, on the disk too."""
        if self.sha256:
            return f"sha256-{self.sha256}"
        return f"etag-{hashlib.sha256(self.etag.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a file is now, and what is there."""

    location: Location
    size: int
    sha256: str = ""
    etag: str = ""


Resolve = Callable[[], Resolved]


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL, in lower case, the default port filled in.

    Raises:
        BrokenTransfer: If it is no http or https URL, or carries a user name.
    """
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
        port = parts.port or _DEFAULT_PORTS.get(scheme, 0)
    except ValueError as error:
        raise BrokenTransfer(
            f"the source points to {url!r}, which is no address", hint=_CHECK_ENDPOINT
        ) from error
    if scheme not in _DEFAULT_PORTS or not host or parts.username is not None:
        raise BrokenTransfer(
            f"the source points to {url!r}, which is no plain http address", hint=_CHECK_ENDPOINT
        )
    return scheme, host, port


def next_location(
    current: str, target: str, home: str, is_private: Callable[[str], bool] | None = None
) -> str:
    """The absolute address of a redirect that may be followed.

    Args:
        current: Address that answered.
        target: Its `Location` header, absolute or relative.
        home: Address of the source that the user asked.
        is_private: Whether a host is inside a private network; by default the resolver is asked.

    Raises:
        BrokenTransfer: If the target is no http address, drops TLS, or leads from a public source
            into a private network.
    """
    try:
        url = urljoin(current, target)
    except ValueError as error:
        raise BrokenTransfer(f"the source points to {target!r}, which is no address") from error
    scheme, host, _ = origin_of(url)
    home_scheme, home_host, _ = origin_of(home)
    if origin_of(url) == origin_of(home):
        return url
    if scheme == "http" and "https" in (home_scheme, origin_of(current)[0]):
        raise BrokenTransfer(f"{home_host} redirects to {host} without TLS; this is not followed")
    check = is_private or is_private_host
    if check(host) and not check(home_host):
        raise BrokenTransfer(
            f"{home_host} redirects into a private network ({host}); this is not followed"
        )
    return url


def is_private_host(host: str) -> bool:
    """Whether a host is this machine or inside a private network; False where nobody knows."""
    try:
        addresses = {host} if _is_address(host) else _resolve(host)
    except OSError:
        return False
    return any(not ipaddress.ip_address(address).is_global for address in addresses)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolve(host: str) -> set[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return {str(entry[4][0]).partition("%")[0] for entry in found}
