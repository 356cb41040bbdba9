"""Pull from and push to a registry that speaks the protocol; who is told who we are."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from localrun.errors import (
    AccessDenied,
    BrokenTransfer,
    Cancelled,
    InvalidName,
    LocalrunError,
    Offline,
    RateLimited,
    SourceMissing,
    Unsupported,
)
from localrun.names import parse_name
from localrun.store.addresses import (
    Credentials,
    RegistryFailed,
    names_registry,
    read_address,
)
from localrun.store.create import Recipe, create
from localrun.store.library import Library, StoredModel
from localrun.store.manifest import LICENSE, MODEL, PARAMS, TEMPLATE
from localrun.store.progress import PullEvent
from localrun.store.push import Manners, PartSizes, push
from localrun.store.registry import Registry
from localrun.store.sources.registry import pull_from_registry
from localrun.store.wire import Patience
from tests.fakes.registry import PASSWORD, TOKEN, USER, FakeRegistry, Trouble
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny

QUICK = Patience(connect_s=2.0, stall_s=2.0, tries=3, backoff_s=0.01)
ME = Credentials(USER, PASSWORD)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "models")


@pytest.fixture
def manifest(fake: FakeRegistry, tiny: Path) -> bytes:
    """A published model `me/m:latest`."""
    return fake.add(
        "me/m:latest",
        (MODEL, tiny.read_bytes()),
        (TEMPLATE, b"{{ .Prompt }}"),
        (PARAMS, b'{"stop":["</s>"]}'),
        (LICENSE, b""),
        config=b'{"model_family":"llama","file_type":"F32","rootfs":{"type":"layers"}}',
    )


def pull(fake: FakeRegistry, library: Library, name="me/m", user=None, cancelled=lambda: False):
    events: list[PullEvent] = []
    address = read_address(f"{fake.host}/{name}", insecure=False)
    with Registry(address, user, QUICK) as registry:
        model = pull_from_registry(registry, library, events.append, cancelled, QUICK)
    return model, events


def send(fake: FakeRegistry, library: Library, model: StoredModel, user=None, cancelled=None):
    events: list[PullEvent] = []
    address = read_address(model.name.full(), insecure=False)
    with Registry(address, user, QUICK) as registry:
        push(model, registry, library, events.append, cancelled or (lambda: False), Manners(QUICK))
    return events


@pytest.fixture
def ours(fake: FakeRegistry, library: Library, tiny: Path) -> StoredModel:
    """A model that is named for the registry."""
    root = library.root
    return store_model(root, f"{fake.host}/me/own:v1", tiny, system="Be kind.", license="MIT")


# ── names ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "insecure", "base"),
    [
        ("registry.example/me/m", False, "https://registry.example"),
        ("registry.example:5000/me/m:t", False, "https://registry.example:5000"),
        ("https://registry.example/me/m", False, "https://registry.example"),
        ("registry.example/me/m", True, "http://registry.example"),
        ("http://registry.example/me/m", True, "http://registry.example"),
        ("localhost:5000/me/m", False, "http://localhost:5000"),
        ("127.0.0.1:5000/me/m", False, "http://127.0.0.1:5000"),
        ("https://127.0.0.1:5000/me/m", False, "https://127.0.0.1:5000"),
        ("ollama.com/library/llama2", False, "https://registry.ollama.ai"),
        ("registry.ollama.ai/library/llama2:7b", False, "https://registry.ollama.ai"),
    ],
)
def test_a_name_with_a_host_is_a_model_at_a_registry(text, insecure, base):
    assert names_registry(text)
    assert read_address(text, insecure=insecure).base == base


@pytest.mark.parametrize("text", ["http://registry.example/me/m", "http://127.0.0.1.evil/me/m"])
def test_plain_http_to_another_machine_must_be_allowed(text):
    with pytest.raises(RegistryFailed, match="insecure protocol http"):
        read_address(text, insecure=False)


@pytest.mark.parametrize("text", ["llama2", "me/m", "hf.co/me/m", "https://hf.co/me/m", "a/b/c"])
def test_a_name_without_one_is_not(text):
    assert not names_registry(text)


def test_ollamas_names_are_the_bare_ones():
    assert parse_name("ollama.com/library/llama2") == parse_name("llama2")


# ── pull ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("redirects", [False, True])
def test_a_pulled_model_is_the_registrys_to_the_byte(fake, library, manifest, tiny, redirects):
    fake.redirects = redirects
    model, events = pull(fake, library)
    assert library.manifest_bytes(model.name) == manifest
    assert model.digest == hashlib.sha256(manifest).hexdigest()
    assert model.model_paths[0].read_bytes() == tiny.read_bytes()
    assert (model.template, model.params) == ("{{ .Prompt }}", {"stop": ["</s>"]})
    assert model.name.full() == f"{fake.host}/me/m:latest"
    words = list(dict.fromkeys(event.status for event in events))
    digests = [layer.digest[7:19] for layer in (*model.manifest.layers, model.manifest.config)]
    assert words == [
        *(f"pulling {digest}" for digest in digests),
        "verifying sha256 digest", "writing manifest", "success",
    ]  # fmt: skip
    assert all(event.completed <= event.total for event in events)
    assert not list((library.root / "partial").glob("*.part"))
    assert bool(fake.requests("storage")) == redirects


def test_what_is_here_is_not_fetched_again(fake, library, manifest):
    pull(fake, library)
    fake.seen.clear()
    _, events = pull(fake, library)
    assert [seen.path.rpartition("/")[2] for seen in fake.seen] == ["latest"]
    assert all(event.completed == event.total for event in events)


@pytest.mark.parametrize(
    ("publish", "error", "words"),
    [
        (lambda fake: None, SourceMissing, "pull model manifest: file does not exist"),
        (lambda fake: fake.add("me/x:latest", (TEMPLATE, b"x")), RegistryFailed, "no weights"),
        (
            lambda fake: fake.add(
                "me/x:latest", ("application/vnd.ollama.image.tensor", b"x"), (MODEL, b"y")
            ),
            Unsupported,
            "requires MLX support",
        ),
        (lambda fake: fake.manifests.update({"me/x:latest": b"<html>"}), RegistryFailed, "no JSON"),
        (
            lambda fake: fake.manifests.update(
                {
                    "me/x:latest": json.dumps(
                        {"config": {"digest": "../../etc/x", "size": 1}, "layers": []}
                    ).encode()
                }
            ),
            RegistryFailed,
            "invalid digest format",
        ),
    ],
)
def test_what_is_no_model_is_refused_before_a_blob_is_fetched(fake, library, publish, error, words):
    publish(fake)
    with pytest.raises(error, match=words):
        pull(fake, library, "me/x")
    assert not [seen for seen in fake.seen if "/blobs/" in seen.path]
    assert library.list() == []


def test_bytes_that_are_not_the_digests_never_get_its_name(fake, library, manifest, tiny):
    digest = f"sha256:{hashlib.sha256(tiny.read_bytes()).hexdigest()}"
    fake.blobs[digest] = bytes(reversed(tiny.read_bytes()))
    with pytest.raises(BrokenTransfer, match="another content than promised"):
        pull(fake, library)
    assert not library.blobs.has(digest)
    assert library.list() == []


def test_a_file_that_is_no_model_is_refused_at_the_end(fake, library):
    fake.add("me/m:latest", (MODEL, b"not a model" * 100))
    with pytest.raises(LocalrunError, match="not a GGUF file"):
        pull(fake, library)
    assert library.list() == []


def test_a_cancelled_pull_stops(fake, library, manifest):
    with pytest.raises(Cancelled):
        pull(fake, library, cancelled=lambda: True)


# ── who is told who we are ────────────────────────────────────────────────────────────────────


def told(fake: FakeRegistry, role: str) -> set[str]:
    """What a server was shown of who we are."""
    return {seen.authorization for seen in fake.requests(role)} - {""}


@pytest.mark.parametrize("auth", ["bearer", "basic"])
def test_the_registry_is_told_and_its_storage_is_not(fake, library, manifest, auth):
    fake.auth, fake.redirects, fake.anonymous = auth, True, False
    pull(fake, library, user=ME)
    assert told(fake, "registry")
    assert fake.requests("storage")
    assert told(fake, "storage") == set()


def test_without_a_password_an_anonymous_token_is_asked_for(fake, library, manifest):
    fake.auth = "bearer"
    pull(fake, library)
    asked = [seen for seen in fake.seen if seen.path == "/token"]
    assert [(seen.authorization, seen.query["scope"]) for seen in asked] == [
        ("", ["repository:me/m:pull,push"])
    ]
    assert told(fake, "registry") == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    "realm",
    [
        "{stranger}/token",
        "http://localhost:1/token",
        "{registry}@127.0.0.1:1/token",
        "file:///etc/passwd",
        "//stranger/token",
        "",
    ],
)
def test_a_foreign_realm_is_asked_nothing(fake, library, manifest, realm):
    fake.auth, fake.realm, fake.anonymous = "bearer", realm, False
    with pytest.raises(AccessDenied, match="does not match original host"):
        pull(fake, library, user=ME)
    assert fake.requests("stranger") == []
    assert told(fake, "registry") == set()


def test_a_redirect_of_the_manifest_to_a_stranger_carries_no_credential(fake, library, manifest):
    fake.auth = "bearer"
    away = {"Location": f"{fake.urls['stranger']}/manifest"}
    pull(fake, library)  # from here on we have no token left, and ask for one again
    fake.troubles.append(Trouble("GET", "/manifests/", times=2, status=307, headers=away))
    with pytest.raises(LocalrunError):
        pull(fake, library, user=ME)
    assert fake.requests("stranger")
    assert told(fake, "stranger") == set()


def test_an_upload_that_is_sent_to_a_stranger_carries_no_credential(fake, library, ours):
    fake.auth = "basic"
    away = {"Location": f"{fake.urls['stranger']}/v2/me/own/blobs/uploads/0"}
    fake.troubles.append(Trouble("POST", "/uploads/", status=202, headers=away))
    with pytest.raises(LocalrunError):
        send(fake, library, ours, ME)
    assert fake.requests("stranger", "PATCH")
    assert told(fake, "stranger") == set()


def test_who_is_not_let_in_is_told_so(fake, library, manifest):
    fake.auth, fake.anonymous = "bearer", False
    with pytest.raises(AccessDenied, match="pull model manifest: unauthorized: access denied"):
        pull(fake, library)
    with pytest.raises(AccessDenied, match="unauthorized"):
        pull(fake, library, user=Credentials(USER, "wrong"))


def test_only_what_a_registry_says_is_passed_on(fake, library, manifest):
    secret = Trouble("GET", "/manifests/", status=500, body="<b>an intranet page</b>")
    fake.troubles.append(secret)
    with pytest.raises(RegistryFailed) as caught:
        pull(fake, library)
    assert "intranet" not in caught.value.message
    said = json.dumps({"errors": [{"code": "DENIED", "message": "come in May"}]})
    fake.troubles.append(Trouble("GET", "/manifests/", status=418, body=said))
    with pytest.raises(RegistryFailed, match="418: DENIED come in May"):
        pull(fake, library)
    late = {"Retry-After": "7"}
    fake.troubles.append(Trouble("GET", "/manifests/", status=429, headers=late))
    with pytest.raises(RateLimited) as limited:
        pull(fake, library)
    assert limited.value.retry_after_s == 7.0


def test_a_registry_that_is_not_there_is_offline(library):
    address = read_address("127.0.0.1:1/me/m", insecure=False)
    with Registry(address, None, QUICK) as registry, pytest.raises(Offline, match="reached"):
        pull_from_registry(registry, library, lambda _: None, lambda: False, QUICK)


# ── push ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("redirects", [False, True])
@pytest.mark.parametrize("auth", ["", "bearer", "basic"])
def test_a_pushed_model_is_there_to_the_byte(fake, library, ours, tmp_path, auth, redirects):
    fake.auth, fake.redirects, fake.anonymous = auth, redirects, False
    events = send(fake, library, ours, ME)
    assert fake.manifests["me/own:v1"] == library.manifest_bytes(ours.name)
    assert told(fake, "storage") == set()
    words = list(dict.fromkeys(event.status for event in events))
    assert words[-2:] == ["pushing manifest", "success"]
    assert words[0] == f"pushing {ours.model_digest[7:19]}"
    last = {event.digest: event for event in events if event.digest}
    assert all(event.completed == event.total for event in last.values())

    again = Library(tmp_path / "other")
    model, _ = pull(fake, again, "me/own:v1", ME)
    assert (model.digest, model.system) == (ours.digest, "Be kind.")


def test_what_the_registry_has_is_not_sent_again(fake, library, ours):
    send(fake, library, ours)
    fake.seen.clear()
    events = send(fake, library, ours)
    assert {seen.method for seen in fake.seen} == {"HEAD", "PUT"}
    assert [event.completed == event.total for event in events if event.digest] == [True] * 4


def test_a_blob_of_the_parent_is_mounted(fake, library, ours):
    send(fake, library, ours)
    fake.troubles.append(Trouble("HEAD", "/blobs/", times=9, status=404))  # another repository
    name = parse_name(f"{fake.host}/me/child:v1")
    child = create(Recipe(name, ours, system="x"), library, lambda _: None, lambda: False)
    fake.seen.clear()
    send(fake, library, child)
    mounts = [seen.query for seen in fake.requests("registry", "POST")]
    assert {"mount": [ours.model_digest], "from": ["me/own"]} in mounts
    assert len(fake.requests("registry", "PATCH")) == 2  # the new system message and the config


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble("PATCH", "/uploads/", status=503),
        Trouble("PATCH", "/uploads/", drops_after=1000),
        Trouble("POST", "/uploads/", status=500),
        Trouble("PUT", "/uploads/", status=502),
    ],
    ids=["busy", "dropped", "no upload", "no commit"],
)
def test_a_trouble_that_passes_ends_no_push(fake, library, ours, trouble):
    fake.troubles.append(Trouble(**vars(trouble)))
    send(fake, library, ours)
    assert "me/own:v1" in fake.manifests


def test_an_interrupted_upload_goes_on_where_the_registry_is(fake, library, tmp_path, tiny):
    file = tmp_path / "large.gguf"
    file.write_bytes(tiny.read_bytes() + os.urandom(100))
    model = store_model(library.root, f"{fake.host}/me/large", file)
    fake.troubles.append(Trouble("PATCH", "/uploads/", after=1, status=503))
    manners = Manners(QUICK, PartSizes(smallest=100_000, largest=100_000))
    with Registry(read_address(model.name.full(), insecure=False), None, QUICK) as registry:
        push(model, registry, library, lambda _: None, lambda: False, manners)
    patched = [seen.headers["content-range"] for seen in fake.requests("registry", "PATCH")]
    assert patched[:3] == ["0-99999", "100000-199999", "100000-199999"]
    assert fake.blobs[model.model_digest] == file.read_bytes()


def test_a_trouble_that_stays_ends_it(fake, library, ours):
    fake.troubles.append(Trouble("PATCH", "/uploads/", times=99, status=503))
    with pytest.raises(Offline, match="max retries exceeded: 503"):
        send(fake, library, ours)
    fake.troubles = [Trouble("PUT", "/uploads/", times=99, status=400)]
    with pytest.raises(RegistryFailed, match="400"):
        send(fake, library, ours)
    assert fake.manifests == {}


def test_a_cancelled_push_stops(fake, library, ours):
    with pytest.raises(Cancelled):
        send(fake, library, ours, cancelled=lambda: True)
    assert fake.manifests == {}


def test_a_name_that_is_none_is_refused():
    with pytest.raises(InvalidName):
        read_address("a//b", insecure=True)
