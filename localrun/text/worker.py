"""Answer the server's requests for prompts and tokens, one after the other.

A request that is forgotten before its turn is never begun. What was begun is always answered, as
the server's time limit ends with the answer.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from localrun.errors import BadRequest, LocalrunError
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
    TokenizePair,
    encode,
    failed,
    pack_tokens,
    unpack_tokens,
)
from localrun.text.prompts import Prompts
from localrun.text.tokens import Tokenizer, Vocabularies

Job: TypeAlias = Prepare | CheckGrammar | Tokenize | TokenizePair | Detokenize


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
        prompts: Renders and fits.
        check_grammar: Raises Unsupported for a grammar that cannot be held with a vocabulary.
        send: Takes whole frames, from any thread.
    """

    def __init__(
        self,
        vocabularies: Vocabularies,
        prompts: Prompts,
        check_grammar: Callable[[Tokenizer, str], None],
        send: Callable[[bytes], None],
    ) -> None:
        self._vocabularies, self._prompts = vocabularies, prompts
        self._check_grammar, self._send = check_grammar, send

    def answer(self, job: Job) -> None:
        """Do one request and send its answer, whatever happens."""
        answer = self._checked(job)
        try:
            frame = encode(answer)
        except UnicodeEncodeError:  # half of a surrogate pair, which a template can write
            frame = encode(_as_unicode(answer))
        self._send(frame)

    def _checked(self, job: Job) -> Prepared | Failed:
        try:
            answer = self._do(job)
        except LocalrunError as error:
            return failed(job.request_id, error)
        except MemoryError:
            return failed(job.request_id, BadRequest("the text needs more memory than allowed"))
        except RecursionError:
            return failed(job.request_id, BadRequest("a value in the request is nested too deeply"))
        if len(answer.tokens) + 4 * len(answer.text) + 64 > MAX_FRAME_BYTES:
            return failed(job.request_id, BadRequest("the text is too long for one request"))
        return answer

    def _do(self, job: Job) -> Prepared:
        self._begin(job, "native")
        model = self._vocabularies.get(job.vocab)
        match job:
            case Prepare():
                return self._prompts.prepare(job, model, lambda phase: self._begin(job, phase))
            case CheckGrammar():
                self._check_grammar(model.tokenizer, job.grammar)
                return Prepared(job.request_id, b"", "")
            case Tokenize():
                tokens = model.tokenize(job.text, add_special=job.add_special)
                return Prepared(job.request_id, pack_tokens(tokens), job.text)
            case TokenizePair():
                tokens = model.pair_tokens(job.query, job.document)
                return Prepared(job.request_id, pack_tokens(tokens), job.document)
            case Detokenize():
                packed = unpack_tokens(job.tokens)
                text = model.detokenize(packed, render_special=job.render_special)
                return Prepared(job.request_id, job.tokens, text)

    def _begin(self, job: Job, phase: Literal["native", "render"]) -> None:
        self._send(encode(Started(job.request_id, phase)))


def _as_unicode(answer: Prepared | Failed) -> Prepared | Failed:
    if isinstance(answer, Prepared):
        return msgspec.structs.replace(answer, text=_readable(answer.text))
    return msgspec.structs.replace(
        answer, message=_readable(answer.message), hint=_readable(answer.hint)
    )


def _readable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
