"""One store for two programs: ours is laid out as Ollama's, and Ollama's can be ours."""

import json
import re
from pathlib import Path

from localrun.names import parse_name
from localrun.store.adopt.ollama import OllamaStore
from localrun.store.library import Library
from tests.fakes.foreign import ollama_model
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny


def test_our_store_is_one_that_ollama_reads(tmp_path: Path) -> None:
    root = tmp_path / "ours"
    file = make_tiny(tmp_path / "t.gguf")
    parts = {"system": "Be brief.", "params": {"num_ctx": 512}, "license": "MIT"}
    ours = [store_model(root, name, file, **parts) for name in ("a:b", "me/c", "hf.co/u/r:Q8_0")]
    theirs = OllamaStore(root).models()
    assert {model.digest for model in theirs} == {model.digest for model in ours}
    # What else Ollama asks of the files; it removes blobs of other names.
    assert all(re.fullmatch("sha256-[0-9a-f]{64}", p.name) for p in (root / "blobs").iterdir())
    manifests = [path for path in (root / "manifests").rglob("*") if path.is_file()]
    assert {len(path.relative_to(root).parts) for path in manifests} == {5}
    for path in manifests:
        manifest = json.loads(path.read_bytes())
        assert manifest["schemaVersion"] == 2
        for layer in (manifest["config"], *manifest["layers"]):
            blob = root / "blobs" / layer["digest"].replace(":", "-")
            assert blob.stat().st_size == layer["size"]
            assert layer["mediaType"].startswith("application/vnd.")


def test_ollamas_store_can_be_ours(tmp_path: Path) -> None:
    root = tmp_path / "ollama"
    name = "registry.ollama.ai/library/tiny/1b"
    ollama_model(root, name, make_tiny(tmp_path / "t.gguf"), system="Be brief.")
    library = Library(root)
    model = library.find("tiny:1b")
    assert (model.system, model.adopted) == ("Be brief.", "")
    library.copy(model.name, parse_name("mine"))
    assert {m.name.short() for m in OllamaStore(root).models()} == {"tiny:1b", "mine:latest"}
    library.delete(model.name)
    assert OllamaStore(root).get(parse_name("mine")).digest == model.digest
