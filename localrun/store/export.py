"""Write a model as one GGUF file: linked where the disk allows it, copied, or joined of shards."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from localrun.errors import BadRequest, Cancelled, DiskFull, LocalrunError
from localrun.gguf import open_header
from localrun.store.blobs import free_bytes
from localrun.store.quantize import COPY, run_quantizer
from localrun.store.stored import StoredModel
from localrun.store.weights import link_shards

_PIECE_BYTES = 1 << 20

Tell = Callable[[int], None]


def export(
    model: StoredModel,
    target: Path,
    tell: Tell,
    is_cancelled: Callable[[], bool],
    *,
    links: bool = True,
) -> str:
    """Write a model's weights; the file is there as a whole or not at all.

    Args:
        model: What to write.
        target: Where; it must not be there yet.
        tell: Told how many bytes are done.
        is_cancelled: Asked many times a second whether to stop.
        links: Share the bytes with the store where that can be done.

    Returns:
        How it was done: `linked`, `copied` or `joined`.

    Raises:
        BadRequest: If the target is there already, or its folder is not.
        DiskFull: If there is no room.
        Cancelled: If `is_cancelled` said so; nothing is left behind.
    """
    if target.exists() or not target.parent.is_dir():
        what = "is there already" if target.exists() else "has no folder to lie in"
        raise BadRequest(f"{target} {what}", hint="name a new .gguf file")
    sources = [path.resolve() for path in model.model_paths]
    try:
        if links and len(sources) == 1 and _link(sources[0], target):
            tell(model.size_bytes)
            return "linked"
        _ensure_room(target.parent, sum(path.stat().st_size for path in sources))
        with tempfile.TemporaryDirectory(prefix=".localrun-", dir=target.parent) as name:
            made = Path(name) / "made.gguf"
            if len(sources) == 1:
                _copy(sources[0], made, tell, is_cancelled)
            else:
                _join(sources, made, tell, is_cancelled)
            made.replace(target)
    except OSError as error:
        raise LocalrunError(f"{target} cannot be written: {error.strerror or error}") from error
    return "copied" if len(sources) == 1 else "joined"


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def _ensure_room(folder: Path, n_bytes: int) -> None:
    free = free_bytes(folder)
    if free < n_bytes:
        raise DiskFull(
            f"{n_bytes / 1e9:.2f} GB are to be written and {free / 1e9:.2f} GB are free in {folder}"
        )


def _copy(source: Path, target: Path, tell: Tell, is_cancelled: Callable[[], bool]) -> None:
    n_bytes = 0
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        while piece := reader.read(_PIECE_BYTES):
            if is_cancelled():
                raise Cancelled("the export was cancelled")
            writer.write(piece)
            n_bytes += len(piece)
            tell(n_bytes)
        os.fsync(writer.fileno())


def _join(sources: list[Path], target: Path, tell: Tell, is_cancelled: Callable[[], bool]) -> None:
    headers = [open_header(path) for path in sources]
    run_quantizer(
        link_shards(sources, target.parent),
        target,
        COPY,
        tensor_bytes={t.name: t.n_bytes for header in headers for t in header.tensors},
        n_threads=1,
        tell=tell,
        is_cancelled=is_cancelled,
    )
    open_header(target)  # what was written is checked before it gets its name
