"""What broke the prefix of a prompt, and what is kept to say so."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.messages import End, Prepare, Turn, Vocab
from localrun.server.explain import report
from localrun.server.trail import HEAD_CHARS, MAX_REQUESTS, Trail, find_break, fingerprint
from tests.server.conftest import running

LONG = "word " * 100
SYSTEM = Turn("system", f"You are an agent. {LONG} Today is Monday. {LONG}")
HI, ANSWER, MORE = Turn("user", "hi"), Turn("assistant", "hello"), Turn("user", "more")
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": {}}} for name in ("read", "write")
)


def note(trail, *turns, n_prompt=100, n_cached=0, scope="s", n_dropped=0, **fields):
    prompt = Prepare(0, Vocab("key", ()), "chat", turns=turns, **fields)
    end = End(1, "stop", n_prompt, n_cached, 1, 0, 0, 0)
    trail.note(scope, "tiny", prompt, end, n_dropped)
    return report(trail.last(scope, "tiny", 1)[0])


@pytest.mark.parametrize(
    ("old", "new", "broken"),
    [
        ([SYSTEM, HI], [SYSTEM, HI, ANSWER, MORE], None),
        ([SYSTEM, HI, ANSWER, MORE], [SYSTEM, HI], None),
        ([SYSTEM, HI], [SYSTEM, MORE], ("user", 1, 0, "hi", "more")),
        ([Turn("system", "cch=1; You"), HI], [Turn("system", "cch=2; You"), HI],
         ("system", 0, 4, "cch=1; You", "cch=2; You")),
        ([HI, ANSWER, MORE], [HI, MORE], ("user", 1, 0, "", "more")),
        ([HI, Turn("assistant", "a", {"thinking": "x"})], [HI, Turn("assistant", "a")],
         ("assistant", 1, 1, 'a\n{"thinking":"x"}', "")),
    ],
)  # fmt: skip
def test_the_first_message_that_differs_is_named(old, new, broken):
    trail = Trail()
    assert note(trail, *old)["why"] == "there was no earlier prompt of this model"
    found = note(trail, *new, n_cached=99).get("broken")
    assert (found and tuple(found.values())) == broken


def test_a_difference_deep_inside_a_message_is_found_to_a_block():
    trail = Trail()
    note(trail, SYSTEM, HI)
    changed = Turn("system", SYSTEM.content.replace("Monday", "Tuesday"))
    found = note(trail, changed, HI)
    where = SYSTEM.content.index("Monday")
    assert where - 64 < found["broken"]["character"] <= where
    assert found["broken"]["was"] == ""
    assert "word" in found["broken"]["now"]
    assert found["why"].startswith("system 0 differs from character")


def test_tools_and_settings_are_parts_of_a_prompt():
    trail = Trail()
    note(trail, HI, tools=TOOLS)
    assert note(trail, HI, tools=TOOLS[:1])["why"] == "tool definition 1 is gone"
    reordered = note(trail, HI, tools=TOOLS[::-1])
    assert reordered["broken"]["role"] == "tool definition"
    assert note(trail, HI, think=True)["why"].startswith("settings differs")


def test_of_earlier_prompts_the_closest_is_compared():
    trail = Trail()
    note(trail, SYSTEM, HI, n_prompt=50)
    note(trail, Turn("user", "another conversation"), n_prompt=7)
    found = note(trail, SYSTEM, HI, ANSWER, MORE, n_cached=50)
    assert (found["earlier_prompt_tokens"], found["why"]) == (
        50, "it goes on from an earlier prompt"
    )  # fmt: skip


def test_a_prefix_that_agrees_and_was_not_cached_is_said_to_have_made_room():
    trail = Trail()
    note(trail, SYSTEM, HI)
    assert "make room" in note(trail, SYSTEM, HI, ANSWER, MORE, n_cached=10)["why"]
    assert "3 old messages were left out" in note(trail, SYSTEM, n_dropped=3)["why"]


def test_no_scope_sees_anothers_requests():
    trail = Trail()
    note(trail, SYSTEM, scope="one")
    assert note(trail, SYSTEM, scope="two")["why"] == "there was no earlier prompt of this model"
    assert len(trail.last("one", "", 10)) == 1


def test_little_is_kept_and_not_the_text():
    trail = Trail()
    for number in range(MAX_REQUESTS + 5):
        note(trail, SYSTEM, Turn("user", f"{number} {LONG} a secret"))
    kept = trail.last("s", "tiny", 1000)
    assert len(kept) == MAX_REQUESTS
    assert "secret" not in repr(kept)
    assert all(len(m.head) <= HEAD_CHARS for request in kept for m in request.messages)


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_the_place_of_a_difference_is_never_after_it(prefix, one, other):
    old, new = prefix + one, prefix + other
    found = find_break([fingerprint("user", 0, old)], [fingerprint("user", 0, new)], [new])
    assert (found is None) == (old == new)
    if found is not None:
        first = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), None)
        assert found.at <= (min(len(old), len(new)) if first is None else first)


def ask(client, *messages, headers=None):
    body = {"model": "tiny", "messages": messages, "stream": False}
    assert client.post("/api/chat", json=body, headers=headers).status_code == 200


def test_the_route_tells_a_key_of_its_own_requests(models):
    with running(models, api_keys=("one", "two")) as server, server.client() as client:
        one, two = ({"x-api-key": key} for key in ("one", "two"))
        user = {"role": "user", "content": "hi"}
        for system in ("It is 12:03.", "It is 12:04."):
            ask(client, {"role": "system", "content": system}, user, headers=one)
        found = client.get("/api/explain?model=tiny&n=1", headers=one).json()["requests"]
        assert found[0]["broken"] == {
            "role": "system", "index": 0, "character": 10, "was": "12:03.", "now": "12:04."
        }  # fmt: skip
        assert client.get("/api/explain", headers=two).json() == {"requests": []}
        assert len(client.get("/api/explain", headers=one).json()["requests"]) == 2
        assert client.get("/api/explain?n=x", headers=one).status_code == 400
        assert json.dumps(found).isascii()
