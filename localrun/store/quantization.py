"""What a file in a repository is, read from its name: quantization, shard, side file. Pure.

Source: the naming habits of TheBloke, bartowski, unsloth, ggml-org, mradermacher, Qwen and
Microsoft; tag rules of llama.cpp and of the Hub. A tag says little about size, so that sizes are
always the listed bytes.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

FileKind: TypeAlias = Literal["model", "side", "pieces", "other"]

# Longest first, so that Q4_K_M wins over Q4_K; XL and L are extras of unsloth and bartowski.
_TAG = (
    r"(?:IQ[1-6]_(?:XXS|XS|S|M|NL|KSS|KS|KT|KL|K)|Q[2-8]_K_(?:XXL|XL|L|M|S)|Q[2-8]_K"
    r"|Q4_0_(?:4_4|4_8|8_8)|Q[1-8]_[0-3](?:_XL|_L)?|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4"
    r"|BF16|FP16|F16|FP32|F32)"
)
_TAG_IN_NAME = re.compile(
    rf"(?:^|[-_.])(?P<prefix>UD-|i1-)?(?P<tag>{_TAG})(?=$|[-_.])", re.IGNORECASE
)
_WHOLE_TAG = re.compile(_TAG, re.IGNORECASE)
_SHORT_TAG = re.compile(r"[-_.]q4$", re.IGNORECASE)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")
_PIECES = re.compile(
    r"\.gguf[-.](?:split-[a-z]|part\d+of\d+|part-?[a-z0-9]+)$|-split-[a-z]$", re.IGNORECASE
)
_SIDE = re.compile(
    r"(?:^|[-_./])(mmproj|mtp|eagle3|dflash|dspark|draft|imatrix|lora|adapter|vocab|control-vector"
    r"|assistant)(?:[-_.]|$)",
    re.IGNORECASE,
)
# Taken out of llama.cpp, or known to a fork only.
_UNLOADABLE = re.compile(r"Q4_0_(4_4|4_8|8_8)|Q4_[23]|IQ[1-6]_(K|KS|KSS|KT|KL)", re.IGNORECASE)
_MEANS_M = {"Q3_K", "Q4_K", "Q5_K"}


@dataclass(frozen=True, slots=True)
class FileName:
    """What a path in a repository says.

    Attributes:
        path: The path itself.
        kind: `model`; `side` for projectors, adapters, drafts and importance matrices; `pieces`
            for files that were cut with `split` and are no GGUF on their own; `other`.
        quantization: Upper-case tag such as `Q4_K_M` or `UD-Q4_K_XL`; empty if there is none.
        shard: Number of this shard, from 1.
        n_shards: Shards of the model; 1 where it is not split.
        stem: The path without shard number and ending: equal for the shards of one model.
    """

    path: str
    kind: FileKind
    quantization: str = ""
    shard: int = 1
    n_shards: int = 1
    stem: str = ""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as a source lists it; `sha256` is empty where the source does not say."""

    path: str
    size: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class FileGroup:
    """The files that make one model: one, or all shards in order.

    Attributes:
        quantization: The tag; the file's own name where it has none.
        files: In order; the first has the metadata.
        unusable: Why it cannot be taken; empty if it can.
    """

    quantization: str
    files: tuple[RemoteFile, ...]
    unusable: str = ""

    @property
    def n_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def label(self) -> str:
        """The first file's path, for tables."""
        return self.files[0].path


def read_file_name(path: str) -> FileName:
    """Say what a path in a repository is; never raises."""
    if not path.lower().endswith(".gguf"):
        return FileName(path, "pieces" if _PIECES.search(path) else "other")
    stem = path[:-5]
    shard = n_shards = 1
    if found := _SHARD.search(stem):
        shard, n_shards = int(found[1]), int(found[2])
        stem = stem[: found.start()]
    folder, _, name = stem.rpartition("/")
    if _SIDE.search(name):
        return FileName(path, "side", _tag_of(name, folder), shard, n_shards, stem)
    if _PIECES.search(stem) and not found:
        return FileName(path, "pieces", _tag_of(name, folder), shard, n_shards, stem)
    return FileName(path, "model", _tag_of(name, folder), shard, n_shards, stem)


def is_loadable(quantization: str) -> bool:
    """Whether llama.cpp still reads this quantization."""
    return not _UNLOADABLE.fullmatch(quantization.removeprefix("UD-"))


def is_quantization(text: str) -> bool:
    """Whether a word is a quantization tag, in any case."""
    return bool(_WHOLE_TAG.fullmatch(text.upper().removeprefix("UD-")))


def normalize_quantization(text: str) -> str:
    """A tag in the form of `FileName.quantization`."""
    tag = text.upper().removeprefix("I1-").replace("FP16", "F16").replace("FP32", "F32")
    return f"{tag}_M" if tag in _MEANS_M else tag


def group_files(files: Iterable[RemoteFile]) -> list[FileGroup]:
    """Gather a listing into models, shards together, in the listing's order.

    Side files and what is no model are left out; models that cannot be taken are kept and say why,
    so that a table can show them.
    """
    shards: dict[str, list[tuple[FileName, RemoteFile]]] = {}
    for file in files:
        name = read_file_name(file.path)
        if name.kind == "model":
            shards.setdefault(f"{name.stem}/{name.n_shards}", []).append((name, file))
        elif name.kind == "pieces":
            stem = re.sub(r"(\.gguf)?[-.](split|part).*$", "", file.path)
            shards.setdefault(f"{stem}//", []).append((name, file))
    return [_group(members) for members in shards.values()]


def select_group(groups: Sequence[FileGroup], wanted: str) -> FileGroup | None:
    """The group that a tag asks for: a quantization in any case, or a file's own name."""
    usable = [group for group in groups if not group.unusable]
    found = [(_likeness(group, wanted), len(group.label), group.label, group) for group in usable]
    found = [row for row in found if row[0] > 0]
    return min(found, key=lambda row: (-row[0], *row[1:3]))[3] if found else None


def _likeness(group: FileGroup, wanted: str) -> int:
    """How well a group answers to a tag: 0 not at all, more is better."""
    tag, name = normalize_quantization(wanted), group.label.rpartition("/")[2].lower()
    if name in (wanted.lower(), f"{wanted.lower()}.gguf"):
        return 3
    if group.quantization.upper() == tag:
        return 2
    return 1 if group.quantization.upper().removeprefix("UD-") == tag else 0


def _group(members: list[tuple[FileName, RemoteFile]]) -> FileGroup:
    members.sort(key=lambda member: member[0].shard)
    first = members[0][0]
    files = tuple(file for _, file in members)
    quantization = first.quantization or files[0].path.rpartition("/")[2].removesuffix(".gguf")
    unusable = ""
    if first.kind == "pieces":
        unusable = "cut into pieces that are no GGUF files"
    elif [name.shard for name, _ in members] != list(range(1, first.n_shards + 1)):
        unusable = f"{len(members)} of {first.n_shards} shards are there"
    elif not is_loadable(quantization):
        unusable = "llama.cpp no longer reads this format"
    return FileGroup(quantization, files, unusable)


def _tag_of(name: str, folder: str) -> str:
    last_folder = folder.rpartition("/")[2]
    for text in (name, last_folder):
        found = list(_TAG_IN_NAME.finditer(text))
        if found:
            prefix = "UD-" if (found[-1]["prefix"] or "").upper() == "UD-" else ""
            return prefix + normalize_quantization(found[-1]["tag"])
    # Microsoft's `-q4.gguf` names no format; Q4_K_M is what these files hold.
    return "Q4_K_M" if _SHORT_TAG.search(name) else ""
