"""A registry on the loopback that speaks the distribution protocol; it can be made to fail.

Three ports are three origins: the registry, the storage to which it may point for bytes, and a
stranger whom nobody should ever tell who they are. Blobs are kept by what they truly are: an upload
whose digest is wrong is refused.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.loopback import serve

USER, PASSWORD, TOKEN = "me", "secret", "token-of-the-registry"


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    role: str
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


@dataclass
class Trouble:
    """What goes wrong, for `times` requests of a method whose path holds `path`, after `after`."""

    method: str
    path: str
    times: int = 1
    after: int = 0
    status: int = 0
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    drops_after: int | None = None


class FakeRegistry:
    """The three servers; a context manager.

    Attributes:
        manifests: Bytes by `namespace/model:tag`.
        blobs: Content by digest.
        auth: Empty for an open registry, `bearer`, or `basic`.
        realm: Where tokens are said to be had; `{registry}` and `{stranger}` are filled in.
        anonymous: Whether a token is given to who has no password.
        redirects: Point to the storage for the bytes of blobs, and for parts of uploads; Ollama's
            own registry does, and its client insists.
    """

    def __init__(self) -> None:
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.auth = ""
        self.realm = "{registry}/token"
        self.anonymous = True
        self.redirects = False
        self.troubles: list[Trouble] = []
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        roles = ("registry", "storage", "stranger")
        self._servers = {role: serve(_Handler, fake=self, role=role) for role in roles}
        self.urls = {
            role: f"http://127.0.0.1:{server.server_address[1]}"
            for role, server in self._servers.items()
        }

    @property
    def host(self) -> str:
        return urlsplit(self.urls["registry"]).netloc

    def __enter__(self) -> "FakeRegistry":
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def add(self, name: str, *layers: tuple[str, bytes], config: bytes = b"{}\n") -> bytes:
        """Publish a model; returns its manifest's bytes."""
        parts = [("application/vnd.docker.container.image.v1+json", config), *layers]
        described = []
        for media_type, content in parts:
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            self.blobs[digest] = content
            described.append({"mediaType": media_type, "size": len(content), "digest": digest})
        # Another order and spacing than ours: these bytes must be kept as they are.
        body = {"layers": described[1:], "config": described[0], "schemaVersion": 2}
        self.manifests[name] = json.dumps(body, indent=1).encode()
        return self.manifests[name]

    def requests(self, role: str, method: str = "") -> list[Seen]:
        return [s for s in self.seen if s.role == role and (not method or s.method == method)]

    def take_trouble(self, method: str, path: str) -> Trouble | None:
        with self.lock:
            for trouble in self.troubles:
                if trouble.method != method or trouble.path not in path:
                    continue
                if trouble.after > 0:
                    trouble.after -= 1
                elif trouble.times > 0:
                    trouble.times -= 1
                    return trouble
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeRegistry
    role: str

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._route
        raise AttributeError(name)

    def _route(self) -> None:
        parts = urlsplit(self.path)
        self.url_path, self.query = parts.path, parse_qs(parts.query)
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.fake.seen.append(Seen(self.role, self.command, self.url_path, self.query, headers))
        trouble = self.fake.take_trouble(self.command, self.url_path)
        if trouble is not None and trouble.drops_after is not None:
            self.rfile.read(trouble.drops_after)
            self.close_connection = True
            return
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if trouble is not None and trouble.status:
            self._send(trouble.status, trouble.body.encode(), trouble.headers)
        elif self.role != "registry":
            self._storage()
        elif self.url_path == "/token":
            self._token()
        elif self._is_allowed():
            self._registry()

    # ── who is it ─────────────────────────────────────────────────────────────────────────────

    def _is_allowed(self) -> bool:
        wanted = {"": "", "bearer": f"Bearer {TOKEN}", "basic": f"Basic {_basic()}"}[self.fake.auth]
        if not wanted or self.headers.get("Authorization") == wanted:
            return True
        challenge = 'Basic realm="registry"'
        if self.fake.auth == "bearer":
            realm = self.fake.realm.format(**self.fake.urls)
            scope = "repository:me/m:pull,push"
            challenge = f'Bearer realm="{realm}",service="the registry",scope="{scope}"'
        self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
        return False

    def _token(self) -> None:
        is_known = self.headers.get("Authorization") == f"Basic {_basic()}"
        if is_known or (self.fake.anonymous and "Authorization" not in self.headers):
            self._send(200, json.dumps({"token": TOKEN}).encode())
        else:
            self._error(401, "UNAUTHORIZED")

    # ── the protocol ──────────────────────────────────────────────────────────────────────────

    def _registry(self) -> None:
        path = self.url_path
        if found := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            self._manifest(f"{found[1]}:{found[2]}")
        elif found := re.fullmatch(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})", path):
            self._blob(found[2])
        elif found := re.fullmatch(r"/v2/(.+)/blobs/uploads/", path):
            self._begin(found[1])
        elif found := re.fullmatch(r"/v2/(.+)/blobs/uploads/([0-9]+)", path):
            self._upload(found[2])
        else:
            self._error(404, "NAME_UNKNOWN")

    def _manifest(self, name: str) -> None:
        if self.command == "PUT":
            body = json.loads(self.content)
            parts = [body["config"], *body["layers"]]
            if any(part["digest"] not in self.fake.blobs for part in parts):
                self._error(400, "MANIFEST_BLOB_UNKNOWN")
                return
            self.fake.manifests[name] = self.content
            self._send(201, b"")
        elif name in self.fake.manifests:
            self._send(200, self.fake.manifests[name])
        else:
            self._error(404, "MANIFEST_UNKNOWN")

    def _blob(self, digest: str) -> None:
        if digest not in self.fake.blobs:
            self._error(404, "BLOB_UNKNOWN")
        elif self.fake.redirects and self.command == "GET":
            self._send(307, b"", {"Location": f"{self.fake.urls['storage']}/get/{digest}"})
        else:
            self._bytes(self.fake.blobs[digest])

    def _begin(self, repository: str) -> None:
        mounted = self.query.get("mount", [""])[0]
        if mounted and mounted in self.fake.blobs:
            self._send(201, b"", {"Location": f"/v2/{repository}/blobs/{mounted}"})
            return
        with self.fake.lock:
            number = str(len(self.fake.uploads))
            self.fake.uploads[number] = bytearray()
        path = f"/v2/{repository}/blobs/uploads/{number}?state=1"
        base = self.fake.urls["registry"] if self.fake.redirects else ""  # both forms are allowed
        self._send(202, b"", {"Location": f"{base}{path}"})

    def _upload(self, number: str) -> None:
        upload, here = self.fake.uploads[number], {"Location": self.path}
        if self.command == "GET":
            self._send(204, b"", here | {"Range": f"0-{max(len(upload) - 1, 0)}"})
        elif self.command == "PATCH" and self.fake.redirects:
            target = f"{self.fake.urls['storage']}/put/{number}"
            following = f"{self.fake.urls['registry']}{self.path}"
            self._send(307, b"", {"Location": target, "Docker-Upload-Location": following})
        elif self.command == "PATCH":
            start, _, end = self.headers["Content-Range"].partition("-")
            if int(start) != len(upload) or int(end) + 1 - int(start) != len(self.content):
                self._error(
                    416, "BLOB_UPLOAD_INVALID", here | {"Range": f"0-{max(len(upload) - 1, 0)}"}
                )
                return
            upload += self.content
            self._send(202, b"", here | {"Range": f"0-{max(len(upload) - 1, 0)}"})
        else:
            self._commit(upload)

    def _commit(self, upload: bytearray) -> None:
        upload += self.content
        digest = f"sha256:{hashlib.sha256(upload).hexdigest()}"
        if self.query["digest"] != [digest]:
            self._error(400, "DIGEST_INVALID")
        else:
            self.fake.blobs[digest] = bytes(upload)
            self._send(201, b"", {"Location": "/"})

    def _storage(self) -> None:
        kind, _, name = self.url_path.lstrip("/").partition("/")
        if kind == "get":
            self._bytes(self.fake.blobs[name])
        elif kind == "put":
            self.fake.uploads[name] += self.content
            self._send(200, b"")
        else:
            self._send(200, json.dumps({"token": TOKEN}).encode())

    # ── answers ───────────────────────────────────────────────────────────────────────────────

    def _bytes(self, content: bytes) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found is None:
            self._send(200, content)
            return
        start, end = int(found[1]), min(int(found[2]) + 1, len(content))
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
        self._send(206, content[start:end], headers)

    def _error(self, status: int, code: str, headers: Mapping[str, str] = {}) -> None:
        body = {"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}
        self._send(status, json.dumps(body).encode(), headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _basic() -> str:
    return base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
