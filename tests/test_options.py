"""Options are read as Ollama reads them."""

import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.errors import InvalidOption
from localrun.options import Options, merge_options


def test_defaults_are_ollamas() -> None:
    options = Options()
    assert (options.temperature, options.top_k, options.top_p) == (0.8, 40, 0.9)
    assert (options.repeat_penalty, options.repeat_last_n, options.num_keep) == (1.0, 64, 4)
    assert (options.num_predict, options.seed, options.num_gpu) == (-1, -1, -1)


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"num_ctx": 8192}, "num_ctx", 8192),
        ({"num_ctx": 8192.9}, "num_ctx", 8192),
        ({"temperature": 1}, "temperature", 1.0),
        ({"temperature": None}, "temperature", 0.8),
        ({"use_mmap": False}, "use_mmap", False),
        ({"stop": ["a", ""]}, "stop", ("a",)),
        ({"seed": -(1 << 63)}, "seed", -(1 << 63)),
        ({"seed": (1 << 64) + 7}, "seed", 7),
        ({"num_ctx": 0}, "num_ctx", None),
        ({"num_batch": -1}, "num_batch", None),
        ({"num_thread": -4}, "num_thread", 0),
        ({"num_gpu": -9}, "num_gpu", -1),
        ({"num_predict": -3}, "num_predict", -2),
        ({"num_predict": 1e30}, "num_predict", 1 << 31),
        ({"temperature": -0.1}, "temperature", 0.0),
        ({"temperature": 1e10}, "temperature", 1e6),
        ({"min_p": 2}, "min_p", 1.0),
        ({"top_p": -1}, "top_p", 0.0),
        ({"mirostat": 2, "nonsense": "x"}, "top_k", 40),
        ({"draft_num_predict": 4}, "top_k", 40),
        ({"draft_num_predict": None}, "top_k", 40),
    ],
)
def test_value_is_taken(changes: dict[str, object], name: str, value: object) -> None:
    assert getattr(merge_options(Options(), changes), name) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_ctx": "8192"}, 'option "num_ctx" must be of type integer'),
        ({"num_ctx": True}, 'option "num_ctx" must be of type integer'),
        ({"draft_num_predict": "4"}, 'option "draft_num_predict" must be of type integer'),
        ({"num_ctx": 3}, 'option "num_ctx" must be between 4 and 16777216'),
        ({"num_keep": -2}, 'option "num_keep" must be between -1 and'),
        ({"repeat_penalty": 0}, 'option "repeat_penalty" must be between 0.001 and'),
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"temperature": math.inf}, 'option "temperature" must be a finite number'),
        ({"temperature": math.nan}, 'option "temperature" must be a finite number'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": "a"}, 'option "stop" must be of type array'),
        ({"stop": ["a", 1]}, 'option "stop" must be of an array of strings'),
        ({"stop": ["a"] * 65}, 'option "stop" takes at most 64 strings'),
        ({"stop": ["é" * 2049]}, "of 4096 bytes"),
    ],
)
def test_wrong_value_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidOption, match=message.replace("(", r"\(")):
        merge_options(Options(), changes)


def test_no_changes_keep_the_very_object() -> None:
    base = Options(top_k=3)
    assert merge_options(base, {"unknown": 1}) is base


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.text(max_size=5), max_size=3),
)


@given(st.dictionaries(st.sampled_from([*asdict(Options()), "other"]), values, max_size=4))
def test_merge_gives_typed_values_or_an_invalid_option(changes: dict[str, object]) -> None:
    try:
        merged = merge_options(Options(), changes)
    except InvalidOption:
        return
    for name, default in asdict(Options()).items():
        value = getattr(merged, name)
        if changes.get(name) is None:
            assert value == default
        elif default is not None:
            assert type(value) is type(default)


@pytest.mark.parametrize(
    ("changes", "seed"),
    [
        ({}, -1),
        ({"deterministic": True}, 0),
        ({"deterministic": True, "seed": -1}, 0),
        ({"deterministic": True, "seed": 7}, 7),
    ],
)
def test_determinism_without_a_seed_takes_the_same_one_always(
    changes: dict[str, object], seed: int
) -> None:
    assert merge_options(Options(), changes).sampling_seed == seed
