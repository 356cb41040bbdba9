"""The server's handle of the text worker: one child for all models, restarted when it must be.

The worker does one request at a time and says when it begins a part of it. A part that takes too
long is ended by killing the child: that request fails, the others are sent again to a fresh one and
their callers notice nothing but the time.
"""

import asyncio
import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from localrun.backends.early import TEXT_MODULE
from localrun.errors import BadRequest, Busy, LocalrunError, RunnerFailed, TemplateFailed
from localrun.messages import (
    MAX_FRAME_BYTES,
    CheckGrammar,
    Detokenize,
    Failed,
    Forget,
    Prepare,
    Prepared,
    Started,
    Tokenize,
    TokenizePair,
    Vocab,
    WorkerReady,
    decode_text_answer,
    encode,
    error_of,
    pack_tokens,
    unpack_tokens,
)
from localrun.system.launch import Launched, launch_child
from localrun.system.spawn import Child, adopt_child

if TYPE_CHECKING:
    from array import array

RENDER_LIMIT_S = 5.0
NATIVE_LIMIT_S = 60.0
MEMORY_BYTES = 1 << 30
MAX_ATTEMPTS = 2
"""How often a request is begun before a death of the worker is laid at its door."""

MAX_BARREN_DEATHS = 3
"""How often the worker may die in a row before it begins any request."""

_CLOSE_S = 2.0
_NOBODY = 0
_log = logging.getLogger(__name__)

_Ask: TypeAlias = Prepare | CheckGrammar | Tokenize | TokenizePair | Detokenize


@dataclass(slots=True, eq=False)
class _Request:
    frame: bytes
    answer: "asyncio.Future[Prepared]"
    n_begun: int = 0


@dataclass(frozen=True, slots=True)
class TextLimits:
    """What the text worker may take.

    Attributes:
        render_s: Seconds one chat template may run.
        native_s: Seconds loading a vocabulary, or one tokenization, may take.
        memory_bytes: Private memory of the process.
        frame_bytes: Length of one request to it.
    """

    render_s: float = RENDER_LIMIT_S
    native_s: float = NATIVE_LIMIT_S
    memory_bytes: int = MEMORY_BYTES
    frame_bytes: int = MAX_FRAME_BYTES


class TextWorker:
    """Renders, tokenizes and counts in a child. Used on the event loop only.

    Args:
        env: The child's whole environment.
        limits: What the child may take.
        module: What is started, a module that speaks `messages.py` as the text worker does.
        launched: A first child that runs already; it has the default limits.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        limits: TextLimits | None = None,
        module: str = TEXT_MODULE,
        launched: Launched | None = None,
    ) -> None:
        self._env, self._module, self._launched = env, module, launched
        self._limits = limits or TextLimits()
        self._requests: dict[int, _Request] = {}
        self._ids = itertools.count(1)
        self._child: Child | None = None
        self._starting: asyncio.Task[None] | None = None
        self._running: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._n_barren = 0
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return None if self._child is None else self._child.pid

    async def start(self) -> None:
        """Start the child without waiting until it is ready; the first request would do it too."""
        self._ensure_child()

    async def prepare(self, request: Prepare) -> Prepared:
        """Render, tokenize and fit one prompt; `request_id` is chosen here.

        Raises:
            PromptTooLong: If the prompt and one more token do not fit `n_ctx`.
            TemplateFailed: If the template raises, is refused or takes too long.
            Unsupported: If the model fills no gaps and is asked to.
            BadRequest: If the prompt is empty or beyond all limits.
            BadModelFile: If the vocabulary cannot be loaded.
            EngineMissing: If llama.cpp cannot be loaded.
            RunnerFailed: If the worker died over this request more than once.
            Busy: If the worker is closed.
        """
        return await self._ask(request)

    async def check_grammar(self, vocab: Vocab, grammar: str) -> None:
        """See that a grammar (Lark, in llguidance's dialect) can be held with a vocabulary.

        Raises:
            Unsupported: If it cannot; and as `prepare`.
        """
        await self._ask(CheckGrammar(0, vocab, grammar))

    async def tokenize(self, vocab: Vocab, text: str, *, add_special: bool = True) -> "array[int]":
        """Turn text into tokens; BOS is added where asked and wanted. Raises as `prepare`."""
        return unpack_tokens((await self._ask(Tokenize(0, vocab, text, add_special))).tokens)

    async def tokenize_pair(self, vocab: Vocab, query: str, document: str) -> "array[int]":
        """The prompt with which a rerank model judges a document. Raises as `prepare`."""
        return unpack_tokens((await self._ask(TokenizePair(0, vocab, query, document))).tokens)

    async def detokenize(
        self, vocab: Vocab, tokens: "array[int]", *, render_special: bool = False
    ) -> str:
        """Turn tokens into text. Raises as `prepare`."""
        ask = Detokenize(0, vocab, pack_tokens(tokens), render_special)
        return (await self._ask(ask)).text

    async def close(self) -> None:
        """End the child; requests that still wait end with Busy."""
        self._is_closed = True
        self._fail_all(Busy("the server is shutting down"))
        if self._starting is not None:
            await asyncio.wait((self._starting,))
        if (child := self._child) is not None:
            child.close_input()
            await child.wait(_CLOSE_S)
        self._stop_timer()

    async def _ask(self, ask: _Ask) -> Prepared:
        if self._is_closed:
            raise Busy("the server is shutting down")
        request_id = next(self._ids)
        frame = _frame_of(msgspec.structs.replace(ask, request_id=request_id))
        limit = self._limits.frame_bytes
        if len(frame) > limit:
            raise BadRequest(f"the request has {len(frame)} bytes, more than {limit}")
        request = _Request(frame, asyncio.get_running_loop().create_future())
        self._requests[request_id] = request
        self._post(request_id, request)
        try:
            return await request.answer
        finally:
            if self._requests.pop(request_id, None) is not None:
                self._forget(request_id)  # no answer has come: the caller was cancelled

    def _post(self, request_id: int, request: _Request) -> None:
        self._ensure_child()
        if self._child is not None:
            self._child.send_bulk(request_id, [request.frame])
            if self._timer is None:
                self._arm(_NOBODY, "native")

    def _forget(self, request_id: int) -> None:
        if self._child is not None and not self._child.drop_bulk(request_id):
            self._child.send(encode(Forget(request_id)))

    def _ensure_child(self) -> None:
        if self._child is None and self._starting is None and not self._is_closed:
            self._starting = asyncio.get_running_loop().create_task(self._start())

    async def _start(self) -> None:
        try:
            child = await adopt_child(self._launch(), on_frame=self._heard, on_exit=self._exited)
        except OSError as error:
            self._fail_all(RunnerFailed(f"the text worker cannot be started: {error}"))
            return
        finally:
            self._starting = None
        self._child = child
        # Those that a death interrupted come last: one of them may be its cause.
        for request_id, request in sorted(self._requests.items(), key=lambda it: it[1].n_begun):
            child.send_bulk(request_id, [request.frame])
        if self._requests:
            self._arm(_NOBODY, "native")

    def _launch(self) -> Launched:
        launched, self._launched = self._launched, None
        if launched is not None:
            return launched
        arguments = ["--memory-bytes", str(self._limits.memory_bytes)]
        return launch_child(self._module, env=self._env, arguments=arguments)

    def _heard(self, body: bytes) -> None:
        try:
            answer = decode_text_answer(body)
        except msgspec.DecodeError:
            _log.warning("the text worker sent what is no answer; it is restarted")
            if self._child is not None:
                self._child.kill()
            return
        match answer:
            case WorkerReady():
                pass
            case Started(request_id, phase):
                self._begun(request_id, phase)
            case Prepared(request_id):
                self._settle(request_id, answer)
            case Failed(request_id, code, message, hint, facts):
                self._settle(request_id, error_of(code, message, hint, facts))

    def _begun(self, request_id: int, phase: Literal["native", "render"]) -> None:
        self._n_barren = 0
        if self._running != request_id:
            self._running = request_id
            if (request := self._requests.get(request_id)) is not None:
                request.n_begun += 1
        self._arm(request_id, phase)

    def _arm(self, request_id: int, phase: Literal["native", "render"]) -> None:
        """Give the worker its time for a part of a request, or to begin with anybody's."""
        self._stop_timer()
        limit_s = self._limits.render_s if phase == "render" else self._limits.native_s
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(limit_s, self._overran, request_id, phase, limit_s)

    def _overran(self, request_id: int, phase: str, limit_s: float) -> None:
        self._timer = None
        if request_id == _NOBODY and not self._requests:
            return  # those who waited for a beginning have gone
        _log.warning("the text worker is killed: a %s took over %g s", phase, limit_s)
        if self._child is not None:
            self._child.kill()
        error = (
            TemplateFailed(f"the chat template took longer than {limit_s:g} s")
            if phase == "render"
            else RunnerFailed(f"reading this text took longer than {limit_s:g} s")
        )
        self._settle(request_id, error)

    def _settle(self, request_id: int, answer: Prepared | LocalrunError) -> None:
        if self._running == request_id:
            self._running = None
            self._stop_timer()
        request = self._requests.pop(request_id, None)
        if request is None or request.answer.done():
            return
        if isinstance(answer, LocalrunError):
            request.answer.set_exception(answer)
        else:
            request.answer.set_result(answer)

    def _exited(self, status: int, last_words: str) -> None:
        self._child = None
        self._stop_timer()
        suspect, self._running = self._running, None
        if self._is_closed:
            return
        words = last_words.splitlines()[-1] if last_words else "it said nothing"
        error = RunnerFailed(f"the text worker died with status {status}: {words}")
        _log.warning("the text worker died with status %d: %s", status, last_words)
        if suspect is not None and suspect in self._requests:
            if self._requests[suspect].n_begun >= MAX_ATTEMPTS:
                self._settle(suspect, error)
        else:
            self._n_barren += 1
        if self._n_barren >= MAX_BARREN_DEATHS:
            self._n_barren = 0
            self._fail_all(error)
        if self._requests:
            self._ensure_child()

    def _fail_all(self, error: LocalrunError) -> None:
        for request_id in list(self._requests):
            self._settle(request_id, error_of(error.code, error.message, error.hint))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _frame_of(ask: _Ask) -> bytes:
    """The request as the child reads it, which cannot say all that JSON can.

    Raises:
        BadRequest: If it holds half of a surrogate pair, a number beyond 64 bits, or nests deeply.
    """
    try:
        return encode(ask)
    except UnicodeEncodeError as error:
        raise BadRequest("the text holds half of a surrogate pair") from error
    except OverflowError as error:
        raise BadRequest("a number in the request is beyond 64 bits") from error
    except RecursionError as error:
        raise BadRequest("a value in the request is nested too deeply") from error
