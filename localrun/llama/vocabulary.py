"""A model's vocabulary: text to tokens and back."""

import ctypes
from array import array
from collections.abc import Sequence
from itertools import repeat
from typing import Any

from localrun.errors import BadModelFile, BadRequest
from localrun.llama.library import native

_PIECE_BYTES = 256
_UNKNOWN, _CONTROL, _USER_DEFINED, _STRIPS_LEFT = 1 << 0, 1 << 3, 1 << 4, 1 << 7
MAX_TEXT_BYTES = 64 << 20


def load_from(paths: Sequence[str], params: Any) -> Any:
    """Open a GGUF file, or all shards in order, with these model parameters.

    Raises:
        BadModelFile: If llama.cpp refuses the file; the sentence carries its own reason.
    """
    engine = native()
    if not 1 <= len(paths) <= 999:
        raise BadModelFile(f"a model has 1 to 999 files, not {len(paths)}")
    engine.log.errors = []
    encoded = [path.encode() for path in paths]
    if len(encoded) == 1:
        pointer = engine.low.llama_model_load_from_file(encoded[0], params)
    else:
        # By name llama.cpp finds only siblings called -00001-of-0000N; blobs are not called so.
        many = (ctypes.c_char_p * len(encoded))(*encoded)
        pointer = engine.low.llama_model_load_from_splits(many, len(encoded), params)
    if not pointer:
        reason = engine.log.errors[-1] if engine.log.errors else "no reason given"
        raise BadModelFile(f"llama.cpp cannot load the model: {reason}")
    return pointer


class Vocabulary:
    """Tokens of one model. Not safe to close while another thread uses it.

    A vocabulary made by `load` owns a model without weights; one made from a `Model` borrows.
    """

    def __init__(self, model_pointer: Any, *, owned: bool) -> None:
        self._engine = native()
        self._model, self._owned = model_pointer, owned
        low = self._engine.low
        self._pointer = low.llama_model_get_vocab(model_pointer)
        self.n_tokens: int = low.llama_vocab_n_tokens(self._pointer)
        self.bos: int = low.llama_vocab_bos(self._pointer)
        self.eos: int = low.llama_vocab_eos(self._pointer)
        self.add_bos = bool(low.llama_vocab_get_add_bos(self._pointer))
        self.add_eos = bool(low.llama_vocab_get_add_eos(self._pointer))
        self._buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        self._pieces: dict[int, bytes] = {}
        self.grammar_names: Any = None  # what `grammar.check_grammar` keeps

    @classmethod
    def load(cls, paths: Sequence[str]) -> "Vocabulary":
        """Load the vocabulary alone, without weights (20 to 45 MB, 0.1 to 0.7 s).

        Raises:
            BadModelFile: If llama.cpp refuses the file.
        """
        params = native().low.llama_model_default_params()
        params.vocab_only = True
        return cls(load_from(paths, params), owned=True)

    @property
    def pointer(self) -> Any:
        """llama.cpp's vocabulary, for the other files of this room."""
        return self._pointer

    @property
    def chat_template(self) -> str | None:
        """The Jinja template inside the GGUF, or None."""
        text: bytes | None = self._engine.low.llama_model_chat_template(self._model, None)
        return None if text is None else text.decode("utf-8", "replace")

    def meta(self, key: str) -> str | None:
        """A metadata value of the GGUF as llama.cpp prints it, or None."""
        read = self._engine.low.llama_model_meta_val_str
        n = read(self._model, key.encode(), self._buffer, len(self._buffer))
        if n < 0:
            return None
        buffer = ctypes.create_string_buffer(n + 1)
        read(self._model, key.encode(), buffer, n + 1)
        return buffer.raw[:n].decode("utf-8", "replace")

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> "array[int]":
        """Turn text into token ids.

        Args:
            text: Any text; lone surrogates become U+FFFD.
            add_special: Add BOS or EOS where the model wants them.
            parse_special: Read `<|im_end|>` and the like as the tokens they name.

        Raises:
            BadRequest: If the text is over 64 MiB.
        """
        data = text.encode("utf-8", "replace")
        if len(data) > MAX_TEXT_BYTES:
            raise BadRequest(f"the text has {len(data)} bytes, more than {MAX_TEXT_BYTES}")
        # One token a byte and the special ones is the most that any tokenizer makes.
        tokens = (ctypes.c_int32 * (len(data) + 8))()
        n = self._engine.low.llama_tokenize(
            self._pointer, data, len(data), tokens, len(tokens), add_special, parse_special
        )
        if n < 0:
            tokens = (ctypes.c_int32 * -n)()
            n = self._engine.low.llama_tokenize(
                self._pointer, data, len(data), tokens, len(tokens), add_special, parse_special
            )
        found = array("i")
        found.frombytes(memoryview(tokens).cast("B")[: 4 * max(n, 0)])
        return found

    def piece(self, token: int, *, render_special: bool) -> bytes:
        """The bytes of one token; control tokens are empty unless `render_special`.

        Raises:
            BadRequest: If the id is not of this vocabulary.
        """
        key = token * 2 + render_special
        if (known := self._pieces.get(key)) is not None:
            return known
        self.check(token)
        n = self._piece(token, render_special)
        if n < 0:
            self._buffer = ctypes.create_string_buffer(-n)
            n = self._piece(token, render_special)
        piece = self._buffer.raw[:n]
        self._pieces[key] = piece
        return piece

    def is_end(self, token: int) -> bool:
        """Whether this token ends a completion. Raises BadRequest for a foreign id."""
        self.check(token)
        return bool(self._engine.short.llama_vocab_is_eog(self._pointer, token))

    def token_text(self, token: int) -> str:
        """The token as it stands in the vocabulary, special ones too."""
        return self.piece(token, render_special=True).decode("utf-8", "replace")

    def whole_tokens(self) -> dict[int, tuple[str, bool]]:
        """The tokens whose texts are cut out before all else is tokenized: control tokens and such.

        Each with its text and whether it takes the whitespace before it along. Walks the whole
        vocabulary (15 to 120 ms).
        """
        low, pointer, ids = self._engine.low, self._pointer, range(self.n_tokens)
        attributes = map(low.llama_vocab_get_attr, repeat(pointer), ids)
        found: dict[int, tuple[str, bool]] = {}
        for token, attribute in zip(ids, attributes, strict=True):
            if attribute & (_UNKNOWN | _CONTROL | _USER_DEFINED):
                text: bytes = low.llama_vocab_get_text(pointer, token)
                found[token] = (text.decode("utf-8", "replace"), bool(attribute & _STRIPS_LEFT))
        return found

    def fill_tokens(self) -> tuple[int, int, int] | None:
        """The tokens before a prefix, a suffix and the middle, for a model that fills gaps.

        By the GGUF's metadata, else by llama.cpp's list of well-known texts.
        """
        low, pointer = self._engine.low, self._pointer
        names = (low.llama_vocab_fim_pre, low.llama_vocab_fim_suf, low.llama_vocab_fim_mid)
        prefix, suffix, middle = (int(name(pointer)) for name in names)
        return None if min(prefix, suffix, middle) < 0 else (prefix, suffix, middle)

    def pair_frame(self) -> tuple[list[int], list[int], list[int]]:
        """Tokens before the first of two texts, between them, and after the second.

        Source: llama-server's `format_prompt_rerank`.
        """
        low = self._engine.low
        separator: int = low.llama_vocab_sep(self._pointer)
        end = self.eos if self.eos >= 0 else separator
        before = [self.bos] if self.add_bos else []
        after = [end] if self.add_eos else []
        between = [*after, separator] if low.llama_vocab_get_add_sep(self._pointer) else after
        frame = ([token for token in tokens if token >= 0] for tokens in (before, between, after))
        first, second, third = frame
        return first, second, third

    def check(self, token: int) -> None:
        """Raise BadRequest unless the id is of this vocabulary: llama.cpp would end the process."""
        if not 0 <= token < self.n_tokens:
            raise BadRequest(f"token {token} is not of this vocabulary (0 to {self.n_tokens - 1})")

    def close(self) -> None:
        """Free what `load` took; a borrowed vocabulary stays."""
        if self._owned and self._model:
            self._engine.low.llama_model_free(self._model)
        self._model = None

    def _piece(self, token: int, render_special: bool) -> int:  # noqa: FBT001 (native order)
        size = len(self._buffer)
        n: int = self._engine.short.llama_token_to_piece(
            self._pointer, token, self._buffer, size, 0, render_special
        )
        return n
