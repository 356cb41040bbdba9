"""Kept responses: bounded, found by their own key only."""

from hypothesis import given, settings
from hypothesis import strategies as st

from localrun.server.kept import KeptResponses, StoredResponse

LIMIT = 100


def stored(n_bytes: int, previous: str = "") -> StoredResponse:
    return StoredResponse(b"x" * n_bytes, b"", b"", previous)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pgd"), st.sampled_from("abcd"), st.integers(0, 120))))
def test_there_are_never_more_bytes_than_allowed_and_the_newest_stay(steps):
    kept = KeptResponses(LIMIT)
    alive: dict[str, int] = {}  # by last use
    for what, name, n_bytes in steps:
        if what == "p" and n_bytes <= LIMIT:
            kept.put("s", name, stored(n_bytes))
            alive.pop(name, None)
            alive[name] = n_bytes
            while sum(alive.values()) > LIMIT:
                del alive[next(iter(alive))]
        elif what == "p":
            kept.put("s", name, stored(n_bytes))
        elif what == "d":
            assert (kept.pop("s", name) is not None) == (alive.pop(name, None) is not None)
        else:
            found = kept.get("s", name)
            assert (found and found.n_bytes) == alive.get(name)
            if name in alive:
                alive[name] = alive.pop(name)


def test_another_key_finds_nothing():
    kept = KeptResponses()
    kept.put("one", "a", stored(1))
    assert kept.get("two", "a") is None


def test_a_chain_is_whole_or_nothing():
    kept = KeptResponses()
    for name, previous in (("a", ""), ("b", "a"), ("c", "b")):
        kept.put("s", name, stored(len(previous) + 1, previous))
    chain = kept.chain("s", "c")
    assert chain is not None
    assert [item.previous for item in chain] == ["", "a", "b"]
    kept.pop("s", "a")
    assert kept.chain("s", "c") is None
    assert kept.chain("s", "") == []


def test_a_used_chain_outlives_what_is_older():
    kept = KeptResponses(3)
    kept.put("s", "a", stored(1))
    kept.put("s", "b", stored(1, "a"))
    kept.put("s", "x", stored(1))
    kept.chain("s", "b")
    kept.put("s", "y", stored(1))
    assert kept.get("s", "x") is None
    assert kept.chain("s", "b") is not None
