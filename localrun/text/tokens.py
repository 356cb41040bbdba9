"""Vocabularies of the text worker: a few are kept, each gives tokens with the BOS rule of localrun.

The rule, for chats and raw prompts alike, is llama-server's: special tokens named in the text are
read as such, BOS (and EOS) is added where the model's file asks for it, and never twice: a BOS that
the text already begins with, as many templates write it, is taken as the added one.
"""

import re
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

from localrun.errors import BadRequest
from localrun.messages import Vocab
from localrun.text.boundaries import MAX_BOUNDARIES, cut, dividing_texts

MAX_VOCABULARIES = 4
MAX_CACHED_CHARS = 8 << 20

LONG_CHARS = 4096
"""A shorter text is tokenized in one piece; it takes some milliseconds at most."""

MAX_PIECE_BYTES = 8 << 20
"""A longer text without a break takes llama.cpp more memory than the worker may have."""

_SAMPLE_CHARS = 8192
_MAX_SPECIALS = 256
_MAX_PARTS = 16_384
_DIVISIBLE = ("gpt2", "gemma4", "llama")
"""Kinds of tokenizers of which `boundaries` is true and which add no more than BOS and EOS."""


_PLACES = re.compile(r"\{(query|document)\}")
RERANK_TEMPLATE = "tokenizer.chat_template.rerank"
"""Where a GGUF says how a pair of texts is put to a rerank model."""


class Tokenizer(Protocol):
    """What is used of `llama.Vocabulary`."""

    n_tokens: int
    bos: int
    eos: int
    add_bos: bool
    add_eos: bool

    @property
    def chat_template(self) -> str | None:
        """The Jinja template inside the GGUF."""
        ...

    def meta(self, key: str) -> str | None:
        """A metadata value of the GGUF."""
        ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> "array[int]":
        """Text to token ids."""
        ...

    def whole_tokens(self) -> dict[int, tuple[str, bool]]:
        """Tokens that are cut out of a text before the rest: text, takes whitespace before it."""
        ...

    def fill_tokens(self) -> tuple[int, int, int] | None:
        """The tokens before a prefix, a suffix and the middle."""
        ...

    def pair_frame(self) -> tuple[list[int], list[int], list[int]]:
        """The tokens before the first of two texts, between them, and after the second."""
        ...

    def piece(self, token: int, *, render_special: bool) -> bytes:
        """The bytes of one token."""
        ...

    def token_text(self, token: int) -> str:
        """The token as it stands in the vocabulary."""
        ...

    def check(self, token: int) -> None:
        """Raise BadRequest unless the id is of this vocabulary."""
        ...

    def close(self) -> None:
        """Free it."""
        ...


class Vocabularies:
    """The vocabularies in use, most recent last; the oldest is freed when there are too many.

    Args:
        load: Loads one from its files, blocking.
        limit: How many are kept.
    """

    def __init__(
        self, load: Callable[[Sequence[str]], Tokenizer], limit: int = MAX_VOCABULARIES
    ) -> None:
        self._load, self._limit = load, limit
        self._kept: OrderedDict[str, ModelText] = OrderedDict()

    def has(self, vocab: Vocab) -> bool:
        """Whether `get` needs no load."""
        return vocab.key in self._kept

    def get(self, vocab: Vocab) -> "ModelText":
        """The vocabulary of a model, loaded if it is not kept.

        Raises:
            BadModelFile: If llama.cpp refuses the file.
            EngineMissing: If llama.cpp cannot be loaded.
        """
        if (known := self._kept.get(vocab.key)) is not None:
            self._kept.move_to_end(vocab.key)
            return known
        while len(self._kept) >= self._limit:  # before the load, so that the peak is the limit
            self._kept.popitem(last=False)[1].close()
        loaded = self._kept[vocab.key] = ModelText(self._load(vocab.paths))
        return loaded


class ModelText:
    """Text to tokens and back for one model. Remembers the parts of the prompts it saw last.

    Args:
        tokenizer: Owned; `close` frees it.
        max_chars: Characters of all parts that it remembers.
        long_chars: Length from which a text is tokenized in parts.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_chars: int = MAX_CACHED_CHARS,
        long_chars: int = LONG_CHARS,
    ) -> None:
        self._tokenizer, self._max_chars, self._long_chars = tokenizer, max_chars, long_chars
        self._cache: OrderedDict[str, array[int]] = OrderedDict()
        self._n_cached_chars = 0
        self._judged: set[int] = set()
        self._specials: dict[str, int | None] = {}
        self._boundaries: tuple[str, ...] = ()
        self.bos_text = self._special_text(tokenizer.bos)
        self.eos_text = self._special_text(tokenizer.eos)
        self.chat_template = tokenizer.chat_template or None

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary itself, for what is done in its own room."""
        return self._tokenizer

    @property
    def bos(self) -> int | None:
        """The token that this model's prompts begin with, None if they begin with none."""
        tokenizer = self._tokenizer
        return tokenizer.bos if tokenizer.add_bos and tokenizer.bos >= 0 else None

    def special_token(self, text: str) -> int | None:
        """The special token that this text is, None if it is none or more than one."""
        if text not in self._specials:
            if len(self._specials) >= _MAX_SPECIALS:
                self._specials.clear()
            plain = self.tokenize(text, add_special=False, parse_special=False)
            special = self.tokenize(text, add_special=False)
            is_one = len(special) == 1 and special != plain
            self._specials[text] = special[0] if is_one else None
        return self._specials[text]

    def prompt_tokens(self, text: str) -> "array[int]":
        """The tokens of a prompt that stands alone, by the rule above.

        Parts of it that earlier prompts had are not tokenized again.
        """
        text = self._without_doubles(text)
        if not self._is_divisible:
            return self._part_tokens(text, add_special=True)
        tokens = array("i", () if self.bos is None else (self.bos,))
        for part in self._parts(text):
            tokens += self._part_tokens(part, add_special=False)
        if self._tokenizer.add_eos and self._tokenizer.eos >= 0:
            tokens.append(self._tokenizer.eos)
        return tokens

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> "array[int]":
        """The tokens of a text; BOS and EOS added where asked and wanted.

        Raises:
            BadRequest: If it is over 8 MiB.
        """
        if len(text) > MAX_PIECE_BYTES or len(text.encode("utf-8", "replace")) > MAX_PIECE_BYTES:
            raise BadRequest(
                f"a text of {len(text)} characters without a break is too long",
                hint=f"{MAX_PIECE_BYTES >> 20} MiB can be tokenized in one piece",
            )
        return self._tokenizer.tokenize(text, add_special=add_special, parse_special=parse_special)

    def pair_tokens(self, query: str, document: str) -> "array[int]":
        """The prompt with which a rerank model judges a document.

        Source: llama-server's `format_prompt_rerank`.
        """
        tokenizer = self._tokenizer
        if (template := tokenizer.meta(RERANK_TEMPLATE)) is not None:
            given = {"query": query, "document": document}
            text = _PLACES.sub(lambda place: given[place[1]], template)
            return tokenizer.tokenize(text, add_special=False, parse_special=True)
        before, between, after = (array("i", part) for part in tokenizer.pair_frame())
        texts = [
            tokenizer.tokenize(text, add_special=False, parse_special=False)
            for text in (query, document)
        ]
        return before + texts[0] + between + texts[1] + after

    def fill_tokens(self) -> tuple[int, int, int] | None:
        """The tokens before a prefix, a suffix and the middle, for a model that fills gaps."""
        return self._tokenizer.fill_tokens()

    def special_text(self, token: int) -> str:
        """A token as it stands in the vocabulary; empty for the id of none."""
        return self._special_text(token)

    def continued_tokens(self, context: "array[int]", text: str) -> "array[int]":
        """An earlier conversation's tokens and a text behind them, with one BOS in front.

        Raises:
            BadRequest: If a token is not of this vocabulary.
        """
        for token in context:
            self._tokenizer.check(token)
        front = array("i")
        if self.bos is not None and (not context or context[0] != self.bos):
            front.append(self.bos)
        if self.bos is not None and self.bos_text:
            text = text.removeprefix(self.bos_text)
        return front + context + self.tokenize(text, add_special=False)

    def detokenize(self, tokens: "array[int]", *, render_special: bool) -> str:
        """The text of tokens; bytes that are no UTF-8 become U+FFFD.

        Raises:
            BadRequest: If a token is not of this vocabulary.
        """
        piece = self._tokenizer.piece
        whole = b"".join(piece(token, render_special=render_special) for token in tokens)
        if self._adds_space():
            whole = whole.removeprefix(b" ")
        return whole.decode("utf-8", "replace")

    def close(self) -> None:
        """Free the vocabulary."""
        self._tokenizer.close()

    def _special_text(self, token: int) -> str:
        return self._tokenizer.token_text(token) if token >= 0 else ""

    def _without_doubles(self, text: str) -> str:
        """The text without the BOS and EOS that the tokenizer will add."""
        if self._tokenizer.add_bos and self.bos_text:
            text = text.removeprefix(self.bos_text)
        if self._tokenizer.add_eos and self.eos_text:
            text = text.removesuffix(self.eos_text)
        return text

    def _adds_space(self) -> bool:
        """Whether this tokenizer puts a space before a text, which is not part of it.

        Source: `llama_vocab::impl::load`, where SentencePiece alone defaults to it.
        """
        meta = self._tokenizer.meta
        default = "true" if meta("tokenizer.ggml.model") == "llama" else "false"
        return (meta("tokenizer.ggml.add_space_prefix") or default) == "true"

    @cached_property
    def _is_divisible(self) -> bool:
        return self._tokenizer.meta("tokenizer.ggml.model") in _DIVISIBLE

    @cached_property
    def _whole(self) -> dict[int, tuple[str, bool]]:
        return self._tokenizer.whole_tokens()

    def _parts(self, text: str) -> list[str]:
        if len(text) < self._long_chars:
            return [text]
        if not self._boundaries:
            for sample in (text[:_SAMPLE_CHARS], text[-_SAMPLE_CHARS:]):
                self._judge(self.tokenize(sample, add_special=False))
        parts = cut(text, self._boundaries)
        return parts if len(parts) <= _MAX_PARTS else [text]

    def _judge(self, tokens: "array[int]") -> None:
        """Learn which of the special tokens that a text has divide it."""
        new = (self._whole.keys() & set(tokens)) - self._judged
        if not new:
            return
        self._judged |= new
        often = sorted(new, key=tokens.count, reverse=True)
        found = dividing_texts((self._whole[token][0] for token in often), self._whole_texts)
        self._boundaries = (*self._boundaries, *found)[:MAX_BOUNDARIES]

    @cached_property
    def _whole_texts(self) -> dict[str, bool]:
        return {text: strips for text, strips in self._whole.values() if text}

    def _part_tokens(self, part: str, *, add_special: bool) -> "array[int]":
        if (known := self._cache.get(part)) is not None:
            self._cache.move_to_end(part)
            return known
        tokens = self.tokenize(part, add_special=add_special)
        if len(part) >= self._long_chars and self._is_divisible:
            self._judge(tokens)
        self._cache[part] = tokens
        self._n_cached_chars += len(part)
        while self._n_cached_chars > self._max_chars:
            self._n_cached_chars -= len(self._cache.popitem(last=False)[0])
        return tokens
