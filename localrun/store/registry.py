"""A registry that speaks the distribution protocol, as Ollama's does: requests, and who is asked.

What proves who we are goes to the registry's own origin only: not to where it redirects, not to a
realm of another host that it names. Source: the OCI distribution specification and Ollama's
`server/images.go` and `server/auth.go`.
"""

import json
import re
from base64 import b64encode
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TypeAlias, cast
from urllib.parse import urlencode, urljoin, urlsplit

import httpx2

from localrun import __version__
from localrun.errors import AccessDenied, Offline, PullFailed, RateLimited, SourceMissing
from localrun.store.addresses import Address, Credentials, RegistryFailed
from localrun.store.manifest import MANIFEST_TYPE
from localrun.store.origin import Location, Resolved, next_location, origin_of
from localrun.store.wire import Patience

Content: TypeAlias = "bytes | Callable[[], Iterable[bytes]]"
"""A body, or what makes it anew for each try."""

_MAX_ANSWER_BYTES = 4 << 20
_MAX_REDIRECTS = 10
_SAID_CHARS = 300
_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_TOKEN = re.compile(r"[\x21-\x7e]+")
_SIGN_IN = "give the user name and password of the registry (localrun push --username NAME)"


class Registry:
    """One repository of one registry; used by one thread at a time.

    Args:
        address: The model.
        credentials: Sent when the registry asks for them; None asks for an anonymous token.
        patience: How long to wait for it.
    """

    def __init__(
        self,
        address: Address,
        credentials: Credentials | None = None,
        patience: Patience | None = None,
    ) -> None:
        patience = patience or Patience()
        self.address, self._credentials = address, credentials
        self._authorization = ""
        self._client = httpx2.Client(
            headers={"User-Agent": f"localrun/{__version__}"},
            timeout=httpx2.Timeout(patience.stall_s, connect=patience.connect_s),
            follow_redirects=False,
        )

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def read_manifest(self) -> bytes:
        """The manifest's bytes.

        Raises:
            PullFailed: In the class that says why not.
        """
        url = f"{self.address.repository}/manifests/{self.address.name.tag}"
        with self.send("GET", url, headers={"Accept": MANIFEST_TYPE}) as answer:
            content = _read(answer)
        if len(content) > _MAX_ANSWER_BYTES:
            raise RegistryFailed(f"{self.address.name.host} sends a manifest without end")
        return content

    def locate(self, digest: str, size: int) -> Resolved:
        """Where the bytes of a blob are now: here, or where the registry points.

        Raises:
            PullFailed: In the class that says why not.
        """
        url = f"{self.address.repository}/blobs/{digest}"
        with self.send("GET", url, headers={"Range": "bytes=0-0"}, follows=False) as answer:
            target = str(answer.headers.get("Location", "")) if answer.is_redirect else ""
        found = next_location(url, target, self.address.base) if target else url
        location = Location(found, self.address.base, self._authorization)
        return Resolved(location, size, digest.removeprefix("sha256:"))

    @contextmanager
    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] = {},
        content: Content = b"",
        follows: bool = True,
    ) -> Generator[httpx2.Response]:
        """Send a request, with a token if the registry asks for one; the answer is below 400.

        Redirects of a GET are followed. The body of the answer is not read yet.

        Raises:
            SourceMissing: If the answer is 404.
            AccessDenied: If it is 401 or 403, or the registry sends us to a foreign realm.
            RateLimited: If it is 429.
            RegistryFailed: If it is another error.
            Offline: If there is no answer.
        """
        for has_asked in (False, True):
            with self._once(method, url, headers, content, follows=follows) as answer:
                if answer.status_code != 401 or has_asked:
                    _check(answer, url)
                    yield answer
                    return
                challenge = str(answer.headers.get("WWW-Authenticate", ""))
            self._authorization = self._answer_to(challenge)

    @contextmanager
    def _once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Content,
        *,
        follows: bool,
    ) -> Generator[httpx2.Response]:
        for _ in range(_MAX_REDIRECTS):
            sent = {**headers, **self._headers_for(url)}
            body = content() if callable(content) else content
            with (
                _translated(url),
                self._client.stream(method, url, headers=sent, content=body) as answer,
            ):
                target = str(answer.headers.get("Location", ""))
                if not (follows and method == "GET" and answer.is_redirect and target):
                    yield answer
                    return
            url = next_location(url, target, self.address.base)
        raise RegistryFailed(f"{self.address.name.host} redirects in a circle")

    def _headers_for(self, url: str) -> Mapping[str, str]:
        return Location(url, self.address.base, self._authorization).headers_for(url)

    # ── who we are ────────────────────────────────────────────────────────────────────────────

    def _answer_to(self, challenge: str) -> str:
        """The `Authorization` that a challenge asks for."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self._credentials is not None:
            return self._basic()
        if scheme.lower() != "bearer":
            raise AccessDenied("unauthorized: access denied", hint=_SIGN_IN)
        found = {
            key.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain
            for key, quoted, plain in _PARAMETER.findall(rest)
        }
        return f"Bearer {self._fetch_token(found)}"

    def _basic(self) -> str:
        assert self._credentials is not None
        words = f"{self._credentials.username}:{self._credentials.password}"
        return f"Basic {b64encode(words.encode()).decode()}"

    def _fetch_token(self, challenge: Mapping[str, str]) -> str:
        """Ask the realm for a token, if it is at the registry's own origin.

        A foreign realm could be anybody: it would get our password, or have us ask an address
        inside our network.
        """
        realm, base = challenge.get("realm", ""), self.address.base
        try:
            is_own = origin_of(realm) == origin_of(base)
        except PullFailed:
            is_own = False
        if not is_own:
            ours, theirs = urlsplit(base).netloc, _netloc(realm)
            raise AccessDenied(f'realm host "{theirs}" does not match original host "{ours}"')
        query = [(key, challenge[key]) for key in ("service",) if key in challenge]
        query += [("scope", scope) for scope in challenge.get("scope", "").split()]
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        headers = {"Authorization": self._basic()} if self._credentials is not None else {}
        with _translated(url), self._client.stream("GET", url, headers=headers) as answer:
            if answer.status_code in (401, 403):
                raise AccessDenied("unauthorized: access denied", hint=_SIGN_IN)
            _check(answer, url)
            return _token_in(_read(answer))


def _token_in(content: bytes) -> str:
    try:
        body: object = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    fields = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    token = fields.get("token") or fields.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise RegistryFailed("the registry's realm gives no token")
    return token


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return url


def _read(answer: httpx2.Response) -> bytes:
    content = bytearray()
    for piece in answer.iter_raw():
        content += piece
        if len(content) > _MAX_ANSWER_BYTES:
            break
    return bytes(content)


def _check(answer: httpx2.Response, url: str) -> None:
    status = answer.status_code
    if status < 400:
        return
    if status == 404:
        raise SourceMissing("file does not exist", hint="check the name and the tag")
    if status in (401, 403):
        raise AccessDenied("unauthorized: access denied", hint=_SIGN_IN)
    said = _said(_read(answer) if answer.request.method != "HEAD" else b"")
    if status == 429:
        wait = str(answer.headers.get("Retry-After", ""))
        wait_s = float(wait) if wait.isdecimal() else 0.0
        raise RateLimited(f"{urlsplit(url).netloc} asks to come back later", retry_after_s=wait_s)
    reason = said or f"{urlsplit(url).netloc} gives no reason"
    raise RegistryFailed(f"{status}: {reason}", http_status=status)


def _said(content: bytes) -> str:
    """What a registry says went wrong; nothing else that may stand at an address is passed on."""
    try:
        errors: object = json.loads(content)["errors"]
        first = cast("list[dict[str, object]]", errors)[0]
        words = f"{first.get('code', '')} {first.get('message', '')}".strip()
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return ""
    return words[:_SAID_CHARS]


@contextmanager
def _translated(url: str) -> Generator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except httpx2.TransportError as error:
        host = urlsplit(url).netloc
        why = str(error) or type(error).__name__
        raise Offline(
            f"{host} cannot be reached: {why}",
            hint="check the name of the registry and the network; plain HTTP needs insecure: true",
        ) from error
    except httpx2.InvalidURL as error:
        raise RegistryFailed(f"the registry points to {url!r}, which is no address") from error


def joined(url: str, target: str) -> str:
    """An address that a registry gives for the next step of an upload.

    Raises:
        RegistryFailed: If it gives none, or one that drops TLS.
    """
    found = urljoin(url, target) if target else ""
    if not found or (url.startswith("https://") and not found.startswith("https://")):
        raise RegistryFailed(f"the registry points to {target!r} for an upload, which is not taken")
    return found
