"""A real embedding model gives the vectors that its makers' own code gives.

`minilm_vectors.json` was computed once with `transformers` on the same weights in full precision:
mean of the last hidden state over the tokens, of length 1.
"""

import json
import math
from pathlib import Path

import pytest

REFERENCE = json.loads((Path(__file__).parent / "minilm_vectors.json").read_text(encoding="utf-8"))


def cosine(one, two):
    dot = sum(x * y for x, y in zip(one, two, strict=True))
    return dot / math.sqrt(sum(x * x for x in one) * sum(y * y for y in two))


@pytest.fixture(scope="module")
def answer(server, minilm):
    return server.post("/api/embed", {"model": minilm, "input": [one["text"] for one in REFERENCE]})


@pytest.mark.parametrize("index", range(len(REFERENCE)))
def test_a_vector_is_that_of_transformers(answer, index):
    found, wanted = answer["embeddings"][index], REFERENCE[index]["vector"]
    assert cosine(found, wanted) >= 0.999
    assert sum(value * value for value in found) == pytest.approx(1, abs=1e-4)


def test_tokens_are_counted_as_transformers_counts(answer):
    assert answer["prompt_eval_count"] == sum(one["n_tokens"] for one in REFERENCE)


def test_texts_of_like_meaning_are_near(answer):
    texts = {one["text"]: answer["embeddings"][at] for at, one in enumerate(REFERENCE)}
    sky = texts["Why is the sky blue?"]
    near = cosine(sky, texts["The sky is blue because of Rayleigh scattering."])
    assert near > cosine(sky, texts["A man is eating a piece of bread."]) + 0.3


def test_a_text_that_is_too_long_is_cut_or_refused(server, minilm):
    long = "sky " * 2000
    cut = server.post("/api/embed", {"model": minilm, "input": long})
    assert len(cut["embeddings"][0]) == 384
    assert cut["prompt_eval_count"] <= 512
