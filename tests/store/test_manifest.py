"""Manifests and config blobs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.store.manifest import (
    CONFIG_TYPE,
    MODEL,
    BadManifest,
    Layer,
    Manifest,
    ModelConfig,
    digest_of,
    dump_config,
    dump_json,
    dump_manifest,
    dump_params,
    parse_config,
    parse_manifest,
    size_label,
)

DIGESTS = st.binary(min_size=1, max_size=8).map(digest_of)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LAYERS = st.builds(
    Layer, media_type=TEXTS, digest=DIGESTS, size=st.integers(0, 1 << 50), parent=TEXTS, name=TEXTS
)
CONFIGS = st.builds(
    ModelConfig,
    model_format=st.just("gguf"),
    model_family=TEXTS,
    model_families=st.lists(TEXTS, max_size=3).map(tuple),
    model_type=TEXTS,
    file_type=TEXTS,
    context_length=st.integers(0, 1 << 24),
    embedding_length=st.integers(0, 1 << 16),
    capabilities=st.lists(TEXTS, max_size=3).map(tuple),
    source=TEXTS,
)


@given(st.builds(Manifest, config=LAYERS, layers=st.lists(LAYERS, max_size=4).map(tuple)))
def test_a_manifest_reads_back(manifest: Manifest) -> None:
    content = dump_manifest(manifest)
    assert parse_manifest(content) == manifest
    assert content.endswith(b"}\n")
    assert not set(content.decode()) & set("<>&\u2028\u2029")


@given(CONFIGS)
def test_a_config_blob_reads_back(config: ModelConfig) -> None:
    assert parse_config(dump_config(config)) == config


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_with_one_error(content: bytes) -> None:
    for parse in (parse_manifest, parse_config):
        try:
            parse(content)
        except BadManifest:
            continue


def test_the_bytes_are_those_that_ollama_writes() -> None:
    digest = "sha256:" + "a" * 64
    manifest = Manifest(Layer(CONFIG_TYPE, digest, 5), (Layer(MODEL, digest, 7, "llama2", "x"),))
    assert dump_manifest(manifest).decode() == (
        '{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
        f'"config":{{"mediaType":"{CONFIG_TYPE}","digest":"{digest}","size":5}},'
        f'"layers":[{{"mediaType":"{MODEL}","digest":"{digest}","size":7,'
        '"from":"llama2","name":"x"}]}\n'
    )


def test_json_is_escaped_as_go_escapes_it() -> None:
    assert dump_json({"stop": ["<|eot_id|>", "ü&\u2028"]}) == (
        b'{"stop":["\\u003c|eot_id|\\u003e","\xc3\xbc\\u0026\\u2028"]}\n'
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no JSON"),
        (b"[]", "no JSON object"),
        (b'{"config":3}', "no object"),
        (b'{"config":{"digest":"x"}}', "no digest or no size"),
        (b'{"config":{"digest":"x","size":-1}}', "negative"),
        (b'{"config":{"digest":"x","size":1},"layers":3}', "no list"),
        (b"[" * 100_000, "no JSON"),
        (b" " * (5 << 20), "too long"),
    ],
)
def test_a_broken_manifest_says_what_is_broken(content: bytes, why: str) -> None:
    with pytest.raises(BadManifest, match=why):
        parse_manifest(content)


def test_unknown_fields_and_old_digests_are_accepted() -> None:
    body = {"config": {"mediaType": "t", "digest": "sha256-AB", "size": 1, "new": []}, "more": 1}
    assert parse_manifest(json.dumps(body).encode()).config.digest == "sha256:ab"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.7, "0.7"), (64.0, "64"), (-1, "-1"), (1e-5, "0.00001"), (1e-7, "1e-7"), (0.0, "0"),
        (1.5e-10, "1.5e-10"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (True, "true"),
        (["</s>", 2.0], '["\\u003c/s\\u003e",2]'), (None, "null"),
    ],
)  # fmt: skip
def test_options_are_stored_as_go_writes_them(value: object, text: str) -> None:
    assert dump_params({"b": value, "a": 1}).decode() == f'{{"a":1,"b":{text}}}\n'


@pytest.mark.parametrize(
    ("n_params", "text"),
    [(999, "999"), (121_000, "121K"), (134_515_008, "134.52M"), (7_000_000, "7M"),
     (6_738_415_616, "6.7B"), (7_000_000_000, "7B")],
)  # fmt: skip
def test_sizes_are_said_as_people_know_them(n_params: int, text: str) -> None:
    assert size_label(n_params) == text
