"""LoRA adapters on a tiny model: they change what it computes, or are refused."""

from array import array
from pathlib import Path

import pytest

from localrun.errors import BadModelFile
from localrun.llama import Batch, Context, ContextSettings, Model
from tests.fakes.lora import make_adapter
from tests.fakes.tinygguf import make_tiny


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("adapter") / "tiny.gguf")


def scores(path: Path, *adapters: Path) -> list[float]:
    """The scores of the token after three others."""
    model = Model.load([str(path)])
    for adapter in adapters:
        model.adapt(str(adapter))
    context = Context(model, ContextSettings(64, 1, 16, 16, 1, 1))
    n_vocab = model.vocabulary.n_tokens
    batch = Batch(n_batch=16, n_outputs_max=1, n_seq_max=1, n_vocab=n_vocab, n_ctx=64)
    row = batch.add(0, 0, array("i", [5, 6, 7]), wants_logits=True)
    context.decode(batch)
    assert row is not None
    found = list(context.logits(row))
    context.close()
    model.close()
    return found


def test_an_adapter_changes_what_the_model_computes(path: Path, tmp_path: Path) -> None:
    plain = scores(path)
    bent = scores(path, make_adapter(tmp_path / "bent.gguf"))
    assert scores(path, make_adapter(tmp_path / "none.gguf", strength=0.0)) == pytest.approx(plain)
    assert bent != pytest.approx(plain)
    both = scores(path, tmp_path / "bent.gguf", make_adapter(tmp_path / "q.gguf", strength=2.0))
    assert both != pytest.approx(bent)


def test_an_adapter_of_another_model_is_refused(path: Path, tmp_path: Path) -> None:
    model = Model.load([str(path)])
    for adapter in (
        make_adapter(tmp_path / "wide.gguf", n_embd=128),
        make_adapter(tmp_path / "deep.gguf", tensor="blk.9.ffn_down"),
        path,
        tmp_path / "not there",
    ):
        with pytest.raises(BadModelFile, match="the adapter does not fit the model"):
            model.adapt(str(adapter))
    model.close()
