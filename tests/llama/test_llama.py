"""The checked calls on a tiny model: what they return when nothing is wrong."""

from array import array
from pathlib import Path
from types import SimpleNamespace

import pytest

from localrun.errors import BadModelFile, BadRequest, EngineMissing, InvalidOption
from localrun.llama import Batch, Context, ContextSettings, Decoded, Model, Vocabulary, describe
from localrun.llama.library import check_abi, native
from tests.fakes.tinygguf import make_tiny, shard_paths


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("llama") / "tiny.gguf", name="a tiny one")


def test_text_survives_tokens_and_back(path: Path) -> None:
    vocabulary = Vocabulary.load([str(path)])
    text = "the sky 为什么 <|im_end|>"
    tokens = vocabulary.tokenize(text, add_special=False, parse_special=True)
    pieces = b"".join(vocabulary.piece(t, render_special=True) for t in tokens)
    vocabulary.close()
    assert pieces.decode().strip() == text


def test_special_tokens_are_text_unless_asked_for(path: Path) -> None:
    vocabulary = Vocabulary.load([str(path)])
    named = vocabulary.tokenize("<|im_end|>", add_special=False, parse_special=True)
    spelled = vocabulary.tokenize("<|im_end|>", add_special=False, parse_special=False)
    assert len(named) < len(spelled)
    assert vocabulary.piece(named[-1], render_special=False) == b""
    vocabulary.close()


def test_lone_surrogates_become_replacement_characters(path: Path) -> None:
    vocabulary = Vocabulary.load([str(path)])
    assert len(vocabulary.tokenize("a\ud800b", add_special=False, parse_special=False)) > 0
    vocabulary.close()


def test_metadata_of_any_length_is_read(path: Path) -> None:
    vocabulary = Vocabulary.load([str(path)])
    assert vocabulary.meta("general.name") == "a tiny one"
    assert vocabulary.meta("general.nothing") is None
    assert (vocabulary.meta("tokenizer.chat_template") or "") == vocabulary.chat_template
    vocabulary.close()


def test_foreign_token_is_refused(path: Path) -> None:
    vocabulary = Vocabulary.load([str(path)])
    for token in (-1, vocabulary.n_tokens, 1 << 31):
        with pytest.raises(BadRequest, match="is not of this vocabulary"):
            vocabulary.is_end(token)
    vocabulary.close()


def test_shards_load_under_any_name(tmp_path: Path) -> None:
    first = make_tiny(tmp_path / "split.gguf", shards=3)
    blobs = []
    for index, shard in enumerate(shard_paths(first)):
        blobs.append(shard.rename(tmp_path / f"sha256-{index}"))
    model = Model.load([str(blob) for blob in blobs])
    assert model.n_layer == 2
    model.close()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"<html>not found</html>"])
def test_file_that_is_no_model_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(content)
    with pytest.raises(BadModelFile, match=r"llama\.cpp cannot load the model"):
        Model.load([str(bad)])


@pytest.mark.parametrize(
    "change",
    [
        {"n_cells": 0},
        {"n_seq_max": 257},
        {"n_ubatch": 128},
        {"n_outputs_max": 1},
        {"n_threads": 0},
        {"type_k": "q9_9"},
    ],
)
def test_context_sizes_out_of_range_are_refused(path: Path, change: dict[str, object]) -> None:
    sizes: dict[str, object] = {
        "n_cells": 256,
        "n_seq_max": 2,
        "n_batch": 64,
        "n_ubatch": 64,
        "n_outputs_max": 2,
        "n_threads": 1,
    }
    model = Model.load([str(path)])
    with pytest.raises(InvalidOption):
        Context(model, ContextSettings(**{**sizes, **change}))  # type: ignore[arg-type]
    model.close()


def test_pool_without_room_says_so_and_stays_as_it_was(path: Path) -> None:
    model = Model.load([str(path)])
    context = Context(model, ContextSettings(256, 2, 256, 256, 2, 1))
    batch = Batch(n_batch=256, n_outputs_max=2, n_seq_max=2, n_vocab=366, n_ctx=512)
    batch.add(0, 0, array("i", [1] * 200), wants_logits=False)
    assert context.decode(batch) is Decoded.DONE
    batch.clear()
    batch.add(1, 0, array("i", [1] * 100), wants_logits=False)
    assert context.decode(batch) is Decoded.NO_ROOM
    assert (context.n_past(0), context.n_past(1)) == (200, 0)
    context.close()
    model.close()


def test_abort_asked_before_a_call_stops_it(path: Path) -> None:
    model = Model.load([str(path)])
    context = Context(model, ContextSettings(512, 1, 256, 256, 1, 1))
    batch = Batch(n_batch=256, n_outputs_max=1, n_seq_max=1, n_vocab=366, n_ctx=512)
    batch.add(0, 0, array("i", [1] * 200), wants_logits=False)
    context.abort(wanted=True)
    assert context.decode(batch) is Decoded.ABORTED
    context.abort(wanted=False)
    context.trim(0, 0)
    assert context.decode(batch) is Decoded.DONE
    context.close()
    model.close()


def test_description_names_the_cpu() -> None:
    found = describe()
    assert found["llama_version"]
    assert any(device["type"] == "cpu" for device in found["devices"])


class OtherLibrary:
    """The loaded library, with one thing of another version."""

    def __init__(
        self, *, version: bytes | None = None, changed: dict[str, object] | None = None
    ) -> None:
        self._low, self._version, self._changed = native().low, version, changed or {}

    def llama_version(self) -> bytes:
        found: bytes = self._low.llama_version()
        return self._version or found

    def llama_model_default_params(self) -> object:
        return self._low.llama_model_default_params()

    def llama_context_default_params(self) -> object:
        params = self._low.llama_context_default_params()
        names = [name for name, _ in params._fields_]
        return SimpleNamespace(**{n: getattr(params, n) for n in names} | self._changed)


def test_matching_library_passes_the_self_test() -> None:
    check_abi(OtherLibrary())


def test_library_of_another_version_is_refused() -> None:
    with pytest.raises(EngineMissing, match=r"llama\.cpp 0\.9\.1 does not match"):
        check_abi(OtherLibrary(version=b"0.9.1"))


@pytest.mark.parametrize(
    "shifted", [{"offload_kqv": False}, {"type_k": 0}, {"defrag_thold": 0.0}, {"n_ctx": 2048}]
)
def test_library_with_shifted_fields_is_refused(shifted: dict[str, object]) -> None:
    with pytest.raises(EngineMissing, match="is not the binding's"):
        check_abi(OtherLibrary(changed=shifted))
