"""Requests that make, copy and send models. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import cast

from localrun.errors import BadRequest, Unsupported
from localrun.options import Options, merge_options
from localrun.server.schema.decode import Fields, kind_of, parse_json, plain
from localrun.store.manifest import ModelConfig

_MESSAGE_TEXTS = ("thinking", "tool_name", "tool_call_id")
_BAD_DIGEST = "invalid digest format"


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """POST /api/create; see `localrun.store.create.Recipe`.

    Attributes:
        license: As sent; `read_licenses` reads it.
        info: As sent; `read_info` reads it.
    """

    model: str
    stream: bool
    base: str
    files: Mapping[str, str] | None
    adapters: Mapping[str, str]
    draft_files: Mapping[str, str]
    template: str
    system: str
    license: object
    parameters: Mapping[str, object]
    messages: tuple[Mapping[str, object], ...]
    renderer: str
    parser: str
    requires: str
    quantize: str
    draft_quantize: str
    info: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """POST /api/copy."""

    source: str
    destination: str


@dataclass(frozen=True, slots=True)
class PushRequest:
    """POST /api/push; user and password for a registry that asks for them."""

    model: str
    insecure: bool
    username: str
    password: str
    stream: bool


def read_create(body: bytes) -> CreateRequest:
    """Read the body of /api/create.

    Raises:
        BadRequest: If it cannot be understood, in Ollama's words where it has some.
        Unsupported: If it asks for a stub of a model on another host.
    """
    fields = Fields(parse_json(body), "CreateRequest")
    if fields.text("remote_host"):
        raise Unsupported("models on other hosts are not supported", hint="leave remote_host out")
    quantize, draft_quantize = _quantizations(fields)
    draft_files = _files(fields, "draft_files")
    if draft_quantize and not draft_files:
        raise BadRequest("--draft-quantize requires a DRAFT model")
    return CreateRequest(
        model=fields.text("model") or fields.text("name") or "",
        stream=fields.flag("stream") is not False,
        base=fields.text("from") or "",
        files=_files(fields, "files") if fields.all.get("files") is not None else None,
        adapters=_files(fields, "adapters"),
        draft_files=draft_files,
        template=fields.text("template") or "",
        system=fields.text("system") or "",
        license=fields.all.get("license"),
        parameters=_parameters(fields),
        messages=tuple(fields.each("messages", "[]api.Message", _message)),
        renderer=fields.text("renderer") or "",
        parser=fields.text("parser") or "",
        requires=fields.text("requires") or "",
        quantize=quantize,
        draft_quantize=draft_quantize,
        info=fields.record("info") or {},
    )


def read_copy(body: bytes) -> CopyRequest:
    """Read the body of /api/copy."""
    fields = Fields(parse_json(body), "CopyRequest")
    return CopyRequest(fields.text("source") or "", fields.text("destination") or "")


def read_push(body: bytes) -> PushRequest:
    """Read the body of /api/push."""
    fields = Fields(parse_json(body), "PushRequest")
    return PushRequest(
        model=fields.text("model") or fields.text("name") or "",
        insecure=fields.flag("insecure") or False,
        username=fields.text("username") or "",
        password=fields.text("password") or "",
        stream=fields.flag("stream") is not False,
    )


def _quantizations(fields: Fields) -> tuple[str, str]:
    quantize, older = fields.text("quantize"), fields.text("quantization")
    return quantize or older or "", fields.text("draft_quantize") or ""


def _files(fields: Fields, name: str) -> Mapping[str, str]:
    files = fields.texts_by_name(name) or {}
    for path, digest in files.items():
        if not _is_relative(path):
            raise BadRequest("file path must be relative", hint=f"{path!r} is not")
        if not digest:
            raise BadRequest(_BAD_DIGEST)
    return files


def _is_relative(path: str) -> bool:
    """As Go's `fs.ValidPath`: no empty part, no `.` or `..`, no slash at either end."""
    parts = path.split("/")
    return path == "." or not (
        {"", ".", ".."} & set(parts) or PurePosixPath(path).is_absolute() or "\\" in path
    )


def read_licenses(value: object) -> tuple[str, ...]:
    """The texts of one licence or of several.

    Raises:
        BadRequest: If they are neither.
    """
    if isinstance(value, str):
        return (value,) if value else ()
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadRequest(f"json: cannot unmarshal {kind_of(value)} into Go value of type []string")
    texts = cast("list[object]", value)
    for text in texts:
        if not isinstance(text, str):
            raise BadRequest(f"json: cannot unmarshal {kind_of(text)} into Go value of type string")
    return tuple(text for text in texts if isinstance(text, str) and text)


def _parameters(fields: Fields) -> Mapping[str, object]:
    """The parameters, those that we know of the right type: a wrong one would fail every load."""
    parameters = fields.record("parameters") or {}
    merge_options(Options(), parameters)
    return {name: plain(value) for name, value in parameters.items()}


def _message(fields: Fields) -> Mapping[str, object]:
    message: dict[str, object] = {
        "role": (fields.text("role") or "").lower(),
        "content": fields.text("content") or "",
    }
    further = {name: fields.text(name) for name in _MESSAGE_TEXTS}
    images = fields.array("images", "[]api.ImageData")
    calls = fields.array("tool_calls", "[]api.ToolCall")
    values = {
        "thinking": further["thinking"],
        "images": plain(images),
        "tool_calls": plain(calls),
        "tool_name": further["tool_name"],
        "tool_call_id": further["tool_call_id"],
    }
    return message | {name: value for name, value in values.items() if value}


def read_info(info: Mapping[str, object]) -> ModelConfig:
    """What a request says of the model that would else be found out.

    Raises:
        BadRequest: If a field is of another type.
    """
    family = _info_text(info, "model_family")
    capabilities = info.get("capabilities")
    words = cast("list[object]", capabilities) if isinstance(capabilities, list) else []
    return ModelConfig(
        model_family=family,
        base_name=_info_text(info, "base_name"),
        file_type=_info_text(info, "quantization_level"),
        model_type=_info_text(info, "parameter_size"),
        context_length=_info_count(info, "context_length"),
        embedding_length=_info_count(info, "embedding_length"),
        capabilities=tuple(word for word in words if isinstance(word, str)),
    )


def _info_text(info: Mapping[str, object], name: str) -> str:
    value = info.get(name, "")
    if not isinstance(value, str):
        raise BadRequest(f"info field {json.dumps(name)} must be a string")
    return value


def _info_count(info: Mapping[str, object], name: str) -> int:
    value = info.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f"info field {json.dumps(name)} must be a number")
    if value < 0 or value != int(value) or value >= 1 << 63:
        raise BadRequest(f"info field {json.dumps(name)} must be a non-negative integer")
    return int(value)
