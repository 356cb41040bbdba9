"""Hold a completion to a grammar: llguidance over llama.cpp's vocabulary.

A `TokenTable` is the vocabulary as llguidance wants it, made once a model; a `Matcher` walks one
completion through one grammar. A grammar is held over the text of the completion. So a special
token that has no text (`<|im_end|>`) never matches a literal, only its own name; one that is part
of the text matches both. As such tokens differ from request to request, the table has a twin for
each of them, under an id above the vocabulary, and a matcher says which twins count.
"""

import ctypes
import re
import threading
from array import array
from collections.abc import Collection, Iterator
from itertools import compress, repeat
from typing import TYPE_CHECKING, Any

from localrun.errors import GrammarFailed, Unsupported
from localrun.llama.context import Context
from localrun.llama.guidance import TokenizerInit, guidance
from localrun.llama.library import native
from localrun.llama.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable

_UNKNOWN, _CONTROL, _USER_DEFINED = 1, 8, 16
_SPECIAL = b"\xff"
"""llguidance's mark before a token that is named, not spelled."""
_END_NAME = b"<|end of a vocabulary without one|>"
_NO_TOKEN = 0xFFFFFFFF
_ERROR_BYTES = 4096

_GRAMMAR_LINES = re.compile(r"\n +\d+ \| ")
_PLACE = re.compile(r"^at \d+\(\d+\): (failed to compile JSON schema: )?")

_CHUNK, _CELL = 1024, 64
_PAUSE_S = 0.0005


class TokenTable:
    """A vocabulary sorted for llguidance. Making one takes up to a second: not on a step's thread.

    Most of that time is spent without the interpreter's lock, the rest in pieces of a millisecond.

    Args:
        vocabulary: Whose tokens; it must stay open as long as the table.
        pause: Called between the pieces, to let others run.

    Raises:
        GrammarFailed: If llguidance cannot take this vocabulary.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, pause: "Callable[[], object] | None" = None
    ) -> None:
        self.n_vocab = vocabulary.n_tokens
        pieces: list[bytes] = []
        twins: dict[int, bytes] = {}
        ends: list[int] = []
        walk = _Walk(vocabulary)
        for ids in walk.runs():
            found = zip(ids, walk.attributes(ids), walk.pieces(ids), strict=True)
            for token, attribute, text in found:
                piece, twin = _twin(attribute, text)
                pieces.append(piece)
                if twin is not None:
                    twins[token] = twin
            ends += walk.ends(ids)
            (pause or _pause)()
        self.twins = {token: self.n_vocab + i for i, token in enumerate(twins)}
        self._always = frozenset(t for t in twins if not pieces[t].startswith(_SPECIAL))
        pieces += twins.values()
        if not ends:
            ends = [len(pieces)]
            pieces.append(_SPECIAL + _END_NAME)
        self.n_ids = len(pieces)
        self._pointer: int | None = _make_tokenizer(pieces, ends, slices=None)

    @property
    def pointer(self) -> int:
        """The tokenizer of llguidance, for `Matcher`."""
        assert self._pointer is not None, "the table is closed"
        return self._pointer

    def twins_of(self, preserved: Collection[int]) -> dict[int, int]:
        """The twins that count where these special tokens are part of the text."""
        return {t: self.twins[t] for t in (*self._always, *preserved) if t in self.twins}

    def close(self) -> None:
        """Free it; every matcher must be closed before."""
        if self._pointer is not None:
            guidance().low.llg_free_tokenizer(self._pointer)
            self._pointer = None


class Matcher:
    """One completion on its way through one grammar. Made on any thread, then used on one.

    Args:
        table: The vocabulary.
        lark: The grammar, in llguidance's dialect.
        preserved: Special tokens that are part of the text.

    Raises:
        Unsupported: If the grammar is wrong, too large, or matches nothing.
    """

    def __init__(self, table: TokenTable, lark: str, preserved: Collection[int] = ()) -> None:
        import numpy as np

        self._np = np
        self._pointer = _make_matcher(table.pointer, lark)
        self._n_vocab, self._n_ids = table.n_vocab, table.n_ids
        self._twins = table.twins_of(preserved)
        self._real = np.fromiter(self._twins.keys(), np.int64, len(self._twins))
        self._twin = np.fromiter(self._twins.values(), np.int64, len(self._twins))
        short = guidance().short
        n_bytes = short.llg_matcher_get_mask_byte_size(self._pointer)
        self._words = np.zeros(n_bytes // 4, np.uint32)
        self._mask_at, self._mask_bytes = self._words.ctypes.data, n_bytes

    def hold(self, context: Context, row: int) -> None:
        """Set the scores of all tokens that may not come next to minus infinity, in place.

        Raises:
            GrammarFailed: If the grammar lets nothing follow, or llguidance gives up.
            ValueError: If the row has no logits.
        """
        np = self._np
        logits = np.asarray(context.logits(row))
        allowed = self._allowed()
        n_allowed = int(np.count_nonzero(allowed))
        if not n_allowed:
            raise GrammarFailed("the grammar lets no token of this vocabulary follow")
        if 2 * n_allowed < self._n_vocab:
            kept = np.flatnonzero(allowed)
            scores = logits[kept]
            logits.fill(-np.inf)
            logits[kept] = scores
        else:
            logits[np.flatnonzero(~allowed)] = -np.inf

    def allows(self, token: int) -> bool:
        """Whether this token may come next: some microseconds, a tenth of `hold`."""
        twin = self._twins.get(token)
        return self._may_follow(token) or (twin is not None and self._may_follow(twin))

    def accept(self, token: int) -> None:
        """Go on by one token.

        Raises:
            GrammarFailed: If the grammar does not allow it here.
        """
        short = guidance().short
        twin = self._twins.get(token)
        if twin is not None and self._may_follow(twin):
            token = twin
        if short.llg_matcher_consume_token(self._pointer, token):
            raise GrammarFailed(f"the answer left its grammar: {self._error()}")

    @property
    def is_complete(self) -> bool:
        """Whether nothing but an end may follow."""
        return bool(guidance().short.llg_matcher_is_stopped(self._pointer))

    def close(self) -> None:
        """Free it."""
        if self._pointer:
            guidance().low.llg_free_matcher(self._pointer)
            self._pointer = 0

    def _allowed(self) -> Any:
        np, short = self._np, guidance().short
        if short.llg_matcher_compute_mask_into(self._pointer, self._mask_at, self._mask_bytes):
            raise GrammarFailed(f"the grammar cannot be held any further: {self._error()}")
        bits = np.unpackbits(self._words.view(np.uint8), count=self._n_ids, bitorder="little")
        flags = bits.view(np.bool_)
        allowed = flags[: self._n_vocab]
        if len(self._real):
            allowed[self._real] |= flags[self._twin]
        return allowed

    def _may_follow(self, token: int) -> bool:
        one = ctypes.c_uint32(token)
        validate = guidance().short.llg_matcher_validate_tokens
        return bool(validate(self._pointer, ctypes.addressof(one), 1) == 1)

    def _error(self) -> str:
        return _sentence(guidance().short.llg_matcher_get_error(self._pointer))


def check_grammar(vocabulary: Vocabulary, lark: str) -> None:
    """Say whether a grammar can be held with this vocabulary, in some milliseconds.

    For the text worker: it needs no `TokenTable`, only the names of the special tokens, which are
    read at the first call for a vocabulary and kept with it.

    Args:
        vocabulary: Its special tokens may stand in the grammar.
        lark: The grammar, in llguidance's dialect.

    Raises:
        Unsupported: If it is wrong, too large, or matches nothing; in llguidance's words.
    """
    if vocabulary.grammar_names is None:
        vocabulary.grammar_names = _Names(vocabulary)
    matcher = _make_matcher(vocabulary.grammar_names.pointer, lark)
    guidance().low.llg_free_matcher(matcher)


class _Names:
    """A stand-in for a vocabulary: every byte, and its special tokens under their own ids."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        pieces = [b""] * vocabulary.n_tokens
        walk = _Walk(vocabulary)
        for ids in walk.runs():
            for token, attribute in zip(ids, walk.attributes(ids), strict=True):
                if attribute & (_UNKNOWN | _CONTROL | _USER_DEFINED):
                    names = _twin(attribute, vocabulary.piece(token, render_special=True))
                    pieces[token] = next((n for n in names if n and n[:1] == _SPECIAL), b"")
        pieces += [bytes([i]) for i in range(255)]  # 255 alone is the mark
        pieces.append(_SPECIAL + _END_NAME)
        self.pointer = _make_tokenizer(pieces, [len(pieces) - 1], slices=())

    def close(self) -> None:
        guidance().low.llg_free_tokenizer(self.pointer)


# ── from llama.cpp ────────────────────────────────────────────────────────────────────────────


class _Walk:
    """A vocabulary in runs of tokens.

    The calls of a run are made by `map`: with a line of Python around each they take three times as
    long. Each token is written to a cell of its own.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        int32, address, flag = ctypes.c_int32, ctypes.c_void_p, ctypes.c_bool
        self._attribute = _function("llama_vocab_get_attr", int32, address, int32)
        self._is_end = _function("llama_vocab_is_eog", flag, address, int32)
        self._piece = _function(
            "llama_token_to_piece", int32, address, int32, address, int32, int32, flag
        )
        self._arena = ctypes.create_string_buffer(_CHUNK * _CELL)

    def runs(self) -> Iterator[range]:
        """Ids, some at a time."""
        n = self._vocabulary.n_tokens
        return (range(first, min(first + _CHUNK, n)) for first in range(0, n, _CHUNK))

    def attributes(self, ids: range) -> list[int]:
        return list(map(self._attribute, repeat(self._vocabulary.pointer), ids))

    def ends(self, ids: range) -> list[int]:
        is_end = map(self._is_end, repeat(self._vocabulary.pointer), ids)
        return list(compress(ids, is_end))

    def pieces(self, ids: range) -> list[bytes]:
        base = ctypes.addressof(self._arena)
        cells = range(base, base + len(self._arena), _CELL)
        rest = (repeat(_CELL), repeat(0), repeat(1))
        lengths: list[int] = list(
            map(self._piece, repeat(self._vocabulary.pointer), ids, cells, *rest)
        )
        data = self._arena.raw
        found = [data[i * _CELL : i * _CELL + n] for i, n in enumerate(lengths)]
        for i, n in enumerate(lengths):
            if n < 0:  # longer than a cell
                found[i] = self._vocabulary.piece(ids[i], render_special=True)
        return found


def _function(name: str, *types: Any) -> Any:
    """A function of llama.cpp that takes addresses as numbers and keeps the interpreter's lock."""
    library = native().low._lib  # noqa: SLF001 (the binding offers no public path)
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    assert address is not None
    return ctypes.PYFUNCTYPE(*types)(address)


def _twin(attribute: int, piece: bytes) -> tuple[bytes, bytes | None]:
    """How a token is read, and its other reading if it is a special one that has two."""
    if not attribute & (_UNKNOWN | _CONTROL | _USER_DEFINED) or not piece:
        return piece, None
    if not attribute & _USER_DEFINED:
        return _SPECIAL + piece, piece
    is_named = piece[:1] == b"<" and piece[-1:] == b">"
    return piece, _SPECIAL + piece if is_named else None


def _pause() -> None:
    """Let whoever waits for the interpreter's lock have it."""
    threading.Event().wait(_PAUSE_S)


# ── to llguidance ─────────────────────────────────────────────────────────────────────────────


def _make_tokenizer(pieces: list[bytes], ends: list[int], *, slices: "tuple[()] | None") -> int:
    lengths, extra = array("I", map(len, pieces)), array("I", ends[1:])
    none = (ctypes.c_char_p * 1)()
    init = TokenizerInit(
        struct_size=ctypes.sizeof(TokenizerInit),
        vocab_size=len(pieces),
        tok_eos=ends[0],
        token_lens=lengths.buffer_info()[0],
        token_bytes=b"".join(pieces),
        use_approximate_greedy_tokenize_fn=True,
        slices=None if slices is None else ctypes.cast(none, ctypes.POINTER(ctypes.c_char_p)),
        tok_eos_extra=extra.buffer_info()[0] if extra else None,
        tok_eos_extra_count=len(extra),
    )
    error = ctypes.create_string_buffer(_ERROR_BYTES)
    pointer: int | None = guidance().low.llg_new_tokenizer_v2(ctypes.byref(init), error, len(error))
    if not pointer:
        raise GrammarFailed(f"llguidance cannot take this vocabulary: {_sentence(error.value)}")
    return pointer


def _make_matcher(tokenizer: int, lark: str) -> int:
    """A matcher that has proved that something may come first."""
    if "\0" in lark:
        raise Unsupported("this format cannot be held: a grammar has no NUL characters")
    engine = guidance()
    init = engine.constraint(tokenizer)
    pointer: int = engine.low.llg_new_matcher(
        ctypes.byref(init), b"lark", lark.encode("utf-8", "replace")
    )
    error = engine.low.llg_matcher_get_error(pointer)
    if error is None:
        words = (ctypes.c_uint32 * (engine.low.llg_matcher_get_mask_byte_size(pointer) // 4))()
        engine.low.llg_matcher_compute_mask_into(
            pointer, ctypes.addressof(words), ctypes.sizeof(words)
        )
        error = engine.low.llg_matcher_get_error(pointer)
    if error is not None:
        sentence = _sentence(error)
        engine.low.llg_free_matcher(pointer)
        raise Unsupported(f"this format cannot be held: {sentence}")
    return pointer


def _sentence(error: bytes | None) -> str:
    """What is wrong, without the lines of our own grammar that stand behind it."""
    text = (error or b"no reason given").decode("utf-8", "replace")
    text = text.split("\n<non-verbose/>", maxsplit=1)[0]
    text = _GRAMMAR_LINES.split(text, maxsplit=1)[0]
    return _PLACE.sub("", text.strip())
