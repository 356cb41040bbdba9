"""What /api/tags, /api/ps and /api/show say about a model. Pure, but for reading a header.

Source: Ollama's `GetModelInfo`, `Model.String` and its show command.
"""

import json
import struct

from localrun.gguf import Header, ModelInfo, join_headers, open_header
from localrun.scheduler.scheduler import RunnerStatus
from localrun.server.shelf import capabilities
from localrun.server.templates import template_of
from localrun.server.wire import local_time, local_time_of
from localrun.store.describe import modelfile_of
from localrun.store.library import StoredModel

_HIDDEN = {"general.name", "tokenizer.chat_template"}


def tag_item(model: StoredModel, info: ModelInfo | None) -> dict[str, object]:
    """One model of /api/tags; without `info` only what its manifest says."""
    name = model.name.short()
    config = model.config
    details = details_of(model)
    if n_ctx := info.n_ctx_train if info else config.context_length:
        details["context_length"] = n_ctx
    if n_embd := info.n_embd if info else config.embedding_length:
        details["embedding_length"] = n_embd
    return {
        "name": name,
        "model": name,
        "modified_at": local_time(model.modified_at),
        "size": model.size_bytes,
        "digest": model.digest,
        "details": details,
        "capabilities": capabilities(model, info),
    }


def ps_item(model: StoredModel, runner: RunnerStatus) -> dict[str, object]:
    """One model of /api/ps."""
    name = model.name.short()
    on_gpu = sum(n_bytes for device, n_bytes in runner.held.items() if device != "cpu")
    return {
        "name": name,
        "model": name,
        "size": sum(runner.held.values()),
        "digest": model.digest,
        "details": details_of(model) | {"parent_model": ""},
        "expires_at": local_time_of(runner.expires_at),
        "size_vram": on_gpu,
        "context_length": runner.n_ctx,
    }


def details_of(model: StoredModel) -> dict[str, object]:
    """Ollama's `details`: the six fields that are always there, and ours of adopted models."""
    config = model.config
    return {
        "parent_model": model.parent,
        "format": config.model_format,
        "family": config.model_family,
        "families": list(config.model_families) or None,
        "parameter_size": config.model_type,
        "quantization_level": config.file_type,
        **({"adopted": model.adopted} if model.adopted else {}),
    }


def show_model(
    model: StoredModel, *, system: str, verbose: bool, basename: str = ""
) -> dict[str, object]:
    """The answer of /api/show; reads the header of the file, so it is called in a thread.

    Args:
        model: The model.
        system: Shown in place of the model's own; empty keeps it.
        verbose: Show all arrays of the header.
        basename: Shown in place of `general.basename`; empty keeps it.

    Raises:
        BadModelFile: If the file is damaged.
        OSError: If it cannot be read.
    """
    headers = [open_header(path, keep_arrays=verbose) for path in model.model_paths]
    header, info = headers[0], join_headers(headers)
    template = template_of(model, info).text or ""
    system = system or model.system or ""
    shown: dict[str, object] = {
        "license": "\n".join(model.licenses),
        "modelfile": modelfile_text(model, system),
        "parameters": parameters_text(model.params),
        "template": template,
        "system": system,
        "requires": model.config.requires,
    }
    return {
        **{name: value for name, value in shown.items() if value},
        "details": details_of(model),
        **({"messages": list(model.messages)} if model.messages else {}),
        "model_info": {
            **model_info(header, info),
            **({"general.basename": basename} if basename else {}),
        },
        **_projector(model, verbose=verbose),
        "tensors": [
            {"name": tensor.name, "type": tensor.type, "shape": list(tensor.shape)}
            for header in headers
            for tensor in header.tensors
        ],
        "capabilities": capabilities(model, info),
        "modified_at": local_time(model.modified_at),
    }


def _projector(model: StoredModel, *, verbose: bool) -> dict[str, object]:
    """The metadata of what lets the model see, where it has that."""
    if not model.projector_paths:
        return {}
    header = open_header(model.projector_paths[0], keep_arrays=verbose)
    return {"projector_info": model_info(header, header.info)}


def model_info(header: Header, info: ModelInfo) -> dict[str, object]:
    """The header's metadata, without name and template; arrays that were not kept are null."""
    found: dict[str, object] = {
        key: _shortest(value) if isinstance(value, float) else value
        for key, value in header.metadata.items()
        if key not in _HIDDEN
    }
    found["general.parameter_count"] = info.n_params
    return dict(sorted(found.items()))


def _shortest(value: float) -> float | int:
    """The number with the fewest digits that is this 32-bit one: 1e-05, not 9.999999747e-06."""
    for n_digits in range(6, 10):
        short = float(f"{value:.{n_digits}g}")
        try:
            (back,) = struct.unpack("f", struct.pack("f", short))
        except OverflowError:
            break
        if back == value:
            return int(short) if short.is_integer() and abs(short) < 1e21 else short
    return value


def parameters_text(params: dict[str, object]) -> str:
    """One line a value, the name padded to 30 columns, texts quoted."""
    lines: list[str] = []
    for name, value in params.items():
        values: list[object] = list(value) if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownArgumentType]
        lines += [f"{name:<30} {_go_value(item)}" for item in values]
    return "\n".join(lines)


def modelfile_text(model: StoredModel, system: str) -> str:
    """The Modelfile that would make this model again, under a heading that says so."""
    return (
        '# Modelfile generated by "localrun show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        f"# FROM {model.name.short()}\n\n"
        f"{modelfile_of(model, system)}"
    )


def _go_value(value: object) -> str:
    """As Go's `%v` prints it, texts quoted."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
