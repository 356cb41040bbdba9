"""Vocabularies of the text worker: a few are kept, each gives tokens with the BOS rule of localrun.

The rule, for chats and raw prompts alike, is llama-server's: special tokens named in the text are
read as such, BOS (and EOS) is added where the model's file asks for it, and never twice: a BOS that
the text already begins with, as many templates write it, is taken as the added one.
"""

from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from localrun.messages import Vocab

MAX_VOCABULARIES = 4
MAX_CACHED_PROMPTS = 16
MAX_CACHED_CHARS = 4 << 20


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
    """Text to tokens and back for one model, with the prompts it saw last.

    Args:
        tokenizer: Owned; `close` frees it.
        max_prompts: Prompts it remembers.
        max_chars: Characters of all of them together.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_prompts: int = MAX_CACHED_PROMPTS,
        max_chars: int = MAX_CACHED_CHARS,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_prompts, self._max_chars = max_prompts, max_chars
        self._cache: OrderedDict[str, array[int]] = OrderedDict()
        self._n_cached_chars = 0
        self.bos_text = self._special_text(tokenizer.bos)
        self.eos_text = self._special_text(tokenizer.eos)
        self.chat_template = tokenizer.chat_template or None

    @property
    def bos(self) -> int | None:
        """The token that this model's prompts begin with, None if they begin with none."""
        tokenizer = self._tokenizer
        return tokenizer.bos if tokenizer.add_bos and tokenizer.bos >= 0 else None

    def knows_special(self, text: str) -> bool:
        """Whether this text is one special token."""
        plain = self._tokenizer.tokenize(text, add_special=False, parse_special=False)
        special = self._tokenizer.tokenize(text, add_special=False, parse_special=True)
        return len(special) == 1 and special != plain

    def prompt_tokens(self, text: str) -> "array[int]":
        """The tokens of a prompt that stands alone, by the rule above. Do not change the array."""
        if (known := self._cache.get(text)) is not None:
            self._cache.move_to_end(text)
            return known
        tokens = self.tokenize(self._without_doubles(text), add_special=True)
        self._keep(text, tokens)
        return tokens

    def tokenize(self, text: str, *, add_special: bool) -> "array[int]":
        """The tokens of a text, special ones read; BOS and EOS added where asked and wanted."""
        return self._tokenizer.tokenize(text, add_special=add_special, parse_special=True)

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

    def _keep(self, text: str, tokens: "array[int]") -> None:
        self._cache[text] = tokens
        self._n_cached_chars += len(text)
        while len(self._cache) > self._max_prompts or self._n_cached_chars > self._max_chars:
            self._n_cached_chars -= len(self._cache.popitem(last=False)[0])
