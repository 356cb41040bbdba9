"""The library: names, manifests, blobs without an owner."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from localrun.errors import BadSetting, InvalidName, ModelNotFound, NotFound
from localrun.names import ModelName, parse_name
from localrun.store.library import Library
from localrun.store.manifest import (
    CHAT_TEMPLATE,
    CONFIG_TYPE,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    SYSTEM,
    TEMPLATE,
    BadManifest,
    Layer,
    Manifest,
    ModelConfig,
    digest_of,
    dump_config,
)

Add = Callable[..., None]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path)


@pytest.fixture
def add(library: Library) -> Add:
    def write(name: str, weights: bytes = b"w", **layers: str) -> None:
        library.add(parse_name(name), manifest_of(library, weights, **layers))

    return write


def manifest_of(library: Library, weights: bytes, **layers: str) -> Manifest:
    types = {
        "template": TEMPLATE, "chat_template": CHAT_TEMPLATE, "system": SYSTEM, "params": PARAMS,
        "messages": MESSAGES, "license": LICENSE,
    }  # fmt: skip
    blobs = library.blobs
    config = dump_config(ModelConfig(model_family="llama", file_type="Q4_0"))
    parts = [Layer(MODEL, blobs.put(weights), len(weights))]
    for key, text in layers.items():
        content = text.encode()
        parts.append(Layer(types[key], blobs.put(content), len(content)))
    return Manifest(Layer(CONFIG_TYPE, blobs.put(config), len(config)), tuple(parts))


def n_blobs(library: Library) -> int:
    return len(list(library.root.glob("blobs/*")))


def test_a_model_is_found_again_with_all_its_parts(library: Library, add: Add) -> None:
    add(
        "llama2",
        system="Be kind.",
        params='{"stop":["</s>"],"num_ctx":4096}',
        template="{{ .Prompt }}",
        chat_template="{{ messages }}",
        license="MIT",
        messages='[{"role":"user","content":"hi"}]',
    )
    model = library.find("llama2")
    assert model.name == parse_name("llama2:latest")
    assert model.params == {"stop": ["</s>"], "num_ctx": 4096}
    assert (model.system, model.template) == ("Be kind.", "{{ .Prompt }}")
    assert (model.chat_template, model.licenses) == ("{{ messages }}", ("MIT",))
    assert model.messages == ({"role": "user", "content": "hi"},)
    assert model.config.file_type == "Q4_0"
    assert model.model_paths == (library.blobs.path(digest_of(b"w")),)
    assert model.modified_at.tzinfo is not None
    (file,) = library.root.glob("manifests/registry.ollama.ai/library/llama2/latest")
    assert digest_of(file.read_bytes()) == f"sha256:{model.digest}"
    assert model.size_bytes == sum(path.stat().st_size for path in library.root.glob("blobs/*"))


def test_names_are_found_whatever_their_casing(library: Library, add: Add) -> None:
    add("hf.co/TheBloke/Llama-2:Q4_K_M")
    for text in ("hf.co/thebloke/llama-2:q4_k_m", "thebloke/LLAMA-2:Q4_K_M"):
        assert library.find(text).name.full() == "hf.co/TheBloke/Llama-2:Q4_K_M"
    add("hf.co/thebloke/llama-2:q4_k_m", b"other")
    assert len(library.list()) == 1


def test_a_model_of_a_split_file_has_its_paths_in_order(library: Library) -> None:
    manifest = manifest_of(library, b"one")
    second = Layer(MODEL, library.blobs.put(b"two"), 3, name="m-00002-of-00002.gguf")
    library.add(parse_name("s"), Manifest(manifest.config, (*manifest.layers, second)))
    assert [path.read_bytes() for path in library.find("s").model_paths] == [b"one", b"two"]


def test_the_list_is_newest_first_and_leaves_damaged_models_out(library: Library, add: Add) -> None:
    assert library.list() == []
    for age, name in enumerate(("new", "old")):
        add(name)
        (path,) = library.root.glob(f"manifests/*/*/{name}/latest")
        os.utime(path, (1e9 - age, 1e9 - age))
    (library.root / "manifests" / "stray").write_text("x")
    damaged = library.root / "manifests" / "registry.ollama.ai" / "library" / "bad" / "latest"
    damaged.parent.mkdir()
    damaged.write_text("{")
    assert [model.name.model for model in library.list()] == ["new", "old"]
    with pytest.raises(BadManifest, match="no JSON"):
        library.find("bad")


def test_a_manifest_that_changed_is_read_again(library: Library, add: Add) -> None:
    add("a", system="one")
    first = library.find("a")
    assert library.find("a") is first
    add("a", system="two")
    assert library.find("a").system == "two"


def test_a_deleted_model_takes_only_its_own_blobs_along(library: Library, add: Add) -> None:
    add("a", b"shared", system="mine")
    add("b", b"shared")
    library.delete(parse_name("A"))
    assert [model.name.model for model in library.list()] == ["b"]
    assert n_blobs(library) == 2
    library.delete(parse_name("b"))
    assert n_blobs(library) == 0
    assert list((library.root / "manifests").iterdir()) == []
    with pytest.raises(ModelNotFound, match="'b:latest' not found"):
        library.delete(parse_name("b"))


def test_nothing_is_dropped_while_a_manifest_cannot_be_read(library: Library, add: Add) -> None:
    add("a", b"weights")
    add("b", b"weights")
    (path,) = library.root.glob("manifests/*/*/b/latest")
    path.write_text("{")
    library.delete(parse_name("a"))
    assert library.blobs.has(digest_of(b"weights"))


def test_a_replaced_model_leaves_nothing_behind(library: Library, add: Add) -> None:
    add("a", b"one")
    new = manifest_of(library, b"two")
    assert library.unused_after(parse_name("a"), new) == {digest_of(b"one")}
    library.add(parse_name("a"), new)
    assert not library.blobs.has(digest_of(b"one"))
    assert library.unused_after(parse_name("none"), new) == frozenset()


def test_a_copy_shares_the_blobs(library: Library, add: Add) -> None:
    add("a")
    before = n_blobs(library)
    copied = library.copy(parse_name("a"), parse_name("me/b:x"))
    assert (copied.name.short(), copied.digest) == ("me/b:x", library.find("a").digest)
    assert n_blobs(library) == before
    with pytest.raises(ModelNotFound):
        library.copy(parse_name("none"), parse_name("c"))


def test_a_manifest_without_its_blobs_is_refused(library: Library) -> None:
    manifest = manifest_of(library, b"w")
    library.blobs.remove(digest_of(b"w"))
    with pytest.raises(NotFound, match="is not in the store"):
        library.add(parse_name("a"), manifest)
    assert library.list() == []


def test_what_is_not_there_or_no_name_is_told_apart(library: Library) -> None:
    with pytest.raises(ModelNotFound, match="'nope' not found") as caught:
        library.find("nope")
    assert caught.value.hint == "localrun pull nope"
    with pytest.raises(InvalidName):
        library.find("../x")


def test_a_port_in_a_host_is_no_colon_on_the_disk(library: Library, add: Add) -> None:
    add("localhost:5000/n/m")
    assert not [path for path in library.root.rglob("*") if ":" in path.name]
    assert library.list()[0].name == ModelName("m", "latest", "n", "localhost:5000")


def test_a_store_of_a_newer_localrun_is_left_alone(tmp_path: Path, add: Add) -> None:
    add("a")
    file = tmp_path / "store.json"
    assert json.loads(file.read_text()) == {"schema_version": 1}
    file.write_text('{"schema_version": 99}')
    with pytest.raises(BadSetting, match="store of version 99"):
        Library(tmp_path)
    file.write_text("what")
    with pytest.raises(BadSetting, match="cannot be read"):
        Library(tmp_path)


def test_a_digest_that_is_a_path_is_never_opened(library: Library) -> None:
    manifest = manifest_of(library, b"w")
    evil = Manifest(manifest.config, (Layer(MODEL, "sha256:../../../etc/passwd", 1),))
    with pytest.raises(Exception, match="invalid digest format"):
        library.add(parse_name("evil"), evil)
    (library.root / "manifests/registry.ollama.ai/library/evil").mkdir(parents=True)
    path = library.root / "manifests/registry.ollama.ai/library/evil/latest"
    path.write_text(
        '{"config":{"digest":"sha256:../x","size":1},"layers":[{"mediaType":"' + MODEL + '",'
        '"digest":"sha256:/etc/passwd","size":1}]}'
    )
    assert library.list() == []
    library.delete(parse_name("evil"))
