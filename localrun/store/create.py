"""Create a model from another or from files: layers inherited, replaced and added as Ollama does.

Blocking; every step is reported. The manifest comes last and atomically; a creation that fails
removes what it has stored. Source: Ollama's `server/create.go`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replaced

from localrun.errors import BadRequest, Cancelled, NotFound
from localrun.names import ModelName
from localrun.store.library import Library, StoredModel, adopted_only
from localrun.store.manifest import (
    ADAPTER,
    CHAT_TEMPLATE,
    CONFIG_TYPE,
    DRAFT,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    PROJECTOR,
    SYSTEM,
    TEMPLATE,
    Layer,
    Manifest,
    ModelConfig,
    dump_config,
    dump_json,
    dump_params,
    size_label,
)
from localrun.store.progress import PullEvent, Report
from localrun.store.quantize import SOURCES
from localrun.store.weights import Weights, one_model, open_files, open_stored, rewrite

_GGUF_TYPES = (MODEL, PROJECTOR, ADAPTER, DRAFT)
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a model is to be made of.

    Attributes:
        name: Under which it will be stored.
        base: The model that it comes from; None for one from files.
        files: Digests of stored blobs by file name; None for a model from another.
        adapters: The same; one LoRA.
        draft_files: The same; a small model that guesses ahead.
        template: Replaces the inherited one; empty keeps it.
        system: The same.
        licenses: Added to the inherited ones.
        parameters: Laid over the inherited ones.
        messages: Replace the inherited ones; none keeps them.
        renderer: Kept in the config, where Ollama looks for it; empty inherits.
        parser: The same.
        requires: The same.
        quantize: Number format of the weights; empty leaves them.
        draft_quantize: The same of the draft.
        overrides: Fields of the config that are said and not found out.
    """

    name: ModelName
    base: StoredModel | None = None
    files: Mapping[str, str] | None = None
    adapters: Mapping[str, str] = field(default_factory=dict[str, str])
    draft_files: Mapping[str, str] = field(default_factory=dict[str, str])
    template: str = ""
    system: str = ""
    licenses: tuple[str, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict[str, object])
    messages: Sequence[Mapping[str, object]] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    quantize: str = ""
    draft_quantize: str = ""
    overrides: ModelConfig = field(default_factory=ModelConfig)


def create(
    recipe: Recipe, library: Library, report: Report, is_cancelled: Callable[[], bool]
) -> StoredModel:
    """Make the model; blocking.

    Args:
        recipe: What it is made of.
        library: Where the parts are and the model goes.
        report: Told every step, on this thread.
        is_cancelled: Asked many times a second whether to stop.

    Raises:
        BadRequest: If the parts do not make a model.
        BadModelFile: If one of them is damaged.
        Cancelled: If `is_cancelled` said so.
        DiskFull: If there is no room.
    """
    made: set[str] = set()
    try:
        weights = _gather(recipe, library, report)
        finished: list[Weights] = []
        for part in weights:
            finished.append(_finish(part, recipe, library, report, is_cancelled))
            made.update(layer.digest for layer in finished[-1].layers if finished[-1].is_new)
        return _store(recipe, finished, library, report, made, is_cancelled)
    except BaseException:
        library.drop_unused(made)
        raise


# ── weights ───────────────────────────────────────────────────────────────────────────────────


def _gather(recipe: Recipe, library: Library, report: Report) -> list[Weights]:
    blobs = library.blobs
    if recipe.base is not None:
        found = _inherited(recipe.base, library)
    elif recipe.files is not None:
        found = open_files(recipe.files, blobs, report)
    else:
        raise BadRequest("neither 'from' or 'files' was specified")
    if len(recipe.adapters) > 1:
        raise BadRequest("only one adapter is currently supported")
    if recipe.adapters:
        found += open_files(recipe.adapters, blobs, report, media_type=ADAPTER)
    if recipe.draft_files:
        found = [part for part in found if part.media_type != DRAFT]
        found += open_files(recipe.draft_files, blobs, report, media_type=DRAFT)
    one_model(found)
    return found


def _inherited(base: StoredModel, library: Library) -> list[Weights]:
    """The GGUF files of the parent; shards of one model belong together."""
    if base.adopted:
        raise adopted_only(base)
    parts: list[Weights] = []
    for media_type in _GGUF_TYPES:
        layers = [
            replaced(layer, parent=base.name.short()) for layer in base.manifest.of_type(media_type)
        ]
        groups = [layers] if media_type == MODEL else [[layer] for layer in layers]
        parts += [open_stored(media_type, group, library.blobs) for group in groups if group]
    return parts


def _finish(
    part: Weights,
    recipe: Recipe,
    library: Library,
    report: Report,
    is_cancelled: Callable[[], bool],
) -> Weights:
    if part.media_type == MODEL:
        if not recipe.quantize and recipe.base is not None:
            return part  # also shards: they were pulled so, and load so
        return rewrite(part, recipe.quantize, library.blobs, report, is_cancelled)
    if part.media_type == DRAFT:
        if recipe.draft_quantize and part.info.file_type not in SOURCES:
            raise BadRequest(
                f"draft quantization requires an unquantized draft model, got {part.info.file_type}"
            )
        return rewrite(part, recipe.draft_quantize, library.blobs, report, is_cancelled)
    return part


# ── the other layers ──────────────────────────────────────────────────────────────────────────


def _store(
    recipe: Recipe,
    weights: Sequence[Weights],
    library: Library,
    report: Report,
    made: set[str],
    is_cancelled: Callable[[], bool],
) -> StoredModel:
    """Write the small layers and the manifest."""
    for attempt in range(_TRIES):
        layers, statuses = _layers(recipe, weights, library, made)
        config = dump_config(_config(recipe, weights))
        config_layer = Layer(CONFIG_TYPE, _put(config, library, made)[0], len(config))
        if attempt == 0:
            for status in statuses:
                report(PullEvent(status))
            report(PullEvent("writing manifest"))
        if is_cancelled():
            raise Cancelled("the creation was cancelled")
        try:
            stored = library.add(recipe.name, Manifest(config_layer, tuple(layers)))
        except NotFound:
            # Another command removed a small blob between our look and the manifest.
            if attempt == _TRIES - 1:
                raise
        else:
            report(PullEvent("success"))
            return stored
    raise AssertionError


def _put(content: bytes, library: Library, made: set[str]) -> tuple[str, str]:
    """Store a small blob; its digest, and what Ollama says of it."""
    digest = library.blobs.digest(content)
    word = "using existing" if library.blobs.has(digest, len(content)) else "creating new"
    if word == "creating new":
        library.blobs.put(content)
        made.add(digest)
    return digest, f"{word} layer {digest}"


def _layers(
    recipe: Recipe, weights: Sequence[Weights], library: Library, made: set[str]
) -> tuple[list[Layer], list[str]]:
    """All layers in Ollama's order, and what it says of each."""
    found: list[tuple[Layer, str]] = [
        pair for part in weights for pair in zip(part.layers, part.statuses, strict=True)
    ]
    if recipe.base is not None:
        found = _in_order_of(recipe.base, found)
    for media_types, content in _changes(recipe):
        if media_types:
            found = [pair for pair in found if pair[0].media_type not in media_types]
        media_type = media_types[0] if media_types else LICENSE
        digest, status = _put(content, library, made)
        found.append((Layer(media_type, digest, len(content)), status))
    return [layer for layer, _ in found], [status for _, status in found]


def _in_order_of(base: StoredModel, weights: list[tuple[Layer, str]]) -> list[tuple[Layer, str]]:
    """The parent's layers in its order, with the weights in their places, the new ones behind."""
    found: list[tuple[Layer, str]] = []
    todo = list(weights)
    for layer in base.manifest.layers:
        if layer.media_type in _GGUF_TYPES:
            mine = [pair for pair in todo if pair[0].media_type == layer.media_type]
            found += mine[:1]
            todo = [pair for pair in todo if pair not in mine[:1]]
        else:
            inherited = replaced(layer, parent=base.name.short())
            found.append((inherited, f"using existing layer {layer.digest}"))
    return found + todo


def _changes(recipe: Recipe) -> list[tuple[tuple[str, ...], bytes]]:
    """The new small layers: which types they replace (the first is theirs), and their content."""
    changes: list[tuple[tuple[str, ...], bytes]] = []
    if recipe.template:
        changes.append(((TEMPLATE, CHAT_TEMPLATE), recipe.template.encode()))
    if recipe.system:
        changes.append(((SYSTEM,), recipe.system.encode()))
    changes += [((), text.encode()) for text in recipe.licenses if text]
    inherited = recipe.base.params if recipe.base is not None else {}
    if params := {**inherited, **recipe.parameters}:
        changes.append(((PARAMS,), dump_params(params)))
    if recipe.messages:
        changes.append(((MESSAGES,), dump_json(list(recipe.messages))))
    return changes


def _config(recipe: Recipe, weights: Sequence[Weights]) -> ModelConfig:
    said, base = recipe.overrides, recipe.base.config if recipe.base is not None else ModelConfig()
    info = next(part.info for part in weights if part.media_type == MODEL)
    draft = next((part.info for part in weights if part.media_type == DRAFT), None)
    architecture = said.model_family or info.architecture
    families = dict.fromkeys((architecture, info.architecture))
    return ModelConfig(
        model_format=base.model_format,
        model_family=architecture,
        model_families=tuple(families),
        model_type=said.model_type or size_label(info.n_params),
        file_type=said.file_type or info.file_type,
        renderer=recipe.renderer or base.renderer,
        parser=recipe.parser or base.parser,
        requires=recipe.requires or base.requires,
        capabilities=(*base.capabilities, *said.capabilities),
        context_length=said.context_length,
        embedding_length=said.embedding_length,
        base_name=said.base_name,
        draft_architecture=draft.architecture if draft is not None else "",
    )
