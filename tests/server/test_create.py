"""create, copy and blobs over real HTTP, on a store of their own; quantizing in a real child."""

import hashlib
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from localrun.gguf import open_header
from localrun.store.library import Library
from localrun.store.manifest import PARAMS, SYSTEM
from tests.fakes.lora import make_adapter
from tests.fakes.stored import store_model
from tests.fakes.tinygguf import make_tiny, shard_paths
from tests.server.conftest import running

EMPTY = f"sha256:{hashlib.sha256(b'').hexdigest()}"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("create")
    tiny = make_tiny(home / "tiny.gguf")
    store_model(
        home / "models", "base", tiny, params={"stop": ["</s>"], "temperature": 0.5},
        system="Be kind.", license="MIT", messages=[{"role": "user", "content": "hey"}],
        template="{{ .Prompt }}",
    )  # fmt: skip
    make_tiny(home / "f16.gguf", n_embd=256, quantization="F16", seed=2)
    make_tiny(home / "split.gguf", shards=3, seed=3)
    return home


@pytest.fixture(scope="module")
def server(home):
    with running(home) as state:
        yield state


@pytest.fixture
def library(home) -> Library:
    return Library(home / "models")


@pytest.fixture
def put(client):
    """Send a file as a blob; returns its digest."""

    def send(file: Path) -> str:
        found = digest(file.read_bytes())
        answer = client.post(f"/api/blobs/{found}", content=file.read_bytes())
        assert answer.status_code in (200, 201)
        return found

    return send


def create(client, **body) -> list[dict[str, Any]]:
    answer = client.post("/api/create", json=body)
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def statuses(records: list[dict[str, Any]]) -> list[str]:
    """Statuses without their digests, repeated ones once."""
    words = [record.get("status", record.get("error", "")).partition(" sha256:")[0]
             for record in records]  # fmt: skip
    return list(dict.fromkeys(words))


# ── blobs ─────────────────────────────────────────────────────────────────────────────────────


def test_a_blob_is_stored_under_its_digest_and_then_there(client, library):
    content = b"x" * (9 << 20)
    path = f"/api/blobs/{digest(content)}"
    assert client.head(path).status_code == 404
    created = client.post(path, content=content)
    assert (created.status_code, created.content) == (201, b"")
    assert client.head(path).status_code == 200
    assert client.post(path, content=b"not looked at").status_code == 200
    assert library.blobs.path(digest(content)).read_bytes() == content


def test_a_body_without_a_length_and_an_empty_one_are_blobs_too(client, library):
    pieces = [b"a" * 100_000, b"", b"b" * 3]
    found = digest(b"".join(pieces))
    path = f"/api/blobs/{found.replace(':', '-').upper().replace('SHA256', 'sha256')}"
    assert client.post(path, content=iter(pieces)).status_code == 201
    assert library.blobs.has(found, 100_003)
    assert client.post(f"/api/blobs/{EMPTY}", content=b"").status_code == 201


def test_a_blob_of_another_content_is_refused_and_leaves_nothing(client, home):
    wanted = digest(b"promised")
    answer = client.post(f"/api/blobs/{wanted}", content=b"sent")
    assert answer.status_code == 400
    assert answer.json()["error"] == (
        f'digest mismatch, expected "{wanted}", got "{digest(b"sent")}"'
    )
    assert client.head(f"/api/blobs/{wanted}").status_code == 404
    assert client.head(f"/api/blobs/{digest(b'sent')}").status_code == 404
    assert list((home / "models" / "partial").iterdir()) == []


@pytest.mark.parametrize("name", ["sha256:abc", "md5:" + "a" * 64, "sha256:" + "g" * 64, "..%2fx"])
def test_what_is_no_digest_is_refused(client, name):
    assert client.post(f"/api/blobs/{name}", content=b"").status_code in (400, 404)
    assert client.head(f"/api/blobs/{name}").status_code in (400, 404)


def test_a_client_that_goes_away_leaves_no_part_behind(server, home):
    path = f"/api/blobs/{digest(b'never')}"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
    partial = home / "models" / "partial"
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(head.encode() + b"z" * (5 << 20))
        server.wait_for(lambda: list(partial.iterdir()))
    server.wait_for(lambda: not list(partial.iterdir()))


def test_two_clients_may_send_the_same_blob_at_once(server):
    content = b"same" * (1 << 19)
    codes: list[int] = []

    def send() -> None:
        with server.client() as client:
            codes.append(client.post(f"/api/blobs/{digest(content)}", content=content).status_code)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(codes) <= {200, 201}
    assert 201 in codes


def test_only_the_users_own_cli_may_name_a_file(server, client, home):
    file = home / "tiny.gguf"
    path = f"/api/blobs/{digest((home / 'f16.gguf').read_bytes())}"
    headers = {"x-localrun-path": str(home / "f16.gguf")}
    assert client.post(path, headers=headers).status_code == 403
    headers["x-localrun-local"] = server.rooms.cli_token
    assert client.post(path, headers=headers | {"x-localrun-path": str(file)}).status_code == 400
    assert client.post(path, headers=headers).status_code == 201
    blob = Library(home / "models").blobs.path(path.rpartition("/")[2])
    assert blob.samefile(home / "f16.gguf")


# ── from ──────────────────────────────────────────────────────────────────────────────────────


def test_a_model_from_another_inherits_what_is_not_said_anew(client, library):
    records = create(
        client, model="child", **{"from": "base"}, system="Be brief.",
        parameters={"temperature": 0.25, "num_ctx": 64.0}, license=["BSD"],
    )  # fmt: skip
    assert statuses(records) == [
        "using existing layer", "creating new layer", "writing manifest", "success",
    ]  # fmt: skip
    base, child = library.find("base"), library.find("child")
    assert (child.system, child.template) == ("Be brief.", "{{ .Prompt }}")
    assert child.params == {"stop": ["</s>"], "temperature": 0.25, "num_ctx": 64}
    assert (child.licenses, child.messages) == (("MIT", "BSD"), base.messages)
    assert (child.model_paths, child.parent) == (base.model_paths, "base:latest")
    assert child.config.file_type == "F32"
    order = [layer.media_type.rpartition(".")[2] for layer in child.manifest.layers]
    assert order == ["model", "messages", "license", "template", "system", "license", "params"]
    (params,) = child.manifest.of_type(PARAMS)
    content = library.blobs.path(params.digest).read_bytes()
    assert content == b'{"num_ctx":64,"stop":["\\u003c/s\\u003e"],"temperature":0.25}\n'


def test_a_model_may_be_made_of_itself(client, library):
    create(client, model="self", **{"from": "base"}, system="one")
    old = library.find("self").manifest.of_type(SYSTEM)[0].digest
    create(client, model="self", **{"from": "self"}, messages=[{"role": "User", "content": "x"}])
    create(client, model="self", **{"from": "self"}, system="two")
    found = library.find("self")
    assert (found.system, found.messages) == ("two", ({"role": "user", "content": "x"},))
    assert not library.blobs.has(old)


def test_renderer_parser_and_requires_are_kept_and_inherited(client, library):
    create(
        client, model="r", **{"from": "base"}, renderer="qwen3", parser="qwen3", requires="0.14.0"
    )
    create(client, model="r2", **{"from": "r"}, parser="other")
    config = library.find("r2").config
    assert (config.renderer, config.parser, config.requires) == ("qwen3", "other", "0.14.0")


def test_what_is_said_of_a_model_stands_in_its_config(client, library):
    info = {"model_family": "f", "quantization_level": "Q", "parameter_size": "1B",
            "context_length": 9, "capabilities": ["tools", 1], "base_name": "b"}  # fmt: skip
    create(client, model="said", **{"from": "base"}, info=info)
    config = library.find("said").config
    assert (config.model_family, config.file_type, config.model_type) == ("f", "Q", "1B")
    assert (config.context_length, config.capabilities) == (9, ("tools",))


def test_without_a_stream_the_last_event_alone_is_the_answer(client):
    answer = client.post("/api/create", json={"model": "q", "from": "base", "stream": False})
    assert (answer.json(), answer.headers["content-type"]) == (
        {"status": "success"}, "application/json",
    )  # fmt: skip


# ── files ─────────────────────────────────────────────────────────────────────────────────────


def test_a_model_from_a_file_is_that_file(client, put, home, library):
    found = put(home / "tiny.gguf")
    records = create(client, name="filed", files={"tiny.gguf": found}, template="{{ .Prompt }}!")
    assert statuses(records) == [
        "parsing GGUF", "using existing layer", "creating new layer", "writing manifest", "success",
    ]  # fmt: skip
    model = library.find("filed")
    assert (model.model_digest, model.parent, model.template) == (found, "", "{{ .Prompt }}!")
    assert (model.config.model_family, model.config.file_type) == ("llama", "F32")


def test_a_file_is_quantized_in_a_child_that_tells_its_progress(client, put, home, library):
    file = home / "f16.gguf"
    records = create(client, model="small", files={"m.gguf": put(file)}, quantize="q4_k_m")
    bars = [record for record in records if record.get("total")]
    assert {bar["status"] for bar in bars} == {"quantizing F16 model to Q4_K_M"}
    assert {bar["digest"] for bar in bars} == {"0000000000000000000"}
    assert statuses(records)[-4:] == [
        "verifying conversion", "creating new layer", "writing manifest", "success",
    ]  # fmt: skip
    model = library.find("small")
    assert open_header(model.model_paths[0]).info.file_type == "Q4_K_M"
    assert model.config.file_type == "Q4_K_M"
    assert model.size_bytes < file.stat().st_size / 2
    assert list((home / "models" / "partial").iterdir()) == []


def test_shards_become_one_file(client, put, home, library):
    first = home / "split-00001-of-00003.gguf"
    files = {path.name: put(path) for path in shard_paths(first)}
    create(client, model="whole", files=files)
    (path,) = library.find("whole").model_paths
    info = open_header(path).info
    assert (info.split_count, info.n_tensors) == (1, 21)


def test_a_missing_shard_is_refused(client, put, home):
    first, second, _ = shard_paths(home / "split-00001-of-00003.gguf")
    files = {first.name: put(first), second.name: put(second)}
    (*_, last) = create(client, model="whole2", files=files)
    assert last["error"] == f'split GGUF "{first.name}" has 2 shards, expected 3'
    (*_, last) = create(client, model="whole2", files={"wrong.gguf": put(first)})
    assert "must use llama.cpp split filename pattern" in last["error"]


def test_an_adapter_and_a_projector_are_layers_of_their_own(client, put, home, library):
    adapter = home / "lora.gguf"
    make_adapter(adapter)
    create(client, model="tuned", **{"from": "base"}, adapters={"lora.gguf": put(adapter)})
    model = library.find("tuned")
    assert [path.read_bytes() for path in model.adapter_paths] == [adapter.read_bytes()]
    assert model.model_digest != library.find("base").model_digest  # a runner of its own
    body = {"model": "tuned", "prompt": "x", "stream": False}
    assert client.post("/api/generate", json=body).status_code == 200
    assert client.get("/api/ps").json()["models"][0]["name"] == "tuned:latest"
    answer = client.post(
        "/api/create",
        json={"model": "t2", "from": "base", "adapters": {"a": put(adapter), "b": put(adapter)}},
    )
    assert (answer.status_code, answer.json()["error"]) == (
        400, "only one adapter is currently supported",
    )  # fmt: skip


# ── refusals ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "invalid model name"),
        ({"model": "a/b/c/d/e", "from": "base"}, "invalid model name"),
        ({"model": "x", "from": "a//b"}, "invalid model name"),
        ({"model": "x"}, "neither 'from' or 'files' was specified"),
        ({"model": "x", "files": {}}, "unknown type"),
        ({"model": "x", "files": {"/etc/x.gguf": EMPTY}}, "file path must be relative"),
        ({"model": "x", "files": {"../x.gguf": EMPTY}}, "file path must be relative"),
        ({"model": "x", "files": {"x.gguf": ""}}, "invalid digest format"),
        ({"model": "x", "files": {"model.safetensors": EMPTY}}, "safetensors"),
        ({"model": "x", "files": {"x.txt": EMPTY}}, "unknown type"),
        ({"model": "x", "from": "base", "quantize": "Q9"}, "unsupported quantization type Q9"),
        ({"model": "x", "from": "base", "draft_quantize": "Q8_0"},
         "--draft-quantize requires a DRAFT model"),
        ({"model": "x", "from": "base", "remote_host": "h"}, "models on other hosts"),
        ({"model": "x", "from": "base", "parameters": {"num_ctx": "big"}},
         'option "num_ctx" must be of type integer'),
        ({"model": "x", "from": "base", "template": "{{ if }}"},
         "template error: template: :1: missing value for if"),
        ({"model": "x", "from": "base", "license": 3},
         "json: cannot unmarshal number into Go value of type []string"),
        ({"model": "x", "from": "base", "files": ["a"]},
         "json: cannot unmarshal array into Go struct field CreateRequest.files of type map"),
        ({"model": "x", "from": "base", "info": {"context_length": -1}},
         'info field "context_length" must be a non-negative integer'),
    ],
)  # fmt: skip
def test_what_makes_no_model_is_a_400_that_leaves_nothing(client, library, body, message):
    before = sorted(library.root.glob("**/*"))
    answer = client.post("/api/create", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)
    assert sorted(library.root.glob("**/*")) == before


def test_a_damaged_file_is_refused_before_anything_is_stored(client, put, home):
    cut = home / "cut.gguf"
    cut.write_bytes((home / "tiny.gguf").read_bytes()[:100_000])
    (*_, last) = create(client, model="x", files={"cut.gguf": put(cut)})
    assert last["code"] == "bad_model_file"
    text = home / "text.gguf"
    text.write_text("no model")
    (*_, last) = create(client, model="x", files={"text.gguf": put(text)})
    assert last["error"] == "supplied file was not in GGUF format"
    (*_, last) = create(client, model="x", files={"m.gguf": digest(b"never sent")})
    assert last["error"] == f'blob "{digest(b"never sent")}" not found'
    assert client.post("/api/show", json={"model": "x"}).status_code == 404


def test_what_is_quantized_already_is_not_quantized_again(client, put, home):
    q8 = make_tiny(home / "q8.gguf", quantization="Q8_0", seed=5)
    (*_, last) = create(client, model="x", files={"q8.gguf": put(q8)}, quantize="Q4_K_M")
    assert last["error"] == "quantization is only supported for F16, BF16 and F32 models"


# ── copy ──────────────────────────────────────────────────────────────────────────────────────


def test_a_copy_is_the_same_model_under_another_name(client, library):
    answer = client.post("/api/copy", json={"source": "base", "destination": "me/copy:v1"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert library.find("registry.ollama.ai/me/copy:v1").digest == library.find("base").digest
    client.request("DELETE", "/api/delete", json={"model": "registry.ollama.ai/me/copy:v1"})
    assert library.find("base").model_paths[0].exists()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"source": "none", "destination": "x"}, 404, 'model "none" not found'),
        ({"source": "", "destination": "x"}, 400, 'source "" is invalid'),
        ({"source": "base", "destination": "a b"}, 400, 'destination "a b" is invalid'),
    ],
)
def test_a_copy_that_cannot_be_is_refused(client, body, status, message):
    answer = client.post("/api/copy", json=body)
    assert (answer.status_code, answer.json()["error"]) == (status, message)


def test_a_copy_onto_itself_changes_nothing(client):
    for name in ("base", "none"):
        body = {"source": name, "destination": name.upper()}
        assert client.post("/api/copy", json=body).status_code == 200
