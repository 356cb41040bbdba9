"""A scripted Ollama daemon on a free port: it answers as it is told, and misbehaves as it is told.

Every step of a script is bytes to send, or one of the words below.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

DIE = "die"  # the connection is cut in the middle of the answer
HANG = "hang"  # nothing more comes, and no question is answered any more
WAIT = "wait"  # nothing more comes until `go_on` is set, but questions are answered

Step = bytes | str


@dataclass(frozen=True)
class Script:
    """An answer: its status, type, and what its body is made of."""

    steps: Sequence[Step] = ()
    status: int | str = 200
    content_type: str = "application/json; charset=utf-8"
    is_chunked: bool = True


def ndjson(*records: object, then: Sequence[Step] = ()) -> Script:
    lines = [json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records]
    return Script([*lines, *then], content_type="application/x-ndjson")


def events(*texts: str, then: Sequence[Step] = ()) -> Script:
    return Script([f"{text}\n\n".encode() for text in texts] + [*then],
                  content_type="text/event-stream")  # fmt: skip


def whole(value: object, status: int = 200) -> Script:
    return Script([json.dumps(value, separators=(",", ":")).encode()], status)


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


@dataclass
class FakeDaemon:
    """The daemon; `scripts` by method and path, the rest is 404 as Go's router says it."""

    scripts: dict[str, Script] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    hangs: bool = False
    port: int = 0
    _listener: socket.socket | None = None
    _connections: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scripts.setdefault("GET /api/version", whole({"version": "0.33.0"}))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.asked]

    def start(self) -> None:
        """Listen, on the port of before if there was one."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Die: nobody listens any more and every connection is cut."""
        self.go_on.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as file:
            while (request := _read(file)) is not None:
                self.asked.append(request)
                if self.hangs:
                    self.go_on.wait()
                    return
                key = f"{request.method} {request.path.partition('?')[0]}"
                missing = Script([b"404 page not found"], 404, "text/plain")
                if not self._answer(connection, self.scripts.get(key, missing)):
                    return

    def _answer(self, connection: socket.socket, script: Script) -> bool:
        """Play a script; False if the connection is not to be used any more."""
        head = f"HTTP/1.1 {script.status} X\r\nContent-Type: {script.content_type}\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for step in script.steps:
            if isinstance(step, bytes):
                connection.sendall(b"%x\r\n%b\r\n" % (len(step), step))
                continue
            if step == DIE:
                connection.shutdown(socket.SHUT_RDWR)
                return False
            self.hangs = step == HANG
            if not self._wait_gone(connection):
                return False
        connection.sendall(b"0\r\n\r\n")
        return True

    def _wait_gone(self, connection: socket.socket) -> bool:
        """Wait for `go_on`; False if the client left before it, which `gone` then says."""
        connection.settimeout(0.02)
        try:
            while not self.go_on.is_set():
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(1, socket.MSG_PEEK):
                        self.gone.set()
                        return False
        finally:
            connection.settimeout(None)
        return True


def _read(file) -> Asked | None:
    line = file.readline().decode()
    if not line.strip():
        return None
    method, path, _ = line.split(" ", 2)
    headers = {}
    while field_line := file.readline().decode().strip():
        name, _, value = field_line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(file.readline(), 16):
            body += file.read(size)
            file.readline()
        file.readline()
    else:
        body = file.read(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, body)


@contextlib.contextmanager
def fake_daemon(scripts: dict[str, Script] | None = None) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(scripts or {})
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()
