"""The doors: Host, Origin, keys."""

import pytest

from localrun.config import Settings
from localrun.errors import BadSetting
from localrun.server.guard import check_bind
from tests.server.conftest import running


@pytest.fixture(scope="module")
def server(models):
    with running(models, hosts=("ai.example.com",), origins=("https://*.example.org",)) as state:
        yield state


@pytest.fixture(scope="module")
def locked(models):
    with running(models, api_keys=("first", "second")) as state:
        yield state


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("localhost:11434", True),
        ("LOCALHOST", True),
        ("127.0.0.1:1", True),
        ("[::1]:11434", True),
        ("192.168.1.20:11434", True),
        ("8.8.8.8", True),
        ("my.localhost", True),
        ("printer.local", True),
        ("host.docker.internal:11434", True),
        ("ai.example.com", True),
        ("evil.com", False),
        ("localhost.evil.com", False),
        ("127.0.0.1.nip.io", False),
        ("evil.com:11434", False),
        ("user@localhost", False),
        ("localhost/evil.com", False),
        ("[::1", False),
    ],
)
def test_a_host_is_an_address_or_a_known_name(client, host, allowed):
    response = client.get("/api/version", headers={"host": host})
    assert response.status_code == (200 if allowed else 403)
    if not allowed:
        assert response.json()["code"] == "forbidden"


@pytest.mark.parametrize(("host", "status"), [("localhost:1", 204), ("127.0.0.1", 405), ("", 405)])
def test_options_without_an_origin_are_known_to_names_only(client, host, status):
    response = client.options("/api/chat", headers={"host": host})
    assert response.status_code == status
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost", True),
        ("http://localhost:3000", True),
        ("https://127.0.0.1:8080", True),
        ("http://0.0.0.0", True),
        ("app://obsidian.md", True),
        ("tauri://localhost", True),
        ("vscode-webview://abc", True),
        ("chrome-extension://abcdef", True),
        ("https://a.example.org", True),
        ("https://example.org", False),
        ("https://evil.com", False),
        ("http://localhost.evil.com", False),
        ("null", False),
        ("https://a.example.org.evil.com", False),
        ("javascript://localhost", False),
    ],
)
def test_a_page_may_call_from_known_origins_only(client, origin, allowed):
    body = {"model": "tiny", "prompt": "x", "stream": False}
    response = client.post("/api/generate", json=body, headers={"origin": origin})
    assert response.status_code == (200 if allowed else 403)
    assert response.headers.get("access-control-allow-origin") == (origin if allowed else None)
    assert "access-control-allow-credentials" not in response.headers


def test_a_page_of_our_own_origin_needs_no_permission(client, server):
    response = client.get("/api/tags", headers={"origin": server.url})
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers


def test_a_preflight_is_answered_for_known_origins(client):
    headers = {"origin": "http://localhost:3000", "access-control-request-method": "POST"}
    response = client.options("/api/generate", headers=headers)
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "POST" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-max-age"] == "43200"
    assert "vary" in response.headers


def test_options_from_a_known_origin_need_not_name_a_method(client):
    response = client.options("/api/generate", headers={"origin": "app://x"})
    assert (response.status_code, response.text) == (204, "")


def test_a_preflight_from_elsewhere_is_refused(client):
    headers = {"origin": "https://evil.com", "access-control-request-method": "POST"}
    assert client.options("/api/generate", headers=headers).status_code == 403


def test_a_star_lets_every_page_in_without_credentials(models):
    with running(models, origins=("*",)) as state, state.client() as client:
        response = client.get("/api/tags", headers={"origin": "https://any.where"})
        assert response.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Bearer", 401),
        ("Basic first", 401),
        ("Bearer first", 200),
        ("bearer second", 200),
        ("Bearer \xff", 401),
    ],
)
def test_where_keys_are_set_a_request_must_carry_one(locked, header, status):
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    with locked.client() as client:
        response = client.get("/api/tags", headers=headers)
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["code"] == "unauthorized"


def test_liveness_needs_no_key(locked):
    with locked.client() as client:
        assert client.get("/").status_code == 200
        assert client.get("/api/version").status_code == 200
        assert client.post("/api/generate", json={}).status_code == 401


def test_each_key_has_a_cache_scope_of_its_own(locked):
    for key in ("first", "second", "first"):
        with locked.client(headers={"authorization": f"Bearer {key}"}) as client:
            client.post("/api/generate", json={"model": "tiny", "prompt": "x", "stream": False})
    scopes = [line.split()[2] for line in locked.log() if "key:" in line][-3:]
    assert scopes[0] == scopes[2] != scopes[1]
    assert "first" not in scopes[0]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "my-name"])
def test_a_bind_beyond_this_machine_wants_keys(tmp_path, host):
    settings = Settings(home=tmp_path, models=tmp_path, host=host)
    with pytest.raises(BadSetting, match="no key is set"):
        check_bind(settings)
    check_bind(Settings(home=tmp_path, models=tmp_path, host=host, api_keys=("k",)))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_a_loopback_bind_is_open(tmp_path, host):
    check_bind(Settings(home=tmp_path, models=tmp_path, host=host))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": "first"}, 200),
        ({"x-api-key": "second", "authorization": "Bearer placeholder"}, 200),
        ({"x-api-key": "placeholder", "authorization": "Bearer first"}, 200),
        ({"x-api-key": "wrong"}, 401),
        ({"x-api-key": "Bearer first"}, 401),
        ({"x-api-key": ""}, 401),
    ],
)
def test_a_key_may_stand_where_anthropics_clients_write_it(locked, headers, status):
    with locked.client(headers=headers) as client:
        assert client.get("/api/tags").status_code == status


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/chat", str),
        ("/v1/chat/completions", "authentication_error"),
        ("/v1/messages", "authentication_error"),
    ],
)
def test_a_shut_door_is_said_in_the_dialect_of_the_path(locked, path, kind):
    with locked.client() as client:
        body = client.post(path, json={}).json()
    assert isinstance(body["error"], str) if kind is str else body["error"]["type"] == kind
    assert ("type" in body) is (path == "/v1/messages")
