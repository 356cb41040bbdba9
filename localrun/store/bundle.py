"""Models in one tar file, for a machine without a network.

    bundle.json              the names and the models' ids, which are their manifests' hashes
    manifests/<number>       as they are stored, to the byte
    blobs/sha256-<64 hex>    each once

In this order, plain files and nothing else: no header but the tar's own is read, so that a hostile
file has no links, no paths and no lengths to lie with. Each blob is hashed while it is written, and
a model is there only when all of it is.
"""

import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, cast

from localrun.errors import BadRequest, Cancelled, InvalidName, LocalrunError
from localrun.gguf import open_model
from localrun.names import ModelName, parse_name
from localrun.store.blobs import Stream, take_stream
from localrun.store.library import Library, adopted_only
from localrun.store.manifest import (
    MODEL,
    BadManifest,
    Layer,
    Manifest,
    digest_of,
    parse_manifest,
)
from localrun.store.stored import StoredModel

_VERSION = 1
_BLOCK = 512
_PIECE_BYTES = 1 << 20
_MAX_SMALL_BYTES = 4 << 20
_MAX_MODELS = 1000
_BLOB = re.compile(r"blobs/sha256-[0-9a-f]{64}")

Tell = Callable[[str, int, int], None]
"""Told the digest of a file, its bytes and how many are done."""


class BadBundle(BadRequest):
    """Raised when a file is no bundle, is damaged, or holds what no bundle holds."""

    code = "bad_bundle"


class _Carried(NamedTuple):
    name: ModelName
    content: bytes
    manifest: Manifest


# ── making one ────────────────────────────────────────────────────────────────────────────────


def create_bundle(
    models: Iterable[StoredModel],
    library: Library,
    target: Path,
    tell: Tell,
    is_cancelled: Callable[[], bool],
) -> None:
    """Write models into a new tar file; it is there as a whole or not at all.

    Raises:
        BadRequest: If the file is there already.
        Unsupported: If a model is adopted, so that its files have no hash.
        LocalrunError: If the file cannot be written.
        Cancelled: If `is_cancelled` said so; nothing is left behind.
    """
    models = list(models)
    for model in models:
        if model.adopted:
            raise adopted_only(model)
    if target.exists():
        raise BadRequest(f"{target} is there already", hint="name a new file")
    made = target.with_name(f".{target.name}.new")
    try:
        with made.open("wb") as file:
            _write(models, library, file, tell, is_cancelled)
        made.replace(target)
    except OSError as error:
        raise LocalrunError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        made.unlink(missing_ok=True)


def _write(
    models: list[StoredModel],
    library: Library,
    file: IO[bytes],
    tell: Tell,
    is_cancelled: Callable[[], bool],
) -> None:
    rows = [{"name": model.name.full(), "id": model.digest} for model in models]
    index = {"version": _VERSION, "models": rows}
    _write_small(file, "bundle.json", json.dumps(index).encode())
    for number, model in enumerate(models):
        _write_small(file, f"manifests/{number}", library.manifest_bytes(model.name))
    for layer in _layers(model.manifest for model in models).values():
        path, n_bytes = library.blobs.path(layer.digest), 0
        file.write(_header(f"blobs/{path.name}", layer.size))
        with path.open("rb") as blob:
            while piece := blob.read(_PIECE_BYTES):
                if is_cancelled():
                    raise Cancelled("the bundle was cancelled")
                file.write(piece)
                n_bytes += len(piece)
                tell(layer.digest, layer.size, n_bytes)
        if n_bytes != layer.size:
            raise LocalrunError(f"{path} is damaged", hint="localrun verify --repair")
        file.write(bytes(-n_bytes % _BLOCK))
    file.write(bytes(2 * _BLOCK))


def _write_small(file: IO[bytes], name: str, content: bytes) -> None:
    file.write(_header(name, len(content)) + content + bytes(-len(content) % _BLOCK))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def _layers(manifests: Iterable[Manifest]) -> dict[str, Layer]:
    """Every blob once, by digest."""
    found: dict[str, Layer] = {}
    for manifest in manifests:
        for layer in (manifest.config, *manifest.layers):
            if found.setdefault(layer.digest, layer).size != layer.size:
                raise BadBundle(f"{layer.digest} has two sizes")
    return found


# ── taking one in ─────────────────────────────────────────────────────────────────────────────


def import_bundle(
    source: Path,
    library: Library,
    tell: Tell,
    is_cancelled: Callable[[], bool],
    *,
    replaces: bool = False,
) -> list[StoredModel]:
    """Take the models of a bundle into the store; each file is checked against its hash.

    Args:
        source: The tar file.
        library: Where they go.
        tell: Told the progress.
        is_cancelled: Asked many times a second whether to stop.
        replaces: Models of these names that are other models may go.

    Raises:
        BadBundle: If the file is none, or holds anything that a bundle has not.
        BadRequest: If a model of such a name is there, and it is another.
        BrokenTransfer: If a file in it is not what its name says; it is set aside.
        BadModelFile: If a model in it is no whole GGUF file.
        DiskFull: If there is no room.
    """
    try:
        with source.open("rb") as file:
            models = _read_models(file)
            if not replaces:
                _check_free(models, library)
            layers = _layers(model.manifest for model in models)
            missing = [each for each in layers.values() if not _has(library, each)]
            library.blobs.ensure_room(sum(layer.size for layer in missing))
            _take_blobs(file, library, layers, tell, is_cancelled)
            return [_add(model, library) for model in models]
    except OSError as error:
        raise LocalrunError(f"{source} cannot be read: {error.strerror or error}") from error


def _add(model: _Carried, library: Library) -> StoredModel:
    weights = model.manifest.of_type(MODEL)
    if not weights:
        raise BadBundle(f"{model.name.short()} has no weights")
    open_model([library.blobs.path(layer.digest) for layer in weights])
    return library.add(model.name, model.manifest, model.content)


def _has(library: Library, layer: Layer) -> bool:
    return library.blobs.has(layer.digest, layer.size)


def _read_models(file: IO[bytes]) -> list[_Carried]:
    """The names and the manifests, which come first; nothing of them is believed."""
    try:
        index = cast("object", json.loads(_read_small(file, "bundle.json")))
        if not isinstance(index, dict):
            raise BadBundle("its bundle.json is no object")
        body = cast("dict[str, object]", index)
        rows = body.get("models")
        if body.get("version") != _VERSION or not isinstance(rows, list) or not rows:
            raise BadBundle("its bundle.json is of another version, or names no model")
        if len(cast("list[object]", rows)) > _MAX_MODELS:
            raise BadBundle(f"it names more than {_MAX_MODELS} models")
        found = [_read_model(file, n, row) for n, row in enumerate(cast("list[object]", rows))]
    except (ValueError, RecursionError, BadManifest, InvalidName) as error:
        raise BadBundle(f"it cannot be read: {error}") from error
    return found


def _read_model(file: IO[bytes], number: int, row: object) -> _Carried:
    fields = cast("dict[str, object]", row) if isinstance(row, dict) else {}
    content = _read_small(file, f"manifests/{number}")
    if digest_of(content) != f"sha256:{fields.get('id')}":
        raise BadBundle(f"manifests/{number} is not what bundle.json says")
    return _Carried(parse_name(str(fields.get("name", ""))), content, parse_manifest(content))


def _check_free(models: list[_Carried], library: Library) -> None:
    for model in models:
        with suppress(LocalrunError):
            there = library.get(model.name)
            if not there.adopted and there.manifest != model.manifest:
                break
    else:
        return
    raise BadRequest(
        f"there is another model named {model.name.short()}",
        hint="give that one another name (localrun cp), or import with --replace",
    )


def _take_blobs(
    file: IO[bytes],
    library: Library,
    layers: dict[str, Layer],
    tell: Tell,
    is_cancelled: Callable[[], bool],
) -> None:
    left = dict(layers)
    for name, size in _members(file):
        if not _BLOB.fullmatch(name):
            raise BadBundle(f"it holds {name!r}, which no bundle has")
        digest = name.removeprefix("blobs/").replace("-", ":")
        layer = left.pop(digest, None)
        if layer is None or layer.size != size:
            raise BadBundle(f"no model in it has {name} of {size} bytes")
        if _has(library, layer):
            _skip(file, size)
        else:
            body = _Body(file, size)
            sha256 = digest.removeprefix("sha256:")
            report = _telling(tell, layer)
            take_stream(library.blobs, Stream(name, body.read, size, sha256, report, is_cancelled))
        _skip(file, -size % _BLOCK)
        tell(digest, size, size)
    if left:
        raise BadBundle(f"it ends before {next(iter(left))}")


def _telling(tell: Tell, layer: Layer) -> Callable[[int], None]:
    return lambda n_bytes: tell(layer.digest, layer.size, n_bytes)


class _Body:
    """The bytes of one member, and none beyond."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def read(self, n_bytes: int) -> bytes:
        """Up to so many bytes more."""
        piece = self._file.read(min(n_bytes, self._left))
        self._left -= len(piece)
        return piece


def _members(file: IO[bytes]) -> Iterator[tuple[str, int]]:
    """Name and size of each member that follows; who iterates reads its bytes."""
    while any(block := file.read(_BLOCK)):
        yield _parse_header(block)


def _parse_header(block: bytes) -> tuple[str, int]:
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise BadBundle(f"it is no tar file, or a damaged one: {error}") from error
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.size < 0:
        raise BadBundle(f"it holds {info.name!r}, which is no plain file")
    return info.name, info.size


def _read_small(file: IO[bytes], expected: str) -> bytes:
    name, size = _parse_header(file.read(_BLOCK))
    if name != expected or size > _MAX_SMALL_BYTES:
        raise BadBundle(f"{expected} is not where it belongs, or too long")
    content = file.read(size)
    _skip(file, -size % _BLOCK)
    if len(content) < size:
        raise BadBundle("it ends early")
    return content


def _skip(file: IO[bytes], n_bytes: int) -> None:
    while n_bytes and (piece := file.read(min(_PIECE_BYTES, n_bytes))):
        n_bytes -= len(piece)
