"""The Hub's answers, good and bad, as the genuine client brings them."""

import pytest

from localrun.errors import (
    AccessDenied,
    BrokenTransfer,
    LocalrunError,
    Offline,
    RateLimited,
    SourceMissing,
)
from localrun.store.sources.hub import Hub
from tests.fakes.hub import COMMIT, TOKEN, FakeHub, Fault
from tests.store.conftest import SIZE
from tests.store.fetching import FILE


def ask(hub: FakeHub, token: str | bool = False, repo: str = "me/r", path: str = "") -> object:
    source = Hub(hub.url, token=token, pause_s=0.01)
    if path:
        return source.resolve(repo, "main", path)
    return source.list_files(repo)


def test_a_repository_is_listed_in_one_request(hub: FakeHub, sha256: str) -> None:
    listing = Hub(hub.url, token=False).list_files("me/r")
    assert (listing.repo, listing.commit, listing.license) == ("me/r", COMMIT, "apache-2.0")
    assert [(f.path, f.size, f.sha256) for f in listing.files] == [(FILE, SIZE, sha256)]
    assert not listing.is_gated
    assert [seen.path for seen in hub.seen] == ["/api/models/me/r/revision/main"]


def test_a_file_is_resolved_to_its_address_and_content(hub: FakeHub, sha256: str) -> None:
    found = Hub(hub.url, token=False).resolve("me/r", COMMIT, FILE)
    assert (found.size, found.sha256) == (SIZE, sha256)
    assert found.location.url == f"{hub.cdn_url}/lfs/{sha256}"


CASES: dict[str, tuple[Fault | None, dict[str, object], type[LocalrunError], str, str]] = {
    "no such repository": (None, {"repo": "me/nope"}, SourceMissing, "no repository", "HF_TOKEN"),
    "none even with a token": (
        None, {"repo": "me/nope", "token": TOKEN}, SourceMissing, "no repository", "private",
    ),
    "no such file": (None, {"path": "nope.gguf"}, SourceMissing, "is not on", "changed"),
    "no repository's name": (None, {"repo": "a/b/c"}, SourceMissing, "no name", ""),
    "a bad token": (None, {"token": "hf_bad"}, AccessDenied, "Invalid credentials", "HF_TOKEN"),
    "rate limited": (
        Fault("api", status=429, headers={"Retry-After": "77"}), {}, RateLimited, "later", "77 s",
    ),
    "limited by RateLimit": (
        Fault("api", status=429, headers={"RateLimit": '"api";r=0;t=55'}), {}, RateLimited,
        "later", "55 s",
    ),
    "trouble": (Fault("api", status=503, times=9), {}, Offline, "trouble", "HF_ENDPOINT"),
    "a sign-in page": (
        Fault("api", body="<html>Sign in</html>"), {}, BrokenTransfer, "like a Hub", "HF_ENDPOINT",
    ),
    "disabled": (
        Fault("api", status=403, message="Access to this resource is disabled."), {}, AccessDenied,
        "disabled", "",
    ),
    "teapot": (Fault("api", status=418), {}, BrokenTransfer, "418", ""),
}  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "question", "error", "why", "hint"), CASES.values(), ids=CASES.keys()
)
def test_a_bad_answer_becomes_one_clear_error(
    fault: Fault | None,
    question: dict[str, object],
    error: type[LocalrunError],
    why: str,
    hint: str,
    hub: FakeHub,
) -> None:
    hub.faults = [Fault(**vars(fault))] if fault else []
    with pytest.raises(error, match=why) as caught:
        ask(hub, **question)  # type: ignore[arg-type]
    assert type(caught.value) is error
    assert hint in caught.value.hint


def test_a_gated_repository_asks_to_accept_and_for_a_token(hub: FakeHub) -> None:
    hub.repos["me/r"].gated = True
    with pytest.raises(AccessDenied, match="accepted its terms") as caught:
        ask(hub, path=FILE)
    assert f"{hub.url}/me/r" in caught.value.hint
    assert "HF_TOKEN" in caught.value.hint
    assert ask(hub, token=TOKEN, path=FILE)


def test_a_private_repository_is_seen_with_the_token_only(hub: FakeHub) -> None:
    hub.repos["me/r"].private = True
    with pytest.raises(SourceMissing, match="no repository"):
        ask(hub)
    assert ask(hub, token=TOKEN)


def test_a_trouble_that_passes_is_outlasted(hub: FakeHub) -> None:
    hub.faults = [Fault("api", status=502, times=2)]
    assert ask(hub)


def test_a_hub_that_cannot_be_reached_names_the_mirrors() -> None:
    with FakeHub({}) as gone:
        url = gone.url
    with pytest.raises(Offline, match="cannot be reached") as caught:
        Hub(url, token=False, pause_s=0.01).list_files("me/r")
    assert "HF_ENDPOINT" in caught.value.hint
    assert "hf-mirror.com" in caught.value.hint


def test_offline_mode_asks_nobody(hub: FakeHub) -> None:
    with pytest.raises(Offline, match="offline mode") as caught:
        Hub(hub.url, is_offline=True, token=False).list_files("me/r")
    assert "HF_HUB_OFFLINE" in caught.value.hint
    assert hub.seen == []


def test_the_users_token_is_taken_from_the_environment(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    Hub(hub.url).list_files("me/r")
    assert hub.seen[-1].authorization == f"Bearer {TOKEN}"
    Hub(hub.url, token=False).list_files("me/r")
    assert hub.seen[-1].authorization == ""
