"""Model names."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrun.errors import InvalidName
from localrun.names import HUB_HOST, ModelName, parse_name

FIRST = string.ascii_letters + string.digits + "_"


def part(more: str, longest: int = 80) -> st.SearchStrategy[str]:
    rest = st.text(FIRST + more, max_size=longest - 1)
    return st.tuples(st.sampled_from(FIRST), rest).map("".join)


NAMES = st.builds(
    ModelName,
    model=part("-."),
    tag=part("-."),
    namespace=part("-"),
    host=part("-.:", 350).filter(lambda host: "huggingface.co" not in host.lower()),
)


@given(NAMES)
def test_a_name_reads_back_from_its_full_and_its_short_form(name: ModelName) -> None:
    assert parse_name(name.full()) == name
    assert parse_name(name.short()) == name


@given(st.text(max_size=60))
def test_any_text_is_a_name_that_reads_back_or_is_refused(text: str) -> None:
    try:
        name = parse_name(text)
    except InvalidName:
        return
    assert parse_name(name.full()) == name
    assert ".." not in name.full().split("/")


@pytest.mark.parametrize(
    ("text", "short", "full"),
    [
        ("llama2", "llama2:latest", "registry.ollama.ai/library/llama2:latest"),
        ("llama2:7b", "llama2:7b", "registry.ollama.ai/library/llama2:7b"),
        ("a/b", "a/b:latest", "registry.ollama.ai/a/b:latest"),
        ("hf.co/u/r:Q4_K_M", "hf.co/u/r:Q4_K_M", "hf.co/u/r:Q4_K_M"),
        ("hf.co/some.org/r", "hf.co/some.org/r:latest", "hf.co/some.org/r:latest"),
        ("https://huggingface.co/u/r", "hf.co/u/r:latest", "hf.co/u/r:latest"),
        ("localhost:5000/n/m:t", "localhost:5000/n/m:t", "localhost:5000/n/m:t"),
        ("hf.co/u/r:x-IQ3_M.gguf", "hf.co/u/r:x-IQ3_M.gguf", "hf.co/u/r:x-IQ3_M.gguf"),
        (" llama2 ", "llama2:latest", "registry.ollama.ai/library/llama2:latest"),
    ],
)
def test_names_are_read_from_right_to_left(text: str, short: str, full: str) -> None:
    assert (parse_name(text).short(), parse_name(text).full()) == (short, full)


@pytest.mark.parametrize(
    "text",
    ["", ":", "a/", "/a", ":x", "x:", "a/b/c/d", "..", "../x", "a/../b", "x:../../y", "a b", "é",
     "x" * 81, "some.org/r", "a\0b", "x:y:z/", "h/n.s/m", "-x", "hf.co/u/..", "x\n"[:1] + "\ny"],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidName, match="invalid model name"):
        parse_name(text)


def test_only_names_on_the_hub_are_hub_names() -> None:
    assert parse_name("hf.co/u/r").is_hub
    assert not parse_name("u/r").is_hub
    assert parse_name("HF.co/U/r").host == HUB_HOST
    assert parse_name("HF.co/U/r:Q4").key == parse_name("hf.co/u/R:q4").key
