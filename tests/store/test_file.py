"""A file on this machine as a source."""

import os
from pathlib import Path

import pytest

from localrun.errors import Cancelled, SourceMissing
from localrun.store.blobs import Blobs
from localrun.store.sources.file import FileSource


def fetch(source: FileSource) -> list[str]:
    (group,) = source.offer().groups
    return [source.fetch(file, lambda *_: None, lambda: False) for file in group.files]


def test_a_file_is_linked_and_not_doubled(tmp_path: Path) -> None:
    source = tmp_path / "m.Q8_0.gguf"
    source.write_bytes(b"weights")
    blobs = Blobs(tmp_path / "store")
    (digest,) = fetch(FileSource(source, blobs))
    assert blobs.path(digest).stat().st_ino == source.stat().st_ino
    assert fetch(FileSource(source, blobs)) == [digest]
    assert list((tmp_path / "store").glob("partial/*")) == []


def test_a_link_of_the_users_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"weights")
    link = tmp_path / "m.gguf"
    link.symlink_to(tmp_path / "real")
    blobs = Blobs(tmp_path / "store")
    (digest,) = fetch(FileSource(link, blobs))
    assert not blobs.path(digest).is_symlink()
    assert blobs.path(digest).read_bytes() == b"weights"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_a_file_on_another_disk_is_copied(tmp_path: Path) -> None:
    source = Path(f"/dev/shm/localrun-{os.getpid()}.gguf")
    source.write_bytes(b"weights")
    try:
        if source.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("the same file system")
        blobs = Blobs(tmp_path / "store")
        (digest,) = fetch(FileSource(source, blobs))
        assert blobs.path(digest).read_bytes() == b"weights"
        assert blobs.path(digest).stat().st_nlink == 1
    finally:
        source.unlink()


def test_any_shard_brings_the_whole_model(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        (tmp_path / f"m-Q8_0-{n:05}-of-00003.gguf").write_bytes(bytes([n]))
    (tmp_path / "other-Q8_0.gguf").write_bytes(b"x")
    blobs = Blobs(tmp_path / "store")
    digests = fetch(FileSource(tmp_path / "m-Q8_0-00002-of-00003.gguf", blobs))
    assert [blobs.path(digest).read_bytes() for digest in digests] == [b"\1", b"\2", b"\3"]


def test_a_missing_shard_is_said(tmp_path: Path) -> None:
    (tmp_path / "m-00002-of-00003.gguf").write_bytes(b"x")
    (group,) = FileSource(tmp_path / "m-00002-of-00003.gguf", Blobs(tmp_path)).offer().groups
    assert "1 of 3 shards" in group.unusable


def test_what_is_no_file_or_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.bin").touch()
    for name, why in (("none.gguf", "there is no file"), ("m.bin", "is no .gguf file")):
        with pytest.raises(SourceMissing, match=why):
            FileSource(tmp_path / name, Blobs(tmp_path)).offer()


def test_taking_a_file_can_be_cancelled(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"x")
    source = FileSource(tmp_path / "m.gguf", Blobs(tmp_path / "store"))
    (group,) = source.offer().groups
    with pytest.raises(Cancelled):
        source.fetch(group.files[0], lambda *_: None, lambda: True)


def test_spans_of_a_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"0123456789")
    source = FileSource(tmp_path / "m.gguf", Blobs(tmp_path / "store"))
    read = source.reader(source.offer().groups[0].files[0])
    assert (read(3, 4), read(8, 9)) == (b"3456", b"89")
