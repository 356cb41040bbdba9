"""Ollama's own store, read where it lies."""

from dataclasses import replace
from pathlib import Path

from localrun.errors import BadModelFile
from localrun.names import ModelName
from localrun.store.adopt.inside import is_inside
from localrun.store.blobs import Blobs
from localrun.store.manifest import MODEL, BadManifest
from localrun.store.reading import Reader
from localrun.store.stored import StoredModel


class _Blobs(Blobs):
    """Blobs that are only read, and only where they are."""

    def path(self, digest: str) -> Path:
        path = super().path(digest)
        if not is_inside(path, self.root):
            raise BadManifest(f"{path} leads out of {self.root}")
        return path


class OllamaStore(Reader):
    """The models in Ollama's store.

    Args:
        root: What `OLLAMA_MODELS` names.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, _Blobs(root))

    def models(self) -> list[StoredModel]:
        """Those whose files are there as their manifests say."""
        return [
            replace(model, adopted=str(self.root))
            for model in super().models()
            if _missing(model) is None
        ]

    def name_of(self, name: ModelName) -> ModelName | None:
        """The name as Ollama keeps it, None if it has no such model."""
        path = self._locate(name)
        return None if path is None else self._name_of(path)

    def get(self, name: ModelName) -> StoredModel:
        """The model of a name that `name_of` gave.

        Raises:
            BadManifest: If its manifest cannot be read.
            BadModelFile: If a file is gone or is no longer what the manifest says.
        """
        model = self._read(self._path(name))
        if missing := _missing(model):
            raise BadModelFile(
                f"{name.short()} is adopted from {self.root}, and its file {missing} is gone or"
                " has changed",
                hint=f"ollama pull {name.short()}  mends it there; localrun pull {name.short()} "
                " fetches one of our own",
            )
        return replace(model, adopted=str(self.root))

    def _host_folder(self, host: str) -> str:
        return host

    def _read(self, path: Path) -> StoredModel:
        if not is_inside(path, self.root):
            raise BadManifest(f"{path} leads out of {self.root}")
        return super()._read(path)


def _missing(model: StoredModel) -> Path | None:
    """The first of its weights that is not there with its size."""
    for layer, path in zip(model.manifest.of_type(MODEL), model.model_paths, strict=True):
        try:
            if path.stat().st_size != layer.size:
                return path
        except OSError:
            return path
    return None
