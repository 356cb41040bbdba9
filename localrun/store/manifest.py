"""Ollama's manifest and config blob: read, write, exact bytes. Pure.

Written as Go's encoder writes: compact, keys in Ollama's order, `<`, `>`, `&` and the two line
separators escaped, one newline at the end. The digest of these bytes is the model's id.
Source: Ollama's `manifest` package and `model.ConfigV2`.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import cast

from localrun.errors import LocalrunError

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_IMAGE = "application/vnd.ollama.image."
MODEL, PROJECTOR, ADAPTER = f"{_IMAGE}model", f"{_IMAGE}projector", f"{_IMAGE}adapter"
DRAFT = f"{_IMAGE}draft"
TEMPLATE, SYSTEM, PARAMS = f"{_IMAGE}template", f"{_IMAGE}system", f"{_IMAGE}params"
MESSAGES, LICENSE = f"{_IMAGE}messages", f"{_IMAGE}license"
CHAT_TEMPLATE = "application/vnd.localrun.image.chat-template"
"""Our own: the Jinja chat template of a file that has none. Ollama ignores the layer."""

_MAX_MANIFEST_BYTES = 4 << 20


class BadManifest(LocalrunError):
    """Raised when a manifest or a config blob cannot be read."""

    code = "bad_manifest"


@dataclass(frozen=True, slots=True)
class Layer:
    """One part of a model.

    Attributes:
        media_type: What the blob holds, one of this module's constants or a foreign one.
        digest: `sha256:` and 64 lower-case hex digits; checked where it becomes a path.
        size: Bytes.
        parent: Parent model or path, Ollama's `from`; empty if there is none.
        name: The file's own name, where it matters (shards of a split model); else empty.
    """

    media_type: str
    digest: str
    size: int
    parent: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model as the list of its parts."""

    config: Layer
    layers: tuple[Layer, ...]

    @property
    def digests(self) -> frozenset[str]:
        """Every blob the model needs."""
        return frozenset(layer.digest for layer in (self.config, *self.layers))

    @property
    def size_bytes(self) -> int:
        """Bytes of all layers and the config."""
        return self.config.size + sum(layer.size for layer in self.layers)

    def of_type(self, media_type: str) -> tuple[Layer, ...]:
        """The layers of one media type, in order."""
        return tuple(layer for layer in self.layers if layer.media_type == media_type)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The config blob: what a listing shows without opening the model.

    Attributes:
        model_format: `gguf`.
        model_family: The GGUF's `general.architecture`.
        model_families: All families, as Ollama lists them.
        model_type: Parameters as people say them, such as `7B`.
        file_type: The quantization, such as `Q4_K_M`.
        context_length: Trained context in tokens; 0 if unknown.
        embedding_length: Width of the model; 0 if unknown.
        renderer: Ollama's name for how prompts are built; empty where the template decides.
        parser: Ollama's name for how answers are read; empty where the template decides.
        requires: Oldest version of Ollama that runs the model; empty if unsaid.
        capabilities: What the source says that it can do beside completion.
        base_name: The model's own name, as whoever created it said.
        draft_architecture: `general.architecture` of the draft layer; empty without one.
        source: Where the file came from, with the revision; ours, Ollama ignores it.
    """

    model_format: str = "gguf"
    model_family: str = ""
    model_families: tuple[str, ...] = ()
    model_type: str = ""
    file_type: str = ""
    context_length: int = 0
    embedding_length: int = 0
    capabilities: tuple[str, ...] = ()
    source: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    base_name: str = ""
    draft_architecture: str = ""


def size_label(n_params: int) -> str:
    """Parameters as Ollama writes them: `134.52M`, `6.7B`, `7B`."""
    for unit, letter, n_digits in ((1_000_000_000, "B", 1), (1_000_000, "M", 2)):
        if n_params >= unit:
            return f"{n_params / unit:.{n_digits if n_params % unit else 0}f}{letter}"
    return f"{n_params / 1e3:.0f}K" if n_params >= 1000 else str(n_params)


def digest_of(content: bytes) -> str:
    """`sha256:` and the hex digest of the bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def dump_manifest(manifest: Manifest) -> bytes:
    """The manifest's bytes as they are stored."""
    return dump_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _layer_json(manifest.config),
            "layers": [_layer_json(layer) for layer in manifest.layers],
        }
    )


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest; unknown fields are ignored.

    Raises:
        BadManifest: If it is no JSON, too long, or a field has another type.
    """
    body = _object(content)
    layers = body.get("layers", [])
    if not isinstance(layers, list):
        raise BadManifest("the manifest's layers are no list")
    parts = cast("list[object]", layers)
    return Manifest(_parse_layer(body.get("config")), tuple(_parse_layer(part) for part in parts))


def dump_config(config: ModelConfig) -> bytes:
    """The config blob's bytes as they are stored; empty fields of ours are left out."""
    body: dict[str, object] = {
        "model_format": config.model_format,
        "model_family": config.model_family,
        "model_families": list(config.model_families),
        "model_type": config.model_type,
        "file_type": config.file_type,
    }
    further: dict[str, object] = {
        "renderer": config.renderer,
        "parser": config.parser,
        "requires": config.requires,
        "capabilities": list(config.capabilities),
        "context_length": config.context_length,
        "embedding_length": config.embedding_length,
        "base_name": config.base_name,
    }
    body |= {key: value for key, value in further.items() if value}
    if config.draft_architecture:
        body["draft"] = {"model_format": "gguf", "architecture": config.draft_architecture}
    body |= {"architecture": "amd64", "os": "linux"}
    if config.source:
        body["source"] = config.source
    return dump_json(body)


def parse_config(content: bytes) -> ModelConfig:
    """Read a config blob; fields that are missing or of another type are empty.

    Raises:
        BadManifest: If it is no JSON object.
    """
    body = _object(content)
    return ModelConfig(
        model_format=_text(body, "model_format") or "gguf",
        model_family=_text(body, "model_family"),
        model_families=_texts(body, "model_families"),
        model_type=_text(body, "model_type"),
        file_type=_text(body, "file_type"),
        context_length=_count(body, "context_length"),
        embedding_length=_count(body, "embedding_length"),
        capabilities=_texts(body, "capabilities"),
        source=_text(body, "source"),
        renderer=_text(body, "renderer"),
        parser=_text(body, "parser"),
        requires=_text(body, "requires"),
        base_name=_text(body, "base_name"),
        draft_architecture=_text(_record(body, "draft"), "architecture"),
    )


def dump_json(value: object) -> bytes:
    """JSON as Go's encoder writes it: compact, HTML-safe, a newline at the end."""
    return _escaped(_compact(value))


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _escaped(text: str) -> bytes:
    # These five stand inside strings only, so that replacing them cannot hurt the structure.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "surrogatepass") + b"\n"


def dump_params(params: Mapping[str, object]) -> bytes:
    """The options of a model as they are stored: by name, numbers as Go writes them."""
    items = (f"{_compact(name)}:{_go_json(params[name])}" for name in sorted(params))
    return _escaped("{" + ",".join(items) + "}")


def _go_json(value: object) -> str:
    if isinstance(value, list):
        return "[" + ",".join(_go_json(item) for item in cast("list[object]", value)) + "]"
    if isinstance(value, float) and math.isfinite(value):
        if value and not 1e-6 <= abs(value) < 1e21:
            digits, _, exponent = repr(value).partition("e")
            return f"{digits}e{exponent[0]}{exponent[1:].lstrip('0')}"
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    return _compact(value)


def _layer_json(layer: Layer) -> dict[str, object]:
    body: dict[str, object] = {
        "mediaType": layer.media_type,
        "digest": layer.digest,
        "size": layer.size,
    }
    if layer.parent:
        body["from"] = layer.parent
    if layer.name:
        body["name"] = layer.name
    return body


def _parse_layer(value: object) -> Layer:
    if not isinstance(value, dict):
        raise BadManifest("a layer of the manifest is no object")
    body = cast("dict[str, object]", value)
    digest, size = body.get("digest"), body.get("size")
    if not isinstance(digest, str) or not isinstance(size, int) or isinstance(size, bool):
        raise BadManifest("a layer of the manifest has no digest or no size")
    if size < 0:
        raise BadManifest("a layer of the manifest has a negative size")
    # Ollama reads `sha256-` too.
    digest = digest.lower().replace("sha256-", "sha256:", 1)
    return Layer(_text(body, "mediaType"), digest, size, _text(body, "from"), _text(body, "name"))


def _object(content: bytes) -> Mapping[str, object]:
    if len(content) > _MAX_MANIFEST_BYTES:
        raise BadManifest(f"a manifest of {len(content)} bytes is too long")
    try:
        body: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"the manifest is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadManifest("the manifest is no JSON object")
    return cast("dict[str, object]", body)


def _text(body: Mapping[str, object], key: str) -> str:
    value = body.get(key)
    return value if isinstance(value, str) else ""


def _record(body: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = body.get(key)
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _texts(body: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = body.get(key)
    if not isinstance(value, list):
        return ()
    return tuple(item for item in cast("list[object]", value) if isinstance(item, str))


def _count(body: Mapping[str, object], key: str) -> int:
    value = body.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
