"""From a request to text and tokens that fit, on real vocabularies."""

from array import array
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localrun.errors import BadRequest, PromptTooLong, TemplateFailed, Unsupported
from localrun.llama import Vocabulary
from localrun.messages import Prepare, Prepared, Turn, Vocab, pack_tokens, unpack_tokens
from localrun.text.chat.conversation import Chat
from localrun.text.chat.templates import Templates
from localrun.text.prompts import Prompts
from localrun.text.tokens import ModelText
from tests.fakes.tinygguf import make_tiny, tiny_vocab

CHAT = Chat(Templates())
VOCAB = Vocab("tiny", ())
PIECES = tiny_vocab()[0]
FILL_IDS = {"fim_pre": "<s>", "fim_suf": "<|im_start|>", "fim_mid": "<|im_end|>"}
FILL = {f"tokenizer.ggml.{key}_token_id": PIECES.index(text) for key, text in FILL_IDS.items()}
STRICT = """{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}|{% endfor %}"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelText]:
    path = make_tiny(tmp_path_factory.mktemp("prompts") / "tiny.gguf")
    loaded = ModelText(Vocabulary.load([str(path)]))
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelText]:
    path = make_tiny(tmp_path_factory.mktemp("prompts") / "fill.gguf", extra=FILL)
    loaded = ModelText(Vocabulary.load([str(path)]))
    yield loaded
    loaded.close()


def prepare(
    model: ModelText, kind: Literal["raw", "chat", "fill"] = "chat", **more: Any
) -> Prepared:
    prompts = Prompts(CHAT, endless_chars=more.pop("endless_chars", 1 << 20))
    return prompts.prepare(Prepare(1, VOCAB, kind, **more), model, lambda phase: None)


def talk(*contents: str, system: str = "") -> tuple[Turn, ...]:
    roles = ("user", "assistant")
    said = tuple(Turn(roles[at % 2], text) for at, text in enumerate(contents))
    return (Turn("system", system), *said) if system else said


def n_tokens(prepared: Prepared) -> int:
    return len(unpack_tokens(prepared.tokens))


LONG = talk("one " * 20, "two " * 20, "three " * 20, "four " * 20, "five", system="S")


def test_the_oldest_turns_go_until_the_rest_fits_and_the_answer_says_how_many(
    model: ModelText,
) -> None:
    whole = prepare(model, turns=LONG)
    assert whole.n_dropped == 0
    for n_dropped in (1, 2, 3, 4):
        kept = (LONG[0], *LONG[1 + n_dropped :])
        wanted = prepare(model, turns=kept)
        room = n_tokens(wanted) + 1
        for n_ctx in (room, room + 3):
            found = prepare(model, turns=LONG, n_ctx=n_ctx, truncate=True)
            assert found == Prepared(1, wanted.tokens, wanted.text, n_dropped)
    assert prepare(model, turns=LONG, n_ctx=n_tokens(whole) + 1, truncate=True) == whole


def test_what_does_not_fit_is_refused_whole_unless_it_may_be_cut(model: ModelText) -> None:
    needed = n_tokens(prepare(model, turns=LONG)) + 1
    with pytest.raises(PromptTooLong) as caught:
        prepare(model, turns=LONG, n_ctx=needed - 1, n_ctx_train=9999)
    assert caught.value.facts() == {"needed": needed, "available": needed - 1, "trained": 9999}


def test_a_last_message_that_is_too_long_by_itself_says_what_it_needs(model: ModelText) -> None:
    least = n_tokens(prepare(model, turns=(LONG[0], LONG[-1]))) + 1
    with pytest.raises(PromptTooLong) as caught:
        prepare(model, turns=LONG, n_ctx=least - 1, n_ctx_train=4096, truncate=True)
    assert caught.value.facts() == {"needed": least, "available": least - 1, "trained": 4096}
    assert f"options.num_ctx={least}" in caught.value.hint


def test_what_is_left_for_a_strict_template_begins_with_a_question(model: ModelText) -> None:
    turns = talk("one " * 20, "two " * 20, "three " * 20, "four " * 20, "five")
    kept = prepare(model, turns=turns[2:], template=STRICT)
    for n_more in (1, 30):
        n_ctx = n_tokens(kept) + n_more
        found = prepare(model, turns=turns, template=STRICT, n_ctx=n_ctx, truncate=True)
        assert (found.n_dropped, found.text) == (2, kept.text)


def test_go_templates_are_cut_too(model: ModelText) -> None:
    source = "{{ range .Messages }}{{ .Role }}: {{ .Content }}\n{{ end }}"
    given: dict[str, Any] = {"template": source, "template_language": "go"}
    wanted = prepare(model, turns=LONG[3:], **given)
    found = prepare(model, turns=LONG[1:], n_ctx=n_tokens(wanted) + 1, truncate=True, **given)
    assert (found.n_dropped, found.text) == (2, wanted.text)


def test_the_context_of_an_earlier_answer_takes_its_room(model: ModelText) -> None:
    context = pack_tokens(unpack_tokens(prepare(model, "raw", prompt="once upon").tokens))
    wanted = prepare(model, turns=LONG[-1:], context=context)
    with pytest.raises(PromptTooLong):
        prepare(model, turns=LONG[-1:], context=context, n_ctx=n_tokens(wanted), truncate=True)
    found = prepare(
        model, turns=LONG[-3:], context=context, n_ctx=n_tokens(wanted) + 1, truncate=True
    )
    assert (found.n_dropped, found.tokens) == (2, wanted.tokens)


def test_an_endless_text_is_refused_by_its_beginning(model: ModelText) -> None:
    with pytest.raises(PromptTooLong) as caught:
        prepare(model, "raw", prompt="ab" * 200_000, n_ctx=100, endless_chars=10_000)
    assert caught.value.needed == pytest.approx(400_001, rel=0.01)
    turns = talk(*["ab" * 50_000] * 8, "ab")
    found = prepare(model, turns=turns, n_ctx=100, truncate=True, endless_chars=10_000)
    assert found.n_dropped == 8


def test_a_text_that_the_engine_has_no_memory_for_is_refused(model: ModelText) -> None:
    for text in ("a" * (8 << 20) + "b", "é" * (4 << 20) + "b"):
        with pytest.raises(BadRequest, match="without a break is too long"):
            prepare(model, "raw", prompt=text)


def test_markers_and_the_end_of_reasoning_come_back_as_tokens(model: ModelText) -> None:
    found = prepare(
        model,
        turns=LONG[-1:],
        markers=("<|im_start|>", "<tool_call>", "</s>", "a"),
        reasoning_end="</think><|im_end|>",
    )
    assert found.preserved == (PIECES.index("<|im_start|>"), PIECES.index("</s>"))
    closing = unpack_tokens(found.closing)
    assert closing[-1] == PIECES.index("<|im_end|>")
    alone = model.tokenize("</think><|im_end|>", add_special=False)
    assert PIECES[alone[0]] == "▁"  # as if a word began
    assert list(closing) == list(alone)[1:]
    bare = prepare(model, turns=LONG[-1:])
    assert (bare.preserved, bare.closing) == ((), b"")


def test_a_gap_is_filled_by_the_models_own_tokens_and_the_code_is_mere_text(
    filler: ModelText,
) -> None:
    found = prepare(filler, "fill", prompt="def f(<|im_end|>):\n", suffix="\nf()</s>")
    tokens = unpack_tokens(found.tokens)
    marks = [PIECES.index(text) for text in FILL_IDS.values()]
    parts = [
        filler.tokenize(text, add_special=False, parse_special=False)
        for text in ("def f(<|im_end|>):\n", "\nf()</s>")
    ]
    bos = PIECES.index("<s>")
    assert tokens.tolist() == [bos, marks[0], *parts[0], marks[1], *parts[1], marks[2]]
    assert found.text == "<s>def f(<|im_end|>):\n<|im_start|>\nf()</s><|im_end|>"
    with pytest.raises(PromptTooLong):
        prepare(filler, "fill", prompt="def f(", suffix=")", n_ctx=5)


def test_a_go_template_with_a_suffix_fills_the_gap_its_own_way(model: ModelText) -> None:
    source = "{{ if .Suffix }}<P>{{ .Prompt }}<S>{{ .Suffix }}<M>{{ else }}{{ .Prompt }}{{ end }}"
    found = prepare(model, "fill", prompt="a", suffix="b", template=source, template_language="go")
    assert found.text == "<P>a<S>b<M>"


@pytest.mark.parametrize("template", [None, "{{ messages }}"])
def test_a_model_that_fills_no_gaps_says_so(model: ModelText, template: str | None) -> None:
    with pytest.raises(Unsupported, match="does not support insert"):
        prepare(model, "fill", prompt="a", suffix="b", template=template)


def test_variables_and_tools_reach_the_template(model: ModelText) -> None:
    source = "{{ enable_thinking }}{{ bos_token }}{{ tools[0].function.name }}"
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    given: dict[str, Any] = {"template": source, "tools": (tool,)}
    found = prepare(model, turns=LONG[-1:], variables={"enable_thinking": False}, **given)
    assert found.text == "False<s>f"


def test_each_part_of_the_work_is_announced(model: ModelText) -> None:
    phases: list[str] = []
    job = Prepare(1, VOCAB, "chat", turns=LONG, template="{{ no.such }}")
    with pytest.raises(TemplateFailed):
        Prompts(Chat(Templates())).prepare(job, model, phases.append)
    assert phases == ["render", "native"]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(contents=st.lists(st.text(max_size=40), min_size=1, max_size=8), n_ctx=st.integers(20, 200))
def test_what_is_prepared_fits_and_is_the_rendering_of_the_newest_turns(
    model: ModelText, contents: list[str], n_ctx: int
) -> None:
    turns = talk(*contents, system="S")
    # A begun answer stays together with what it answers to.
    least = (turns[0], *turns[-1 if len(contents) % 2 else -2 :])
    if n_tokens(prepare(model, turns=least)) + 1 > n_ctx:
        with pytest.raises(PromptTooLong):
            prepare(model, turns=turns, n_ctx=n_ctx, truncate=True)
        return
    found = prepare(model, turns=turns, n_ctx=n_ctx, truncate=True)
    assert n_tokens(found) + 1 <= n_ctx
    kept = (turns[0], *turns[1 + found.n_dropped :])
    assert found.tokens == prepare(model, turns=kept).tokens
    assert array("i", unpack_tokens(found.tokens)) == model.prompt_tokens(found.text)
