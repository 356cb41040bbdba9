"""A loopback server that answers as localrun's does, from tables; for tests of the CLI."""

import contextlib
import json
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIGEST = "0123456789abcdef" * 4
TAGS: dict[str, Any] = {
    "models": [
        {
            "name": "tiny:latest",
            "digest": DIGEST,
            "size": 98_362_432,
            "modified_at": "2020-01-01T00:00:00Z",
            "capabilities": ["completion"],
        }
    ]
}
PS = {
    "models": [
        {
            "name": "tiny:latest",
            "digest": DIGEST,
            "size": 100_000_000,
            "size_vram": 50_000_000,
            "context_length": 4096,
            "expires_at": "2999-01-01T00:00:00Z",
        }
    ]
}
SHOW = {
    "capabilities": ["completion"],
    "details": {"family": "llama", "parameter_size": "135M", "quantization_level": "Q4_1"},
    "model_info": {"general.architecture": "llama", "llama.context_length": 8192},
    "parameters": 'stop                           "<|im_end|>"',
    "license": "Apache License\nVersion 2.0\nJanuary 2004\n",
    "template": "{{ .Prompt }}",
}


@dataclass
class FakeServer:
    """What the server knows and what it was asked."""

    port: int = 0
    server: str = "localrun/0.1.0"
    banner: str = "Ollama is running"
    tags: dict[str, Any] = field(default_factory=lambda: TAGS)
    models: set[str] = field(default_factory=lambda: {"tiny"})
    pull_events: list[dict[str, Any]] = field(default_factory=list)
    answer: list[str] = field(default_factory=lambda: ["天空", " is ", "blue."])
    stall: threading.Event | None = None
    dropped: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """What was sent to a path, in order."""
        return [body for asked, body in self.asked if asked == path]


class _Httpd(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, fake: FakeServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fake = fake


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def fake(self) -> FakeServer:
        assert isinstance(self.server, _Httpd)
        return self.server.fake

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
        """Say nothing."""

    def version_string(self) -> str:
        return self.fake.server

    def do_GET(self) -> None:
        answers: dict[str, Any] = {
            "/api/version": {"version": "0.1.0"},
            "/api/tags": self.fake.tags,
            "/api/ps": PS,
        }
        if self.path == "/":
            self._send(200, self.fake.banner.encode())
        else:
            self._json(200, answers[self.path])

    def do_HEAD(self) -> None:
        self._send(200, b"")

    def do_POST(self) -> None:
        body = self._read()
        if self.path == "/api/pull":
            self._stream(self.fake.pull_events)
            self.fake.models.add(body["model"])
        elif self.path == "/api/create":
            self._json(200, {"status": "success"})
        elif body["model"] not in self.fake.models:
            name = body["model"]
            error = {"error": f"model '{name}' not found", "code": "model_not_found"}
            self._json(404, error | {"hint": f"localrun pull {name}"})
        elif self.path == "/api/show":
            self._json(200, SHOW)
        elif body.get("stream") is False:
            self._json(200, {"done": True, "done_reason": "load"})
        else:
            self._stream(self._deltas())

    def do_DELETE(self) -> None:
        name = self._read()["model"]
        if name in self.fake.models:
            self.fake.models.remove(name)
            self._send(200, b"")
        else:
            self._json(404, {"error": f"model '{name}' not found"})

    def _deltas(self) -> list[dict[str, Any]]:
        key = "message" if self.path == "/api/chat" else "response"
        values = [
            {"role": "assistant", "content": text} if key == "message" else text
            for text in self.fake.answer
        ]
        last = {"done": True, "eval_count": 3, "eval_duration": 1_500_000_000}
        return [{key: value, "done": False} for value in values] + [last]

    def _read(self) -> dict[str, Any]:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.fake.asked.append((self.path, body))
        self.fake.headers.append(dict(self.headers))
        return dict(body)

    def _json(self, status: int, record: dict[str, Any]) -> None:
        self._send(status, json.dumps(record).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, records: list[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for record in records:
            self._chunk(json.dumps(record).encode() + b"\n")
            if self.fake.stall is not None and not self._stall(self.fake.stall):
                return
        self._chunk(b"")

    def _stall(self, go_on: threading.Event) -> bool:
        """Wait for the test, or until the client is gone."""
        self.connection.settimeout(0.05)
        while not go_on.is_set():
            try:
                if not self.connection.recv(1):
                    self.fake.dropped.set()
                    self.close_connection = True
                    return False
            except TimeoutError:
                continue
        return True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


@contextlib.contextmanager
def fake_server(fake: FakeServer) -> Generator[FakeServer, None, None]:
    """Serve until the block ends."""
    httpd = _Httpd(fake)
    fake.port = httpd.server_address[1]
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
