"""Every error carries what a person and a program need."""

import re

import pytest

from localrun import errors
from localrun.errors import LocalrunError, error_classes
from localrun.messages import error_of, failed

TREE = {
    name: thing
    for name, thing in vars(errors).items()
    if isinstance(thing, type) and issubclass(thing, LocalrunError)
}


@pytest.mark.parametrize("cls", TREE.values(), ids=TREE.keys())
def test_class_has_a_code_a_status_and_says_when_it_is_raised(cls: type[LocalrunError]) -> None:
    assert re.fullmatch(r"[a-z][a-z_]*[a-z]", cls.code)
    assert 400 <= cls.status <= 599
    assert (cls.__doc__ or "").startswith("Raised ")


def test_codes_are_unique() -> None:
    assert len({cls.code for cls in TREE.values()}) == len(TREE)


def test_the_tree_at_the_head_names_every_class_with_its_status() -> None:
    drawn = dict(re.findall(r"(\w+) {2,}(\d{3}) ", errors.__doc__ or ""))
    drawn |= dict(re.findall(r"── (\w+) +(\d{3})", errors.__doc__ or ""))
    assert drawn == {n: str(c.status) for n, c in TREE.items() if c is not LocalrunError}


@pytest.mark.parametrize(
    ("error", "sentence", "hint"),
    [
        (errors.InvalidName("a b"), "invalid model name", "'a b' is not"),
        (errors.ModelNotFound("x:7b"), "model 'x:7b' not found", "localrun pull x:7b"),
        (errors.ModelNotFound("x", hint=""), "model 'x' not found", ""),
        (errors.PromptTooLong(9000, 4096, 8192), "needs 9000 tokens", "trained for 8192"),
        (errors.PromptTooLong(5000, 4096, 8192), "holds 4096", "options.num_ctx=5000"),
        (errors.PromptTooLong(5000, 4096), "holds 4096", "raise options.num_ctx"),
        (errors.OutOfMemory(3 << 30, 1 << 30, "CUDA0"), "needs 3.0 GiB on CUDA0", "smaller"),
        (errors.RateLimited("later", retry_after_s=3), "later", ""),
    ],
)
def test_error_builds_its_sentence_from_facts(
    error: LocalrunError, sentence: str, hint: str
) -> None:
    assert sentence in error.message
    assert hint in error.hint


def test_facts_are_the_errors_numbers() -> None:
    assert errors.PromptTooLong(3, 2, 1).facts() == {"needed": 3, "available": 2, "trained": 1}
    assert LocalrunError("x").facts() == {}


def test_error_that_crossed_a_border_keeps_class_sentence_and_hint() -> None:
    sent = failed(7, errors.PromptTooLong(9, 4, 0))
    back = error_of(sent.code, sent.message, sent.hint)
    assert isinstance(back, errors.PromptTooLong)
    assert (back.message, back.hint) == (sent.message, sent.hint)


def test_unknown_code_becomes_the_base_class() -> None:
    assert type(error_of("from_the_future", "what", "")) is LocalrunError


def test_classes_are_found_by_code() -> None:
    assert error_classes()["model_not_found"] is errors.ModelNotFound
