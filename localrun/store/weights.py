"""The GGUF files of a model that is being created: checked, shards joined, quantized."""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from localrun.errors import BadModelFile, BadRequest, Cancelled, Unsupported
from localrun.gguf import Header, ModelInfo, join_headers, open_header
from localrun.store.blobs import Blobs
from localrun.store.manifest import ADAPTER, DRAFT, MODEL, PROJECTOR, Layer
from localrun.store.progress import PullEvent, Report
from localrun.store.quantize import COPY, SOURCES, most_bytes, read_target, run_quantizer

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_PIECE_BYTES = 1 << 20
_NO_DIGEST = "0000000000000000000"
"""What Ollama reports for a file that has no digest yet."""

_MEDIA_TYPES = {"adapter": ADAPTER, "mmproj": PROJECTOR, "projector": PROJECTOR}
_TENSORS_OF_ITS_OWN = {
    "imatrix": "is an importance matrix",
    "vocab": "holds a vocabulary without weights",
}


@dataclass(frozen=True, slots=True)
class Weights:
    """One or more GGUF files that are one part of a model.

    Attributes:
        media_type: What they are to the model.
        layers: One per file, shards in order.
        headers: The same.
        info: Of all together.
        is_new: Made here, not found in the store.
        name: For messages.
    """

    media_type: str
    layers: tuple[Layer, ...]
    headers: tuple[Header, ...]
    info: ModelInfo
    is_new: bool = False
    name: str = ""

    @property
    def statuses(self) -> list[str]:
        """What Ollama says of each layer."""
        word = "creating new" if self.is_new else "using existing"
        return [f"{word} layer {layer.digest}" for layer in self.layers]


def open_stored(media_type: str, layers: Sequence[Layer], blobs: Blobs) -> Weights:
    """Files of a model that is in the store.

    Raises:
        BadModelFile: If one is damaged or gone.
    """
    headers = tuple(_open(layer, blobs) for layer in layers)
    return Weights(media_type, tuple(layers), headers, join_headers(headers))


def open_files(
    files: Mapping[str, str], blobs: Blobs, report: Report, *, media_type: str = ""
) -> list[Weights]:
    """Files that a client has stored as blobs and gives names to.

    Args:
        files: Digest by relative file name.
        blobs: Where they are.
        report: Told each file.
        media_type: What they are to be; empty goes by what their headers say.

    Raises:
        BadRequest: If they are not what is wanted; in Ollama's words where it has some.
        BadModelFile: If one is damaged.
    """
    _check_kind(files, blobs)
    groups: dict[tuple[str, str, int], list[_Member]] = {}
    for name in sorted(files):
        report(PullEvent("parsing GGUF"))
        layer = _layer_of(name, files[name], blobs)
        header = _open(layer, blobs)
        kind = media_type or _media_type(name, header.info)
        stem = _stem(name, header.info)
        member = _Member(name, Layer(kind, layer.digest, layer.size, parent=name), header)
        groups.setdefault((kind, stem, header.info.split_count), []).append(member)
    return [_join(kind, members) for (kind, _, _), members in groups.items()]


class _Member(NamedTuple):
    name: str
    layer: Layer
    header: Header


def _check_kind(files: Mapping[str, str], blobs: Blobs) -> None:
    """Refuse what has no GGUF file in it; what else is among them is refused when it is opened."""
    names = [name.lower() for name in files]
    if any(name.endswith(".gguf") for name in names):
        return
    if any(_is_gguf(digest, blobs) for digest in files.values()):
        return
    if any(name.endswith((".safetensors", ".bin", ".pth")) for name in names):
        raise Unsupported(
            "safetensors and PyTorch models cannot be converted here",
            hint="pull a GGUF of the model (localrun pull hf.co/USER/REPO-GGUF), or convert it with"
            " llama.cpp's convert_hf_to_gguf.py and create from the file",
        )
    raise BadRequest("unknown type", hint="none of the files is a GGUF file")


def _is_gguf(digest: str, blobs: Blobs) -> bool:
    with contextlib.suppress(OSError), blobs.path(_normal(digest)).open("rb") as file:
        return file.read(4) == b"GGUF"
    return False


def _layer_of(name: str, digest: str, blobs: Blobs) -> Layer:
    digest = _normal(digest)
    try:
        size = blobs.path(digest).stat().st_size
    except FileNotFoundError as error:
        raise BadRequest(
            f'blob "{digest}" not found', hint=f"store {name} first: POST /api/blobs/{digest}"
        ) from error
    return Layer("", digest, size)


def _normal(digest: str) -> str:
    return digest.lower().replace("sha256-", "sha256:", 1)


def _open(layer: Layer, blobs: Blobs) -> Header:
    path = blobs.path(layer.digest)
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise BadRequest("supplied file was not in GGUF format")
        return open_header(path)
    except OSError as error:
        raise BadModelFile(f"the blob {layer.digest} cannot be read: {error.strerror}") from error


def _media_type(name: str, info: ModelInfo) -> str:
    if what := _TENSORS_OF_ITS_OWN.get(info.kind):
        raise BadRequest(f"{name} {what}, and is no model")
    if info.architecture == "clip":
        return PROJECTOR
    return _MEDIA_TYPES.get(info.kind, MODEL)


# ── shards ────────────────────────────────────────────────────────────────────────────────────


def _stem(name: str, info: ModelInfo) -> str:
    """What the shards of one model share; the whole name of a file that is none."""
    if info.split_count <= 1:
        return name
    found = _SHARD.fullmatch(name.rpartition("/")[2])
    if found is None:
        raise BadRequest(f'split GGUF "{name}" must use llama.cpp split filename pattern')
    index, count = int(found[2]) - 1, int(found[3])
    if count != info.split_count:
        raise BadRequest(
            f'split GGUF "{name}" filename count {count} does not match metadata count'
            f" {info.split_count}"
        )
    if index != info.split_no:
        raise BadRequest(
            f'split GGUF "{name}" filename index {index} does not match metadata index'
            f" {info.split_no}"
        )
    return found[1]


def _join(media_type: str, members: list[_Member]) -> Weights:
    members.sort(key=lambda member: member.header.info.split_no)
    first, count = members[0].name, members[0].header.info.split_count
    if count > 1 and len(members) != count:
        raise BadRequest(f'split GGUF "{first}" has {len(members)} shards, expected {count}')
    headers = tuple(member.header for member in members)
    layers = [member.layer for member in members]
    if media_type == MODEL:  # a file is no parent of the model that it is
        layers = [replace(layer, parent="") for layer in layers]
    return Weights(media_type, tuple(layers), headers, join_headers(headers), name=first)


# ── rewriting ─────────────────────────────────────────────────────────────────────────────────


def rewrite(
    weights: Weights,
    quantization: str,
    blobs: Blobs,
    report: Report,
    is_cancelled: Callable[[], bool],
) -> Weights:
    """Quantize if asked to, and make one file of shards; what needs neither stays as it is.

    Raises:
        BadRequest: If the quantization is unknown, or its source has been quantized already.
        BadModelFile: If llama.cpp cannot do it.
        Cancelled: If `is_cancelled` said so. Nothing is left behind.
        DiskFull: If there is no room.
    """
    file_type = read_target(quantization) if quantization else ""
    if file_type and weights.info.file_type not in SOURCES:
        raise BadRequest("quantization is only supported for F16, BF16 and F32 models")
    if file_type in ("", weights.info.file_type):
        if len(weights.layers) == 1:
            return weights
        file_type = COPY
    size = sum(layer.size for layer in weights.layers)
    blobs.ensure_room(size if file_type == COPY else most_bytes(weights.info.n_params, file_type))
    status = f"quantizing {weights.info.file_type} model to {file_type}"
    if file_type == COPY:
        status = "validating GGUF model"

    def tell(n_bytes: int) -> None:
        report(PullEvent(status, _NO_DIGEST, size, min(n_bytes, size)))

    tensor_bytes = {t.name: t.n_bytes for header in weights.headers for t in header.tensors}
    with _workplace(weights, blobs) as (source, target):
        with blobs.writing(size):
            run_quantizer(
                source,
                target,
                file_type,
                tensor_bytes=tensor_bytes,
                n_threads=max(1, (os.cpu_count() or 1) - 1),
                tell=tell,
                is_cancelled=is_cancelled,
            )
        tell(size)
        report(PullEvent("verifying conversion"))
        return _take(target, weights.media_type, blobs, is_cancelled)


@contextmanager
def _workplace(weights: Weights, blobs: Blobs) -> Generator[tuple[Path, Path]]:
    """A folder of our own with the source under its real names; gone at the end."""
    with tempfile.TemporaryDirectory(
        prefix="quantize-", dir=blobs.partial("x").parent, ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        sources = [blobs.path(layer.digest) for layer in weights.layers]
        yield link_shards(sources, folder), folder / "made.gguf"


def link_shards(sources: Sequence[Path], folder: Path) -> Path:
    """Give the shards of a model names by which llama.cpp finds them; returns the first.

    A model of one file stays where it is.
    """
    if len(sources) == 1:
        return sources[0]
    names = [f"m-{i:05d}-of-{len(sources):05d}.gguf" for i in range(1, len(sources) + 1)]
    links = [_link(source, folder / n) for source, n in zip(sources, names, strict=True)]
    return links[0]


def _link(source: Path, name: Path) -> Path:
    try:
        name.symlink_to(source.absolute())
    except OSError:  # Windows asks for a privilege
        os.link(source, name)
    return name


def _take(file: Path, media_type: str, blobs: Blobs, is_cancelled: Callable[[], bool]) -> Weights:
    """Check what was written and give it its blob's name."""
    header, proof = open_header(file), hashlib.sha256()
    with file.open("rb", buffering=0) as opened:
        while piece := opened.read(_PIECE_BYTES):
            if is_cancelled():
                raise Cancelled("the quantization was cancelled")
            proof.update(piece)
    digest = f"sha256:{proof.hexdigest()}"
    layer = Layer(media_type, digest, file.stat().st_size)
    is_new = not blobs.has(digest, layer.size)
    if is_new:
        file.chmod(0o644)
        blobs.commit(file, digest)
    return Weights(media_type, (layer,), (header,), header.info, is_new)


def one_model(weights: Sequence[Weights]) -> None:
    """Check that there is one model among the parts, and not several.

    Raises:
        BadRequest: If there is none, or more than one.
    """
    models = [part for part in weights if part.media_type == MODEL]
    if not models:
        raise BadRequest("no base model was found", hint="none of the files is a model by itself")
    if len(models) > 1:
        names = ", ".join(part.name for part in models)
        raise BadRequest(f"the files hold {len(models)} models, and one is wanted: {names}")
    if sum(part.media_type == DRAFT for part in weights) > 1:
        raise BadRequest("only one draft model is supported")
