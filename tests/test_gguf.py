"""The header reader: what it takes, what it refuses, and how quickly."""

import struct
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localrun.errors import BadModelFile
from localrun.gguf import Header, join_headers, open_header, open_model, read_header
from localrun.modelinfo import spread_weights
from tests.fakes.tinygguf import CHATML, N_VOCAB, make_phantom, make_tiny, shard_paths


@cache
def tiny_bytes() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return make_tiny(Path(folder) / "tiny.gguf", n_layer=1).read_bytes()


def read(content: bytes, **options: bool) -> Header:
    return read_header(lambda at, size: content[at : at + size], len(content), **options)


def header_of(pairs: bytes, n_pairs: int, tensors: bytes = b"", n_tensors: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_pairs) + pairs + tensors + bytes(64)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dims + struct.pack("<IQ", kind, offset)


def test_a_tiny_model_is_read_whole(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", arch="qwen3", n_ctx=4096, quantization="Q8_0")
    header = open_header(path)
    info = header.info
    assert header.file_bytes == path.stat().st_size
    assert (info.architecture, info.name, info.kind, info.file_type) == (
        "qwen3",
        "tiny",
        "model",
        "Q8_0",
    )
    assert (info.n_layer, info.n_ctx_train, info.n_embd, info.n_vocab) == (2, 4096, 64, N_VOCAB)
    assert (info.n_head, info.n_head_kv, info.head_dim_k) == ((4, 4), (2, 2), 16)
    assert (info.bos_token, info.eos_token, info.add_bos) == (1, 2, True)
    assert info.chat_template == CHATML
    assert info.weights_bytes == sum(t.n_bytes for t in header.tensors)
    assert info.weights_bytes == sum(info.layer_bytes) + info.input_bytes + info.output_bytes
    assert not info.is_tied


def test_arrays_of_the_tokenizer_are_skipped_unless_wanted() -> None:
    lean, full = read(tiny_bytes()), read(tiny_bytes(), keep_arrays=True)
    assert lean.metadata["tokenizer.ggml.tokens"] is None
    assert lean.array_lengths["tokenizer.ggml.tokens"] == N_VOCAB
    tokens = full.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    assert tokens[:3] == ["<unk>", "<s>", "</s>"]
    assert len(tokens) == N_VOCAB
    assert lean.info == full.info


def test_the_facts_of_a_well_known_model_are_the_true_ones(tmp_path: Path) -> None:
    info = open_header(make_phantom(tmp_path / "p.gguf", "llama3.1-8b")).info
    assert info.n_params == 8_030_261_248
    assert info.file_type == "Q4_K_M"
    assert (info.n_layer, info.n_ctx_train, info.n_vocab) == (32, 131072, 128256)


def test_shards_are_joined_in_order_only(tmp_path: Path) -> None:
    whole = open_header(make_tiny(tmp_path / "tiny.gguf")).info
    paths = shard_paths(make_tiny(tmp_path / "split.gguf", shards=3))
    headers = [open_header(path) for path in paths]
    assert [h.info.kind for h in headers] == ["model", "shard", "shard"]
    joined = open_model(paths)
    assert joined.weights_bytes == whole.weights_bytes
    assert joined.layer_bytes == whole.layer_bytes
    assert joined.n_params == whole.n_params
    with pytest.raises(BadModelFile, match="3 shards and 2 are here"):
        join_headers(headers[:2])
    with pytest.raises(BadModelFile, match="shard 2 of 3 calls itself 3 of 3"):
        join_headers([headers[0], headers[2], headers[1]])
    with pytest.raises(BadModelFile, match="calls itself"):
        join_headers([headers[0], headers[1], headers[1]])


def test_a_first_shard_stands_for_the_whole_when_its_size_is_known(tmp_path: Path) -> None:
    first = open_header(make_tiny(tmp_path / "split.gguf", shards=3)).info
    whole = spread_weights(first, 10_000_001)
    assert whole.weights_bytes == 10_000_001
    assert sum(whole.layer_bytes) + whole.input_bytes + whole.output_bytes == 10_000_001


def test_shards_of_two_models_do_not_pass_for_one(tmp_path: Path) -> None:
    small = shard_paths(make_tiny(tmp_path / "small.gguf", shards=2))
    large = shard_paths(make_tiny(tmp_path / "large.gguf", shards=2, n_layer=3))
    with pytest.raises(BadModelFile, match="tensors where"):
        open_model([small[0], large[1]])


def test_one_file_is_a_whole_model(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf")
    assert open_model([path]) == open_header(path).info


FOREIGN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "web page": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "a web page"),
    "web page after a blank": (b"\n  <html lang='en'><head></head></html>", "a web page"),
    "XML error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML text"),
    "LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "Git LFS pointer",
    ),
    "GGML": (b"tjgg" + bytes(60), "from before August 2023"),
    "zip": (b"PK\x03\x04" + bytes(60), "zip or PyTorch"),
    "safetensors": (struct.pack("<Q", 50) + b'{"a":1}' + bytes(40), "safetensors"),
    "JSON": (b'{"error":"Repository not found","status":404}', "JSON"),
    "noise": (b"\x00\x01\x02\x03" * 20, "does not begin with GGUF"),
    "few bytes": (b"GGU", "cut short: 21 of at least 24"),
    "preamble only": (b"GGUF\x03\x00\x00\x00", "cut short: 16 of at least 24"),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1, from 2023"),
    "version 9": (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9; this localrun reads"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_file_that_is_no_gguf_is_called_what_it_is(what: str) -> None:
    content, sentence = FOREIGN[what]
    with pytest.raises(BadModelFile, match=sentence):
        read(content)


DAMAGED: dict[str, tuple[bytes, str]] = {
    "counts": (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1), "tensors and"),
    "long text": (header_of(struct.pack("<Q", 1 << 62), 1), "a text of"),
    "no key": (header_of(pair("", 4, bytes(4)), 1), "is empty"),
    "key twice": (header_of(pair("a", 4, bytes(4)) * 2, 2), "comes twice"),
    "value type": (header_of(pair("a", 77, bytes(4)), 1), "value type 77"),
    "array type": (header_of(pair("a", 9, struct.pack("<IQ", 9, 1)), 1), "array type 9"),
    "array length": (header_of(pair("a", 9, struct.pack("<IQ", 4, 1 << 40)), 1), "values"),
    "texts": (header_of(pair("a", 9, struct.pack("<IQ", 8, 1 << 40)), 1), "texts"),
    "alignment": (
        header_of(pair("general.alignment", 4, struct.pack("<I", 7)), 1),
        "alignment of 7",
    ),
    "no alignment": (header_of(pair("general.alignment", 4, bytes(4)), 1), "alignment of 0"),
    "dimensions": (header_of(b"", 0, tensor("t", (1,) * 5), 1), "5 dimensions"),
    "no element": (header_of(b"", 0, tensor("t", (4, 0)), 1), "the shape"),
    "overflow": (header_of(b"", 0, tensor("t", (1 << 40, 1 << 40)), 1), "the shape"),
    "unknown type": (header_of(b"", 0, tensor("t", (32,), 99), 1), "number format 99"),
    "removed type": (header_of(b"", 0, tensor("t", (32,), 31), 1), "Q4_0_4_4, a format that"),
    "part of a block": (header_of(b"", 0, tensor("t", (33,), 2), 1), "not whole Q4_0 blocks"),
    "span": (header_of(b"", 0, tensor("t", (1 << 20,)), 1), "cut short"),
    "offset": (header_of(b"", 0, tensor("t", (1,), 0, 64), 1), "lies at 64, not at 0"),
    "tensor twice": (
        header_of(b"", 0, tensor("t", (8,)) + tensor("t", (8,), 0, 32), 2),
        "two tensors are called",
    ),
    "no count": (
        header_of(
            pair("general.architecture", 8, text("x")) + pair("x.block_count", 8, text("many")), 2
        ),
        "block_count is 'many'",
    ),
    "layers": (
        header_of(
            pair("general.architecture", 8, text("x"))
            + pair("x.block_count", 4, struct.pack("<I", 1 << 30)),
            2,
        ),
        "no model has so many",
    ),
    "short layer array": (
        header_of(
            pair("general.architecture", 8, text("x"))
            + pair("x.block_count", 4, struct.pack("<I", 2))
            + pair("x.attention.head_count", 9, struct.pack("<IQI", 4, 1, 8)),
            3,
        ),
        "1 values for 2 layers",
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_header_is_refused_with_its_damage(what: str) -> None:
    content, sentence = DAMAGED[what]
    with pytest.raises(BadModelFile, match=sentence):
        read(content)


@pytest.mark.parametrize("missing", [1, 1000, 200_000])
def test_a_truncated_file_says_how_many_bytes_are_missing(missing: int) -> None:
    content = tiny_bytes()[:-missing]
    with pytest.raises(BadModelFile, match="cut short"):
        read(content)


def test_the_exact_number_of_missing_bytes_is_named() -> None:
    with pytest.raises(BadModelFile, match="1,234 of at least"):
        read(tiny_bytes()[:-1234])


def test_a_header_needs_only_the_start_of_a_remote_file() -> None:
    content, reads = tiny_bytes(), list[tuple[int, int]]()

    def ranged(at: int, size: int) -> bytes:
        reads.append((at, size))
        return content[at : at + min(size, 4096)]

    length = len(content) + (5 << 30)  # a file of 5 GiB, of which only the start is looked at
    header = read_header(ranged, length)
    assert header.info == read(content).info
    assert sum(min(size, 4096) for _, size in reads) < 400_000


def test_a_source_that_ends_early_is_cut_short() -> None:
    content = tiny_bytes()
    with pytest.raises(BadModelFile, match="cut short"):
        read_header(lambda at, size: content[at : min(at + size, 500)], len(content))


def test_texts_may_end_beyond_what_has_been_read() -> None:
    long = "x" * (3 << 20)
    tokens = struct.pack("<IQ", 8, 2) + text("a") + text(long)
    content = header_of(pair("tokenizer.ggml.tokens", 9, tokens) + pair("z", 8, text("end")), 2)
    assert read(content).metadata["z"] == "end"


def test_a_header_beyond_reason_is_not_read() -> None:
    content = header_of(pair("a", 9, struct.pack("<IQ", 10, 100 << 20)), 1)
    with pytest.raises(BadModelFile, match="a header of more than 256 MiB"):
        read_header(lambda at, size: content[at : at + size], 1 << 40)


def test_unknown_file_types_and_keys_do_no_harm() -> None:
    unknown = (
        pair("general.architecture", 8, text("brandnew"))
        + pair("general.file_type", 4, struct.pack("<I", 77))
        + pair("brandnew.shape", 6, struct.pack("<f", 1.5))
    )
    header = read(header_of(unknown, 3, tensor("t", (256,), 12), 1) + bytes(200))
    assert header.info.file_type == "Q4_K"
    assert header.metadata["brandnew.shape"] == 1.5


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        ({"general.architecture": "clip"}, "mmproj"),
        ({"general.type": "adapter"}, "adapter"),
        ({"adapter.type": "lora"}, "adapter"),
        ({"general.type": "imatrix"}, "imatrix"),
        ({}, "model"),
    ],
)
def test_files_that_are_no_models_are_told_apart(extra: dict[str, str], kind: str) -> None:
    pairs = b"".join(pair(key, 8, text(value)) for key, value in extra.items())
    assert read(header_of(pairs, len(extra), tensor("t", (8,)), 1)).info.kind == kind


def test_a_large_vocabulary_is_stepped_over_quickly() -> None:
    n = 150_000
    tokens = b"".join(text(f"token{i}") for i in range(n))
    content = header_of(pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, n) + tokens), 1)
    start = time.perf_counter()
    assert read(content).info.n_vocab == n
    assert time.perf_counter() - start < 0.5  # 30 ms on a quiet machine


def mutations() -> st.SearchStrategy[list[tuple[int, int]]]:
    # Most of the header of the tiny model lies in its first 9,000 bytes.
    return st.lists(st.tuples(st.integers(0, 11_000), st.integers(0, 255)), min_size=1, max_size=8)


def outcome(act: Callable[[], Header]) -> Header | None:
    try:
        return act()
    except BadModelFile:
        return None


@settings(max_examples=150, deadline=2000)
@given(mutations())
def test_a_mutated_header_is_read_or_refused_and_spans_stay_inside(
    changes: list[tuple[int, int]],
) -> None:
    content = bytearray(tiny_bytes())
    for at, value in changes:
        content[at] = value
    header = outcome(lambda: read(bytes(content)))
    if header is not None:
        assert all(
            header.data_offset + t.offset + t.n_bytes <= len(content) for t in header.tensors
        )


@settings(max_examples=100, deadline=2000)
@given(st.binary(max_size=300))
def test_noise_after_the_magic_is_read_or_refused(noise: bytes) -> None:
    outcome(lambda: read(b"GGUF\x03\x00\x00\x00" + noise))
