"""Bind the server's sockets, and say whose a busy port is."""

import contextlib
import errno
import http.client
import json
import socket
import sys

from localrun.config import DEFAULT_PORT, Settings
from localrun.errors import BadSetting

_BACKLOG = 2048
_BOTH = {"127.0.0.1", "localhost"}
_TRIES = 8


def bind(settings: Settings, *, ask_s: float = 1.0) -> list[socket.socket]:
    """Bind the address of the settings; for `127.0.0.1` also `::1`, where there is IPv6.

    Port 0 takes a port that is free on both.

    Args:
        settings: Host and port.
        ask_s: Seconds that a program on a busy port has to say who it is.

    Raises:
        BadSetting: If the port is another program's, or the address is not this machine's.
    """
    for _ in range(_TRIES if settings.port == 0 else 1):
        sockets = [_bind_one(settings, ask_s)]
        port: int = sockets[0].getsockname()[1]
        if settings.host not in _BOTH:
            return sockets
        try:
            sockets += _bind_v6(port)
        except OSError:
            sockets[0].close()
            continue
        return sockets
    raise _busy(settings, "::1", ask_s)


def address_of(sock: socket.socket) -> str:
    """The address of a bound socket as a URL."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bind_one(settings: Settings, ask_s: float) -> socket.socket:
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _listen(socket.socket(family, kind, protocol), address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _busy(settings, host, ask_s) from error
        raise BadSetting(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint=f"the address came from {settings.origin('host')}",
        ) from error


def _bind_v6(port: int) -> list[socket.socket]:
    """A socket on `::1`; none where the machine has no IPv6.

    Raises:
        OSError: If the port is taken there.
    """
    try:
        return [_listen(socket.socket(socket.AF_INET6, socket.SOCK_STREAM), ("::1", port, 0, 0))]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise
        return []


def _listen(sock: socket.socket, address: object) -> socket.socket:
    try:
        if sys.platform != "win32":  # there it would let two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)  # type: ignore[arg-type]  # as getaddrinfo gave it
        sock.listen(_BACKLOG)
        sock.setblocking(False)  # noqa: FBT003 (the socket's own signature)
    except OSError:
        sock.close()
        raise
    return sock


def _busy(settings: Settings, host: str, ask_s: float) -> BadSetting:
    port = settings.port
    ours = host if host not in ("0.0.0.0", "::", "") else "127.0.0.1"
    whose = _owner(ours, port, ask_s)
    other = port + 1 if port < 65535 else 0
    if whose == "localrun":
        return BadSetting(
            f"port {port} is taken: localrun is already running there",
            hint=f"use it as it is, or start a second one: localrun serve --port {other}",
        )
    if whose.startswith("Ollama "):
        named = "" if port == DEFAULT_PORT else f"LOCALRUN_OLLAMA={ours}:{port} "
        return BadSetting(
            f"port {port} is taken by {whose}",
            hint=f"start beside it, which serves its models, too: {named}localrun serve"
            f" --port {other}  (with  --backend ollama  it runs every model); or stop it first",
        )
    return BadSetting(
        f"port {port} is taken by {whose}",
        hint=f"stop that program, or choose another port: localrun serve --port {other}",
    )


def _owner(host: str, port: int, ask_s: float) -> str:
    """Who answers on a port: `localrun`, `Ollama`, or what can be said of another program."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        connection = http.client.HTTPConnection(host, port, timeout=ask_s)
        try:
            connection.request("GET", "/api/version")
            response = connection.getresponse()
            server, body = response.getheader("Server") or "", response.read(4096)
        finally:
            connection.close()
        if server.startswith("localrun/"):
            return "localrun"
        if response.status == 200 and "version" in json.loads(body):
            return f"Ollama {json.loads(body)['version']}"
        return f"another web server ({server})" if server else "another web server"
    return "another program"
