"""A scripted sampler: the genuine llguidance over a vocabulary of bytes."""

import random
from collections.abc import Sequence
from functools import lru_cache

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

END = 256


class _Bytes:
    """What llguidance wants to know of a vocabulary."""

    eos_token_id = END
    bos_token_id = None
    tokens = (*(bytes([i]) for i in range(256)), b"<eos>")
    special_token_ids = (END,)

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


TOKENIZER = LLTokenizer(TokenizerWrapper(_Bytes()))


@lru_cache(maxsize=64)
def _made(grammar: str) -> LLMatcher:
    made = LLMatcher(TOKENIZER, grammar, log_level=0)
    assert not made.is_error(), made.get_error() + "\n" + grammar
    return made


def matcher(grammar: str) -> LLMatcher:
    """A fresh walk through a grammar; a grammar is compiled once."""
    return _made(grammar).deep_copy()


def refused_at(grammar: str, text: str) -> str | None:
    """What of `text` the grammar refuses; None if it takes all and the answer may end there."""
    held = matcher(grammar)
    tokens = list(text.encode())
    n_taken = held.try_consume_tokens(tokens)
    if n_taken < len(tokens):
        return bytes(tokens[n_taken:]).decode(errors="replace")
    return None if held.is_accepting() else "the end"


def walk(grammar: str, seed: int, head: str = "", likes: Sequence[str] = ()) -> str:
    """An answer that begins with `head` and goes on at random among what the grammar allows.

    It likes to end, to end strings, and to write one of `likes`: else a walk is long.
    """
    held, chance = matcher(grammar), random.Random(seed)
    taken = bytearray(head.encode())
    assert held.try_consume_tokens(list(taken)) == len(taken)
    while not (
        held.is_accepting() and (len(taken) > 600 or held.is_stopped() or chance.random() < 0.3)
    ):
        assert len(taken) < 30_000, taken.decode(errors="replace")
        if likes and chance.random() < 0.2:
            word = list(chance.choice(likes).encode())
            if held.validate_tokens(word) == len(word):
                assert held.try_consume_tokens(word) == len(word)
                taken += bytes(word)
                continue
        mask = held.compute_bitmask()
        allowed = [i for i in range(32, 127) if mask[i // 8] >> (i % 8) & 1]
        if not allowed:
            allowed = [i for i in range(256) if mask[i // 8] >> (i % 8) & 1]
        closing = [i for i in allowed if i in b'"}]0']
        token = chance.choice(closing if closing and chance.random() < 0.6 else allowed)
        assert held.consume_token(token)
        taken.append(token)
    return taken.decode(errors="replace")
