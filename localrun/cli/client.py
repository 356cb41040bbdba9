"""HTTP to a localrun server, and how to know that it is one.

On `http.client`, because importing a larger client costs more than most commands take.
"""

import http.client
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from localrun.cli.wire import Json, text
from localrun.config import Settings
from localrun.errors import LocalrunError, error_classes

_ANSWER_S = 120.0
_BLOCK_BYTES = 1 << 20
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class NoServer(LocalrunError):
    """Raised when a command needs a running server and there is none, or it is another's."""

    code = "no_server"
    status = 503


@dataclass(frozen=True, slots=True)
class Client:
    """Talks to one server; every call opens a connection of its own.

    Attributes:
        host: Name or address.
        port: TCP port.
        key: Sent as a bearer token; empty sends none.
        backend: What the server is asked to run models with; empty leaves it the choice.
    """

    host: str
    port: int
    key: str = ""
    backend: str = ""

    @property
    def address(self) -> str:
        """Host and port for people to read."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def get(self, path: str, *, timeout_s: float = _ANSWER_S) -> Json:
        """The JSON object that a GET answers with. Raises what `call` raises."""
        return self.call("GET", path, timeout_s=timeout_s)

    def call(
        self, method: str, path: str, body: Json | None = None, *, timeout_s: float = _ANSWER_S
    ) -> Json:
        """Send a request and return the JSON object of its answer; an empty one for no body.

        Raises:
            LocalrunError: What the server said; `NoServer` if it cannot be reached.
        """
        answer = b"".join(self._lines(method, path, body, timeout_s=timeout_s))
        return _parse(answer) if answer.strip() else {}

    def stream(
        self, path: str, body: Json, *, headers: Mapping[str, str] = {}
    ) -> Generator[Json, None, None]:
        """POST a request and yield the records of its NDJSON answer as they come.

        Closing the iterator closes the connection, which cancels the request.

        Raises:
            LocalrunError: What the server said, at once or in the middle of the stream.
        """
        for line in self._lines("POST", path, body, headers=headers):
            record = _parse(line)
            if "error" in record:
                raise _error_of(record, 0)
            yield record

    def has(self, path: str) -> bool:
        """Whether HEAD of a path finds it. Raises `NoServer` if there is no server."""
        return self._send_body("HEAD", path, None, {}) < 400

    def send_file(
        self, path: str, file: Path, report: Callable[[int], None], *, headers: Mapping[str, str]
    ) -> None:
        """POST a file's bytes as they are, however many.

        Args:
            path: Where to.
            file: What is sent.
            report: Told how many bytes are sent.
            headers: Further headers; with `X-Localrun-Path` the server reads the file itself.

        Raises:
            LocalrunError: What the server said; `NoServer` if it cannot be reached.
        """
        is_read_there = "X-Localrun-Path" in headers
        with file.open("rb") as opened:
            size = file.stat().st_size
            body = b"" if is_read_there else _Told(opened, report)
            length = {"Content-Length": "0" if is_read_there else str(size)}
            self._send_body("POST", path, body, {**headers, **length})
        report(size)

    def _send_body(
        self, method: str, path: str, body: "bytes | _Told | None", headers: Mapping[str, str]
    ) -> int:
        """The status of the answer, its error raised unless it was asked by HEAD."""
        connection = http.client.HTTPConnection(self.host, self.port, blocksize=_BLOCK_BYTES)
        try:
            connection.request(method, path, body, self._headers(headers))
            response = connection.getresponse()
            said = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._no_answer(error) from error
        finally:
            connection.close()
        if response.status >= 400 and method != "HEAD":
            raise _error_of(_parse(said), response.status)
        return response.status

    def _no_answer(self, error: Exception) -> NoServer:
        return NoServer(
            f"the server at {self.address} does not answer: {_reason(error)}",
            hint="localrun serve",
        )

    def _lines(
        self,
        method: str,
        path: str,
        body: Json | None,
        *,
        timeout_s: float | None = None,
        headers: Mapping[str, str] = {},
    ) -> Iterator[bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
            connection.request(method, path, content, self._headers(headers))
            response = connection.getresponse()
            if response.status >= 400:
                raise _error_of(_parse(response.read()), response.status)
            yield from response
        except (OSError, http.client.HTTPException) as error:
            raise self._no_answer(error) from error
        finally:
            connection.close()

    def _headers(self, extra: Mapping[str, str]) -> dict[str, str]:
        headers = {"Content-Type": "application/json", **extra}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        if self.backend:
            headers["X-Localrun-Backend"] = self.backend
        return headers


class _Told:
    """A file that tells how much of it was read."""

    def __init__(self, file: IO[bytes], report: Callable[[int], None]) -> None:
        self._file, self._report, self._n_bytes = file, report, 0

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, none at the end."""
        self._report(self._n_bytes)  # what was asked for before has been sent
        piece = self._file.read(size)
        self._n_bytes += len(piece)
        return piece


def find_server(settings: Settings, *, timeout_s: float = 2.0) -> Client | None:
    """The localrun server at the address of the settings; None if nobody listens there.

    Raises:
        NoServer: If another program answers there.
    """
    key = settings.api_keys[0] if settings.api_keys else ""
    host = _LOOPBACK.get(settings.host, settings.host)
    client = Client(host, settings.port, key, settings.backend)
    connection = http.client.HTTPConnection(client.host, client.port, timeout=timeout_s)
    try:
        connection.request("GET", "/api/version")
        response = connection.getresponse()
        response.read()
        server = response.getheader("Server", "")
    except OSError:
        return None
    except http.client.HTTPException:
        server = "not HTTP"
    finally:
        connection.close()
    if server.startswith("localrun/"):
        return client
    raise _foreign(client, server)


def need_server(settings: Settings) -> Client:
    """As `find_server`, for commands that only make sense with a running server.

    Raises:
        NoServer: If there is none.
    """
    client = find_server(settings)
    if client is None:
        raise NoServer(
            f"no localrun server answers on {settings.host}:{settings.port}", hint="localrun serve"
        )
    return client


def _foreign(client: Client, server: str) -> NoServer:
    whose = f"another program ({server})" if server else _ask_name(client)
    return NoServer(
        f"{client.address} belongs to {whose}, not to localrun",
        hint="choose another port: LOCALRUN_HOST=127.0.0.1:11435 localrun serve",
    )


def _ask_name(client: Client) -> str:
    connection = http.client.HTTPConnection(client.host, client.port, timeout=1.0)
    try:
        connection.request("GET", "/")
        banner = connection.getresponse().read(200)
    except (OSError, http.client.HTTPException):
        banner = b""
    finally:
        connection.close()
    return "Ollama" if b"Ollama is running" in banner else "another program"


def _parse(body: bytes) -> Json:
    try:
        record: object = json.loads(body)
    except ValueError:
        record = None
    if isinstance(record, dict):
        return record  # pyright: ignore[reportUnknownVariableType]  # JSON keys are strings
    words = body.decode("utf-8", "replace").strip()
    return {"error": words[:500] or "the server answered nothing"}


def _error_of(record: Json, status: int) -> LocalrunError:
    """The error of an answer, as its own class."""
    code = text(record, "code") or ("model_not_found" if status == 404 else "")
    cls = error_classes().get(code, LocalrunError)
    message = text(record, "error") or f"the server answered {status}"
    error = cls.__new__(cls, message)
    LocalrunError.__init__(error, message, hint=text(record, "hint"))
    return error


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    return str(error) or type(error).__name__
