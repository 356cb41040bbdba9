"""A model leaves the store as one whole file."""

from pathlib import Path

import pytest

from localrun.errors import BadRequest, Cancelled
from localrun.gguf import open_model
from localrun.names import parse_name
from localrun.store.export import export
from localrun.store.library import Library, StoredModel
from localrun.store.manifest import CONFIG_TYPE, MODEL, Layer, Manifest, ModelConfig, dump_config
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny, shard_paths


@pytest.fixture
def model(tmp_path: Path) -> StoredModel:
    return store_model(tmp_path / "models", "m", make_tiny(tmp_path / "t.gguf"))


def write(model: StoredModel, target: Path, *, links: bool = True) -> str:
    return export(model, target, lambda _: None, lambda: False, links=links)


@pytest.mark.parametrize(("links", "how"), [(True, "linked"), (False, "copied")])
def test_the_file_has_the_models_bytes(
    model: StoredModel, tmp_path: Path, *, links: bool, how: str
) -> None:
    target = tmp_path / "out.gguf"
    assert write(model, target, links=links) == how
    assert target.read_bytes() == model.model_paths[0].read_bytes()
    assert target.samefile(model.model_paths[0]) == links
    assert not list(tmp_path.glob(".localrun-*"))


def test_shards_are_joined(tmp_path: Path) -> None:
    library = Library(tmp_path / "models")
    first = make_tiny(tmp_path / "s", shards=3)
    config = dump_config(ModelConfig())
    layers = [
        Layer(MODEL, library.blobs.put(path.read_bytes()), path.stat().st_size)
        for path in shard_paths(first)
    ]
    blob = Layer(CONFIG_TYPE, library.blobs.put(config), len(config))
    model = library.add(parse_name("split"), Manifest(blob, tuple(layers)))
    assert write(model, tmp_path / "out.gguf") == "joined"
    info, whole = open_model([tmp_path / "out.gguf"]), open_model(model.model_paths)
    assert (info.n_params, info.split_count) == (whole.n_params, 1)


def test_what_is_there_is_not_written_over(model: StoredModel, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    target.write_text("mine")
    with pytest.raises(BadRequest, match="is there already"):
        write(model, target)
    with pytest.raises(BadRequest, match="no folder"):
        write(model, tmp_path / "none" / "out.gguf")
    assert target.read_text() == "mine"


def test_a_cancelled_export_leaves_nothing(model: StoredModel, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        export(model, tmp_path / "out.gguf", lambda _: None, lambda: True, links=False)
    assert not list(tmp_path.glob("out.gguf"))
    assert not list(tmp_path.glob(".localrun-*"))
