"""Pull a model: resolve its name, list, choose for this machine, fetch, verify, write the manifest.

Blocking; every step is reported. The manifest comes last and atomically, so that a model is there
as a whole or not at all; what was fetched before a kill is kept and gone on from.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from localrun.config import Settings, prepare_hub_environment
from localrun.errors import (
    Cancelled,
    Forbidden,
    InvalidName,
    LocalrunError,
    NotFound,
    PullFailed,
    SourceMissing,
)
from localrun.gguf import ModelInfo, open_model
from localrun.hardware.plan import Budget
from localrun.names import DEFAULT_HOST, DEFAULT_TAG, ModelName, parse_name
from localrun.store.addresses import Address, Credentials, names_registry, read_address
from localrun.store.catalog import Catalog, Entry
from localrun.store.library import Library, StoredModel, hub_name
from localrun.store.licenses import describe_license
from localrun.store.manifest import (
    CHAT_TEMPLATE,
    CONFIG_TYPE,
    LICENSE,
    MODEL,
    PARAMS,
    Layer,
    Manifest,
    ModelConfig,
    dump_config,
    dump_json,
    size_label,
)
from localrun.store.progress import PullEvent, Report, tell_blob
from localrun.store.quantization import FileGroup
from localrun.store.selection import Selection, choose_group, describe_rows
from localrun.store.sources.base import Offer, Source
from localrun.store.sources.file import FileSource
from localrun.store.sources.package import PackageSource

__all__ = ["Errand", "PullEvent", "Report", "pull", "understand"]

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Errand:
    """What was asked for, understood.

    Attributes:
        name: Under which it will be stored.
        source: Who has it.
        quantization: Asked for by the tag; empty to choose.
        entry: Of the catalog; None for a repository or a file.
    """

    name: ModelName
    source: Source
    quantization: str = ""
    entry: Entry | None = None


def pull(  # noqa: PLR0913 (the border that server and tests agreed on; each is one fact)
    text: str,
    *,
    library: Library,
    catalog: Catalog,
    settings: Settings,
    budget: Budget,
    allow_files: bool,
    report: Report,
    cancelled: Callable[[], bool],
    insecure: bool = False,
    credentials: tuple[str, str] | None = None,
) -> StoredModel:
    """Bring a model to this machine; blocking.

    Args:
        text: A name of the catalog, `[hf.co/]user/repo[:QUANTIZATION]`, a path of a GGUF file, or
            `host/namespace/model[:tag]` of a registry.
        library: Where it goes.
        catalog: Which names are known.
        settings: Hub, and what the placement is to be.
        budget: The room that the choice of the quantization has.
        allow_files: Whether paths are understood; only the CLI's own requests may.
        report: Told every step, on this thread.
        cancelled: Asked many times a second whether to stop.
        insecure: Speak plain HTTP with a registry.
        credentials: User name and password for a registry that asks for them.

    Raises:
        InvalidName: If the text is neither a name nor a path.
        PullFailed: In the class that says why it failed.
        OutOfMemory: If nothing that is on offer fits this machine.
        BadModelFile: If what arrived is no whole GGUF file.
        Cancelled: If `cancelled` said so; what has arrived is kept.
    """
    report(PullEvent("pulling manifest"))
    if not _is_path(text) and names_registry(text):
        address = read_address(text, insecure=insecure)
        with _explained_files(library):
            return _from_registry(address, credentials, library, report, cancelled)
    errand = understand(text, library, catalog, settings, allow_files=allow_files)
    offer = _offer(errand, catalog, text)
    selection = choose_group(offer.groups, errand.source, errand.quantization, budget, settings)
    _report_choice(report, errand, offer, selection)
    with _explained_files(library):
        for attempt in range(_TRIES):
            layers = _fetch(errand.source, selection.group, library, report, cancelled)
            if cancelled():
                raise Cancelled("the pull was cancelled")
            report(PullEvent("verifying sha256 digest"))
            manifest = _assemble(errand, offer, selection.group, layers, library)
            try:
                return _finish(errand.name, manifest, library, report)
            except NotFound:
                # Another command removed a blob between its arrival and the manifest.
                if attempt == _TRIES - 1:
                    raise
    raise AssertionError


def _from_registry(
    address: Address,
    credentials: tuple[str, str] | None,
    library: Library,
    report: Report,
    cancelled: Callable[[], bool],
) -> StoredModel:
    # Only here: the HTTP client takes a fifth of a second to import.
    from localrun.store.registry import Registry
    from localrun.store.sources.registry import pull_from_registry

    user = Credentials(*credentials) if credentials is not None else None
    with Registry(address, user) as registry:
        return pull_from_registry(registry, library, report, cancelled)


@contextmanager
def _explained_files(library: Library) -> Generator[None]:
    """Turn what the system says of files and folders into an error with a next step."""
    try:
        yield
    except OSError as error:
        path = error.filename or library.blobs.root
        raise PullFailed(
            f"{path} cannot be used: {error.strerror or error}",
            hint="check whose it is, or set LOCALRUN_MODELS to a folder of your own",
        ) from error


# ── who has it ────────────────────────────────────────────────────────────────────────────────


def understand(
    text: str, library: Library, catalog: Catalog, settings: Settings, *, allow_files: bool
) -> Errand:
    """Find out what a user's words mean; nothing is asked of anyone.

    Raises:
        InvalidName: If they are no name.
        Forbidden: If they are a path, and paths are not allowed here.
        SourceMissing: If they are no name that is known.
    """
    if text.lower().endswith(".gguf") and (_is_path(text) or (allow_files and _is_file(text))):
        if not allow_files:
            raise Forbidden(
                "local files are taken only from the command line", hint=f"localrun pull {text}"
            )
        return Errand(_name_of_file(Path(text)), FileSource(Path(text), library.blobs))
    name = parse_name(text)
    entry = catalog.resolve(text)
    if entry is not None:
        return Errand(name, _source_of(entry, library, settings), entry.quantization, entry)
    on_hub = name if name.is_hub else hub_name(name)
    if on_hub is None:
        raise _unknown(text, name, catalog)
    asked = "" if on_hub.tag.lower() == DEFAULT_TAG else on_hub.tag
    repo = f"{on_hub.namespace}/{on_hub.model}"
    return Errand(on_hub, _hub_source(repo, "main", library, settings), asked)


def _is_file(text: str) -> bool:
    """Never asked for who may not name files: the answer would say which files there are."""
    return Path(text).expanduser().is_file()


def _is_path(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~", ".\\", "\\")) or text[1:3] in (":\\", ":/")


def _name_of_file(path: Path) -> ModelName:
    """A file's own name, with what a name may not have replaced."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in path.stem)
    return parse_name(kept.strip(".-")[:80] or "model")


def _source_of(entry: Entry, library: Library, settings: Settings) -> Source:
    if entry.package is not None:
        return PackageSource(entry.package, library.blobs)
    return _hub_source(entry.repo, entry.revision, library, settings)


def _hub_source(repo: str, revision: str, library: Library, settings: Settings) -> Source:
    # huggingface_hub reads the environment when it is imported, and takes a third of a second.
    prepare_hub_environment(settings)
    from localrun.store.sources.hub import Hub, HubSource

    hub = Hub(settings.hf_endpoint, is_offline=settings.hf_offline)
    return HubSource(hub, repo, library.blobs, revision)


def _unknown(text: str, name: ModelName, catalog: Catalog) -> LocalrunError:
    if name.host != DEFAULT_HOST:
        return InvalidName(text)
    return SourceMissing(
        f"'{text}' is not in the catalog", hint=_look_further(name.model, catalog.near(text))
    )


def _look_further(words: str, near: list[str]) -> str:
    search = (
        f"search https://huggingface.co/models?library=gguf&search={words} and pull hf.co/USER/REPO"
        f"; or try ollama.com/library/{words}"
    )
    return f"did you mean {', '.join(near)}? Or {search}" if near else search


def _offer(errand: Errand, catalog: Catalog, text: str) -> Offer:
    try:
        return errand.source.offer()
    except SourceMissing as error:
        entry = errand.entry
        if entry is None or entry.package is not None:
            raise
        near = [name for name in catalog.near(entry.name) if name != entry.name]
        state = f"seen on {entry.verified}" if entry.verified else "never verified"
        raise SourceMissing(
            f"{error.message} (the catalog's entry '{entry.name}:{entry.tag}' was {state})",
            hint=_look_further(entry.name, near or catalog.near(text)),
        ) from error


# ── what is reported ──────────────────────────────────────────────────────────────────────────


def _report_choice(report: Report, errand: Errand, offer: Offer, selection: Selection) -> None:
    group, entry = selection.group, errand.entry
    license_name = _license(entry, offer, selection.info) or "not stated"
    hints = [selection.advice] if selection.advice else []
    if offer.is_gated:
        hints.append("its source asks for the acceptance of terms")
    if entry is not None and entry.kind == "test":
        hints.append(entry.description)
    report(
        PullEvent(
            f"chose {group.quantization} ({group.n_bytes / 1e9:.2f} GB): {selection.reason};"
            f" licence {license_name}",
            plan=describe_rows(selection),
            hint=". ".join(hints),
        )
    )


def _tell(report: Report, fallback: str, digest: str, total: int, completed: int) -> None:
    if digest:
        tell_blob(report, digest, total, completed)
    else:
        report(PullEvent(f"pulling {fallback}", "", total, completed))


# ── the files ─────────────────────────────────────────────────────────────────────────────────


def _fetch(
    source: Source,
    group: FileGroup,
    library: Library,
    report: Report,
    cancelled: Callable[[], bool],
) -> tuple[Layer, ...]:
    """Bring all files of a model; those that are here already cost one event."""
    blobs = library.blobs
    here = {file for file in group.files if file.sha256 and blobs.has(_digest(file.sha256))}
    blobs.ensure_room(sum(file.size for file in group.files if file not in here))
    layers: list[Layer] = []
    for file in group.files:
        short_name = file.path.rpartition("/")[2]
        tell = partial(_tell, report, short_name)
        digest = _digest(file.sha256) if file in here else source.fetch(file, tell, cancelled)
        size = blobs.path(digest).stat().st_size
        tell(digest, size, size)
        name = short_name if len(group.files) > 1 else ""
        layers.append(Layer(MODEL, digest, size, name=name))
    return tuple(layers)


def _digest(sha256: str) -> str:
    return f"sha256:{sha256}"


# ── the manifest ──────────────────────────────────────────────────────────────────────────────


def _assemble(
    errand: Errand,
    offer: Offer,
    group: FileGroup,
    layers: tuple[Layer, ...],
    library: Library,
) -> Manifest:
    """Check what arrived, and write the small blobs that go with it."""
    info = open_model([library.blobs.path(layer.digest) for layer in layers])
    entry = errand.entry
    license_name = _license(entry, offer, info)
    small = [(LICENSE, describe_license(license_name, offer.where).encode())]
    if entry is not None and entry.params:
        small.append((PARAMS, dump_json(dict(entry.params))))
    if entry is not None and entry.template and info.chat_template is None:
        small.append((CHAT_TEMPLATE, entry.template.encode()))
    config = dump_config(_config(info, group, offer))
    extra = tuple(
        Layer(media_type, library.blobs.put(content), len(content)) for media_type, content in small
    )
    return Manifest(Layer(CONFIG_TYPE, library.blobs.put(config), len(config)), (*layers, *extra))


def _license(entry: Entry | None, offer: Offer, info: ModelInfo | None) -> str:
    stated = (entry.license if entry is not None else "") or offer.license
    return stated or (info.license if info is not None else "")


def _config(info: ModelInfo, group: FileGroup, offer: Offer) -> ModelConfig:
    return ModelConfig(
        model_family=info.architecture,
        model_families=(info.architecture,),
        model_type=size_label(info.n_params),
        file_type=info.file_type or group.quantization,
        context_length=info.n_ctx_train,
        embedding_length=info.n_embd,
        capabilities=("embedding",) if info.is_embedder else ("completion",),
        source=offer.where if offer.where == group.label else f"{offer.where}:{group.label}",
    )


def _finish(name: ModelName, manifest: Manifest, library: Library, report: Report) -> StoredModel:
    for layer in (*manifest.layers, manifest.config):
        if layer.media_type != MODEL:
            _tell(report, "", layer.digest, layer.size, layer.size)
    report(PullEvent("writing manifest"))
    unused = library.unused_after(name, manifest)
    stored = library.add(name, manifest)
    if unused:
        report(PullEvent("removing unused layers"))
    report(PullEvent("success", name=stored.name.short()))
    return stored
