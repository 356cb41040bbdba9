"""Texts are cut where that changes no token: on real tokenizers, whatever the text."""

from array import array
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localrun.llama import Vocabulary
from localrun.text.boundaries import cut, dividing_texts
from localrun.text.tokens import ModelText
from tests.fakes.tinygguf import make_tiny

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
SPECIAL = ("<|im_start|>", "<|im_end|>", "<s>", "</s>", "x<|im_start|>", "<|im_end|>\n", "  ")


@pytest.mark.parametrize(
    ("candidate", "others", "divides"),
    [
        ("<a>", {}, True),
        ("<a>", {"<b>": False}, True),
        ("<a>", {"x<a>": False}, False),
        ("<a>", {"x<": False}, True),
        ("<a>", {"xyz<": False}, False),
        ("<a>", {"<a>x": False}, True),
        ("<a>", {">": False}, True),
        ("<a>", {">xyz": False}, False),
        ("<a>", {"a": False}, True),
        ("aa", {}, False),
        ("aba", {}, False),
        (" <a>", {}, False),
        ("\n", {}, False),
        ("", {}, False),
    ],
)
def test_a_text_divides_unless_another_can_lie_across_its_start_or_reach_into_it(
    candidate: str, others: dict[str, bool], divides: bool
) -> None:
    found = dividing_texts((candidate,), {candidate: False, **others})
    assert found == ((candidate,) if divides else ())


def test_a_token_that_takes_the_whitespace_before_it_does_not_divide() -> None:
    assert dividing_texts(("<mask>",), {"<mask>": True}) == ()
    assert dividing_texts(("<unheard-of>",), {}) == ()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [""]),
        ("ab", ["ab"]),
        ("<a>b", ["<a>b"]),
        ("x<a>b<a><b>", ["x", "<a>b", "<a>", "<b>"]),
    ],
)
def test_each_part_begins_with_a_boundary(text: str, parts: list[str]) -> None:
    assert cut(text, ("<a>", "<b>")) == parts


def make_bpe(path: Path) -> Path:
    """A vocabulary of bytes and some merges, as GPT-2 has it, with overlapping special tokens."""
    letters = [chr(i) for i in range(33, 127)] + [chr(0x100 + i) for i in range(68)]
    letters += [chr(i) for i in (*range(161, 173), *range(174, 256))]
    merged = ["Ġa", "th", "Ġth", "Ġthe", "in", "<|", "ĊĊ"]
    merges = ["Ġ a", "t h", "Ġ th", "Ġth e", "i n", "< |", "Ċ Ċ"]
    tokens = [*letters, *merged, *SPECIAL]
    types = [NORMAL] * (len(letters) + len(merged)) + [CONTROL] * 4 + [USER_DEFINED] * 3
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("</s>"))
    writer.add_add_bos_token(True)
    for add, count in (
        (writer.add_context_length, 64),
        (writer.add_embedding_length, 64),
        (writer.add_block_count, 1),
        (writer.add_feed_forward_length, 64),
        (writer.add_head_count, 1),
        (writer.add_rope_dimension_count, 64),
    ):
        add(count)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def vocabulary(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Vocabulary]:
    path = tmp_path_factory.mktemp("vocabulary") / "tiny.gguf"
    make = make_bpe if request.param == "gpt2" else make_tiny
    loaded = Vocabulary.load([str(make(path))])
    assert loaded.meta("tokenizer.ggml.model") == request.param
    yield loaded
    loaded.close()


WORDS = [*SPECIAL, "<|", "|>", "<", " ", "\n", "the", " a", "in", "\u2581", "é", "天", "🙂", "\0"]
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), min_size=1, max_size=30)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(words=TEXTS)
def test_a_text_that_grows_has_the_tokens_that_it_has_as_a_whole(
    vocabulary: Vocabulary, words: list[str]
) -> None:
    model = ModelText(vocabulary, long_chars=1)
    for text in accumulate(words):
        # What a text begins with as BOS is not added again; the rule is tested elsewhere.
        bare = "x" + text
        assert model.prompt_tokens(bare) == vocabulary.tokenize(
            bare, add_special=True, parse_special=True
        )


def test_the_special_tokens_of_a_chat_divide_it(vocabulary: Vocabulary) -> None:
    whole = {text: strips for text, strips in vocabulary.whole_tokens().values() if text}
    found = dividing_texts(("<|im_start|>", "<|im_end|>", "</s>"), whole)
    # In the second vocabulary a longer one ends with the first, and one begins with the second.
    crossed = "x<|im_start|>" in whole
    assert found == ("<|im_start|>",) * (not crossed) + ("<|im_end|>", "</s>")


def test_tokens_that_no_letter_makes_are_found_by_their_kind(vocabulary: Vocabulary) -> None:
    texts = {text for text, _ in vocabulary.whole_tokens().values()}
    assert {"<s>", "</s>", "<|im_start|>", "<|im_end|>"} <= texts
    assert not {"a", "the", "Ġthe", "<0x0A>"} & texts


def test_an_array_of_a_prompt_is_the_callers_own(vocabulary: Vocabulary) -> None:
    model = ModelText(vocabulary)
    first = model.prompt_tokens("the")
    first.extend([1, 2])
    assert model.prompt_tokens("the") == array("i", first[:-2])
