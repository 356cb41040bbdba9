"""Push a model to a registry: blobs that it lacks, in parts, then the manifest. Blocking.

Source: the OCI distribution specification and Ollama's `server/upload.go`.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import httpx2

from localrun.errors import (
    Cancelled,
    InvalidName,
    Offline,
    PullFailed,
    RateLimited,
    SourceMissing,
)
from localrun.names import parse_name
from localrun.store.addresses import RegistryFailed
from localrun.store.library import Library, StoredModel
from localrun.store.manifest import MANIFEST_TYPE, Layer
from localrun.store.progress import PullEvent, Report, tell_blob
from localrun.store.registry import Registry, joined
from localrun.store.wire import Patience

_N_PARTS = 16
_PIECE_BYTES = 1 << 20
_BYTES = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class PartSizes:
    """How long the parts of an upload are, in bytes; a sixteenth of the blob, within these."""

    smallest: int = 100_000_000
    largest: int = 1_000_000_000

    def of(self, size: int) -> int:
        """For a blob of `size` bytes."""
        return min(max(size // _N_PARTS, self.smallest), self.largest)


@dataclass(frozen=True, slots=True)
class Manners:
    """How a registry is treated.

    Attributes:
        patience: How often to try again, and how long to wait between.
        sizes: How long the parts of an upload are.
    """

    patience: Patience = field(default_factory=Patience)
    sizes: PartSizes = field(default_factory=PartSizes)


def push(
    model: StoredModel,
    registry: Registry,
    library: Library,
    report: Report,
    cancelled: Callable[[], bool],
    manners: Manners | None = None,
) -> None:
    """Send a model.

    Args:
        model: What to send.
        registry: Where to.
        library: Where its blobs are.
        report: Told every step, on this thread.
        cancelled: Asked many times a second whether to stop.
        manners: How the registry is treated.

    Raises:
        PullFailed: In the class that says why it failed.
        Cancelled: If `cancelled` said so.
    """
    manifest, content = model.manifest, library.manifest_bytes(model.name)
    parts = tuple({part.digest: part for part in (*manifest.layers, manifest.config)}.values())
    for part in parts:
        tell = partial(tell_blob, report, part.digest, part.size, verb="pushing")
        if _is_there(registry, part):
            tell(part.size)
        else:
            path = library.blobs.path(part.digest)
            _Upload(registry, part, path, tell, cancelled, manners or Manners()).run()
    report(PullEvent("pushing manifest"))
    address = registry.address
    url = f"{address.repository}/manifests/{address.name.tag}"
    headers = {"Content-Type": MANIFEST_TYPE}
    with registry.send("PUT", url, headers=headers, content=content):
        pass
    report(PullEvent("success"))


def _is_there(registry: Registry, part: Layer) -> bool:
    url = f"{registry.address.repository}/blobs/{part.digest}"
    with suppress(SourceMissing), registry.send("HEAD", url):
        return True
    return False


class _Upload:
    """One blob on its way to the registry."""

    def __init__(
        self,
        registry: Registry,
        part: Layer,
        path: Path,
        tell: Callable[[int], None],
        cancelled: Callable[[], bool],
        manners: Manners,
    ) -> None:
        self._registry, self._part, self._path = registry, part, path
        self._tell, self._cancelled, self._patience = tell, cancelled, manners.patience
        self._part_bytes = manners.sizes.of(part.size)
        self._sums: list[bytes] = []

    def run(self) -> None:
        """Send it; begun anew after a trouble, at the place that the registry has."""
        url, at, n_tries, reached = "", 0, 0, 0
        while True:
            try:
                if not url:
                    url, at, self._sums = self._begin(), 0, []
                while url and at < self._part.size:
                    end = min(at + self._part_bytes, self._part.size)
                    url = self._send(url, at, end)
                    at = end
                if url:
                    self._commit(url)
            except PullFailed as error:
                if not _may_pass(error):
                    raise
                n_tries = 1 if at > reached else n_tries + 1
                reached = max(at, reached)
                self._give_up_or_wait(error, n_tries)
                url, at = self._resume(url) if not self._sums else ("", 0)
            else:
                self._tell(self._part.size)
                return

    def _begin(self) -> str:
        """Where to send to; empty if the registry takes the blob from another repository."""
        url = f"{self._registry.address.repository}/blobs/uploads/{self._mount()}"
        with self._registry.send("POST", url) as answer:
            if answer.status_code == 201:
                return ""
            return joined(url, _next(answer))

    def _mount(self) -> str:
        """Asks the registry to take the blob from the model's parent, where it has that."""
        with suppress(InvalidName):
            parent, host = parse_name(self._part.parent), self._registry.address.name.host
            if parent.host == host:
                source = f"{parent.namespace}/{parent.model}"
                return f"?{urlencode({'mount': self._part.digest, 'from': source})}"
        return ""

    def _send(self, url: str, at: int, end: int) -> str:
        """Send one part; where the next one goes."""
        headers = {
            "Content-Type": _BYTES,
            "Content-Length": str(end - at),
            "Content-Range": f"{at}-{end - 1}",
            "X-Redirect-Uploads": "1",
        }
        content = partial(self._read, at, end)
        with self._registry.send("PATCH", url, headers=headers, content=content) as answer:
            following = joined(url, _next(answer))
            storage = answer.headers.get("Location", "") if answer.status_code == 307 else ""
        if storage:
            self._store(joined(url, str(storage)), at, end)
        return following

    def _store(self, url: str, at: int, end: int) -> None:
        """Send a part to the storage that the registry points to; who we are is not sent along."""
        proof = hashlib.md5(usedforsecurity=False)
        headers = {"Content-Type": _BYTES, "Content-Length": str(end - at)}
        content = partial(self._read, at, end, proof.update)
        with self._registry.send("PUT", url, headers=headers, content=content):
            self._sums.append(proof.digest())

    def _read(
        self, at: int, end: int, prove: Callable[[bytes], None] = lambda _: None
    ) -> Iterable[bytes]:
        with self._path.open("rb", buffering=0) as file:
            file.seek(at)
            while at < end:
                if self._cancelled():
                    raise Cancelled("the push was cancelled")
                piece = file.read(min(_PIECE_BYTES, end - at))
                if not piece:
                    raise RegistryFailed(f"the blob {self._part.digest} is shorter than its size")
                prove(piece)
                yield piece
                at += len(piece)
                self._tell(at)

    def _commit(self, url: str) -> None:
        query = {"digest": self._part.digest}
        if self._sums:
            total = hashlib.md5(b"".join(self._sums), usedforsecurity=False).hexdigest()
            query["etag"] = f"{total}-{len(self._sums)}"
        url += f"{'&' if '?' in url else '?'}{urlencode(query)}"
        headers = {"Content-Type": _BYTES, "Content-Length": "0"}
        with self._registry.send("PUT", url, headers=headers):
            pass

    def _resume(self, url: str) -> tuple[str, int]:
        """Where to go on, and from which byte; from the start if the registry does not say."""
        if not url:
            return "", 0
        try:
            with self._registry.send("GET", url, follows=False) as answer:
                _, _, last = str(answer.headers.get("Range", "")).rpartition("-")
                if last.isdecimal() and int(last):  # 0-0 is said of no byte and of one
                    return joined(url, _next(answer) or url), int(last) + 1
        except PullFailed:
            pass
        return "", 0

    def _give_up_or_wait(self, error: PullFailed, n_tries: int) -> None:
        if n_tries >= self._patience.tries:
            raise Offline(f"max retries exceeded: {error.message}", hint=error.hint) from error
        waited, waiting = 0.0, threading.Event()
        while waited < self._patience.backoff(n_tries):
            if self._cancelled():
                raise Cancelled("the push was cancelled")
            waiting.wait(0.05)
            waited += 0.05


def _may_pass(error: PullFailed) -> bool:
    """Whether a further try may help."""
    if isinstance(error, RegistryFailed):
        return error.http_status >= 500 or error.http_status in (408, 416)
    return isinstance(error, Offline | RateLimited)


def _next(answer: httpx2.Response) -> str:
    return str(answer.headers.get("Docker-Upload-Location") or answer.headers.get("Location", ""))
