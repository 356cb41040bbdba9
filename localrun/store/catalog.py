"""The catalog: short names and where their models are, read from `models.toml`.

One table per name, `tags` for its sizes. A tag is a repository (`"user/name"`), or a table with
`repo` or `package`, or `{ same = "other tag" }`. The user's own file overrides whole names.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import cast

from localrun.config import BACKENDS
from localrun.errors import BadSetting
from localrun.names import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, parse_name
from localrun.store.quantization import is_quantization
from localrun.store.sources.package import Package

KINDS = ("chat", "code", "embedding", "test")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HEX = re.compile(r"[0-9a-f]{64}")
_ENTRY_KEYS = {
    "description", "kind", "license", "context", "default", "template", "params", "verified",
    "tags", "backend",
}  # fmt: skip
_TAG_KEYS = {
    "repo", "revision", "same", "quantization", "package", "description", "kind", "license",
    "context", "verified", "backend",
}  # fmt: skip
_WORDS_BETWEEN = ("chat", "instruct", "it", "text")


@dataclass(frozen=True, slots=True)
class Entry:
    """One name with one tag.

    Attributes:
        name: As it stands in the catalog.
        tag: The same.
        repo: Repository on the Hub; empty if the model is in a package.
        revision: Branch, tag or commit of the repository.
        package: The wheel that has the model; None if it is on the Hub.
        quantization: The one that the user's tag asks for; empty to choose.
        kind: One of `KINDS`.
        description: One line.
        license: SPDX id or the licence's usual short name.
        context: Trained context in tokens; 0 if unknown.
        template: Jinja text for files that have none; None without one.
        params: Default options of the model.
        verified: When the source was last seen to have it; None if never.
        backend: What runs it, one of `BACKENDS`; empty leaves it to the settings.
    """

    name: str
    tag: str
    repo: str = ""
    revision: str = "main"
    package: Package | None = None
    quantization: str = ""
    kind: str = "chat"
    description: str = ""
    license: str = ""
    context: int = 0
    template: str | None = None
    params: Mapping[str, object] = field(default_factory=dict[str, object])
    verified: date | None = None
    backend: str = ""


@dataclass(frozen=True, slots=True)
class _Family:
    default: str
    entries: Mapping[str, Entry]


class Catalog:
    """All names that are known without asking anyone."""

    def __init__(self, families: Mapping[str, _Family]) -> None:
        self._families = families

    @classmethod
    def load(cls, user_file: Path | None = None) -> "Catalog":
        """Read the shipped catalog and lay the user's own over it.

        Raises:
            BadSetting: If a file is no TOML or has a broken entry; names file and line.
        """
        families = _read(shipped_file())
        if user_file is not None and user_file.is_file():
            families |= _read(user_file)
        return cls(families)

    @classmethod
    def read(cls, file: Path) -> "Catalog":
        """Read one file alone.

        Raises:
            BadSetting: If it is no TOML or has a broken entry.
            OSError: If it cannot be read.
        """
        return cls(_read(file))

    @property
    def entries(self) -> list[Entry]:
        """Every name with every tag, in the catalog's order, tags that repeat others left out."""
        return [
            entry
            for family in self._families.values()
            for tag, entry in family.entries.items()
            if entry.tag == tag
        ]

    def default_of(self, name: str) -> Entry | None:
        """The entry that a bare name means; None if the name is not known."""
        family = self._families.get(name.lower())
        return family.entries[family.default] if family is not None else None

    def resolve(self, text: str) -> Entry | None:
        """The entry that a user means, with the quantization if the tag names one.

        `llama2`, `llama2:7b`, `llama2:q4_K_M`, `llama2:7b-q4_K_M` and `llama2:7b-chat-q4_K_M` are
        understood.

        Raises:
            InvalidName: If the text is no model name.
        """
        name = parse_name(text)
        if (name.host, name.namespace) != (DEFAULT_HOST, DEFAULT_NAMESPACE):
            return None
        family = self._families.get(name.model.lower())
        if family is None:
            return None
        tag = name.tag.lower()
        if tag == DEFAULT_TAG:
            return family.entries[family.default]
        if tag in family.entries:
            return family.entries[tag]
        return _with_quantization(family, name.tag)

    def near(self, text: str, n: int = 5) -> list[str]:
        """Names of the catalog that look like what was asked for, nearest first."""
        name, _, tag = text.lower().rpartition("/")[2].partition(":")
        family = self._families.get(name)
        if family is not None and tag:
            return [f"{name}:{known}" for known in family.entries]
        starts = [known for known in self._families if known.startswith(name) or name in known]
        alike = difflib.get_close_matches(name, self._families, n, 0.6)
        return list(dict.fromkeys([*alike, *starts]))[:n]


def shipped_file() -> Path:
    """Where our own `models.toml` is: inside the package, or at the root of a checkout."""
    packaged = Path(__file__).parent.parent / "models.toml"
    return packaged if packaged.is_file() else packaged.parent.parent / "models.toml"


def _with_quantization(family: _Family, tag: str) -> Entry | None:
    size, _, quantization = tag.rpartition("-")
    if not is_quantization(quantization):
        return None
    words = [word for word in size.lower().split("-") if word not in _WORDS_BETWEEN]
    entry = family.entries.get("-".join(words) if words != [""] else family.default)
    if entry is None:
        return None
    return _replaced(entry, {"quantization": quantization.upper()})


# ── reading ───────────────────────────────────────────────────────────────────────────────────


class _Broken(Exception):
    """Raised when an entry cannot be used; `keys` is where in the file."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


def _read(file: Path) -> dict[str, _Family]:
    text = file.read_text("utf-8")
    try:
        body = tomllib.loads(text)
        return {name.lower(): _family(name, _table(value, name)) for name, value in body.items()}
    except tomllib.TOMLDecodeError as error:
        raise BadSetting(f"{file}: {error}", hint="correct the file, or remove it") from error
    except _Broken as error:
        where = ".".join(error.keys)
        line = _line_of(text, error.keys)
        raise BadSetting(
            f"{file}:{line}: [{where}] {error}", hint="correct the entry, or remove it"
        ) from error


def _family(name: str, body: Mapping[str, object]) -> _Family:
    if not _WORD.fullmatch(name):
        raise _Broken("is no model name", name)
    _check_keys(body, _ENTRY_KEYS, name)
    tags = _table(body.get("tags", {}), name, "tags")
    if not tags:
        raise _Broken("has no tags", name)
    shared = _facts(body, name)
    params = _table(body.get("params", {}), name, "params")
    template = _text(body, "template", name)
    base = _replaced(Entry(name, ""), {**shared, "params": params, "template": template or None})
    entries: dict[str, Entry] = {}
    for tag, value in tags.items():
        entries[tag.lower()] = _entry(base, tag, value, entries)
    default = _text(body, "default", name) or next(iter(entries))
    if default not in entries:
        raise _Broken(f"default {default!r} is none of its tags", name, "default")
    return _Family(default, entries)


def _entry(base: Entry, tag: str, value: object, known: Mapping[str, Entry]) -> Entry:
    place = (base.name, "tags", tag)
    if not _WORD.fullmatch(tag):
        raise _Broken("is no tag", *place)
    body: Mapping[str, object] = (
        {"repo": value} if isinstance(value, str) else _table(value, *place)
    )
    _check_keys(body, _TAG_KEYS, *place)
    if same := _text(body, "same", *place):
        if same not in known:
            raise _Broken(f"is the same as {same!r}, which does not stand above it", *place)
        return known[same]
    changes: dict[str, object] = {**_facts(body, *place), "tag": tag}
    for key in ("repo", "revision", "quantization"):
        if text := _text(body, key, *place):
            changes[key] = text
    if "package" in body:
        changes["package"] = _package(_table(body["package"], *place), *place)
    return _checked(_replaced(base, changes), *place)


def _checked(entry: Entry, *place: str) -> Entry:
    if (entry.package is None) == (not entry.repo):
        raise _Broken("needs a repo or a package, and not both", *place)
    if entry.repo and not _REPO.fullmatch(entry.repo):
        raise _Broken(f"{entry.repo!r} is no repository (user/name)", *place)
    return entry


def _facts(body: Mapping[str, object], *place: str) -> dict[str, object]:
    """What a name and a tag may both say."""
    facts: dict[str, object] = {
        key: text for key in ("description", "license") if (text := _text(body, key, *place))
    }
    for key, known in (("kind", KINDS), ("backend", BACKENDS)):
        if word := _text(body, key, *place):
            if word not in known:
                raise _Broken(f"{key} {word!r} is none of {', '.join(known)}", *place, key)
            facts[key] = word
    context = body.get("context", 0)
    if not isinstance(context, int) or isinstance(context, bool) or context < 0:
        raise _Broken("context is no number of tokens", *place, "context")
    verified = body.get("verified")
    if verified is not None and type(verified) is not date:
        raise _Broken("verified is no date (YYYY-MM-DD)", *place, "verified")
    if context:
        facts["context"] = context
    if verified:
        facts["verified"] = verified
    return facts


def _package(body: Mapping[str, object], *place: str) -> Package:
    keys = ("name", "version", "wheel_sha256", "member", "sha256")
    _check_keys(body, {*keys, "size", "wheel_size"}, *place)
    texts = {key: _text(body, key, *place) for key in keys}
    sizes = {key: body.get(key) for key in ("size", "wheel_size")}
    for key, text in texts.items():
        if not text or (key.endswith("sha256") and not _HEX.fullmatch(text)):
            raise _Broken(f"the package's {key} is missing or wrong", *place)
    for key, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
            raise _Broken(f"the package's {key} is no number of bytes", *place)
    return Package(**texts, **cast("dict[str, int]", sizes))  # type: ignore[arg-type]  # checked


def _check_keys(body: Mapping[str, object], known: Iterable[str], *place: str) -> None:
    for key in body:
        if key not in known:
            raise _Broken(f"has no key {key!r}", *place, key)


def _table(value: object, *place: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _Broken("is no table", *place)
    return cast("dict[str, object]", value)


def _text(body: Mapping[str, object], key: str, *place: str) -> str:
    value = body.get(key, "")
    if not isinstance(value, str):
        raise _Broken(f"{key} is no text", *place, key)
    return value


def _replaced(entry: Entry, changes: Mapping[str, object]) -> Entry:
    return replace(entry, **changes)  # type: ignore[arg-type]  # every caller checked the types


def _line_of(text: str, keys: tuple[str, ...]) -> int:
    """The line where the entry stands, or as near to it as its keys lead."""
    lines, at = text.splitlines(), 0
    for key in keys:
        pattern = re.compile(rf"""(?:^|[\s\[{{,.])["']?{re.escape(key)}["']?\s*[\].=]""")
        found = next((n for n in range(at, len(lines)) if pattern.search(lines[n])), None)
        at = at if found is None else found
    return at + 1
