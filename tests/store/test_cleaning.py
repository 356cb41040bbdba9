"""What is removed from a store, and above all what is not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from localrun.store.blobs import Blobs
from localrun.store.cleaning import ON_DEMAND, PARTS_S, REST_S, clean, find_waste
from localrun.store.library import Library
from localrun.system.locks import locked
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny

NAME = f"sha256-{'a' * 64}"


@pytest.fixture
def library(tmp_path: Path) -> Library:
    tiny = make_tiny(tmp_path / "tiny.gguf")
    store_model(tmp_path / "models", "tiny", tiny, system="Be kind.")
    return Library(tmp_path / "models")


@pytest.fixture
def later(library: Library) -> Callable[[float], int]:
    """Clean as if so many seconds had passed."""
    newest = max(path.lstat().st_ctime for path in library.root.rglob("*"))

    def run(seconds: float) -> int:
        return clean(library, lambda: newest + seconds)

    return run


def put(library: Library, folder: str, name: str, content: bytes = b"123") -> Path:
    path = library.root / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def files(library: Library) -> set[str]:
    names = {str(path.relative_to(library.root)) for path in library.root.rglob("*")}
    return {name.replace("\\", "/") for name in names}


def test_a_store_in_order_stays_as_it_is(library, later):
    before = files(library)
    assert later(1000 * REST_S) == 0
    assert files(library) == before


def test_old_parts_go_and_young_ones_stay(library, later):
    for suffix in ("part", "journal", "lock"):
        put(library, "partial", f"{NAME}.{suffix}")
    assert later(PARTS_S - 60) == 0
    assert {"partial/" + NAME + s for s in (".part", ".journal", ".lock")} <= files(library)
    assert later(PARTS_S + 60) == 9
    assert not list((library.root / "partial").iterdir())


def test_a_part_of_a_running_pull_stays_however_old(library, later):
    lock = put(library, "partial", f"{NAME}.lock", b"")
    part = put(library, "partial", f"{NAME}.part")
    orphan = put(library, "blobs", NAME)
    with locked(lock):  # another open file, as of another process
        assert later(100 * PARTS_S) == 0
    assert part.exists()
    assert orphan.exists()


def test_a_part_keeps_the_finished_files_of_its_model(library, later):
    put(library, "partial", f"{NAME}.lock", b"")
    put(library, "partial", f"{NAME}.part")
    orphan = put(library, "blobs", f"sha256-{'b' * 64}")
    assert later(3 * REST_S) == 0
    assert orphan.exists()
    assert later(PARTS_S + 60) == 6
    assert not orphan.exists()


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("partial", "upload-x1"),
        ("partial", "stream-x1"),
        ("partial", f"{NAME}.link"),
        ("quarantine", f"{NAME}.part"),
        ("blobs", ".new-x1"),
        ("blobs", NAME),
    ],
)
def test_the_rest_goes_after_a_day(library, later, folder, name):
    path = put(library, folder, name)
    assert later(REST_S - 60) == 0
    assert path.exists()
    assert later(REST_S + 60) == 3
    assert not path.exists()


def test_a_folder_in_which_something_is_written_is_young(library, later):
    folder = library.root / "partial" / "quantize-x"
    folder.mkdir(parents=True)
    (folder / "made.gguf").write_bytes(b"12345")
    os.utime(folder, (0, 0))
    assert later(REST_S - 60) == 0
    assert later(REST_S + 60) == 5
    assert not folder.exists()


def test_a_linked_file_is_as_young_as_its_link(library, tmp_path):
    old = tmp_path / "old.gguf"
    old.write_bytes(b"123")
    os.utime(old, (0, 0))
    blob = Blobs(library.root).path(NAME.replace("-", ":", 1))
    os.link(old, blob)
    assert clean(library) == 0
    assert blob.exists()


def test_a_manifest_that_cannot_be_read_may_own_any_blob(library, later):
    orphan = put(library, "blobs", NAME)
    (library.root / "manifests/registry.ollama.ai/library/tiny/broken").write_text("{")
    assert later(10 * REST_S) == 0
    assert orphan.exists()


def test_foreign_files_among_the_blobs_are_not_ours_to_remove(library, later):
    path = put(library, "blobs", "notes.txt")
    assert later(10 * REST_S) == 0
    assert path.exists()


def test_where_there_is_no_store_there_is_nothing_to_do(tmp_path):
    assert clean(Library(tmp_path / "none")) == 0
    assert not (tmp_path / "none").exists()


def test_a_lock_that_was_removed_is_taken_anew(tmp_path):
    path = tmp_path / "x.lock"
    with locked(path):
        path.unlink()
        with locked(path, waits=False) as is_held:
            assert is_held
            with locked(path, waits=False) as is_held_too:
                assert not is_held_too


def test_nothing_goes_where_everything_is_kept(library, later):
    put(library, "partial", f"{NAME}.part")
    put(library, "blobs", NAME)
    keeping = Library(library.root, prunes=False)
    before = files(library)
    assert clean(keeping, lambda: 1e12) == 0
    assert files(library) == before
    assert later(PARTS_S + 60) > 0


def test_what_a_new_model_of_a_name_replaces_stays_where_everything_is_kept(library):
    keeping = Library(library.root, prunes=False)
    old = keeping.find("tiny")
    fresh = make_tiny(library.root / "fresh.gguf", seed=9)
    store_model(library.root, "fresh", fresh)
    new = library.find("fresh")
    assert not keeping.unused_after(old.name, new.manifest)
    keeping.add(old.name, new.manifest)
    assert old.model_paths[0].exists()
    keeping.delete(new.name)
    keeping.delete(old.name)
    assert not new.model_paths[0].exists()


def test_what_would_go_is_what_goes_and_looking_changes_nothing(library):
    for suffix in ("part", "journal", "lock"):
        put(library, "partial", f"{NAME}.{suffix}")
    put(library, "quarantine", "bad")
    orphan = put(library, "blobs", f"sha256-{'b' * 64}")
    before = files(library)
    moment = max(path.lstat().st_ctime for path in library.root.rglob("*")) + 7200
    waste = find_waste(library, clock=lambda: moment)
    assert files(library) == before
    assert {each.path for each in waste} >= {orphan, library.root / "quarantine" / "bad"}
    assert sum(each.n_bytes for each in waste) == clean(library, lambda: moment, ON_DEMAND)
    assert before - files(library) == {
        each.path.relative_to(library.root).as_posix() for each in waste
    }
    assert find_waste(library, clock=lambda: moment) == []


def test_who_asks_gets_nothing_that_is_being_made(library):
    lock = put(library, "partial", f"{NAME}.lock")
    put(library, "partial", f"{NAME}.part")
    put(library, "partial", "stream-young")
    put(library, "blobs", f"sha256-{'b' * 64}")
    newest = max(path.lstat().st_ctime for path in library.root.rglob("*"))
    with locked(lock):
        assert find_waste(library, clock=lambda: newest + 60) == []


def test_sums_go_with_their_blob(library, later):
    kept = next((library.root / "blobs").iterdir()).name
    put(library, "sums", kept)
    put(library, "sums", NAME)
    assert later(REST_S + 60) == 3
    assert f"sums/{kept}" in files(library)
