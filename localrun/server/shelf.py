"""Models of the store, opened: their header's facts and what they can do, kept by content."""

import asyncio
from collections import OrderedDict
from dataclasses import replace

from localrun.errors import BadModelFile, ModelNotFound
from localrun.gguf import ModelInfo, open_header, open_model
from localrun.messages import Vocab
from localrun.server.templates import template_of
from localrun.store.library import Library, StoredModel

POOLING_RANK = 4
"""llama.cpp's `LLAMA_POOLING_TYPE_RANK`: the model scores a pair of texts."""

_MAX_OPENED = 64


class Shelf:
    """Finds and opens models. Used on the event loop; files are read in threads.

    Args:
        library: The models.
        go_template: The user's word on Go templates, as in `StoredModel`.
    """

    def __init__(self, library: Library, *, go_template: bool | None = None) -> None:
        self.library, self._go_template = library, go_template
        self._opened: OrderedDict[str, ModelInfo] = OrderedDict()

    async def find(self, text: str) -> StoredModel:
        """The model that a client means.

        Raises:
            InvalidName: If the text is no model name.
            ModelNotFound: If there is no such model.
        """
        if not text:
            raise ModelNotFound("", hint="")
        return self._told(await asyncio.to_thread(self.library.find, text))

    async def all(self) -> list[StoredModel]:
        """Every model, newest first."""
        return [self._told(model) for model in await asyncio.to_thread(self.library.list)]

    def _told(self, model: StoredModel) -> StoredModel:
        if self._go_template is None:
            return model
        return replace(model, go_template=self._go_template)

    def opened(self, model: StoredModel) -> ModelInfo | None:
        """The model's facts if they are at hand."""
        return self._opened.get(model.digest)

    async def peek(self, model: StoredModel) -> ModelInfo | None:
        """The facts of a model's files, None if they cannot be read."""
        try:
            return await self.open(model)
        except BadModelFile:
            return None

    async def open(self, model: StoredModel) -> ModelInfo:
        """The facts of a model's files, read once.

        Raises:
            BadModelFile: If a file is damaged, foreign or gone.
        """
        info = self._opened.get(model.digest)
        if info is None:
            try:
                info = await asyncio.to_thread(_open, model)
            except OSError as error:
                raise BadModelFile(
                    f"the files of {model.name.short()} cannot be read: {error.strerror}",
                    hint=f"localrun pull {model.name.short()}",
                ) from error
            self._opened[model.digest] = info
            if len(self._opened) > _MAX_OPENED:
                self._opened.popitem(last=False)
        return info


def _open(model: StoredModel) -> ModelInfo:
    """Check every file that native code will read."""
    for path in model.adapter_paths:
        open_header(path)
    return open_model(model.model_paths)


def vocab_of(model: StoredModel) -> Vocab:
    """How the text worker finds the model's vocabulary."""
    return Vocab(model.model_digest, tuple(map(str, model.model_paths)))


def capabilities(model: StoredModel, info: ModelInfo | None) -> list[str]:
    """What the model can do, in Ollama's words and order.

    Source: Ollama's `Model.capabilitiesForTemplate`; its `rerank` is ours.
    """
    template = template_of(model, info)
    family = template.family
    spoken = [("tools", family.calls_tools), ("thinking", family.thinks)]
    found = dict.fromkeys(model.config.capabilities)
    if template.language == "jinja":
        found |= dict.fromkeys(word for word, is_so in spoken if is_so)
    found |= dict.fromkeys(["embedding" if _embeds(model, info) else "completion"])
    if model.projector_paths:
        found["vision"] = None
    if template.language == "go":
        spoken.insert(1, ("insert", template.fills))
        found |= dict.fromkeys(word for word, is_so in spoken if is_so)
    if info is not None and info.pooling_type == POOLING_RANK:
        found["rerank"] = None
    return list(found)


def _embeds(model: StoredModel, info: ModelInfo | None) -> bool:
    if info is None:
        return "embedding" in model.config.capabilities
    return info.is_embedder or info.pooling_type is not None
