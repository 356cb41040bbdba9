"""The weights of one model."""

from collections.abc import Sequence
from typing import Any

from localrun.errors import BadModelFile, InvalidOption, Unsupported
from localrun.llama.library import native
from localrun.llama.vocabulary import Vocabulary, load_from

_LOAD_READ, _LOAD_MMAP = 0, 1
_SPLIT_NONE = 0
_MAX_LAYERS = 1 << 16


class Model:
    """Weights in memory and their vocabulary. Contexts on it must be closed before it.

    Attributes:
        adapters: llama.cpp's LoRA adapters, which every context on the model applies.
        pooling: The way that the GGUF says to pool embeddings, in llama.cpp's numbers; 0 if unsaid.
        is_causal: Tokens see only what came before.
    """

    def __init__(self, pointer: Any) -> None:
        low = native().low
        self._pointer = pointer
        self.adapters: list[Any] = []
        self.vocabulary = Vocabulary(pointer, owned=False)
        self.n_ctx_train: int = low.llama_model_n_ctx_train(pointer)
        self.n_layer: int = low.llama_model_n_layer(pointer)
        self.n_swa: int = low.llama_model_n_swa(pointer)
        self.is_recurrent = bool(
            low.llama_model_is_recurrent(pointer) or low.llama_model_is_hybrid(pointer)
        )
        architecture = self.vocabulary.meta("general.architecture") or ""
        pooling = self.vocabulary.meta(f"{architecture}.pooling_type") or "0"
        self.pooling = int(pooling) if pooling.isdigit() else 0
        self.is_causal = self.vocabulary.meta(f"{architecture}.attention.causal") != "false"
        self.has_decoder = bool(low.llama_model_has_decoder(pointer))
        self.has_encoder = bool(low.llama_model_has_encoder(pointer))

    @classmethod
    def load(
        cls,
        paths: Sequence[str],
        *,
        n_gpu_layers: int = 0,
        main_gpu: int | None = None,
        use_mmap: bool = True,
    ) -> "Model":
        """Load the weights.

        Args:
            paths: The GGUF file, or all shards in order.
            n_gpu_layers: Layers on the GPU, 0 for none.
            main_gpu: The one GPU to use; None splits over all.
            use_mmap: Map the file instead of reading it.

        Raises:
            BadModelFile: If llama.cpp refuses the file.
            InvalidOption: If a number is out of its range.
            Unsupported: If the model is of a kind that needs another loop.
        """
        low = native().low
        params = low.llama_model_default_params()
        if not 0 <= n_gpu_layers <= _MAX_LAYERS:
            raise InvalidOption(f"n_gpu_layers {n_gpu_layers} is not in 0..{_MAX_LAYERS}")
        params.n_gpu_layers = n_gpu_layers
        if main_gpu is not None:
            if not 0 <= main_gpu < low.llama_max_devices():
                raise InvalidOption(f"there is no GPU {main_gpu}")
            params.main_gpu, params.split_mode = main_gpu, _SPLIT_NONE
        params.load_mode = _LOAD_MMAP if use_mmap else _LOAD_READ
        pointer = load_from(paths, params)
        if low.llama_model_is_diffusion(pointer):
            low.llama_model_free(pointer)
            raise Unsupported("diffusion models need another way of decoding than localrun has")
        return cls(pointer)

    def adapt(self, path: str) -> None:
        """Lay a LoRA adapter over the weights; before a context is made, which sizes its graph.

        Raises:
            BadModelFile: If the file is no adapter, or not of this model.
        """
        engine = native()
        engine.log.errors = []
        adapter = engine.low.llama_adapter_lora_init(self.pointer, path.encode())
        if not adapter:
            why = "; ".join(engine.log.errors) or "no reason was given"
            raise BadModelFile(
                f"the adapter does not fit the model: {why}",
                hint="an adapter belongs to the model that it was trained on",
            )
        self.adapters.append(adapter)  # freed with the model

    @property
    def pointer(self) -> Any:
        """llama.cpp's model, for the other files of this room."""
        if self._pointer is None:
            raise BadModelFile("the model is closed")
        return self._pointer

    def close(self) -> None:
        """Free the weights."""
        if self._pointer is not None:
            native().low.llama_model_free(self._pointer)
            self._pointer = None
