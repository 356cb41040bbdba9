"""The doors: who may call, as pure ASGI in front of everything else.

- Host: IP literals, this machine's names, `localhost`, `.localhost`, `.local`, `.internal` and
  names from the settings. It is checked on every bind: a page that rebinds its own name to our
  address cannot name us otherwise.
- Origin: a browser page may call only from origins that Ollama allows, or from the settings. No
  answer ever allows credentials.
- Key: where keys are set, every route but the liveness ones wants one, as a bearer token or, as
  Anthropic's clients send it, in `x-api-key`.

Source: Ollama's `allowedHostsMiddleware` and gin-contrib/cors, with its differences in
docs/differences.md.
"""

import fnmatch
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from localrun.config import Settings
from localrun.errors import BadSetting, Forbidden, LocalrunError
from localrun.server.answers import NATIVE, Dialect
from localrun.server.anthropic import errors as anthropic
from localrun.server.openai import errors as openai

# ASGI's own shapes; a scope holds whatever servers and middlewares put there.
Scope: TypeAlias = dict[str, Any]

_SUFFIXES = (".localhost", ".local", ".internal")
_LOOPBACK_ORIGINS = {"localhost", "127.0.0.1", "0.0.0.0", "::1"}
_APP_SCHEMES = {
    "app", "file", "tauri", "vscode-webview", "vscode-file", "chrome-extension", "moz-extension",
    "safari-web-extension", "ms-browser-extension",
}  # fmt: skip
_OPEN_PATHS = {"/", "/api/version"}
_METHODS = b"GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
_HEADERS = (
    b"Authorization, Content-Type, User-Agent, Accept, X-Requested-With, OpenAI-Beta,"
    b" x-stainless-arch, x-stainless-async, x-stainless-custom-poll-interval,"
    b" x-stainless-helper-method, x-stainless-lang, x-stainless-os, x-stainless-package-version,"
    b" x-stainless-poll-helper, x-stainless-retry-count, x-stainless-runtime,"
    b" x-stainless-runtime-version, x-stainless-timeout, x-stainless-helper, Content-Encoding,"
    b" x-api-key, anthropic-version, anthropic-beta, anthropic-dangerous-direct-browser-access,"
    b" x-localrun-stream, x-localrun-stream-from"
)


class Unauthorized(Forbidden):
    """Raised when the key of a request is missing or wrong."""

    code = "unauthorized"
    status = 401


def is_loopback(host: str) -> bool:
    """Whether an address to bind is reachable from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(settings: Settings) -> None:
    """Refuse to listen beyond this machine without keys.

    Raises:
        BadSetting: If the host is no loopback address and no key is set.
    """
    if settings.api_keys or is_loopback(settings.host):
        return
    raise BadSetting(
        f"{settings.host} can be reached from other machines, and no key is set"
        f" (host came from {settings.origin('host')})",
        hint="set LOCALRUN_API_KEYS=<a long random word>, or listen on 127.0.0.1",
    )


SERVER_SEND = "localrun.server_send"
"""Key of a scope: the web server's own `send`, before any middleware."""


class Guard:
    """The middleware. Adds `localrun.scope` to the ASGI scope: the request's cache scope."""

    def __init__(self, app: Any, settings: Settings) -> None:  # noqa: ANN401 (ASGI's own shape)
        self._app = app
        self._hosts = {socket.gethostname().lower(), "localhost", *map(str.lower, settings.hosts)}
        self._origins = settings.origins
        self._keys = {_scope_of(key): key.encode() for key in settings.api_keys}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:  # noqa: ANN401 (ASGI's)
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _headers_of(scope)
        try:
            cors = self._check(scope, headers)
        except LocalrunError as error:
            await _refuse(send, error, scope["path"])
            return
        if scope["method"] == "OPTIONS" and (cors or _is_named(headers.get("host", ""))):
            await _answer(send, 204, [*cors, *_PREFLIGHT] if cors else [], b"")
            return
        # Between the server and the endpoint each middleware looks at the first message of an
        # answer only; the records of a stream may go past them.
        scope["localrun.send"] = scope.get(SERVER_SEND, send)
        await self._app(scope, receive, _with_headers(send, cors) if cors else send)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if not self._knows_host(host):
            raise Forbidden(
                f"the Host {host[:100]!r} is not allowed",
                hint="add the name to LOCALRUN_HOSTS if it is this machine's",
            )
        cors: list[tuple[bytes, bytes]] = []
        if origin and not _is_same_origin(origin, host):
            if not self._allows(origin):
                raise Forbidden(
                    f"the Origin {origin[:100]!r} is not allowed",
                    hint="add it to LOCALRUN_ORIGINS if you trust that page",
                )
            allowed = b"*" if "*" in self._origins else origin.encode("latin-1")
            cors = [(b"access-control-allow-origin", allowed), (b"vary", b"Origin")]
        if scope["method"] != "OPTIONS" or not cors:
            scope["localrun.scope"] = self._identify(scope, headers)
        return cors

    def _identify(self, scope: Scope, headers: Mapping[str, str]) -> str:
        if not self._keys:
            return "local"
        tokens = _tokens(headers)
        # Every key is compared, in constant time: the answer's delay says nothing about them.
        found = [
            name
            for name, key in self._keys.items()
            for token in tokens
            if hmac.compare_digest(key, token)
        ]
        if found:
            return found[0]
        if scope["path"] in _OPEN_PATHS and scope["method"] in ("GET", "HEAD"):
            return "none"
        raise Unauthorized(
            "the key is not known here" if any(tokens) else "this server wants a key",
            hint="send the header  Authorization: Bearer <key>  or  x-api-key: <key>",
        )

    def _knows_host(self, host: str) -> bool:
        name = _host_name(host)
        if name is None:
            return False
        return not name or name in self._hosts or name.endswith(_SUFFIXES) or _is_address(name)

    def _allows(self, origin: str) -> bool:
        if any(fnmatch.fnmatchcase(origin, _glob(pattern)) for pattern in self._origins):
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname or ""
        except ValueError:
            return False
        if parts.scheme in ("http", "https"):
            return name in _LOOPBACK_ORIGINS
        return parts.scheme in _APP_SCHEMES


_PREFLIGHT = [
    (b"access-control-allow-methods", _METHODS),
    (b"access-control-allow-headers", _HEADERS),
    (b"access-control-max-age", b"43200"),
]


def _scope_of(key: str) -> str:
    return "key:" + hashlib.sha256(b"localrun scope " + key.encode()).hexdigest()[:32]


def _tokens(headers: Mapping[str, str]) -> tuple[bytes, bytes]:
    """What may be a key, of both headers: some clients send a placeholder in one of them."""
    given = headers.get("authorization", "")
    bearer = given[7:] if given[:7].lower() == "bearer " else ""
    return (
        bearer.strip().encode("latin-1"),
        headers.get("x-api-key", "").strip().encode("latin-1"),
    )


def _headers_of(scope: Scope) -> dict[str, str]:
    raw: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


def _host_name(host: str) -> str | None:
    """The name in a Host header, without its port; None if it is none."""
    if any(character in host for character in "/@?#\\ \t,"):
        return None
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".").lower()
    except ValueError:
        return None


def _is_named(host: str) -> bool:
    """A Host header has a name: Ollama says 204 to its OPTIONS, whatever they are for."""
    name = _host_name(host)
    return name is not None and name != "" and not _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same_origin(origin: str, host: str) -> bool:
    scheme, _, rest = origin.partition("://")
    return scheme in ("http", "https") and bool(host) and rest.lower() == host.lower()


def _glob(pattern: str) -> str:
    """A pattern in which only `*` is special."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


def _with_headers(send: Any, headers: list[tuple[bytes, bytes]]) -> Any:  # noqa: ANN401 (ASGI's)
    async def send_with(message: Scope) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *headers]
        await send(message)

    return send_with


def _dialect_of(path: str) -> Dialect:
    """How errors are said on a path, before it is routed."""
    if path.startswith("/v1/messages"):
        return anthropic.DIALECT
    return openai.DIALECT if path.startswith("/v1/") else NATIVE


async def _refuse(send: Any, error: LocalrunError, path: str) -> None:  # noqa: ANN401 (ASGI's)
    headers = [(b"content-type", b"application/json")]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await _answer(send, error.status, headers, _dialect_of(path).refuse(error))


async def _answer(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:  # noqa: ANN401 (ASGI's)
    if status != 204:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
