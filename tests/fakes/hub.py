"""A Hub on the loopback that the genuine huggingface_hub client accepts; it can be made to fail.

Two ports are two origins: the Hub, and the CDN to which it redirects for large files. Bodies are
sent from the file (`sendfile`), so that large ones cost no memory.
"""

import hashlib
import json
import os
import re
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.loopback import serve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_good"


@dataclass
class Repo:
    """A repository: path → file on disk."""

    files: dict[str, Path]
    gated: bool = False
    private: bool = False
    license: str = "apache-2.0"
    redirects: bool = True
    declared: dict[str, str] = field(default_factory=dict)

    def sha256(self, path: str) -> str:
        """What the Hub says that the content is; `declared` may say otherwise than the truth."""
        if path not in self.declared:
            with self.files[path].open("rb") as file:
                self.declared[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self.declared[path]


@dataclass
class Fault:
    """What goes wrong, for `times` matching requests after the first `after`.

    `on` is `api` (listing), `head` (resolve), `cdn` (bytes of large files) or `resolve` (bytes of
    small ones). A body with a `gate` stops after its first MiB until the gate is set.
    """

    on: str
    times: int = 1
    after: int = 0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""
    message: str = "injected"
    drop_at: int | None = None
    reset_at: int | None = None
    ignores_range: bool = False
    stall_at: int | None = None
    slow_s: float = 0.0
    gate: threading.Event | None = None
    add_size: int = 0
    body: str = ""


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    role: str
    method: str
    path: str
    range: str
    authorization: str

    @property
    def n_bytes(self) -> int:
        """How many bytes were asked for; 0 without a range."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.range)
        return int(found[2]) - int(found[1]) + 1 if found else 0


class FakeHub:
    """The two servers; a context manager."""

    def __init__(self, repos: Mapping[str, Repo]) -> None:
        self.repos = dict(repos)
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.n_sent = 0
        self.by_sha: dict[str, Path] = {}
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self._servers = {role: serve(_Handler, hub=self, role=role) for role in ("hub", "cdn")}
        self.url, self.cdn_url = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers.values()
        )

    def __enter__(self) -> "FakeHub":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closing.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def requests(self, role: str, method: str = "GET") -> list[Seen]:
        return [seen for seen in self.seen if (seen.role, seen.method) == (role, method)]

    def take_fault(self, on: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.on == on and fault.after > 0:
                    fault.after -= 1
                elif fault.on == on and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub
    role: str

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        self._route()

    def do_HEAD(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._error(404, "", "Not Found")

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.seen.append(
            Seen(
                self.role,
                self.command,
                path,
                self.headers.get("Range") or "",
                self.headers.get("Authorization") or "",
            )
        )
        if self.role == "cdn":
            self._send_file(self.hub.by_sha[path.rpartition("/")[2]], self.hub.take_fault("cdn"))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/([^/]+))?", path):
            self._answer(found[1], found[2] or "main", None)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._answer(found[1], found[2], found[3])
        else:
            self._error(404, "", "Not Found")

    def _answer(self, repo_id: str, revision: str, path: str | None) -> None:
        on = "api" if path is None else "head" if self.command == "HEAD" else "resolve"
        fault = self.hub.take_fault(on)
        if fault is not None and fault.status:
            self._error(fault.status, fault.code, fault.message, fault.headers)
            return
        if fault is not None and fault.body:
            self._send(200, fault.body.encode(), {}, "text/html")
            return
        repo = self._admit(repo_id, path)
        if repo is None:
            return
        if revision not in ("main", COMMIT):
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif path is None:
            self._list(repo_id, repo)
        elif path not in repo.files:
            self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": COMMIT})
        else:
            self._resolve(repo, path, fault)

    def _admit(self, repo_id: str, path: str | None) -> Repo | None:
        repo = self.hub.repos.get(repo_id)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token != TOKEN:
            self._error(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and not token):
            # The real Hub answers 401 to who is anonymous, and 404 to who is known.
            self._error(404 if token else 401, "RepoNotFound", "Repository not found")
        elif repo.gated and path is not None and not token:
            self._error(401, "GatedRepo", f"Access to model {repo_id} is restricted.")
        else:
            return repo
        return None

    def _list(self, repo_id: str, repo: Repo) -> None:
        siblings: list[dict[str, object]] = []
        with_blobs = "blobs" in parse_qs(urlsplit(self.path).query)
        for name, file in sorted(repo.files.items()):
            row: dict[str, object] = {"rfilename": name}
            if with_blobs:
                row |= {"size": file.stat().st_size, "blobId": "0" * 40}
                if _is_large(name):
                    size = file.stat().st_size
                    row["lfs"] = {"sha256": repo.sha256(name), "size": size, "pointerSize": 134}
            siblings.append(row)
        body = {
            "_id": "0",
            "id": repo_id,
            "modelId": repo_id,
            "sha": COMMIT,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "tags": ["gguf", f"license:{repo.license}"],
            "cardData": {"license": repo.license},
            "siblings": siblings,
        }
        self._send(200, json.dumps(body).encode())

    def _resolve(self, repo: Repo, path: str, fault: Fault | None) -> None:
        file = repo.files[path]
        size = file.stat().st_size + (fault.add_size if fault else 0)
        headers = {"X-Repo-Commit": COMMIT}
        if not _is_large(path):
            oid = hashlib.sha1(b"blob %d\0" % size + file.read_bytes()).hexdigest()
            self._send_file(file, fault, {**headers, "ETag": f'"{oid}"'})
            return
        sha = repo.sha256(path)
        headers |= {"X-Linked-Size": str(size), "X-Linked-Etag": f'"{sha}"', "ETag": f'"{sha}"'}
        if not repo.redirects:
            self._send_file(file, fault, headers)
            return
        self.hub.by_sha[sha] = file
        headers["Location"] = f"{self.hub.cdn_url}/lfs/{sha}"
        self._send(302, b"Found", headers, "text/plain")

    def _send_file(
        self, file: Path, fault: Fault | None, headers: Mapping[str, str] | None = None
    ) -> None:
        fault = fault or Fault("")
        if fault.status:
            self._error(fault.status, fault.code, fault.message, fault.headers)
            return
        total = file.stat().st_size
        start, end, status = 0, total, 200
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        extra = {**(headers or {}), **fault.headers}
        if found and not fault.ignores_range:
            start, end = int(found[1]), min(int(found[2] or total) + 1, total)
            if start >= total:
                self._error(416, "", "bad range", {"Content-Range": f"bytes */{total}"})
                return
            status = 206
            extra.setdefault("Content-Range", f"bytes {start}-{end - 1}/{total}")
        self.send_response(status)
        for name, value in {"Content-Length": str(end - start), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(file, start, end, fault)

    def _send_body(self, file: Path, start: int, end: int, fault: Fault) -> None:
        self.wfile.flush()
        stops = [at for at in (fault.drop_at, fault.reset_at, fault.stall_at) if at is not None]
        stop = min([end, *(start + at for at in stops)])
        with file.open("rb") as opened:
            while start < stop and not self.hub.closing.is_set():
                if fault.slow_s:
                    self.hub.closing.wait(fault.slow_s)
                size = min(stop - start, (64 if fault.slow_s else 1024) << 10)
                n = os.sendfile(self.connection.fileno(), opened.fileno(), start, size)
                if not n:
                    break
                start += n
                if fault.gate is not None:
                    fault.gate.wait(20)
                with self.hub.lock:
                    self.hub.n_sent += n
        if fault.stall_at is not None:
            self.hub.closing.wait(20)
        if stop < end or fault.reset_at is not None:
            self._cut(is_reset=fault.reset_at is not None)

    def _cut(self, *, is_reset: bool) -> None:
        if is_reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close() if is_reset else self.connection.shutdown(socket.SHUT_RDWR)

    def _error(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        extra = {"X-Error-Message": message, **(headers or {})}
        if code:
            extra["X-Error-Code"] = code
        self._send(status, json.dumps({"error": message}).encode(), extra)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        kind: str = "application/json",
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _is_large(path: str) -> bool:
    return path.endswith(".gguf")
