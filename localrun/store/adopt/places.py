"""What models a foreign folder has: the Hub's cache, or any folder of GGUF files. Only reads.

Source: huggingface_hub's cache layout, `models--user--repo/{refs,snapshots,blobs}`; LM Studio's,
`user/repo/file.gguf`.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from localrun.errors import BadModelFile, InvalidName, LocalrunError, SourceMissing
from localrun.gguf import open_model
from localrun.names import DEFAULT_NAMESPACE, DEFAULT_TAG, HUB_HOST, ModelName, parse_name
from localrun.store.adopt.inside import is_inside
from localrun.store.adopt.records import AdoptedFile, Place, Record
from localrun.store.manifest import ModelConfig, size_label
from localrun.store.quantization import FileGroup, RemoteFile, group_files
from localrun.store.reading import children

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART_CHARACTERS = 80

Known = Mapping[tuple[AdoptedFile, ...], ModelConfig]
"""What the headers of files said when they were read before."""


@dataclass(slots=True)
class Found:
    """What a look into a folder gave.

    Attributes:
        records: Its models.
        skipped: GGUF files that are no model or cannot be used, each with the reason.
    """

    records: list[Record] = field(default_factory=list[Record])
    skipped: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])


def place_of(path: Path) -> Place:
    """What kind of folder it is, by what is in it.

    Raises:
        SourceMissing: If there is no such folder.
    """
    path = path.expanduser().absolute()
    if path.is_file() and path.suffix.lower() == ".gguf":
        return Place(path.resolve(), "folder")
    if not path.is_dir():
        raise SourceMissing(f"there is no folder {path}", hint="check the path")
    for folder in (path, path / "models", path / "hub"):
        if (folder / "manifests").is_dir() and (folder / "blobs").is_dir():
            return Place(folder, "ollama")
        if any(folder.glob("models--*/snapshots")):
            return Place(folder, "hub")
    return Place(path, "folder")


def search(place: Place, known: Known) -> Found:
    """Look for models in the Hub's cache or a folder of GGUF files."""
    found = Found()
    if place.kind == "hub":
        for repo in children(place.path):
            if repo.name.startswith("models--"):
                _search_repo(repo, place, known, found)
    else:
        files = _files(place, place.path, found)
        _take(files, place, known, found, lambda group: _name_in_folder(group, place))
    return found


# ── the Hub's cache ───────────────────────────────────────────────────────────────────────────


def _search_repo(repo: Path, place: Place, known: Known, found: Found) -> None:
    _, _, names = repo.name.partition("--")
    user, _, model = names.partition("--")

    def name(group: FileGroup) -> Iterator[ModelName]:
        for tag in (group.quantization, Path(group.label).stem):
            yield parse_name(f"{HUB_HOST}/{user}/{model}:{_plain(tag)}")

    seen: set[Path] = set()
    for snapshot in _snapshots(repo):
        files = {Path(f.path).relative_to(snapshot): f for f in _files(place, snapshot, found)}
        fresh = [file for path, file in files.items() if path not in seen]
        seen |= files.keys()
        _take(fresh, place, known, found, name)


def _snapshots(repo: Path) -> list[Path]:
    """The revisions, that of the main branch first, then the newest."""
    main = ""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        main = (repo / "refs" / "main").read_text("ascii").strip()
    snapshots = [path for path in children(repo / "snapshots") if path.is_dir()]
    return sorted(snapshots, key=lambda path: (path.name != main, -path.stat().st_mtime))


# ── any folder ────────────────────────────────────────────────────────────────────────────────


def _name_in_folder(group: FileGroup, place: Place) -> Iterator[ModelName]:
    """`user/repo:QUANTIZATION` two folders down, as LM Studio keeps them; else the file's name."""
    path = Path(group.label)
    parts = path.parts[len(place.path.parts) :]
    stem = re.sub(r"-00001-of-\d{5}$", "", path.stem)
    if len(parts) == 3:
        user, model = re.sub(r"[^A-Za-z0-9_-]", "-", parts[0]).strip("-"), _plain(parts[1])
        for tag in (group.quantization, stem):
            yield ModelName(model, _plain(tag), user)
    namespace = DEFAULT_NAMESPACE
    yield ModelName(_plain(stem), DEFAULT_TAG, namespace)
    for n in range(2, 100):
        yield ModelName(f"{_plain(stem)[: _PART_CHARACTERS - 3]}-{n}", DEFAULT_TAG, namespace)


def _plain(text: str) -> str:
    """A file's own name, with what a name may not have replaced."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
    return kept.strip(".-")[:_PART_CHARACTERS] or "model"


# ── files ─────────────────────────────────────────────────────────────────────────────────────


def _files(place: Place, folder: Path, found: Found) -> list[RemoteFile]:
    """The GGUF files under a folder of a place; links to folders are not followed."""
    files: list[RemoteFile] = []
    for path in [folder] if folder.is_file() else _walk(folder):
        if not is_inside(path, place.path):
            found.skipped.append((path, f"leads out of {place.path}"))
            continue
        with contextlib.suppress(OSError):
            files.append(RemoteFile(str(path), path.stat().st_size, _sha256_of(path, place)))
    return files


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if name.lower().endswith(".gguf"))


def _sha256_of(path: Path, place: Place) -> str:
    """The Hub's cache names its blobs by their hash; what else is there says nothing of it."""
    if place.kind != "hub" or not path.is_symlink():
        return ""
    name = path.readlink().name
    return name if _SHA256.fullmatch(name) else ""


Names = Callable[[FileGroup], Iterator[ModelName]]


def _take(files: list[RemoteFile], place: Place, known: Known, found: Found, names: Names) -> None:
    """Make a record of each model that the files are."""
    taken = {record.name.key for record in found.records}
    for group in group_files(files):
        path = Path(group.label)
        if group.unusable:
            found.skipped.append((path, group.unusable))
            continue
        try:
            adopted = tuple(map(_adopt, group.files))
            name = next((name for name in names(group) if name.key not in taken), None)
            if name is not None:  # else two of its files have one name but for their folders
                config = known.get(adopted) or _read_config(adopted, group, place)
                found.records.append(Record(parse_name(name.full()), place, adopted, config))
                taken.add(name.key)
        except (LocalrunError, OSError) as error:
            reason = "its name is no model's name" if isinstance(error, InvalidName) else str(error)
            found.skipped.append((path, reason))


def _adopt(file: RemoteFile) -> AdoptedFile:
    stat = Path(file.path).stat()
    return AdoptedFile(Path(file.path), stat.st_size, stat.st_mtime_ns, file.sha256)


def _read_config(files: tuple[AdoptedFile, ...], group: FileGroup, place: Place) -> ModelConfig:
    info = open_model([file.path for file in files])
    if info.architecture == "clip" or info.kind not in ("", "model"):
        what = "projector" if info.architecture == "clip" else info.kind
        raise BadModelFile(f"it is no model by itself ({what})")
    return ModelConfig(
        model_family=info.architecture,
        model_families=(info.architecture,),
        model_type=size_label(info.n_params),
        file_type=info.file_type or group.quantization,
        context_length=info.n_ctx_train,
        embedding_length=info.n_embd,
        capabilities=("embedding",) if info.is_embedder else ("completion",),
        source=f"adopted from {place.path}",
    )
