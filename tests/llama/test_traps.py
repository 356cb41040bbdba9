"""Mistakes that end the process when llama.cpp is called bare, and are errors when we call it.

Each trap is sprung twice, in children: bare, to show that it is one, and through `localrun.llama`,
where it must raise and leave the process able to decode.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.tinygguf import make_tiny

SETUP = """
import ctypes, sys
from array import array
from localrun import llama
from localrun.llama.library import native
from localrun.messages import Sampling
from localrun.llama import Batch, Context, ContextSettings, Model, Sampler

low = native().low
model = Model.load([sys.argv[1]])
settings = ContextSettings(
    n_cells=512, n_seq_max=2, n_batch=64, n_ubatch=64, n_outputs_max=2, n_threads=1)
context = Context(model, settings)
def batch_of(**more):
    sizes = dict(n_batch=64, n_outputs_max=2, n_seq_max=2, n_vocab=366, n_ctx=512)
    return Batch(**{**sizes, **more})
batch = batch_of()
row = batch.add(0, 0, array("i", [1, 2, 3]), wants_logits=True)
assert context.decode(batch) is llama.Decoded.DONE
sampler = Sampler(model, Sampling(), n_ctx=512, prompt=array("i", [1]))
memory = low.llama_get_memory(context.pointer)
vocab = model.vocabulary.pointer
def refuses(call, *kinds):
    try:
        call()
    except kinds:
        batch.clear()
        batch.add(1, context.n_past(1), array("i", [5]), wants_logits=True)
        assert context.decode(batch) is llama.Decoded.DONE
        print("refused")
"""


@dataclass(frozen=True)
class Trap:
    """A mistake: made on the bare library, and made through us (`kinds` are what we raise)."""

    name: str
    bare: str
    ours: str
    kinds: str = "ValueError"


TRAPS = [
    Trap(
        "fewer_output_rows_than_sequences",
        "p = low.llama_context_default_params(); p.n_ctx, p.n_seq_max, p.n_outputs_max = 512, 4, 2;"
        "low.llama_init_from_model(model.pointer, p)",
        "Context(model, ContextSettings(512, 4, 64, 64, 2, 1))",
        "Exception",
    ),
    Trap(
        "more_output_rows_than_reserved",
        "b = batch_of(n_outputs_max=9); [b.add(0, 3 + i, array('i', [4]), wants_logits=True)"
        " for i in range(6)]; low.llama_decode(context.pointer, b.struct)",
        "b = batch_of(n_outputs_max=9); [b.add(0, 3 + i, array('i', [4]), wants_logits=True)"
        " for i in range(6)]; context.decode(b)",
    ),
    Trap(
        "batch_longer_than_the_context_takes",
        "b = batch_of(n_batch=80); b.add(0, 3, array('i', [4] * 70), wants_logits=False);"
        "low.llama_decode(context.pointer, b.struct)",
        "b = batch_of(n_batch=80); b.add(0, 3, array('i', [4] * 70), wants_logits=False);"
        "context.decode(b)",
    ),
    Trap(
        "sampling_a_row_without_logits",
        "low.llama_sampler_sample(sampler._chain, context.pointer, 1)",
        "sampler.sample(context, 1)",
    ),
    Trap(
        "a_chain_that_selects_nothing",
        "c = low.llama_sampler_chain_init(low.llama_sampler_chain_default_params());"
        "low.llama_sampler_chain_add(c, low.llama_sampler_init_top_k(4));"
        "low.llama_sampler_sample(c, context.pointer, row)",
        "s = Sampler(model, Sampling(top_k=0, top_p=1.0), n_ctx=512, prompt=array('i'));"
        "assert 0 <= s.sample(context, row) < 366; raise ValueError",
    ),
    Trap(
        "piece_of_token_minus_one",
        "low.llama_token_to_piece(vocab, -1, ctypes.create_string_buffer(8), 8, 0, True)",
        "model.vocabulary.piece(-1, render_special=True)",
        "Exception",
    ),
    Trap(
        "piece_of_a_token_beyond_the_vocabulary",
        "low.llama_token_to_piece(vocab, 99999, ctypes.create_string_buffer(8), 8, 0, True)",
        "model.vocabulary.piece(99999, render_special=True)",
        "Exception",
    ),
    Trap(
        "sequence_id_of_256",
        "low.llama_memory_seq_rm(memory, 256, 0, -1)",
        "context.trim(256, 0)",
    ),
    Trap(
        "copy_to_sequence_id_of_256",
        "low.llama_memory_seq_cp(memory, 0, 256, 0, -1)",
        "context.share_prefix(0, 256, 2)",
    ),
]

SILENT = [
    ("sequence id between n_seq_max and 256", "context.trim(5, 0)"),
    ("the same in a batch", "batch.add(5, 0, array('i', [1]), wants_logits=False)"),
    ("sharing more than the source holds", "context.share_prefix(0, 1, 99)"),
    ("sharing with itself", "context.share_prefix(0, 0, 1)"),
    ("a token of minus one", "batch.add(0, 3, array('i', [-1]), wants_logits=False)"),
    ("a token beyond the vocabulary", "batch.add(0, 3, array('i', [366]), wants_logits=False)"),
    ("a position beyond the context", "batch.add(0, 512, array('i', [1]), wants_logits=False)"),
    ("a negative position", "batch.add(0, -1, array('i', [1]), wants_logits=False)"),
    ("a gap in the positions",
     "b = batch_of(); b.add(0, 9, array('i', [1]), wants_logits=False); context.decode(b)"),
    ("an empty batch", "context.decode(batch_of())"),
    ("logits of a row that has none", "context.logits(7)"),
    ("no threads", "context.set_threads(0)"),
    ("a negative length", "context.trim(0, -1)"),
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("traps") / "tiny.gguf")


def run(model: Path, body: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", SETUP + body, str(model)],
        capture_output=True,
        text=True,
        timeout=30,
        env={"GGML_NO_BACKTRACE": "1", "PATH": "/usr/bin:/bin"},
        check=False,
    )


@pytest.mark.parametrize("trap", TRAPS, ids=lambda t: t.name)
def test_bare_mistake_ends_the_process(model: Path, trap: Trap) -> None:
    done = run(model, f"{trap.bare}\nprint('survived')")
    assert done.returncode < 0, done.stdout + done.stderr
    assert "survived" not in done.stdout


@pytest.mark.parametrize("trap", TRAPS, ids=lambda t: t.name)
def test_checked_mistake_is_an_error_and_the_process_goes_on(model: Path, trap: Trap) -> None:
    done = run(model, f"def mistake():\n    {trap.ours}\nrefuses(mistake, {trap.kinds})")
    assert done.stdout == "refused\n", done.stderr
    assert done.returncode == 0


def test_mistakes_that_pass_silently_bare_are_errors(model: Path) -> None:
    body = "".join(
        f"def mistake():\n    {call}\nrefuses(mistake, ValueError)\n" for _, call in SILENT
    )
    done = run(model, body)
    assert done.stdout == "refused\n" * len(SILENT), done.stderr
