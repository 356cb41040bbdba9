"""PrefixIndex: who begins like this prompt."""

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from localrun.runner.prefix import PrefixIndex, common_length

TOKENS = st.lists(st.integers(0, 2), max_size=12).map(lambda ids: array("i", ids))
SCOPES = st.sampled_from(["a", "b"])


def ids(*tokens: int) -> "array[int]":
    return array("i", tokens)


def naive(a: "array[int]", b: "array[int]") -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


@given(TOKENS, TOKENS)
def test_common_length_is_the_first_difference(a: "array[int]", b: "array[int]") -> None:
    assert common_length(a, 0, b, 0) == naive(a, b)


def test_matches_tell_for_every_owner_how_far_it_goes() -> None:
    index = PrefixIndex()
    index.insert("s", 1, ids(1, 2, 3, 4))
    index.insert("s", 2, ids(1, 2, 9))
    index.insert("s", 3, ids(1, 2))
    assert index.matches("s", ids(1, 2, 3, 7)) == {1: 3, 2: 2, 3: 2}


def test_scopes_never_meet() -> None:
    index = PrefixIndex()
    index.insert("alice", 1, ids(1, 2, 3))
    assert index.matches("bob", ids(1, 2, 3)) == {}


def test_owner_cannot_be_inserted_twice() -> None:
    index = PrefixIndex()
    index.insert("s", 1, ids(1))
    with pytest.raises(ValueError, match="owner 1 is already"):
        index.insert("s", 1, ids(2))


def test_growth_of_one_owner_does_not_show_in_another() -> None:
    index = PrefixIndex()
    index.insert("s", 1, ids(1, 2))
    index.insert("s", 2, ids(1, 2))
    index.extend(1, ids(3))
    index.extend(2, ids(4))
    assert index.matches("s", ids(1, 2, 4)) == {1: 2, 2: 3}


class AgainstAList(RuleBasedStateMachine):
    """The index answers as a list of all sequences would."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex()
        self.model: dict[int, tuple[str, array[int]]] = {}
        self.next = 0

    @rule(scope=SCOPES, tokens=TOKENS)
    def insert(self, scope: str, tokens: "array[int]") -> None:
        self.index.insert(scope, self.next, tokens)
        self.model[self.next] = (scope, tokens[:])
        self.next += 1

    @precondition(lambda self: self.model)
    @rule(data=st.data(), tokens=TOKENS)
    def extend(self, data: st.DataObject, tokens: "array[int]") -> None:
        owner = data.draw(st.sampled_from(sorted(self.model)))
        self.index.extend(owner, tokens)
        self.model[owner][1].extend(tokens)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.model)))
        self.index.remove(owner)
        del self.model[owner]

    @rule(scope=SCOPES, tokens=TOKENS)
    def look(self, scope: str, tokens: "array[int]") -> None:
        expected = {
            owner: n
            for owner, (where, held) in self.model.items()
            if where == scope and (n := naive(held, tokens))
        }
        assert self.index.matches(scope, tokens) == expected

    @invariant()
    def lengths_agree(self) -> None:
        for owner, (_, held) in self.model.items():
            assert self.index.n_tokens(owner) == len(held)


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=30)  # of fifty steps each
