"""The tiny models that other tests stand on: they load, generate, and stay the same."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.tinygguf import make_tiny

GENERATE = """
import json, sys
from llama_cpp import Llama
answers = {}
for path in sys.argv[1:]:
    model = Llama(path, n_ctx=128, n_threads=1, n_threads_batch=1, verbose=False)
    done = [model(p, max_tokens=16, temperature=0)["choices"][0] for p in ("one", "two")]
    answers[path] = [(d["text"], d["finish_reason"]) for d in done]
    model.close()
json.dump(answers, sys.stdout)
"""

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-q8_0": {"quantization": "Q8_0"},
    "llama-f16": {"quantization": "F16", "n_ctx": 4096},
    "qwen2": {"arch": "qwen2"},
    "qwen3": {"arch": "qwen3", "n_layer": 3, "n_embd": 128},
    "split": {"shards": 3},
    "plain": {"chat_template": None, "seed": 7},
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, str]]]:
    folder = tmp_path_factory.mktemp("tiny")
    paths = {name: make_tiny(folder / f"{name}.gguf", **kw) for name, kw in VARIANTS.items()}
    done = subprocess.run(
        [sys.executable, "-c", GENERATE, *map(str, paths.values())],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {name: [tuple(a) for a in found[str(path)]] for name, path in paths.items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_tiny_model_generates_and_heeds_its_prompt(
    answers: dict[str, list[tuple[str, str]]], variant: str
) -> None:
    (first, why), (second, _) = answers[variant]
    assert why == "length"  # control tokens have no weight
    assert len(first) >= 16
    assert first != second


def test_the_same_weights_in_shards_say_the_same(
    answers: dict[str, list[tuple[str, str]]],
) -> None:
    assert answers["split"] == answers["llama"]
    assert answers["plain"] != answers["llama"]


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    def digest(name: str, seed: int) -> str:
        return hashlib.sha256(make_tiny(tmp_path / name, seed=seed).read_bytes()).hexdigest()

    assert digest("a.gguf", 1) == digest("b.gguf", 1) != digest("c.gguf", 2)
