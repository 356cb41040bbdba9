"""Answer the server's requests for prompts and tokens, one after the other.

A request that is forgotten before its turn is never begun. What was begun is always answered, as
the server's time limit ends with the answer.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from localrun.errors import BadRequest, LocalrunError, PromptTooLong, Unsupported
from localrun.gotemplate import render_go
from localrun.messages import (
    MAX_FRAME_BYTES,
    CheckGrammar,
    Detokenize,
    Failed,
    Forget,
    Prepare,
    Prepared,
    Started,
    TextRequest,
    Tokenize,
    encode,
    failed,
    pack_tokens,
    unpack_tokens,
)
from localrun.text.chat.templates import CHATML, PLAIN, Templates
from localrun.text.tokens import ModelText, Vocabularies

if TYPE_CHECKING:
    from array import array

Job: TypeAlias = Prepare | CheckGrammar | Tokenize | Detokenize


class Inbox:
    """Requests that wait for their turn; filled by the reader's thread, emptied by the worker's."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, Job] = OrderedDict()
        self._changed = threading.Condition()

    def put(self, request: TextRequest) -> None:
        """Queue a request, or drop the one that a `Forget` names."""
        with self._changed:
            if isinstance(request, Forget):
                self._waiting.pop(request.request_id, None)
            else:
                self._waiting[request.request_id] = request
                self._changed.notify()

    def take(self) -> Job:
        """Wait for the next request."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            return self._waiting.popitem(last=False)[1]


class Worker:
    """Turns one request into one answer.

    Args:
        vocabularies: Loads and keeps them.
        templates: Renders Jinja.
        send: Takes whole frames, from any thread.
    """

    def __init__(
        self, vocabularies: Vocabularies, templates: Templates, send: Callable[[bytes], None]
    ) -> None:
        self._vocabularies, self._templates, self._send = vocabularies, templates, send

    def answer(self, job: Job) -> None:
        """Do one request and send its answer, whatever happens."""
        self._send(encode(self._checked(job)))

    def _checked(self, job: Job) -> Prepared | Failed:
        try:
            answer = self._do(job)
        except LocalrunError as error:
            return failed(job.request_id, error)
        except MemoryError:
            return failed(job.request_id, BadRequest("the text needs more memory than allowed"))
        if len(answer.tokens) + 4 * len(answer.text) + 64 > MAX_FRAME_BYTES:
            return failed(job.request_id, BadRequest("the text is too long for one request"))
        return answer

    def _do(self, job: Job) -> Prepared:
        self._send(encode(Started(job.request_id)))
        model = self._vocabularies.get(job.vocab)
        match job:
            case Prepare():
                return self._prepare(job, model)
            case CheckGrammar():
                raise Unsupported("grammars are not supported yet")
            case Tokenize():
                tokens = model.tokenize(job.text, add_special=job.add_special)
                return Prepared(job.request_id, pack_tokens(tokens), job.text)
            case Detokenize():
                packed = unpack_tokens(job.tokens)
                text = model.detokenize(packed, render_special=job.render_special)
                return Prepared(job.request_id, job.tokens, text)

    def _prepare(self, job: Prepare, model: ModelText) -> Prepared:
        text = job.prompt if job.kind == "raw" else self._render(job, model)
        if job.context:
            tokens = model.continued_tokens(unpack_tokens(job.context), text)
        else:
            tokens = model.prompt_tokens(text)
        check_fits(tokens, job)
        return Prepared(job.request_id, pack_tokens(tokens), text)

    def _render(self, job: Prepare, model: ModelText) -> str:
        source = job.template if job.template is not None else template_of(model)
        self._send(encode(Started(job.request_id, "render")))
        try:
            if job.template is not None and job.template_language == "go":
                return render_go(
                    source,
                    job.turns,
                    tools=job.tools,
                    think=job.think,
                    suffix=job.suffix,
                    prompt=job.prompt if job.kind == "fill" else "",
                )
            return self._templates.render(
                source, job.turns, bos_token=model.bos_text, eos_token=model.eos_text
            )
        finally:
            self._send(encode(Started(job.request_id)))


def template_of(model: ModelText) -> str:
    """The Jinja template of a model; without one ChatML if it speaks that, else the bare texts."""
    if model.chat_template is not None:
        return model.chat_template
    return CHATML if model.knows_special("<|im_start|>") else PLAIN


def check_fits(tokens: "array[int]", job: Prepare) -> None:
    """Refuse what leaves no room for one completion token; nothing is ever cut.

    Raises:
        BadRequest: If there is no token at all.
        PromptTooLong: If the prompt does not fit the window.
    """
    if not tokens:
        raise BadRequest("the prompt is empty: it has no tokens")
    if 0 < job.n_ctx < len(tokens) + 1:
        raise PromptTooLong(len(tokens) + 1, job.n_ctx, job.n_ctx_train)
