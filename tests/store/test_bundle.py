"""Models travel in one file, and a hostile file brings nothing in."""

import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localrun.errors import BadRequest, BrokenTransfer, Cancelled, LocalrunError, Unsupported
from localrun.gguf import open_model
from localrun.names import parse_name
from localrun.store.adopt.adopted import Adopted
from localrun.store.bundle import BadBundle, create_bundle, import_bundle
from localrun.store.library import Library, StoredModel
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny

Members = list[tuple[tarfile.TarInfo, bytes]]
Hostile = Callable[[Members], None]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    tiny = make_tiny(tmp_path / "t.gguf")
    store_model(tmp_path / "models", "one", tiny, system="Be kind.", license="MIT")
    store_model(tmp_path / "models", "hf.co/me/two:Q8_0", tiny)
    return Library(tmp_path / "models")


@pytest.fixture
def bundle(library: Library, tmp_path: Path) -> Path:
    path = tmp_path / "all.tar"
    create_bundle(library.list(), library, path, lambda *_: None, lambda: False)
    return path


@pytest.fixture
def other(tmp_path: Path) -> Library:
    return Library(tmp_path / "other")


def take(path: Path, library: Library, *, replaces: bool = False) -> list[StoredModel]:
    return import_bundle(path, library, lambda *_: None, lambda: False, replaces=replaces)


def test_all_arrives_to_the_byte(bundle: Path, library: Library, other: Library) -> None:
    assert len(take(bundle, other)) == 2
    before = {model.name: model.digest for model in library.list()}
    assert {model.name: model.digest for model in other.list()} == before
    assert other.find("one").system == "Be kind."
    blobs = [path.name for path in (library.root / "blobs").iterdir()]
    assert sorted(blobs) == sorted(path.name for path in (other.root / "blobs").iterdir())
    assert len(take(bundle, other)) == 2  # a second time nothing changes


def test_it_is_a_tar_file_with_each_blob_once(bundle: Path, library: Library) -> None:
    with tarfile.open(bundle) as archive:
        names = archive.getnames()
    assert names[:3] == ["bundle.json", "manifests/0", "manifests/1"]
    assert len(set(names)) == len(names) == 3 + len(list((library.root / "blobs").iterdir()))


def test_another_model_of_the_name_is_not_replaced_unasked(
    bundle: Path, other: Library, tmp_path: Path
) -> None:
    mine = store_model(other.root, "one", make_tiny(tmp_path / "n.gguf", seed=1))
    with pytest.raises(BadRequest, match="another model named one:latest"):
        take(bundle, other)
    assert other.find("one").digest == mine.digest
    take(bundle, other, replaces=True)
    assert other.find("one").digest != mine.digest


def test_a_file_that_is_there_is_kept(bundle: Path, library: Library) -> None:
    with pytest.raises(BadRequest, match="is there already"):
        create_bundle(library.list(), library, bundle, lambda *_: None, lambda: False)


def test_what_is_broken_off_leaves_nothing(library: Library, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        create_bundle(library.list(), library, tmp_path / "x.tar", lambda *_: None, lambda: True)
    assert not list(tmp_path.glob("*x.tar*"))


def test_an_adopted_model_has_no_hash_to_travel_with(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    make_tiny(tmp_path / "f" / "m.gguf")
    adopted = Adopted(tmp_path / "ours" / "adopted.json")
    adopted.adopt(tmp_path / "f")
    library = Library(tmp_path / "ours", foreign=adopted)
    with pytest.raises(Unsupported, match="is adopted"):
        create_bundle(library.list(), library, tmp_path / "x.tar", lambda *_: None, lambda: False)


# ── hostile ones ──────────────────────────────────────────────────────────────────────────────


def rewritten(bundle: Path, change: Hostile) -> Path:
    """The same bundle with its members changed."""
    with tarfile.open(bundle) as archive:
        members: Members = []
        for info in archive:
            file = archive.extractfile(info)
            members.append((info, file.read() if file else b""))
    change(members)
    path = bundle.with_name("hostile.tar")
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def add(name: str, content: bytes = b"x", **fields: object) -> Hostile:
    def change(members: Members) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for field, value in fields.items():
            setattr(info, field, value)
        members.append((info, content))

    return change


def set_index(body: object) -> Hostile:
    def change(members: Members) -> None:
        content = json.dumps(body).encode()
        members[0][0].size = len(content)
        members[0] = (members[0][0], content)

    return change


def falsify(members: Members) -> None:
    info, content = members[-1]
    members[-1] = (info, content[:-1] + bytes([content[-1] ^ 1]))


def shorten(members: Members) -> None:
    info, content = members[-1]
    info.size -= 1
    members[-1] = (info, content[:-1])


def rename(members: Members) -> None:
    index = json.loads(members[0][1])
    index["models"][0]["name"] = "../../../etc/x"
    set_index(index)(members)


def edit_manifest(members: Members) -> None:
    info, content = members[1]
    members[1] = (info, content.replace(b"vnd.ollama", b"vnd.ollamb"))


def drop_last(members: Members) -> None:
    del members[-1]


def reorder(members: Members) -> None:
    members[0], members[1] = members[1], members[0]


OTHER = hashlib.sha256(b"x").hexdigest()
LINK: dict[str, object] = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}


@pytest.mark.parametrize(
    "change",
    [
        add("../../etc/cron.d/x"),
        add("/etc/passwd"),
        add("blobs/../../x"),
        add(f"blobs/sha256-{OTHER}"),
        add(f"blobs/sha256-{OTHER}", b"", **LINK),
        add("link", b"", **LINK),
        add("hard", b"", type=tarfile.LNKTYPE, linkname="bundle.json"),
        add("folder", b"", type=tarfile.DIRTYPE),
        add("pipe", b"", type=tarfile.FIFOTYPE),
        add("x" * 200),
        add("extra.json"),
        shorten,
        drop_last,
        reorder,
        set_index([]),
        set_index({"version": 2, "models": ["a", "b"]}),
        set_index({"version": 1, "models": []}),
        set_index({"version": 1, "models": ["../../x", "b"]}),
        rename,
        edit_manifest,
        set_index({"version": 1, "models": ["a"] * 2000}),
    ],
)
def test_what_no_bundle_holds_is_refused(bundle: Path, other: Library, change: Hostile) -> None:
    with pytest.raises(BadBundle):
        take(rewritten(bundle, change), other)
    assert other.list() == []
    assert not (other.root / "manifests").exists()


def test_a_file_that_is_not_what_its_name_says_is_set_aside(bundle: Path, other: Library) -> None:
    with pytest.raises(BrokenTransfer, match="not what was promised"):
        take(rewritten(bundle, falsify), other)
    assert other.list() == []


def test_a_model_that_is_no_gguf_is_refused(tmp_path: Path, other: Library) -> None:
    library = Library(tmp_path / "models")
    model = store_model(library.root, "m", make_tiny(tmp_path / "t.gguf"))
    fake = library.blobs.put(b"no model at all")
    content = library.manifest_bytes(model.name).decode()
    size = str(model.manifest.layers[0].size)
    content = content.replace(model.model_digest, fake).replace(f":{size},", ":15,")
    content = content.replace(f":{size}}}", ":15}")
    (library.root / "manifests/registry.ollama.ai/library/m/latest").write_text(content)
    path = tmp_path / "m.tar"
    bad = library.get(parse_name("m"))
    create_bundle([bad], library, path, lambda *_: None, lambda: False)
    with pytest.raises(LocalrunError, match="GGUF"):
        take(path, other)
    assert other.list() == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(cut=st.integers(0, 1 << 20), flips=st.lists(st.integers(0, 5000), max_size=3))
def test_damage_anywhere_never_makes_another_model(
    bundle: Path, library: Library, other: Library, cut: int, flips: list[int]
) -> None:
    content = bytearray(bundle.read_bytes())
    del content[cut:]
    for place in flips:
        if place < len(content):
            content[place] ^= 0x55
    damaged = bundle.with_name("damaged.tar")
    damaged.write_bytes(content)
    with contextlib.suppress(LocalrunError):
        take(damaged, other, replaces=True)
    ids = {model.digest for model in library.list()}
    assert {model.digest for model in other.list()} <= ids
    for model in other.list():
        assert open_model(model.model_paths).n_params
