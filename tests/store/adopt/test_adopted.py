"""Models of other programs: listed and run from where they lie, and never touched."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from localrun.config import Settings
from localrun.errors import BadModelFile, BadSetting, ModelNotFound, SourceMissing, Unsupported
from localrun.gguf import open_model
from localrun.names import parse_name
from localrun.store.adopt.adopted import open_adopted, open_library
from localrun.store.library import Library
from tests.fakes.foreign import hub_file, ollama_model
from tests.fakes.phantoms import PHANTOMS, make_phantom
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny, shard_paths

SCATTERED = tuple(PHANTOMS)
Open = Callable[..., Library]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A user who has Ollama and the Hub's cache, both empty."""
    return Settings(
        home=tmp_path,
        models=tmp_path / "ours",
        ollama_models=tmp_path / "ollama",
        hub_cache=tmp_path / "hub",
    )


def tiny(folder: Path, name: str = "tiny-F32.gguf", **options) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return make_tiny(folder / name, **options)


def bytes_of(folder: Path) -> int:
    """What `du` says."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def state_of(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Everything in a folder: time, size, content."""
    return {
        str(path): (
            path.lstat().st_mtime_ns,
            path.lstat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(folder.rglob("*"))
    }


# ── what is found ─────────────────────────────────────────────────────────────────────────────


def test_ollamas_models_are_there_with_all_their_layers(settings: Settings, tmp_path: Path) -> None:
    name = "registry.ollama.ai/library/tiny/1b"
    blob = ollama_model(tmp_path / "ollama", name, tiny(tmp_path), system="Be brief.")
    library = open_library(settings)
    (model,) = library.list()
    assert model.name.short() == "tiny:1b"
    assert (model.system, model.adopted) == ("Be brief.", str(tmp_path / "ollama"))
    assert library.find("TINY:1b").model_paths == (blob,)
    assert open_model(model.model_paths).n_params
    assert not (tmp_path / "ours").exists()


def test_the_hubs_models_are_there_under_their_quantization(
    settings: Settings, tmp_path: Path
) -> None:
    link = hub_file(tmp_path / "hub", "Some-Org/Tiny.Repo", tiny(tmp_path, "Tiny-Q8_0.gguf"))
    library = open_library(settings)
    (model,) = library.list()
    assert model.name.full() == "hf.co/Some-Org/Tiny.Repo:Q8_0"
    assert model.model_paths == (link,)
    assert model.model_digest == f"sha256:{link.readlink().name}"
    for text in ("some-org/tiny.repo:q8_0", "hf.co/Some-Org/Tiny.Repo"):
        assert library.find(text.replace("some-org", "hf.co/some-org")).digest == model.digest


def test_a_repository_without_a_tag_means_its_only_model(
    settings: Settings, tmp_path: Path
) -> None:
    for quantization in ("Q8_0", "Q4_0"):
        hub_file(tmp_path / "hub", "me/two", tiny(tmp_path, f"t-{quantization}.gguf"))
    hub_file(tmp_path / "hub", "me/one", tiny(tmp_path, "t-Q8_0.gguf"))
    library = open_library(settings)
    assert library.find("me/one").name.tag == "Q8_0"
    with pytest.raises(ModelNotFound):
        library.find("me/two")


def test_the_main_revision_wins_over_older_ones(settings: Settings, tmp_path: Path) -> None:
    old = tiny(tmp_path, "t-Q8_0.gguf", seed=1)
    hub_file(tmp_path / "hub", "me/r", old, revision="b" * 40)
    link = hub_file(tmp_path / "hub", "me/r", tiny(tmp_path, "t-Q8_0.gguf"), revision="a" * 40)
    (model,) = open_library(settings).list()
    assert model.model_paths == (link,)


def test_a_folder_is_adopted_when_it_is_named(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "lm"
    tiny(folder / "pub.lisher" / "My-GGUF", "my-Q8_0.gguf")
    tiny(folder, "My model (1).gguf")
    tiny(folder / "deep" / "er" / "still", "deep.gguf")
    tiny(folder, "mmproj-x.gguf")
    first = tiny(folder, "s.gguf", shards=2)
    library = open_library(settings)
    assert library.list() == []
    open_adopted(settings).adopt(folder)
    found = {model.name.short(): model for model in library.list()}
    assert set(found) == {
        "pub-lisher/My-GGUF:Q8_0", "My-model--1:latest", "deep:latest", "s:latest",
    }  # fmt: skip
    assert found["s:latest"].model_paths == shard_paths(first)
    assert open_model(found["s:latest"].model_paths).n_layer


def test_two_files_of_one_name_are_two_models(settings: Settings, tmp_path: Path) -> None:
    tiny(tmp_path / "f" / "a", "m.gguf")
    tiny(tmp_path / "f" / "b", "m.gguf")
    models = open_adopted(settings).adopt(tmp_path / "f").models
    assert [model.name.short() for model in models] == ["m:latest", "m-2:latest"]


def test_one_file_can_be_adopted(settings: Settings, tmp_path: Path) -> None:
    file = tiny(tmp_path / "f", "m.gguf")
    tiny(tmp_path / "f", "n.gguf")
    open_adopted(settings).adopt(file)
    assert [model.model_paths for model in open_library(settings).list()] == [(file,)]


def test_the_kind_of_a_folder_is_seen(settings: Settings, tmp_path: Path) -> None:
    ollama_model(tmp_path / "o" / "models", "registry.ollama.ai/library/t/x", tiny(tmp_path))
    hub_file(tmp_path / "h" / "hub", "me/r", tiny(tmp_path))
    adopted = open_adopted(settings)
    assert adopted.adopt(tmp_path / "o").place.kind == "ollama"
    assert adopted.adopt(tmp_path / "h").place.path == tmp_path / "h" / "hub"
    names = {model.name.short() for model in open_library(settings).list()}
    assert names == {"t:x", "hf.co/me/r:F32"}


@pytest.mark.parametrize("what", ["nowhere", "empty", "damaged"])
def test_a_folder_without_a_model_is_refused(settings: Settings, tmp_path: Path, what: str) -> None:
    if what != "nowhere":
        (tmp_path / what).mkdir()
    if what == "damaged":
        (tmp_path / what / "m.gguf").write_bytes(b"GGUF, but no more")
    with pytest.raises(SourceMissing, match="there is no"):
        open_adopted(settings).adopt(tmp_path / what)
    assert open_library(settings).list() == []


def test_adoption_can_be_switched_off(settings: Settings, tmp_path: Path) -> None:
    ollama_model(tmp_path / "ollama", "registry.ollama.ai/library/t/x", tiny(tmp_path))
    off = replace(settings, adopt=False)
    assert open_library(off).list() == []
    open_adopted(off).adopt(tmp_path / "ollama")
    assert len(open_library(off).list()) == 1


# ── ours and theirs ───────────────────────────────────────────────────────────────────────────


def test_where_two_have_one_name_ours_is_meant(settings: Settings, tmp_path: Path) -> None:
    ollama_model(tmp_path / "ollama", "registry.ollama.ai/library/t/x", tiny(tmp_path))
    ours = store_model(settings.models, "T:X", tiny(tmp_path, seed=2))
    library = open_library(settings)
    assert [model.digest for model in library.list()] == [ours.digest]
    assert library.find("t:x").adopted == ""
    library.delete(parse_name("t:x"))
    assert library.find("t:x").adopted


def test_removing_takes_our_record_and_no_byte_of_theirs(
    settings: Settings, tmp_path: Path
) -> None:
    ollama_model(tmp_path / "ollama", "registry.ollama.ai/library/t/x", tiny(tmp_path))
    hub_file(tmp_path / "hub", "me/r", tiny(tmp_path))
    tiny(tmp_path / "f", "m.gguf")
    open_adopted(settings).adopt(tmp_path / "f")
    folders = [tmp_path / name for name in ("ollama", "hub", "f")]
    before = [state_of(folder) for folder in folders]
    library = open_library(settings)
    for model in library.list():
        library.delete(model.name)
        with pytest.raises(ModelNotFound):
            library.get(model.name)
    assert library.list() == open_library(settings).list() == []
    assert [state_of(folder) for folder in folders] == before
    for folder in folders:
        open_adopted(settings).adopt(folder)
    assert len(library.list()) == 3


def test_what_needs_the_bytes_in_our_store_is_refused_with_the_way(
    settings: Settings, tmp_path: Path
) -> None:
    hub_file(tmp_path / "hub", "me/r", tiny(tmp_path))
    library = open_library(settings)
    with pytest.raises(Unsupported, match="is adopted") as refused:
        library.copy(library.find("me/r").name, parse_name("mine"))
    assert "localrun pull" in refused.value.hint


# ── what changes there ────────────────────────────────────────────────────────────────────────


def test_a_model_removed_there_is_gone_here(settings: Settings, tmp_path: Path) -> None:
    name = "registry.ollama.ai/library/t/x"
    ollama_model(tmp_path / "ollama", name, tiny(tmp_path))
    library = open_library(settings)
    assert library.list()
    (tmp_path / "ollama" / "manifests" / name).unlink()
    assert library.list() == []
    with pytest.raises(ModelNotFound):
        library.find("t:x")


@pytest.mark.parametrize("place", ["ollama", "hub", "f"])
@pytest.mark.parametrize("what", ["gone", "changed"])
def test_a_file_that_is_gone_or_changed_is_told(
    settings: Settings, tmp_path: Path, place: str, what: str
) -> None:
    if place == "ollama":
        file = ollama_model(tmp_path / place, "registry.ollama.ai/library/m/latest", tiny(tmp_path))
    elif place == "hub":
        file = hub_file(tmp_path / place, "me/m", tiny(tmp_path)).resolve()
    else:
        file = tiny(tmp_path / place, "m.gguf")
        open_adopted(settings).adopt(tmp_path / place)
    library = open_library(settings)
    (model,) = library.list()
    if what == "gone":
        file.unlink()
    else:
        with file.open("ab") as opened:
            opened.write(b"more")
    assert library.list() == []
    with pytest.raises(BadModelFile, match=r"is gone|has changed"):
        library.get(model.name)
    library.delete(model.name)
    with pytest.raises(ModelNotFound):
        library.get(model.name)


def test_what_is_adopted_anew_is_taken_as_it_is_now(settings: Settings, tmp_path: Path) -> None:
    file = tiny(tmp_path / "f", "m.gguf")
    adopted = open_adopted(settings)
    (before,) = adopted.adopt(tmp_path / "f").models
    tiny(tmp_path / "f", "m.gguf", n_ctx=4096)
    os.utime(file, ns=(1, 1))
    assert [record.name.model for record, _ in adopted.damaged()] == ["m"]
    adopted.adopt(tmp_path / "f")
    (after,) = open_library(settings).list()
    assert after.model_digest != before.model_digest
    assert adopted.damaged() == []


def test_another_process_sees_what_was_adopted(settings: Settings, tmp_path: Path) -> None:
    library = open_library(settings)
    assert library.list() == []
    tiny(tmp_path / "f", "m.gguf")
    open_adopted(settings).adopt(tmp_path / "f")
    assert [model.name.model for model in library.list()] == ["m"]


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 2}', '{"version": 1}'])
def test_a_damaged_record_hides_no_model_of_ours(
    settings: Settings, tmp_path: Path, content: str
) -> None:
    store_model(settings.models, "mine", tiny(tmp_path))
    (settings.models / "adopted.json").write_text(content)
    library = open_library(settings)
    assert [model.name.model for model in library.list()] == ["mine"]
    assert library.find("mine").name.model == "mine"
    with pytest.raises(BadSetting, match="cannot be read"):
        library.find("another")


# ── links ─────────────────────────────────────────────────────────────────────────────────────


def test_links_out_of_a_folder_are_not_followed(settings: Settings, tmp_path: Path) -> None:
    outside = tiny(tmp_path / "outside", "secret.gguf")
    tiny(tmp_path / "f", "m.gguf")
    (tmp_path / "f" / "link.gguf").symlink_to(outside)
    (tmp_path / "f" / "folder").symlink_to(outside.parent)
    adoption = open_adopted(settings).adopt(tmp_path / "f")
    assert [model.name.model for model in adoption.models] == ["m"]
    assert [(path.name, reason[:9]) for path, reason in adoption.skipped] == [
        ("link.gguf", "leads out")
    ]


def test_a_file_that_becomes_a_link_is_not_opened(settings: Settings, tmp_path: Path) -> None:
    file = tiny(tmp_path / "f", "m.gguf")
    open_adopted(settings).adopt(tmp_path / "f")
    shutil.move(file, tmp_path / "elsewhere.gguf")
    file.symlink_to(tmp_path / "elsewhere.gguf")
    with pytest.raises(BadModelFile, match="leads out"):
        open_library(settings).find("m")


def test_the_hubs_links_go_to_its_own_blobs_only(settings: Settings, tmp_path: Path) -> None:
    link = hub_file(tmp_path / "hub", "me/r", tiny(tmp_path))
    outside = tiny(tmp_path / "outside")
    link.unlink()
    link.symlink_to(outside)
    assert open_library(settings).list() == []


@pytest.mark.parametrize("what", ["weights", "text", "manifest"])
def test_nothing_of_ollamas_is_read_through_a_link_outwards(
    settings: Settings, tmp_path: Path, what: str
) -> None:
    root = tmp_path / "ollama"
    name = "registry.ollama.ai/library/t/x"
    blob = ollama_model(root, name, tiny(tmp_path), system="Be brief.")
    text = root / "blobs" / f"sha256-{hashlib.sha256(b'Be brief.').hexdigest()}"
    target = {"weights": blob, "text": text, "manifest": root / "manifests" / name}[what]
    shutil.move(target, tmp_path / "moved")
    target.symlink_to(tmp_path / "moved")
    assert open_library(settings).list() == []


# ── what it costs ─────────────────────────────────────────────────────────────────────────────


def test_twenty_models_cost_less_than_a_megabyte_and_a_second(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "f").mkdir()
    for n in range(20):
        model = SCATTERED[n % len(SCATTERED)]
        file = make_phantom(tmp_path / "f" / f"{n}-{model}-Q4_K_M.gguf", model)
        if n < 7:
            hub_file(tmp_path / "hub", f"me/{model}-{n}", file, sha256=f"{n:064x}")
        elif n < 14:
            name = f"registry.ollama.ai/library/{model}/{n}"
            ollama_model(tmp_path / "ollama", name, file, f"{n:064x}")
    before, began = bytes_of(tmp_path), time.perf_counter()
    open_adopted(settings).adopt(tmp_path / "f")
    models = open_library(settings).list()
    took = time.perf_counter() - began
    assert len(models) == 20
    assert sum(model.size_bytes for model in models) > 50e9
    assert bytes_of(tmp_path) - before < 1e6
    assert took < 1
