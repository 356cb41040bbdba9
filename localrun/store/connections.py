"""Kept HTTP/1.1 connections whose bodies are received into the caller's own buffer.

The standard library's client, because it alone reads a body without a copy: a transfer over a fast
line is bound by what each byte costs. Proxies are those of the environment and the system.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import urllib.request
from base64 import b64encode
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast
from urllib.parse import unquote, urlsplit

from localrun.store.origin import origin_of

Origin: TypeAlias = tuple[str, str, int]
Connection: TypeAlias = http.client.HTTPConnection

_DEFAULT_PORTS = {"http": 80, "https": 443}


class CannotConnect(OSError):
    """Raised when there is no connection: name, address, TLS or proxy."""


@dataclass(slots=True, eq=False)
class Answer:
    """An HTTP answer whose body is still to be read.

    Attributes:
        response: The library's answer.
    """

    response: http.client.HTTPResponse

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.response.status

    def header(self, name: str) -> str:
        """A header, its name in any case; empty if there is none."""
        return str(self.response.headers.get(name, ""))

    @property
    def redirect(self) -> str:
        """Where it points; empty if it does not."""
        return self.header("Location") if self.status in (301, 302, 303, 307, 308) else ""

    def read_into(self, buffer: memoryview) -> int:
        """Receive what has come, at most a buffer full; 0 at the end of the body.

        Raises:
            OSError: If the connection breaks or falls silent.
            http.client.HTTPException: If the answer is no HTTP.
        """
        response = self.response
        if response.length is None or response.chunked or response.isclosed():
            return response.readinto(buffer)
        # As `HTTPResponse.readinto`, but without waiting until the buffer is full.
        if not response.length:
            return 0
        n_bytes = response.fp.readinto1(buffer[: response.length])
        if not n_bytes:
            raise http.client.IncompleteRead(b"", response.length)
        response.length -= n_bytes
        return n_bytes

    @property
    def is_read(self) -> bool:
        """Whether the whole body has been read, so that the connection can be used again."""
        is_over = self.response.isclosed() or self.response.length == 0
        return is_over and not self.response.will_close


class Connections:
    """Connections by origin, kept while their answers are read to the end.

    Safe to use from several threads, each with its own answers.

    Args:
        connect_s: Seconds for a connection.
        stall_s: Seconds for the next byte.
    """

    def __init__(self, *, connect_s: float, stall_s: float) -> None:
        self._connect_s, self._stall_s = connect_s, stall_s
        self._idle: list[tuple[Origin, Connection]] = []
        self._busy: set[Connection] = set()
        self._turn = threading.Lock()
        self._tls: ssl.SSLContext | None = None

    def close(self) -> None:
        """Close those that nobody uses."""
        with self._turn:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def shut_down(self) -> None:
        """End every running request now, from any thread."""
        with self._turn:
            running = list(self._busy)
        for connection in running:
            sock = cast("socket.socket | None", connection.sock)
            if sock is not None:
                with contextlib.suppress(OSError):
                    # Past the TLS layer on purpose: only the kernel wakes a thread inside `recv`.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    @contextlib.contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Generator[Answer]:
        """Send a GET and give the answer; its connection is kept if its body is read to the end.

        Raises:
            CannotConnect: If there is no connection.
            OSError: If the connection breaks or falls silent.
            http.client.HTTPException: If the answer is no HTTP, or the address cannot be sent.
        """
        origin = origin_of(url)
        connection, answer = self._ask(origin, url, headers)
        try:
            yield answer
            if answer.is_read:
                answer.response.close()
                with self._turn:
                    self._idle.append((origin, connection))
                    self._busy.discard(connection)
        finally:
            with self._turn:
                is_lost = connection in self._busy
                self._busy.discard(connection)
            if is_lost:
                connection.close()

    def _ask(
        self, origin: Origin, url: str, headers: Mapping[str, str]
    ) -> tuple[Connection, Answer]:
        while (kept := self._take_idle(origin)) is not None:
            # A kept connection may have been closed by the other side meanwhile.
            with contextlib.suppress(OSError, http.client.HTTPException):
                return kept, self._send(kept, origin, url, headers)
        fresh = self._connect(origin)
        return fresh, self._send(fresh, origin, url, headers)

    def _take_idle(self, origin: Origin) -> Connection | None:
        with self._turn:
            for index, (at, connection) in enumerate(self._idle):
                if at == origin:
                    del self._idle[index]
                    self._busy.add(connection)
                    return connection
        return None

    def _send(
        self, connection: Connection, origin: Origin, url: str, headers: Mapping[str, str]
    ) -> Answer:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = {"Accept-Encoding": "identity", "User-Agent": "localrun", **headers}
        if origin[0] == "http" and (proxy := _proxy_of(origin)):
            target = f"http://{parts.netloc}{target}"
            sent |= _proxy_authorization(proxy)
        try:
            connection.request("GET", target, headers=sent)
            return Answer(connection.getresponse())
        except BaseException:
            with self._turn:
                self._busy.discard(connection)
            connection.close()
            raise

    def _connect(self, origin: Origin) -> Connection:
        scheme, host, port = origin
        proxy = _proxy_of(origin)
        try:
            at_host, at_port = (host, port) if not proxy else _address_of(proxy)
            if scheme == "https":
                connection: Connection = http.client.HTTPSConnection(
                    at_host, at_port, timeout=self._connect_s, context=self._trust()
                )
                if proxy:
                    connection.set_tunnel(host, port, _proxy_authorization(proxy))
            else:
                connection = http.client.HTTPConnection(at_host, at_port, timeout=self._connect_s)
            connection.connect()
        except (OSError, ValueError, http.client.HTTPException) as error:
            through = f" (through the proxy {_name_of(proxy)})" if proxy else ""
            raise CannotConnect(f"{error}{through}") from error
        connection.sock.settimeout(self._stall_s)
        with self._turn:
            self._busy.add(connection)
        return connection

    def _trust(self) -> ssl.SSLContext:
        with self._turn:
            if self._tls is None:
                import httpx2  # the same certificates as for everything else that is fetched

                self._tls = httpx2.create_ssl_context()
            return self._tls


def _proxy_of(origin: Origin) -> str:
    """The proxy for an origin, by the variables and settings that all programs read; or empty."""
    scheme, host, port = origin
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all") or ""
    if not proxy or urllib.request.proxy_bypass(f"{host}:{port}"):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _address_of(proxy: str) -> tuple[str, int]:
    parts = urlsplit(proxy)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"a proxy of the kind {parts.scheme!r} is not supported, only http")
    return parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme]


def _name_of(proxy: str) -> str:
    """A proxy without its password."""
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _proxy_authorization(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(secret.encode()).decode()}"}
