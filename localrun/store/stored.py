"""A model of the store, as everybody else sees it. Pure."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from localrun.names import ModelName
from localrun.store.manifest import ADAPTER, MODEL, Manifest, ModelConfig, digest_of


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model on this machine, ready to be shown or loaded.

    Attributes:
        name: Its name, in the casing in which it is stored.
        digest: 64 hex digits: sha256 of the manifest's bytes, the model's id.
        size_bytes: All layers and the config.
        modified_at: When the manifest was written, with time zone.
        manifest: Its parts.
        config: Family, size, quantization.
        model_paths: The GGUF file, or all shards in order.
        model_digest: Names the weights: digest of the (first) GGUF file; with adapters, which make
            other weights of them, of all these digests.
        template: Go text of a template layer, None without one.
        chat_template: Jinja text for a file that has none of its own, None otherwise.
        system: System message of the model, None without one.
        params: Default options of the model.
        licenses: Their texts.
        messages: Turns that stand before every conversation.
        adapter_paths: LoRA files to lay over the weights.
        projector_paths: What makes images and sounds readable to the model.
        draft_paths: A small model that guesses ahead.
        adopted: The folder of another program in which its files lie; empty if they are ours.
        go_template: The user's word on whether its Go template wins over its file's Jinja; None
            lets the better one win.
    """

    name: ModelName
    digest: str
    size_bytes: int
    modified_at: datetime
    manifest: Manifest
    config: ModelConfig
    model_paths: tuple[Path, ...]
    model_digest: str
    template: str | None
    chat_template: str | None
    system: str | None
    params: dict[str, object]
    licenses: tuple[str, ...]
    messages: tuple[dict[str, object], ...]
    adapter_paths: tuple[Path, ...] = ()
    projector_paths: tuple[Path, ...] = ()
    draft_paths: tuple[Path, ...] = ()
    adopted: str = ""
    go_template: bool | None = None

    @property
    def adapter_bytes(self) -> int:
        """What the adapters take beside the weights."""
        return sum(layer.size for layer in self.manifest.of_type(ADAPTER))

    @property
    def parent(self) -> str:
        """The model or file that it was made from; empty if nobody said."""
        return self.manifest.of_type(MODEL)[-1].parent


def weights_digest(manifest: Manifest) -> str:
    """What names the weights of a model; see `StoredModel.model_digest`."""
    first, adapters = manifest.of_type(MODEL)[0].digest, manifest.of_type(ADAPTER)
    if not adapters:
        return first
    return digest_of("+".join((first, *(layer.digest for layer in adapters))).encode())
