"""Embeddings, ranking and tokens over real HTTP: n tokens have the vector (3/5, 4/5, n)."""

import math

import pytest

EMBED = "/api/embed"


def embed(client, **body):
    return client.post(EMBED, json={"model": "embedder", **body})


def test_a_text_and_a_list_of_texts_become_vectors_in_their_order(client):
    answer = embed(client, input=["a", "a b c d", "a b"]).json()
    assert list(answer) == [
        "model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"
    ]  # fmt: skip
    counts = [vector[2] for vector in answer["embeddings"]]
    assert counts == [counts[0], counts[0] + 6, counts[0] + 2]
    assert sum(counts) == answer["prompt_eval_count"]
    assert embed(client, input="a").json()["embeddings"] == answer["embeddings"][:1]


@pytest.mark.parametrize("nothing", [None, "", []])
def test_no_input_only_loads(client, server, nothing):
    assert embed(client, input=nothing).json() == {"model": "embedder", "embeddings": []}
    names = [model["name"] for model in client.get("/api/ps").json()["models"]]
    assert "embedder:latest" in names


def test_fewer_dimensions_are_made_unit_again_and_more_change_nothing(client):
    whole = embed(client, input="a").json()["embeddings"][0]
    assert embed(client, input="a", dimensions=5).json()["embeddings"][0] == whole
    cut = embed(client, input="a", dimensions=2).json()["embeddings"][0]
    assert cut == pytest.approx([0.6, 0.8], abs=1e-6)
    (one,) = embed(client, input="a", dimensions=1).json()["embeddings"][0]
    assert math.isclose(one, 1.0)


def test_a_long_text_is_cut_to_the_window_or_refused(client):
    text = "ab " * 100
    assert embed(client, input=text).json()["prompt_eval_count"] <= 64
    assert embed(client, input=text).json()["prompt_eval_count"] >= 62
    refused = embed(client, input=["a", text], truncate=False)
    assert refused.status_code == 400
    body = refused.json()
    assert body["error"] == "the input length exceeds the context length"
    assert body["needed"] > body["available"]
    small = embed(client, input=text, options={"num_ctx": 10}).json()
    assert 8 <= small["prompt_eval_count"] <= 10


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        (EMBED, {"input": "a"}, 404, "model '' not found"),
        (EMBED, {"model": "a//b", "input": "a"}, 400, "invalid model name"),
        (EMBED, {"model": "nope", "input": "a"}, 404,
         'model "nope" not found, try pulling it first'),
        (EMBED, {"model": "nope", "input": 1}, 400, "invalid input type"),
        (EMBED, {"model": "embedder", "input": ["a", None]}, 400, "invalid input type"),
        (EMBED, {"model": "embedder", "input": "a", "dimensions": "x"}, 400,
         ("json: cannot unmarshal string into Go struct field EmbedRequest.dimensions"
          " of type int")),
        ("/api/embeddings", {}, 400, "model is required"),
        ("/api/embeddings", {"model": "nope"}, 404,
         'model "nope" not found, try pulling it first'),
        ("/api/generate", {"model": "embedder", "prompt": "a"}, 400,
         '"embedder" does not support generate'),
        ("/api/chat", {"model": "embedder", "messages": [{"role": "user", "content": "a"}]}, 400,
         '"embedder" does not support chat'),
        ("/api/rerank", {"model": "embedder", "query": "a", "documents": ["b"]}, 400,
         "registry.ollama.ai/library/embedder:latest does not support rerank"),
        ("/api/rerank", {"model": "ranker", "documents": ["b"]}, 400, "query is required"),
        ("/api/rerank", {"model": "ranker", "query": "b"}, 400, "documents is required"),
        ("/api/tokenize", {"text": "a"}, 400, "model is required"),
        ("/api/detokenize", {"model": "tiny", "tokens": [-1]}, 400,
         "tokens holds a number that is no token"),
        ("/api/detokenize", {"model": "tiny", "tokens": [99999]}, 400, None),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_in_ollamas_words(client, path, body, status, error):
    response = client.post(path, json=body)
    assert response.status_code == status
    if error is not None:
        assert response.json()["error"] == error


def test_the_older_route_has_one_vector_and_cuts_nothing(client):
    answer = client.post("/api/embeddings", json={"model": "embedder", "prompt": "a b"}).json()
    assert answer == {"embedding": embed(client, input="a b").json()["embeddings"][0]}
    empty = client.post("/api/embeddings", json={"model": "embedder"}).json()
    assert empty == {"embedding": []}
    long = client.post("/api/embeddings", json={"model": "embedder", "prompt": "ab " * 100})
    assert (long.status_code, long.json()["code"]) == (400, "input_too_long")


def test_documents_are_ranked_best_first(client):
    body = {"model": "ranker", "query": "q", "documents": ["a", "a b c", "a b"], "top_n": 2}
    native = client.post("/api/rerank", json=body).json()
    assert [item["index"] for item in native["results"]] == [0, 1]
    assert native["results"][0]["relevance_score"] == pytest.approx(0.6)
    openai = client.post("/v1/rerank", json={**body, "return_documents": True}).json()
    assert openai["object"] == "list"
    assert openai["usage"]["total_tokens"] == native["prompt_eval_count"]
    assert openai["results"][1]["document"] == {"text": "a b c"}
    missing = client.post("/v1/rerank", json={**body, "model": "nope"})
    assert missing.status_code == 404
    assert "message" in missing.json()["error"]


def test_a_document_that_is_too_long_is_cut_or_refused(client):
    body = {"model": "ranker", "query": "q", "documents": ["ab " * 100]}
    assert client.post("/api/rerank", json=body).json()["prompt_eval_count"] <= 64
    refused = client.post("/api/rerank", json={**body, "truncate": False})
    assert (refused.status_code, refused.json()["code"]) == (400, "input_too_long")
    helpless = client.post("/api/rerank", json={**body, "query": "ab " * 100})
    assert (helpless.status_code, helpless.json()["code"]) == (400, "input_too_long")


def test_tokens_are_made_and_read_without_a_load(client, server):
    n_loads = sum("load " in line for line in server.log())
    tokens = client.post("/api/tokenize", json={"model": "filler", "text": "the x"}).json()
    assert tokens["model"] == "filler"
    with_ends = client.post(
        "/api/tokenize", json={"model": "filler", "content": "the x", "add_special": True}
    ).json()
    assert with_ends["tokens"] == [1, *tokens["tokens"]]
    text = client.post("/api/detokenize", json={"model": "filler", "tokens": tokens["tokens"]})
    assert text.json()["text"].strip() == "the x"
    assert sum("load " in line for line in server.log()) == n_loads


@pytest.mark.parametrize(
    ("method", "path", "status", "answer"),
    [
        ("GET", "/api/status", 200, {"cloud": {"disabled": True, "source": "config"}}),
        ("GET", "/api/experimental/model-recommendations", 200, {"recommendations": []}),
        ("POST", "/api/me", 401, "unauthorized"),
        ("POST", "/api/signout", 401, "you are not currently signed in"),
        ("DELETE", "/api/user/keys/abc", 401, "you are not currently signed in"),
        ("POST", "/api/experimental/web_search", 403,
         "ollama cloud is disabled: web search is unavailable"),
        ("POST", "/api/experimental/web_fetch", 403,
         "ollama cloud is disabled: web fetch is unavailable"),
    ],
)  # fmt: skip
def test_there_is_no_cloud_and_no_account(client, method, path, status, answer):
    response = client.request(method, path, content="{}" if method == "POST" else None)
    assert response.status_code == status
    body = response.json()
    assert (body if isinstance(answer, dict) else body["error"]) == answer
