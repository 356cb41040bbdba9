"""Compressed bodies: what is read, and what is refused before it fills the memory."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from localrun.errors import LocalrunError
from localrun.server.codings import BadCoding, BodyTooLarge, UnknownCoding, decode_body

MIB = 1 << 20
TEXT = b'{"model":"tiny"}' * 9


def raw_deflate(body):
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstd.compress,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "identity": bytes,
    "": bytes,
    " , ": bytes,
}


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("body", [b"", TEXT, bytes(MIB)])
def test_each_coding_is_unpacked(name, body):
    assert decode_body(PACKERS[name](body), name, MIB) == body


def test_codings_are_undone_in_reverse():
    assert decode_body(gzip.compress(zstd.compress(TEXT)), "zstd, GZIP", MIB) == TEXT


@pytest.mark.parametrize("name", ["zstd", "gzip"])
def test_a_body_may_have_several_frames(name):
    assert decode_body(PACKERS[name](TEXT) + PACKERS[name](b"more"), name, MIB) == TEXT + b"more"


@pytest.mark.parametrize("name", ["zstd", "gzip", "deflate", "Deflate"])
def test_a_bomb_is_refused_before_it_goes_off(name):
    bomb = PACKERS[name](bytes(16 * MIB))
    tracemalloc.start()
    with pytest.raises(BodyTooLarge, match="larger than 1 MiB"):
        decode_body(bomb, name, MIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MIB


def test_a_bomb_in_a_bomb_is_refused():
    bomb = zstd.compress(zstd.compress(bytes(16 * MIB)))
    with pytest.raises(BodyTooLarge):
        decode_body(bomb, "zstd, zstd", MIB)


@pytest.mark.parametrize("name", ["zstd", "gzip", "deflate", "Deflate"])
def test_a_body_that_is_cut_or_foreign_is_refused(name):
    packed = PACKERS[name](TEXT)
    for damaged in (packed[:-5], b"\xff" * 20, b""):
        with pytest.raises(BadCoding, match=f"failed to decompress {name.lower()} body"):
            decode_body(damaged, name, MIB)


def test_a_million_empty_frames_are_refused():
    with pytest.raises(BadCoding, match="failed to decompress"):
        decode_body(zstd.compress(b"") * 5000, "zstd", MIB)


def test_a_window_beyond_reason_is_not_allocated():
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    packed = packer.compress(TEXT) + packer.flush()
    with pytest.raises(BadCoding):
        decode_body(packed, "zstd", MIB)


@pytest.mark.parametrize("name", ["br", "compress", "zstd, br", "zstd," * 5])
def test_a_coding_that_is_not_known_is_refused(name):
    with pytest.raises(UnknownCoding) as refusal:
        decode_body(b"", name, MIB)
    assert (refusal.value.status, "zstd, gzip, deflate" in refusal.value.hint) == (415, True)


@given(st.sampled_from(["zstd", "gzip", "deflate"]), st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_are_read_or_refused(name, body, at):
    assert decode_body(PACKERS[name](body), name, MIB) == body
    packed = bytearray(PACKERS[name](body))
    packed[at % len(packed)] ^= 0x55
    try:
        found = decode_body(bytes(packed), name, MIB)
    except LocalrunError:
        return
    assert len(found) <= MIB
