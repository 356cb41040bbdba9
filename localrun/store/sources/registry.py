"""Pull from a registry: its manifest is kept to the byte, its blobs come by the common transfer."""

from collections.abc import Callable
from functools import partial

from localrun.errors import (
    AccessDenied,
    BadRequest,
    Cancelled,
    NotFound,
    SourceMissing,
    Unsupported,
)
from localrun.gguf import open_model
from localrun.store.addresses import RegistryFailed
from localrun.store.flight import Watcher
from localrun.store.library import Library, StoredModel
from localrun.store.manifest import MODEL, BadManifest, Layer, Manifest, parse_manifest
from localrun.store.origin import Wanted
from localrun.store.progress import PullEvent, Report, tell_blob
from localrun.store.registry import Registry
from localrun.store.transfer import fetch_file
from localrun.store.wire import Patience

_TENSOR = "application/vnd.ollama.image.tensor"
_TRIES = 3


def pull_from_registry(
    registry: Registry,
    library: Library,
    report: Report,
    cancelled: Callable[[], bool],
    patience: Patience | None = None,
) -> StoredModel:
    """Bring a registry's model to this machine; blocking.

    Args:
        registry: Who has it.
        library: Where it goes.
        report: Told every step, on this thread.
        cancelled: Asked many times a second whether to stop.
        patience: How long to wait for the registry.

    Raises:
        PullFailed: In the class that says why it failed.
        BadModelFile: If what arrived is no whole GGUF file.
        Cancelled: If `cancelled` said so; what has arrived is kept.
    """
    name = registry.address.name
    content, manifest = _read_manifest(registry, library)
    parts = tuple({part.digest: part for part in (*manifest.layers, manifest.config)}.values())
    blobs = library.blobs
    missing = [part for part in parts if not blobs.has(part.digest, part.size)]
    blobs.ensure_room(sum(part.size for part in missing))
    for attempt in range(_TRIES):
        for part in parts:
            _fetch(registry, part, library, report, cancelled, patience)
        if cancelled():
            raise Cancelled("the pull was cancelled")
        report(PullEvent("verifying sha256 digest"))
        open_model([blobs.path(layer.digest) for layer in manifest.of_type(MODEL)])
        report(PullEvent("writing manifest"))
        unused = library.unused_after(name, manifest)
        try:
            stored = library.add(name, manifest, content)
        except NotFound:
            # Another command removed a blob between its arrival and the manifest.
            if attempt == _TRIES - 1:
                raise
        else:
            if unused:
                report(PullEvent("removing unused layers"))
            report(PullEvent("success", name=stored.name.short()))
            return stored
    raise AssertionError


def _read_manifest(registry: Registry, library: Library) -> tuple[bytes, Manifest]:
    """The manifest, and its bytes; nothing of it is believed that would become a path or a size."""
    prefix = "pull model manifest"
    try:
        content = registry.read_manifest()
        manifest = parse_manifest(content)
        for part in (manifest.config, *manifest.layers):
            library.blobs.path(part.digest)
    except SourceMissing as error:
        raise SourceMissing(f"{prefix}: {error.message}", hint=error.hint) from error
    except AccessDenied as error:
        raise AccessDenied(f"{prefix}: {error.message}", hint=error.hint) from error
    except (BadManifest, BadRequest) as error:
        raise RegistryFailed(f"{prefix}: {error.message}") from error
    if manifest.of_type(_TENSOR):
        raise Unsupported(
            "this model requires MLX support, but the MLX runtime is not available",
            hint="it is made of safetensors; pull a GGUF of it",
        )
    if not manifest.of_type(MODEL):
        raise RegistryFailed(f"{registry.address.name.full()} has no weights in it")
    return content, manifest


def _fetch(
    registry: Registry,
    part: Layer,
    library: Library,
    report: Report,
    cancelled: Callable[[], bool],
    patience: Patience | None,
) -> None:
    tell = partial(tell_blob, report, part.digest, part.size)
    if not library.blobs.has(part.digest, part.size):
        if not part.size:
            library.blobs.put(b"")
        else:
            sha256 = part.digest.removeprefix("sha256:")
            fetch_file(
                Wanted(f"{registry.address.name.full()} ({part.digest[:19]})", part.size, sha256),
                lambda: registry.locate(part.digest, part.size),
                library.blobs,
                Watcher(tell, cancelled),
                patience=patience,
            )
    tell(part.size)
