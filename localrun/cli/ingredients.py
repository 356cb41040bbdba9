"""What a Modelfile names: which of it are files of this machine, and which files of a folder count.

Source: Ollama's `parser` package.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from localrun.errors import BadRequest, NotFound, Unsupported
from localrun.modelfile import (
    DEPRECATED,
    Modelfile,
    check_requires,
    typed_parameters,
)

_PIECE_BYTES = 1 << 20
_FOREIGN = (
    "model*.safetensors", "consolidated*.safetensors", "pytorch_model*.bin", "consolidated*.pth",
)  # fmt: skip
_GGUF = ("*.gguf", "*.bin")
_TEXTS = ("template", "system", "renderer", "parser")


class NoModelFiles(NotFound):
    """Raised when a folder has nothing that a model can be made of."""

    code = "no_model_files"


@dataclass(frozen=True, slots=True)
class Ingredients:
    """A Modelfile, understood on this machine.

    Attributes:
        fields: What goes into the request as it is.
        files: Paths of the model's files by the names they are sent under.
        adapters: The same of a LoRA.
        draft_files: The same of a draft model.
        warnings: For the user.
    """

    fields: dict[str, object] = field(default_factory=dict[str, object])
    files: dict[str, Path] = field(default_factory=dict[str, Path])
    adapters: dict[str, Path] = field(default_factory=dict[str, Path])
    draft_files: dict[str, Path] = field(default_factory=dict[str, Path])
    warnings: tuple[str, ...] = ()


def gather(modelfile: Modelfile, folder: Path) -> Ingredients:
    """Find out what a Modelfile names.

    Args:
        modelfile: The instructions.
        folder: Where relative paths begin: the Modelfile's own.

    Raises:
        LocalrunError: If a file is missing, or a value wrong.
    """
    fields: dict[str, object] = {}
    models: list[Path] = []
    for value in modelfile.values("from"):
        if (path := _path(value, folder)).exists():
            models.append(path)
        else:
            fields["from"] = value
    adapter, drafts = modelfile.values("adapter")[-1:], modelfile.values("draft")
    draft_paths = [_existing("DRAFT", value, folder) for value in drafts]
    for path in draft_paths:
        if any(path.samefile(model) for model in models):
            raise BadRequest(f"DRAFT must not reference the same local path as FROM: {path}")
    fields |= {name: modelfile.last(name) for name in _TEXTS if modelfile.last(name)}
    if requires := modelfile.last("requires"):
        fields["requires"] = check_requires(requires)
    lists: dict[str, object] = {
        "license": modelfile.values("license"),
        "parameters": typed_parameters(modelfile),
        "messages": [
            {"role": command.key, "content": command.value}
            for command in modelfile.commands
            if command.name == "message"
        ],
    }
    return Ingredients(
        fields | {name: value for name, value in lists.items() if value},
        _named(_files(models)),
        _named(_files(_existing("ADAPTER", value, folder) for value in adapter)),
        _named(_files(draft_paths)),
        _warnings(modelfile),
    )


def hash_file(path: Path, report: Callable[[int], None]) -> str:
    """The digest of a file; `report` is told how many bytes are read."""
    proof, n_bytes = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            proof.update(piece)
            n_bytes += len(piece)
            report(n_bytes)
    return f"sha256:{proof.hexdigest()}"


def _path(value: str, folder: Path) -> Path:
    path = Path(value).expanduser() if value.startswith("~") else Path(value)
    return path if path.is_absolute() else folder / path


def _existing(instruction: str, value: str, folder: Path) -> Path:
    path = _path(value, folder)
    if not path.exists():
        raise NotFound(f"{instruction}: there is no file {path}", hint="check the path")
    return path


def _files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        found += _files_of_folder(path) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def _files_of_folder(folder: Path) -> list[Path]:
    if any(True for pattern in _FOREIGN for _ in folder.glob(pattern)):
        raise Unsupported(
            f"{folder} holds a safetensors or PyTorch model, which cannot be converted here",
            hint="pull a GGUF of the model (localrun pull hf.co/USER/REPO-GGUF), or convert it with"
            " llama.cpp's convert_hf_to_gguf.py",
        )
    for pattern in _GGUF:
        if found := [path for path in sorted(folder.glob(pattern)) if _is_gguf(path)]:
            return [_inside(path, folder) for path in found]
    raise NoModelFiles(
        "no Modelfile or safetensors files found",
        hint=f"{folder} holds no GGUF file; name a Modelfile with -f",
    )


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _inside(path: Path, folder: Path) -> Path:
    """A link must not lead out of the folder: its owner may be another."""
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()):
        raise BadRequest(f"insecure path: {real}", hint="name the file itself behind FROM")
    return path


def _named(paths: list[Path]) -> dict[str, Path]:
    """Names for the files: their own, or as far up as they differ."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return dict(zip(names, paths, strict=True))
    return {f"{i}/{path.name}": path for i, path in enumerate(paths)}


def _warnings(modelfile: Modelfile) -> tuple[str, ...]:
    names = (c.key for c in modelfile.commands if c.name == "parameter" and c.key in DEPRECATED)
    return tuple(f"warning: parameter {name} is deprecated" for name in names)
