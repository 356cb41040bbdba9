"""A LoRA adapter for the tiny models."""

from pathlib import Path

import gguf
import numpy as np


def make_adapter(
    path: Path, *, n_embd: int = 64, strength: float = 1.0, tensor: str = "blk.0.ffn_down"
) -> Path:
    """Write a LoRA of rank 2 that bends one matrix of a tiny model of that width.

    Args:
        path: Where the file goes.
        n_embd: Width of the model.
        strength: How far; 0 changes nothing.
        tensor: The matrix, without `.weight`.
    """
    numbers = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0)
    n_in = 2 * n_embd if tensor.endswith("down") else n_embd
    a = numbers.standard_normal((2, n_in)).astype(np.float32)
    b = (numbers.standard_normal((n_embd, 2)) * strength).astype(np.float32)
    writer.add_tensor(f"{tensor}.weight.lora_a", a)
    writer.add_tensor(f"{tensor}.weight.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
