"""Origins, the token's own origin, and redirects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.errors import BrokenTransfer
from localrun.store.origin import Location, is_private_host, next_location, origin_of

HUB = "https://hub.example"


def is_inside(host: str) -> bool:
    return host.endswith(".inside")


@pytest.mark.parametrize(
    ("url", "is_home"),
    [
        ("https://hub.example/a", True),
        ("https://HUB.example:443/a", True),
        ("https://hub.example:8443/a", False),
        ("http://hub.example/a", False),
        ("https://cdn.hub.example/a", False),
        ("https://hub.example.evil/a", False),
    ],
)
def test_the_token_goes_to_its_own_origin_only(url: str, is_home: bool) -> None:
    location = Location(url, HUB, "Bearer secret")
    assert location.headers_for(url) == ({"Authorization": "Bearer secret"} if is_home else {})
    assert "secret" not in repr(location)


@given(st.text(max_size=40))
def test_an_address_that_is_not_home_never_gets_the_token(text: str) -> None:
    for url in (text, f"https://{text}", f"http://hub.example{text}", f"https://hub.example{text}"):
        try:
            headers = Location(url, HUB, "Bearer secret").headers_for(url)
        except BrokenTransfer:
            continue
        assert not headers or origin_of(url) == ("https", "hub.example", 443)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("http://cdn.example/x", "without TLS"),
        ("https://store.inside/x", "private network"),
        ("file:///etc/passwd", "no plain http"),
        ("ftp://x/y", "no plain http"),
        ("https://user:secret@cdn.example/x", "no plain http"),
        ("https://[::1", "no address"),
    ],
)
def test_a_redirect_that_may_not_be_followed_says_why(target: str, why: str) -> None:
    with pytest.raises(BrokenTransfer, match=why):
        next_location(f"{HUB}/a", target, HUB, is_inside)


def test_redirects_inside_one_network_and_relative_ones_are_followed() -> None:
    assert next_location(f"{HUB}/a/b", "../c", HUB, is_inside) == f"{HUB}/c"
    assert next_location(f"{HUB}/a", "https://cdn.example/x", HUB, is_inside)
    inside = "http://hub.inside"
    assert next_location(f"{inside}/a", "http://cdn.inside/x", inside, is_inside)


@pytest.mark.parametrize(
    ("host", "is_private"),
    [("127.0.0.1", True), ("::1", True), ("10.1.2.3", True), ("169.254.169.254", True),
     ("localhost", True), ("8.8.8.8", False), ("no.such.host.invalid", False)],
)  # fmt: skip
def test_private_hosts_are_known(host: str, is_private: bool) -> None:
    assert is_private_host(host) is is_private


@pytest.mark.parametrize("endpoint", ["nonsense", "hf-mirror.com", "http://[::1"])
def test_an_endpoint_that_is_no_address_names_the_setting(endpoint: str) -> None:
    with pytest.raises(BrokenTransfer) as caught:
        origin_of(endpoint)
    assert "HF_ENDPOINT" in caught.value.hint
