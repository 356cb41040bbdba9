"""The application and its life: routes, start, signals, end."""

import asyncio
import contextlib
import gc
import logging
import os
import re
import secrets
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from html import escape
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from localrun import __version__
from localrun.backends.early import Early
from localrun.config import Settings
from localrun.errors import BadSetting
from localrun.server.answers import Endpoint
from localrun.server.guard import SERVER_SEND, Guard, check_bind
from localrun.server.ports import address_of, bind
from localrun.server.rooms import Parts, Rooms, make_rooms
from localrun.server.routes import routes
from localrun.store.cleaning import clean

_log = logging.getLogger("localrun.server")

_PLAIN = {"Content-Type": "text/plain"}  # without a charset, as Go's router answers


def create_app(
    settings: Settings, parts: Parts | None = None, early: Early | None = None
) -> FastAPI:
    """The whole application, guarded; `app.state.rooms` are its parts.

    Args:
        settings: All settings.
        parts: Other parts than the real ones, for tests.
        early: Children that run already, for the real parts.

    Raises:
        BadSetting: If the store was written by a newer localrun.
    """
    rooms = make_rooms(settings, parts, early)
    app = FastAPI(
        title="localrun",
        version=__version__,
        openapi_url=None,
        # Nothing leaves this machine because of a variable that was set for another program.
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
        lifespan=_lifespan,
        redirect_slashes=False,
        exception_handlers={404: _not_found, 405: _not_allowed},
    )
    app.state.rooms = rooms
    for wiring in routes():
        endpoint = Endpoint(wiring.handler, rooms, wiring.dialect, path=wiring.path)
        route = Route(wiring.path, endpoint, methods=wiring.methods.split())
        route.methods = set(wiring.methods.split())  # Starlette adds HEAD to every GET
        app.router.routes.append(route)
    app.add_middleware(Guard, settings=settings)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    rooms: Rooms = app.state.rooms
    rooms.cli_token = await asyncio.to_thread(_cli_token, rooms.settings.home)
    await rooms.start()
    threading.Thread(target=clean, args=(rooms.shelf.library,), name="clean", daemon=True).start()
    yield
    await rooms.close(grace_s=0.0)


async def _not_found(request: Request, _: Exception) -> Response:
    """Redirect a path that is known but for its slashes: many clients join `…/` and `/api/…`."""
    path = request.scope["path"]
    clean = re.sub("/{2,}", "/", path)
    target, status = clean, 307
    if clean == path:
        target, status = path.rstrip("/") or "/", 301 if request.method == "GET" else 307
        if target == path or request.method not in _allowed(request.app, target):
            return Response("404 page not found", 404, _PLAIN)
    query = request.scope["query_string"].decode("latin-1")
    place = f"{target}?{query}" if query else target
    headers = {"Location": quote(place, safe="/%:?#[]@!$&'()*+,;=")}
    if request.method not in ("GET", "HEAD"):
        return Response(None, status, headers)
    reason = "Moved Permanently" if status == 301 else "Temporary Redirect"
    body = f'<a href="{escape(headers["Location"])}">{reason}</a>.\n\n'  # as Go's server does
    return Response(body, status, headers, "text/html")


async def _not_allowed(request: Request, _: Exception) -> Response:
    headers = {**_PLAIN, "Allow": ", ".join(_allowed(request.app, request.scope["path"]))}
    return Response("405 method not allowed", 405, headers)


def _allowed(app: FastAPI, path: str) -> list[str]:
    """The methods that a path takes, of all routes that match it."""
    found = [
        method
        for route in app.router.routes
        if isinstance(route, Route) and route.path_regex.match(path)
        for method in sorted(route.methods or ())
    ]
    return sorted(set(found), reverse=True)


def _cli_token(home: Path) -> str:
    """The secret that lets this user's CLI pull local files; one for all servers of the user."""
    path = home / "cli-token"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), _new_private_file(path) as file:
            file.write(secrets.token_hex(32))
        return path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        _log.warning("%s cannot be used, local files cannot be pulled: %s", path, error)
        return ""


def _new_private_file(path: Path) -> IO[str]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")


class Server(uvicorn.Server):
    """uvicorn with our way to stop: answers get their grace, a second signal ends at once."""

    def __init__(self, app: FastAPI, ready: Callable[[], None]) -> None:
        super().__init__(_uvicorn_config(app))
        self._rooms: Rooms = app.state.rooms
        self._ready = ready
        self._wake = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take requests, then say so."""
        await super().startup(sockets=sockets)
        gc.collect()
        gc.freeze()  # modules and routes live as long as the process: no collection looks at them
        if self.started:
            self._ready()

    async def main_loop(self) -> None:
        """Wait for the signal; once a second uvicorn's Date header is brought up to date."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks = (ticks + 10) % 864000
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, give running answers their grace, then end the children."""
        closing = asyncio.get_running_loop().create_task(self._close())
        await super().shutdown(sockets=sockets)
        if self.force_exit:
            closing.cancel()
            self._cut()
        await asyncio.wait((closing,))

    async def _close(self) -> None:
        await self._rooms.close(grace_s=self._rooms.patience.grace_s)
        self._cut()

    def _cut(self) -> None:
        """Drop the connections that are left: their clients neither read nor leave."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def stop(self) -> None:
        """A signal came; on the loop."""
        if self.should_exit:
            self.force_exit = True
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # no trace of the cut
        self.should_exit = True
        self._wake.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Ours, not uvicorn's: that raises the signal again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def handle(*_: object) -> None:
            loop.call_soon_threadsafe(self.stop)

        former = {number: signal.signal(number, handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    settings: Settings,
    *,
    ready: Callable[[str], None] | None = None,
    early: Early | None = None,
) -> None:
    """Serve until a signal; blocks.

    Args:
        settings: All settings.
        ready: Called with the address as a URL once requests are taken.
        early: Children that run already; what is not taken of them stays the caller's.

    Raises:
        BadSetting: If the address cannot be used, with what to do.
        KeyboardInterrupt: If a second signal came before the end was clean.
    """
    check_bind(settings)
    _configure_logging(debug=settings.debug)
    sockets = bind(settings)
    try:
        forced = _run(create_app(settings, early=early), sockets, ready)
    finally:
        for sock in sockets:
            sock.close()
    if forced:
        raise KeyboardInterrupt


def _run(app: FastAPI, sockets: list[socket.socket], ready: Callable[[str], None] | None) -> bool:
    """Run the loop to its end; True if the end was forced."""
    address = address_of(sockets[0])

    def tell() -> None:
        _log.info("listening on %s (version %s)", address, __version__)
        if ready is not None:
            ready(address)

    async def main() -> bool:
        server = Server(app, tell)
        await server.serve(sockets=sockets)
        if not server.started:
            raise BadSetting("the server could not be started; the log says why")
        return server.force_exit

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main())


def _uvicorn_config(app: FastAPI) -> uvicorn.Config:
    async def outermost(scope: Scope, receive: Receive, send: Send) -> None:
        scope[SERVER_SEND] = send
        await app(scope, receive, send)

    return uvicorn.Config(
        outermost,
        http=_http_protocol(app),
        access_log=False,
        log_config=None,
        lifespan="on",
        ws="none",
        server_header=False,
        headers=[("Server", f"localrun/{__version__}")],
        timeout_keep_alive=75,
        timeout_graceful_shutdown=None,  # our own
    )


def _http_protocol(app: FastAPI) -> type[asyncio.Protocol] | Literal["auto"]:
    """Ours where httptools is installed."""
    try:
        from localrun.server.protocol import http_protocol
    except ImportError:
        return "auto"
    return http_protocol(lambda path: _allowed(app, path))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is uvloop."""
    try:
        import uvloop  # absent on Windows
    except ImportError:
        return None
    factory: Any = uvloop.new_event_loop
    return factory  # type: ignore[no-any-return]  # uvloop has no types


def _configure_logging(*, debug: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for name in ("uvicorn", "uvicorn.error", "httpx2", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
