"""The rule of BOS, and which vocabularies are kept, on a tokenizer of letters."""

from array import array
from collections.abc import Sequence

import pytest

from localrun.errors import BadRequest
from localrun.messages import Vocab
from localrun.text.tokens import RERANK_TEMPLATE, ModelText, Vocabularies

BOS, EOS, START = 1, 2, 3
SPECIAL = {"<s>": BOS, "</s>": EOS, "<|im_start|>": START}


class Letters:
    """One token a letter (its code + 10), three special ones."""

    n_tokens = 10 + 0x110000

    def __init__(
        self, *, add_bos: bool = True, add_eos: bool = False, spaced: bool = False
    ) -> None:
        self.bos, self.eos = BOS, EOS
        self.add_bos, self.add_eos = add_bos, add_eos
        self.chat_template: str | None = None
        self.rerank_template: str | None = None
        self.spaced = spaced
        self.n_calls = self.n_chars = 0
        self.is_closed = False

    def meta(self, key: str) -> str | None:
        kind = "llama" if self.spaced else "gpt2"
        return {"tokenizer.ggml.model": kind, RERANK_TEMPLATE: self.rerank_template}.get(key)

    def whole_tokens(self) -> dict[int, tuple[str, bool]]:
        return {token: (text, False) for text, token in SPECIAL.items()}

    def fill_tokens(self) -> tuple[int, int, int] | None:
        return None

    def pair_frame(self) -> tuple[list[int], list[int], list[int]]:
        return [BOS], [EOS, EOS], [EOS]

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> "array[int]":
        self.n_calls += 1
        self.n_chars += len(text)
        found = array("i", [BOS] if add_special and self.add_bos else [])
        while text:
            name = next((s for s in SPECIAL if text.startswith(s)), "") if parse_special else ""
            found.append(SPECIAL[name] if name else ord(text[0]) + 10)
            text = text[len(name) or 1 :]
        if add_special and self.add_eos:
            found.append(EOS)
        return found

    def piece(self, token: int, *, render_special: bool) -> bytes:
        self.check(token)
        if token < 10:
            names = {number: name for name, number in SPECIAL.items()}
            return names[token].encode() if render_special else b""
        return chr(token - 10).encode("utf-8", "surrogateescape")

    def token_text(self, token: int) -> str:
        return self.piece(token, render_special=True).decode()

    def check(self, token: int) -> None:
        if not 0 <= token < self.n_tokens:
            raise BadRequest(f"token {token} is not of this vocabulary")

    def close(self) -> None:
        self.is_closed = True


def letters(text: str) -> list[int]:
    return [ord(letter) + 10 for letter in text]


@pytest.mark.parametrize(
    ("add_bos", "add_eos", "text", "expected"),
    [
        (True, False, "hi", [BOS, *letters("hi")]),
        (True, False, "<s>hi", [BOS, *letters("hi")]),
        (True, False, "<s><s>hi", [BOS, BOS, *letters("hi")]),
        (True, False, " <s>hi", [BOS, *letters(" "), BOS, *letters("hi")]),
        (False, False, "hi", letters("hi")),
        (False, False, "<s>hi", [BOS, *letters("hi")]),
        (True, True, "<s>hi</s>", [BOS, *letters("hi"), EOS]),
        (True, False, "<|im_start|>x</s>", [BOS, START, *letters("x"), EOS]),
        (True, False, "", [BOS]),
    ],
)
def test_bos_is_added_where_the_model_wants_it_and_never_twice(
    add_bos: bool, add_eos: bool, text: str, expected: list[int]
) -> None:
    model = ModelText(Letters(add_bos=add_bos, add_eos=add_eos))
    assert model.prompt_tokens(text).tolist() == expected


@pytest.mark.parametrize(
    ("add_bos", "context", "expected"),
    [
        (True, [], [BOS, *letters("x")]),
        (True, letters("ab"), [BOS, *letters("abx")]),
        (True, [BOS, *letters("ab")], [BOS, *letters("abx")]),
        (False, letters("ab"), letters("abx")),
    ],
)
def test_an_earlier_conversation_stands_in_front_with_one_bos(
    add_bos: bool, context: list[int], expected: list[int]
) -> None:
    model = ModelText(Letters(add_bos=add_bos))
    text = "<s>x" if add_bos else "x"
    assert model.continued_tokens(array("i", context), text).tolist() == expected


@pytest.mark.parametrize("token", [-1, Letters.n_tokens])
def test_a_foreign_token_in_a_context_is_refused_before_the_engine_sees_it(token: int) -> None:
    model = ModelText(Letters())
    with pytest.raises(BadRequest, match=f"token {token} is not of this vocabulary"):
        model.continued_tokens(array("i", [token]), "x")
    with pytest.raises(BadRequest, match=f"token {token} is not of this vocabulary"):
        model.detokenize(array("i", [token]), render_special=True)


@pytest.mark.parametrize(
    ("spaced", "render_special", "text"),
    [(False, False, " a b"), (False, True, " a b<|im_start|>"), (True, False, "a b")],
)
def test_text_comes_back_without_the_space_that_the_tokenizer_put_before_it(
    spaced: bool, render_special: bool, text: str
) -> None:
    model = ModelText(Letters(spaced=spaced))
    found = model.detokenize(array("i", [*letters(" a b"), START]), render_special=render_special)
    assert found == text


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    model = ModelText(Letters())
    assert model.detokenize(array("i", [0xDC80 + 10]), render_special=False) == "\ufffd"


def test_a_special_token_is_told_from_words() -> None:
    model = ModelText(Letters())
    assert model.special_token("<|im_start|>") == START
    assert model.special_token("<|start|>") is None
    assert model.special_token("x") is None


def test_a_prompt_that_comes_again_is_not_tokenized_again() -> None:
    tokenizer = Letters()
    model = ModelText(tokenizer, max_chars=2)
    for text in ("a", "b", "a", "c", "a"):
        assert model.prompt_tokens(text).tolist() == [BOS, *letters(text)]
    assert tokenizer.n_calls == 3
    model.prompt_tokens("b")
    assert tokenizer.n_calls == 4


def test_a_prompt_longer_than_the_cache_is_not_kept() -> None:
    tokenizer = Letters()
    model = ModelText(tokenizer, max_chars=10)
    for _ in range(2):
        model.prompt_tokens("x" * 11)
    assert tokenizer.n_calls == 2


def test_of_a_long_history_that_grows_only_the_new_turn_is_tokenized() -> None:
    tokenizer = Letters()
    model = ModelText(tokenizer)
    history = "".join(f"<|im_start|>{number} {'x' * 1000}</s>" for number in range(20))
    model.prompt_tokens(history)
    before = tokenizer.n_chars
    grown = history + "<|im_start|>new</s>"
    assert model.prompt_tokens(grown) == Letters().tokenize(
        grown.removesuffix("</s>") + "</s>", add_special=True, parse_special=True
    )
    assert tokenizer.n_chars - before < 1100


def test_a_text_of_special_tokens_alone_is_not_cut_into_a_million_parts() -> None:
    tokenizer = Letters()
    assert len(ModelText(tokenizer).prompt_tokens("<|im_start|>" * 17_000)) == 17_001
    assert tokenizer.n_calls < 10


def test_the_vocabulary_that_was_not_used_for_longest_is_freed() -> None:
    loaded: dict[str, Letters] = {}

    def load(paths: Sequence[str]) -> Letters:
        return loaded.setdefault(paths[0], Letters())

    kept = Vocabularies(load, limit=2)
    one, two, three = (Vocab(key, (key,)) for key in "123")
    first = kept.get(one)
    kept.get(two)
    assert kept.get(one) is first
    kept.get(three)
    assert [key for key, tokenizer in loaded.items() if tokenizer.is_closed] == ["2"]


def test_a_pair_of_texts_stands_in_the_vocabularys_frame() -> None:
    model = ModelText(Letters())
    expected = [BOS, *letters("q"), EOS, EOS, *letters("d<s>"), EOS]
    assert model.pair_tokens("q", "d<s>").tolist() == expected


def test_a_rerank_template_takes_both_texts_as_they_are() -> None:
    vocabulary = Letters()
    vocabulary.rerank_template = "{query}|{document}"
    tokens = ModelText(vocabulary).pair_tokens("a{document}", "b")
    assert tokens.tolist() == letters("a{document}|b")
