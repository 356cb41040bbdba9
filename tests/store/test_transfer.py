"""One file over the wire, with everything that goes wrong on the way."""

import threading
from pathlib import Path

import pytest

from localrun.errors import (
    AccessDenied,
    BrokenTransfer,
    Cancelled,
    DiskFull,
    LocalrunError,
    Offline,
    RateLimited,
)
from localrun.store.blobs import Blobs
from localrun.store.flight import Watcher
from localrun.store.origin import Location, Wanted
from localrun.store.sources.hub import Hub
from localrun.store.transfer import fetch_file, read_range
from tests.fakes.hub import TOKEN, FakeHub, Fault, Repo
from tests.store.conftest import SIZE
from tests.store.fetching import FILE, QUICK, fetch

MIB = 1 << 20


def test_a_file_arrives_in_parts_over_several_connections(
    hub: FakeHub, tmp_path: Path, large: Path
) -> None:
    counts: list[int] = []
    blob = fetch(hub.url, tmp_path, Watcher(counts.append))
    assert blob.read_bytes() == large.read_bytes()
    assert counts == sorted(counts)
    assert counts[-1] == SIZE
    ranges = {seen.range for seen in hub.requests("cdn")}
    assert ranges == {
        "bytes=0-8388607",
        "bytes=8388608-16777215",
        f"bytes=16777216-{SIZE - 1}",
    }
    assert hub.n_sent == SIZE
    # Only the lock's file is left beside the blob.
    assert [p.suffix for p in (tmp_path / "partial").iterdir()] == [".lock"]


def test_a_file_that_is_here_is_not_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    fetch(hub.url, tmp_path)
    hub.seen.clear()
    fetch(hub.url, tmp_path)
    assert hub.requests("cdn") == []


SETBACKS = {
    "a clean early end": Fault("cdn", drop_at=3 * MIB),
    "a reset": Fault("cdn", reset_at=3 * MIB + 7),
    "a reset before the first byte": Fault("cdn", reset_at=0),
    "no byte any more": Fault("cdn", stall_at=2 * MIB),
    "503": Fault("cdn", status=503, times=2),
    "429 with Retry-After": Fault("cdn", status=429, headers={"Retry-After": "0"}),
    "an expired link": Fault("cdn", status=403, after=1),
    "an expired link, known as 404": Fault("cdn", status=404, times=2),
    "an ignored range": Fault("cdn", ignores_range=True, after=1),
    "ranges ignored always": Fault("cdn", ignores_range=True, times=99),
    "ranges ignored and a drop": Fault("cdn", ignores_range=True, drop_at=9 * MIB, times=2),
    "the Hub away for a moment": Fault("head", status=503, times=1, after=1),
}


@pytest.mark.parametrize("fault", SETBACKS.values(), ids=SETBACKS.keys())
def test_the_file_arrives_whole_in_spite_of(
    fault: Fault, hub: FakeHub, tmp_path: Path, large: Path
) -> None:
    hub.faults = [Fault(**vars(fault))]
    points: list[str] = []
    blob = fetch(hub.url, tmp_path, observe=points.append)
    assert blob.read_bytes() == large.read_bytes()
    assert points[-1] == "renamed"
    assert hub.faults[0].times < fault.times or fault.on == "head"


def test_bytes_that_arrived_before_a_break_are_not_fetched_again(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.faults = [Fault("cdn", drop_at=5 * MIB)]
    fetch(hub.url, tmp_path)
    assert hub.n_sent == SIZE


def test_an_expired_link_is_resolved_again_once(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault("cdn", status=403, times=2)]
    fetch(hub.url, tmp_path)
    assert 2 <= len(hub.requests("hub", "HEAD")) <= 3


ENDINGS: dict[str, tuple[Fault, type[LocalrunError], str]] = {
    "a link that never works": (
        Fault("cdn", status=403, times=99),
        AccessDenied,
        "refuses the link",
    ),
    "rate limited for long": (
        Fault("cdn", status=429, headers={"Retry-After": "3600"}, times=99),
        RateLimited,
        "come back later",
    ),
    "a server that is broken": (Fault("cdn", status=500, times=99), BrokenTransfer, "500"),
    "a server that breaks off": (Fault("cdn", drop_at=0, times=99), BrokenTransfer, "broke"),
    "a server that stalls": (
        Fault("cdn", stall_at=0, times=99),
        BrokenTransfer,
        "stopped sending",
    ),
    "another range": (
        Fault("cdn", headers={"Content-Range": "bytes 5-9/10"}, times=99),
        BrokenTransfer,
        "another range",
    ),
    "a strange status": (Fault("cdn", status=418, times=99), BrokenTransfer, "418"),
    "another size": (Fault("head", add_size=1, times=99), BrokenTransfer, "has changed"),
    "a Hub that is gone": (Fault("head", status=503, times=99), Offline, "has trouble"),
}


@pytest.mark.parametrize(("fault", "error", "why"), ENDINGS.values(), ids=ENDINGS.keys())
def test_what_cannot_be_mended_ends_with_one_clear_error(
    fault: Fault, error: type[LocalrunError], why: str, hub: FakeHub, tmp_path: Path
) -> None:
    hub.faults = [Fault(**vars(fault))]
    with pytest.raises(error, match=why) as caught:
        fetch(hub.url, tmp_path)
    assert caught.value.hint
    assert not list(tmp_path.glob("blobs/*"))


def test_a_long_wait_is_told_and_not_waited_for(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault("cdn", status=429, headers={"Retry-After": "3600"}, times=99)]
    with pytest.raises(RateLimited) as caught:
        fetch(hub.url, tmp_path)
    assert caught.value.retry_after_s == 3600
    assert "3600 s" in caught.value.hint


def test_a_damaged_file_is_set_aside_and_said(
    hub: FakeHub, tmp_path: Path, large: Path, sha256: str
) -> None:
    damaged = tmp_path / "damaged"
    content = bytearray(large.read_bytes())
    content[9_000_000] ^= 1
    damaged.write_bytes(content)
    hub.repos["me/r"] = Repo({FILE: damaged}, declared={FILE: sha256})
    with pytest.raises(BrokenTransfer, match="another content than promised") as caught:
        fetch(hub.url, tmp_path / "store")
    (kept,) = (tmp_path / "store" / "quarantine").iterdir()
    assert str(kept) in caught.value.message
    assert kept.read_bytes() == content
    hub.repos["me/r"] = Repo({FILE: large}, declared={FILE: sha256})
    assert fetch(hub.url, tmp_path / "store").read_bytes() == large.read_bytes()


@pytest.mark.parametrize("redirects", [True, False], ids=["over the CDN", "from the Hub itself"])
def test_the_token_goes_to_the_hub_and_nowhere_else(
    redirects: bool, hub: FakeHub, tmp_path: Path
) -> None:
    hub.repos["me/r"].redirects = redirects
    hub.repos["me/r"].gated = True
    fetch(hub.url, tmp_path, token=TOKEN)
    assert all(not seen.authorization for seen in hub.seen if seen.role == "cdn")
    assert all(seen.authorization for seen in hub.seen if seen.role == "hub")
    assert bool(hub.requests("cdn")) is redirects


def test_the_token_does_not_follow_a_redirect_to_another_origin(hub: FakeHub, sha256: str) -> None:
    hub.by_sha[sha256] = hub.repos["me/r"].files[FILE]
    location = Location(f"{hub.url}/me/r/resolve/main/{FILE}", hub.url, f"Bearer {TOKEN}")
    assert len(read_range(location, 5, 100, patience=QUICK)) == 100
    assert [(seen.role, bool(seen.authorization)) for seen in hub.seen] == [
        ("hub", True),
        ("cdn", False),
    ]


def test_the_users_proxy_is_asked(
    hub: FakeHub, large: Path, sha256: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", hub.cdn_url)
    hub.by_sha[sha256] = large
    location = Location(f"http://far.invalid/lfs/{sha256}", "http://far.invalid")
    assert read_range(location, 7, 9, patience=QUICK) == large.read_bytes()[7:16]
    assert len(hub.requests("cdn")) == 1


def test_a_span_is_read_even_where_ranges_are_ignored(hub: FakeHub, large: Path) -> None:
    hub.faults = [Fault("cdn", ignores_range=True), Fault("cdn", status=503)]
    location = Hub(hub.url, token=False).resolve("me/r", "main", FILE).location
    content = read_range(location, 1000, 50, patience=QUICK)
    assert content == large.read_bytes()[1000:1050]


def test_a_cancelled_transfer_stops_at_once_and_goes_on_later(
    hub: FakeHub, tmp_path: Path, large: Path
) -> None:
    hub.faults = [Fault("cdn", slow_s=0.02, times=99)]
    enough = threading.Event()

    def report(n: int) -> None:
        if n > MIB:
            enough.set()

    with pytest.raises(Cancelled, match="cancelled") as caught:
        fetch(hub.url, tmp_path, Watcher(report, enough.is_set))
    assert "kept" in caught.value.hint
    hub.faults, hub.n_sent = [], 0
    hub.seen.clear()
    fetch(hub.url, tmp_path)
    assert sum(seen.n_bytes for seen in hub.requests("cdn")) <= SIZE - MIB
    assert fetch(hub.url, tmp_path).read_bytes() == large.read_bytes()


def test_a_stalled_transfer_can_be_cancelled(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault("cdn", stall_at=0, times=99)]
    asked = threading.Event()

    def is_cancelled() -> bool:
        was_asked = asked.is_set()
        asked.set()
        return was_asked

    with pytest.raises(Cancelled):
        fetch(hub.url, tmp_path, Watcher(lambda _: None, is_cancelled))


def test_room_on_the_disk_is_checked_before_the_first_byte(hub: FakeHub, tmp_path: Path) -> None:
    source = Hub(hub.url, token=False)
    wanted = source.wanted("me/r", "main", source.list_files("me/r").files[0])
    with pytest.raises(DiskFull, match="are free under") as caught:
        fetch_file(
            wanted,
            lambda: source.resolve("me/r", "main", FILE),
            Blobs(tmp_path, free=lambda _: 30 << 20),
            Watcher(lambda _: None),
            patience=QUICK,
        )
    assert "LOCALRUN_MODELS" in caught.value.hint
    assert hub.requests("cdn") == []


def test_a_small_file_without_a_sha256_is_fetched_by_its_etag(hub: FakeHub, tmp_path: Path) -> None:
    small = tmp_path / "params"
    small.write_text("x" * 99)
    hub.repos["me/r"].files["params"] = small
    source = Hub(hub.url, token=False)
    listed = next(f for f in source.list_files("me/r").files if f.path == "params")
    wanted = source.wanted("me/r", "main", listed)
    assert wanted.sha256 == ""
    blobs = Blobs(tmp_path / "store")
    resolve = lambda: source.resolve("me/r", "main", "params")  # noqa: E731 (one line)
    digest = fetch_file(wanted, resolve, blobs, Watcher(lambda _: None), patience=QUICK)
    assert blobs.path(digest).read_text() == "x" * 99


def test_an_empty_file_arrives(hub: FakeHub, tmp_path: Path) -> None:
    empty = tmp_path / "e.gguf"
    empty.touch()
    hub.repos["me/r"].files["e.gguf"] = empty
    source = Hub(hub.url, token=False)
    wanted = Wanted("e", 0, hub.repos["me/r"].sha256("e.gguf"))
    resolve = lambda: source.resolve("me/r", "main", "e.gguf")  # noqa: E731 (one line)
    blobs = Blobs(tmp_path / "store")
    assert blobs.has(fetch_file(wanted, resolve, blobs, Watcher(lambda _: None)), 0)
