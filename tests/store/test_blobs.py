"""Blobs and the one place where a digest becomes a path."""

import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.config import child_environment
from localrun.errors import BadRequest, BrokenTransfer, Cancelled, DiskFull
from localrun.store.blobs import Blobs, Stream, take_stream, write_atomically

ROOT = Path(__file__).resolve().parents[2]
GOOD = "sha256:" + "ab" * 32
HOSTILE = st.one_of(
    st.text(max_size=80),
    st.text(max_size=80).map(lambda text: f"sha256:{text}"),
    st.sampled_from(
        ["sha256:../../etc/passwd", GOOD + "\n", GOOD.upper(), GOOD + "/..", "sha256:" + "a" * 63,
         "sha256:" + "٣" * 64, "sha512:" + "a" * 64, "sha256-" + "a" * 64, GOOD + "\0"]
    ),
)  # fmt: skip


@given(HOSTILE)
def test_only_a_digest_becomes_a_path_and_it_stays_inside(text: str) -> None:
    try:
        path = Blobs(Path("/store")).path(text)
    except BadRequest:
        return
    assert path.parent == Path("/store/blobs")
    assert len(path.name) == len("sha256-") + 64


def test_a_small_blob_is_stored_once_under_its_content(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    digest = blobs.put(b"content")
    assert blobs.put(b"content") == digest == f"sha256:{hashlib.sha256(b'content').hexdigest()}"
    assert blobs.has(digest, 7)
    assert not blobs.has(digest, 8)
    assert [path.read_bytes() for path in (tmp_path / "blobs").iterdir()] == [b"content"]
    blobs.remove(digest)
    blobs.remove(digest)
    assert not blobs.has(digest)


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file"
    write_atomically(target, b"one")
    write_atomically(target, b"two")
    assert target.read_bytes() == b"two"
    with pytest.raises(TypeError):
        write_atomically(target, "no bytes")  # type: ignore[arg-type]
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_room_is_refused_with_numbers_and_a_way_out(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, free=lambda _: 5 * 10**9)
    blobs.ensure_room(4 * 10**9)
    with pytest.raises(DiskFull, match=r"6\.00 GB are to be written and 5\.00 GB are free"):
        blobs.ensure_room(6 * 10**9)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_the_systems_word_for_no_room_is_ours(number: int, tmp_path: Path) -> None:
    with pytest.raises(DiskFull), Blobs(tmp_path).writing(1):
        raise OSError(number, "full")
    with pytest.raises(PermissionError), Blobs(tmp_path).writing(1):
        raise PermissionError(errno.EACCES, "no")


def test_a_write_that_the_disk_refuses_ends_as_disk_full(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from localrun.errors import DiskFull
from localrun.store.blobs import Blobs, Stream, take_stream
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
source = open("/dev/zero", "rb")
stream = Stream("zeros", source.read, 4 << 20, "", lambda _: None, lambda: False)
try:
    take_stream(Blobs(Path(sys.argv[1])), stream)
except DiskFull as error:
    print(error.code)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=child_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert ended.stdout == "disk_full\n"
    assert list(tmp_path.glob("partial/*")) == []


def stream(content: bytes, promised: bytes, *, is_cancelled: bool = False) -> Stream:
    pieces = [content[i : i + 3] for i in range(0, len(content), 3)]
    return Stream(
        name="it",
        read=lambda _: pieces.pop(0) if pieces else b"",
        size=len(promised),
        sha256=hashlib.sha256(promised).hexdigest(),
        report=lambda _: None,
        is_cancelled=lambda: is_cancelled,
    )


def test_a_stream_becomes_a_blob(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    assert blobs.path(take_stream(blobs, stream(b"content", b"content"))).read_bytes() == b"content"
    assert list(tmp_path.glob("partial/*")) == []


@pytest.mark.parametrize("content", [b"", b"cont", b"contenT", b"content and more and more"])
def test_a_stream_that_is_not_what_was_promised_is_set_aside(
    content: bytes, tmp_path: Path
) -> None:
    with pytest.raises(BrokenTransfer, match="not what was promised"):
        take_stream(Blobs(tmp_path), stream(content, b"content"))
    assert len(list(tmp_path.glob("quarantine/*"))) == 1
    assert list(tmp_path.glob("partial/*")) == []


def test_a_stream_can_be_cancelled(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        take_stream(Blobs(tmp_path), stream(b"content", b"content", is_cancelled=True))
    assert list(tmp_path.glob("*/*")) == []


def test_quarantine_keeps_every_file_that_was_set_aside(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    for content in ("a", "b", "c"):
        (tmp_path / "x.part").write_text(content)
        blobs.quarantine(tmp_path / "x.part")
    kept = sorted(path.read_text() for path in (tmp_path / "quarantine").iterdir())
    assert kept == ["a", "b", "c"]


def test_a_link_to_a_read_only_file_is_committed(tmp_path: Path) -> None:
    source = tmp_path / "partial" / "x"
    source.parent.mkdir()
    source.write_bytes(b"x")
    source.chmod(0o444)
    assert Blobs(tmp_path).commit(source, GOOD).read_bytes() == b"x"
    assert list(source.parent.iterdir()) == []
