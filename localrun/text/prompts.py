"""From a `Prepare` to text and tokens that fit."""

from array import array
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from localrun.errors import PromptTooLong, Unsupported
from localrun.gotemplate import render_go
from localrun.messages import Prepare, Prepared, Turn, pack_tokens, unpack_tokens
from localrun.text.chat.conversation import Chat
from localrun.text.chat.templates import CHATML, PLAIN
from localrun.text.fit import History, fewest_dropped
from localrun.text.tokens import ModelText

ENDLESS_CHARS = 2 << 20
"""Longer texts are sampled first, as one that is far too long would be counted for many seconds."""

_SAMPLE_CHARS = 1 << 16

Begin: TypeAlias = Callable[[Literal["native", "render"]], None]


class Prompts:
    """Makes prompts.

    Args:
        chat: Renders Jinja.
        endless_chars: Length from which a text is sampled before it is tokenized.
    """

    def __init__(self, chat: Chat, *, endless_chars: int = ENDLESS_CHARS) -> None:
        self._chat, self._endless_chars = chat, endless_chars

    def prepare(self, job: Prepare, model: ModelText, begin: Begin) -> Prepared:
        """Render, tokenize and fit one prompt.

        Args:
            job: What is asked for.
            model: Its vocabulary.
            begin: Told which part of the work comes next.

        Raises:
            PromptTooLong: If it does not fit.
            TemplateFailed: If the template fails.
            Unsupported: If the model fills no gaps and is asked to.
        """
        made = _Prompt(job, model, self._chat, begin, self._endless_chars)
        text, tokens, n_dropped = made.fitted()
        preserved = (model.special_token(marker) for marker in job.markers)
        closing = job.reasoning_end and _inner_tokens(model, job.reasoning_end)
        return Prepared(
            job.request_id,
            pack_tokens(tokens),
            text,
            n_dropped,
            tuple(token for token in preserved if token is not None),
            pack_tokens(closing) if closing else b"",
        )


def _inner_tokens(model: ModelText, text: str) -> "array[int]":
    """The tokens of a text behind another; SentencePiece puts a space before one that is alone."""
    before = model.tokenize(".", add_special=False)
    whole = model.tokenize(f".{text}", add_special=False)
    if whole[: len(before)] == before:
        return whole[len(before) :]
    return model.tokenize(text, add_special=False)  # they share a token; it has no such space


class _Prompt:
    """One prompt in the making."""

    def __init__(
        self, job: Prepare, model: ModelText, chat: Chat, begin: Begin, endless_chars: int
    ) -> None:
        self._job, self._model, self._chat, self._begin = job, model, chat, begin
        self._endless_chars = endless_chars
        self._is_go = job.template is not None and job.template_language == "go"
        self._source = job.template if job.template is not None else template_of(model)
        self._variables = {
            "bos_token": model.bos_text,
            "eos_token": model.eos_text,
            **job.variables,
        }
        self._made: tuple[int, str, array[int]] | None = None

    def fitted(self) -> tuple[str, "array[int]", int]:
        """Text and tokens of the whole prompt or of what fits, and how many turns were dropped."""
        job = self._job
        if job.kind == "fill" and not (self._is_go and ".Suffix" in self._source):
            return (*self._filled(), 0)
        if not (job.kind == "chat" and job.truncate and job.n_ctx and len(job.turns) > 1):
            text = self._text(job.turns)
            return text, self._fitting_tokens(text), 0
        return self._shortened()

    def _text(self, turns: Sequence[Turn]) -> str:
        job = self._job
        if job.kind == "raw":
            return job.prompt
        self._begin("render")
        try:
            if self._is_go:
                return render_go(
                    self._source,
                    turns,
                    tools=job.tools,
                    think=job.think,
                    suffix=job.suffix,
                    prompt=job.prompt if job.kind == "fill" else "",
                )
            return self._chat.render(
                self._source, turns, tools=job.tools, variables=self._variables
            )
        finally:
            self._begin("native")

    def _tokens(self, text: str) -> "array[int]":
        if self._job.context:
            return self._model.continued_tokens(unpack_tokens(self._job.context), text)
        return self._model.prompt_tokens(text)

    def _fitting_tokens(self, text: str) -> "array[int]":
        n_ctx = self._job.n_ctx
        if n_ctx and (n_least := self._n_sampled(text)):
            raise self._too_long(n_least)
        tokens = self._tokens(text)
        if n_ctx and len(tokens) + 1 > n_ctx:
            raise self._too_long(len(tokens))
        return tokens

    def _n_sampled(self, text: str) -> int:
        """Of an endless text about how many tokens it has if its beginning fills the window; or 0.

        No token of the beginning but the last few could become another by what follows.
        """
        if len(text) <= self._endless_chars:
            return 0
        n_chars = min(max(_SAMPLE_CHARS, 8 * self._job.n_ctx), self._endless_chars // 2)
        n_tokens = len(self._model.tokenize(text[:n_chars], add_special=False))
        return n_tokens * len(text) // n_chars if n_tokens * 0.9 > self._job.n_ctx else 0

    def _too_long(self, n_tokens: int) -> PromptTooLong:
        return PromptTooLong(n_tokens + 1, self._job.n_ctx, self._job.n_ctx_train)

    def _shortened(self) -> tuple[str, "array[int]", int]:
        job = self._job
        history = History(job.turns, begins_with_question=self._begins_with_question())
        n_whole = None
        if history.n_chars(0) <= max(self._endless_chars, 32 * job.n_ctx):
            n_whole = self._measure(history, 0)
            if n_whole + 1 <= job.n_ctx:
                return self._result(0)
        try:
            n_dropped = fewest_dropped(
                history, lambda n: self._measure(history, n), job.n_ctx - 1, n_whole=n_whole
            )
        except PromptTooLong as error:
            raise self._too_long(error.needed - 1) from None
        if self._made is None or self._made[0] != n_dropped:
            self._measure(history, n_dropped)
        return self._result(n_dropped)

    def _measure(self, history: History, n_dropped: int) -> int:
        text = self._text(history.kept(n_dropped))
        if n_least := self._n_sampled(text):
            return n_least
        tokens = self._tokens(text)
        self._made = (n_dropped, text, tokens)
        return len(tokens)

    def _result(self, n_dropped: int) -> tuple[str, "array[int]", int]:
        assert self._made is not None
        _, text, tokens = self._made
        return text, tokens, n_dropped

    def _begins_with_question(self) -> bool:
        if self._is_go:
            return False
        self._begin("render")
        try:
            able = self._chat.abilities(self._source, self._variables)
            return not able.takes_answer_first
        finally:
            self._begin("native")

    def _filled(self) -> tuple[str, "array[int]"]:
        """The completion between a prefix and a suffix, whose special tokens are mere text.

        Source: `format_prompt_infill` of llama.cpp's server.
        """
        job, model = self._job, self._model
        marks = model.fill_tokens()
        if marks is None:
            raise Unsupported("the model does not support insert")
        texts = (job.prompt, job.suffix)
        if self._job.n_ctx and (n_least := self._n_sampled("".join(texts))):
            raise self._too_long(n_least)
        tokens = array("i", () if model.bos is None else (model.bos,))
        for mark, words in zip(marks, texts, strict=False):
            tokens.append(mark)
            tokens += model.tokenize(words, add_special=False, parse_special=False)
        tokens.append(marks[2])
        if job.n_ctx and len(tokens) + 1 > job.n_ctx:
            raise self._too_long(len(tokens))
        before, between, behind = (model.special_text(mark) for mark in marks)
        return f"{before}{job.prompt}{between}{job.suffix}{behind}", tokens


def template_of(model: ModelText) -> str:
    """The Jinja template of a model; without one ChatML if it speaks that, else the bare texts."""
    if model.chat_template is not None:
        return model.chat_template
    return CHATML if model.special_token("<|im_start|>") is not None else PLAIN
