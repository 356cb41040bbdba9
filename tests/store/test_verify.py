"""Damage is found and named; of a damaged file only the bad parts are fetched again."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.config import Settings, load_settings
from localrun.errors import Cancelled, SourceMissing
from localrun.names import parse_name
from localrun.store.journal import plan_part_bytes
from localrun.store.library import Library, StoredModel
from localrun.store.manifest import (
    CONFIG_TYPE,
    MODEL,
    Layer,
    Manifest,
    ModelConfig,
    dump_config,
    parse_manifest,
)
from localrun.store.sums import Sums, good_parts, keep_sums, sum_file
from localrun.store.verify import Damage, mend, verify
from tests.fakes.hub import FakeHub
from tests.fakes.registry import FakeRegistry

MIB = 1 << 20
PART = plan_part_bytes(20 * MIB)


@pytest.fixture
def settings(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    # `prepare_hub_environment` writes these; monkeypatch takes them back.
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return load_settings({"LOCALRUN_HOME": str(tmp_path), "HF_ENDPOINT": hub.url})


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "models")


@pytest.fixture
def model(library: Library, large: Path, sha256: str) -> StoredModel:
    """A model of the Hub, whole, whose parts were hashed once."""
    blob = library.blobs.path(f"sha256:{sha256}")
    blob.parent.mkdir(parents=True)
    shutil.copy(large, blob)
    config = dump_config(ModelConfig())
    manifest = Manifest(
        Layer(CONFIG_TYPE, library.blobs.put(config), len(config)),
        (Layer(MODEL, f"sha256:{sha256}", large.stat().st_size),),
    )
    stored = library.add(parse_name("hf.co/me/r:Q8_0"), manifest)
    assert check(library) == []
    return stored


def check(library: Library) -> list[Damage]:
    return verify(library, library.list(), lambda *_: None, lambda: False)


def overwrite(path: Path, place: int, content: bytes = b"damage") -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


def flip(path: Path) -> None:
    overwrite(path, PART + 1000)


def cut(path: Path) -> None:
    os.truncate(path, 2 * PART + 5)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damaging", "reason", "n_parts"),
    [(flip, "another content", 1), (cut, "bytes instead of", 1), (remove, "is gone", 3)],
)
def test_damage_is_named_and_only_bad_parts_are_fetched(
    model: StoredModel,
    library: Library,
    settings: Settings,
    hub: FakeHub,
    damaging: Callable[[Path], None],
    reason: str,
    n_parts: int,
) -> None:
    (blob,) = model.model_paths
    damaging(blob)
    (damage,) = check(library)
    assert reason in damage.reason
    assert damage.models == ("hf.co/me/r:Q8_0",)
    before = hub.n_sent
    mend(damage, library, settings, lambda _: None, lambda: False)
    assert check(library) == []
    assert hub.n_sent - before <= n_parts * PART
    assert not (library.root / "quarantine").exists()


def test_a_model_of_a_registry_is_mended_from_there(
    library: Library, settings: Settings, large: Path
) -> None:
    with FakeRegistry() as registry:
        content = registry.add("me/m:latest", (MODEL, large.read_bytes()))
        manifest = parse_manifest(content)
        for layer in (manifest.config, *manifest.layers):
            library.blobs.put(registry.blobs[layer.digest])
        model = library.add(parse_name(f"{registry.host}/me/m"), manifest, content)
        assert check(library) == []
        flip(model.model_paths[0])
        mend(check(library)[0], library, settings, lambda _: None, lambda: False)
    assert check(library) == []


def test_without_a_memory_of_the_parts_all_are_fetched(
    model: StoredModel, library: Library, settings: Settings
) -> None:
    shutil.rmtree(library.root / "sums")
    flip(model.model_paths[0])
    (damage,) = check(library)
    mend(damage, library, settings, lambda _: None, lambda: False)
    assert check(library) == []


def test_a_file_that_someone_else_has_too_is_not_written_to(
    model: StoredModel, library: Library, settings: Settings, tmp_path: Path
) -> None:
    (blob,) = model.model_paths
    os.link(blob, tmp_path / "theirs.gguf")
    flip(blob)
    content = (tmp_path / "theirs.gguf").read_bytes()
    mend(check(library)[0], library, settings, lambda _: None, lambda: False)
    assert check(library) == []
    assert (tmp_path / "theirs.gguf").read_bytes() == content


def test_what_nobody_has_stays_where_it_is(
    model: StoredModel, library: Library, settings: Settings, hub: FakeHub
) -> None:
    (blob,) = model.model_paths
    flip(blob)
    hub.repos.clear()
    (damage,) = check(library)
    with pytest.raises(SourceMissing, match="nobody is known") as missing:
        mend(damage, library, settings, lambda _: None, lambda: False)
    assert "localrun pull" in missing.value.hint
    assert blob.exists()


def test_a_blob_of_two_models_is_hashed_once(model: StoredModel, library: Library) -> None:
    library.copy(model.name, parse_name("second"))
    told: list[int] = []
    verify(library, library.list(), lambda layer, n: told.append(n), lambda: False)
    assert told.count(model.manifest.layers[0].size) == 1
    flip(model.model_paths[0])
    assert len(check(library)[0].models) == 2


def test_a_check_can_be_broken_off(model: StoredModel, library: Library) -> None:
    with pytest.raises(Cancelled):
        verify(library, [model], lambda *_: None, lambda: True)


@given(st.lists(st.integers(0, 2), max_size=3))
def test_the_good_parts_are_those_that_nobody_touched(tmp_path_factory, touched: list[int]) -> None:
    folder = tmp_path_factory.getbasetemp() / "sums"
    before = [bytes([n]) * 32 for n in range(3)]
    size = 2 * PART + 1
    keep_sums(folder, Sums("ab" * 32, size, tuple(before)))
    now = [b"x" * 32 if n in touched else each for n, each in enumerate(before)]
    good = good_parts(folder, "ab" * 32, size, Sums("", size, tuple(now)))
    assert good == {0, 1, 2} - set(touched)


def test_a_file_is_hashed_as_a_whole_beyond_its_size_too(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abcdef")
    sums = sum_file(path, 3, lambda _: None, lambda: False)
    assert (sums.sha256, sums.size) == (hashlib.sha256(b"abcdef").hexdigest(), 6)
    assert sums.parts == (hashlib.sha256(b"abc").digest(),)
