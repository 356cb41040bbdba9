"""The records of Ollama's native answers, built by hand from cached prefixes. Pure."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from localrun.messages import Logprob, unpack_tokens
from localrun.output.pieces import CallBroken, CallDone, Content, Piece, Thinking
from localrun.server.answers import NDJSON
from localrun.server.ask import Answer, Begin
from localrun.server.wire import dump, dump_text, utc_now

Fields = dict[str, object]


class NativeWriter(ABC):
    """What the records of generate and chat share: all but the place of the text.

    Args:
        model: Name as the client wrote it.
        before: What stands between the time and the text.
        after: What stands behind the text.
    """

    content_type = NDJSON
    _tells_last = False
    ping = b""  # whoever reads lines of JSON cannot read anything between them

    def __init__(self, model: str, before: bytes, after: bytes) -> None:
        self._head = b'{"model":' + dump_text(model) + b',"created_at":"'
        self._before = b'",' + before
        self._false = after + b',"done":false}\n'

    def begin(self, _: Begin) -> bytes:
        """Nothing: the first record is a piece of the answer."""
        return b""

    def text(self, text: str) -> bytes:
        """The record of a piece of text."""
        return self._head + utc_now() + self._before + dump_text(text) + self._false

    def pieces(self, _: int, pieces: Sequence[Piece], logprobs: Sequence[Logprob]) -> bytes:
        """A record for each piece that native clients know; the first has the log-probabilities."""
        contents = [content for piece in pieces if (content := self._content(piece)) is not None]
        if not contents and logprobs:
            contents.append(self._blank())
        rest: Fields = {"logprobs": logprobs_of(logprobs)} if logprobs else {}
        records: list[bytes] = []
        for content in contents:
            records.append(self._record({**content, "done": False, **rest}) + b"\n")
            rest = {}
        return b"".join(records)

    def end(self, answer: Answer) -> bytes:
        """The last record."""
        return self._record({**self._blank(), "done": True, **self._last(answer)}) + b"\n"

    def close(self, _: Sequence[Answer]) -> bytes:
        """Nothing: the last record closes the stream."""
        return b""

    def whole(self, answers: Sequence[Answer]) -> bytes:
        """One object with everything."""
        (answer,) = answers
        content = {**self._everything(answer), "done": True, "done_reason": None}
        told: Fields = {"logprobs": logprobs_of(answer.logprobs)} if answer.logprobs else {}
        last = self._last(answer)
        # Each route has them in the place in which its struct has them.
        rest = {**last, **told} if self._tells_last else {**told, **last}
        return self._record({**content, **rest})

    def rendered(self, begin: Begin) -> bytes:
        """The answer of who wanted the rendered prompt only."""
        debug = {"rendered_template": begin.prepared.text}
        return self._record({**self._unsaid(), "done": False, "_debug_info": debug})

    def loaded(self, reason: str) -> bytes:
        """The answer of a request without a prompt."""
        return self._record({**self._blank(), "done": True, "done_reason": reason})

    def _record(self, fields: Fields) -> bytes:
        return b"".join((self._head, utc_now(), b'",', dump(fields)[1:]))

    def _last(self, answer: Answer) -> Fields:
        dropped = answer.begin.prepared.n_dropped
        return {
            "done_reason": answer.finished.reason,
            **self._context(answer),
            **answer.metrics,
            **({"truncated_messages": dropped} if dropped else {}),
        }

    def _context(self, _: Answer, /) -> Fields:
        return {}

    @abstractmethod
    def _content(self, piece: Piece) -> Fields | None:
        """What a record says of a piece; None for a piece that native clients do not know."""

    @abstractmethod
    def _blank(self) -> Fields:
        """The place of the text, without any."""

    def _unsaid(self) -> Fields:
        return self._blank()

    @abstractmethod
    def _everything(self, answer: Answer) -> Fields:
        """The whole answer in its place."""


class ChatWriter(NativeWriter):
    """Records of /api/chat."""

    def __init__(self, model: str) -> None:
        super().__init__(model, b'"message":{"role":"assistant","content":', b"}")

    def _content(self, piece: Piece) -> Fields | None:
        match piece:
            case Content(text) | CallBroken(_, text):
                return _message(text)
            case Thinking(text):
                return _message("", thinking=text)
            case CallDone():
                return _message("", tool_calls=[call_of(piece)])
            case _:
                return None

    def _blank(self) -> Fields:
        return _message("")

    def _unsaid(self) -> Fields:
        return {"message": {"role": "", "content": ""}}

    def _everything(self, answer: Answer) -> Fields:
        rest: Fields = {"thinking": answer.thinking} if answer.thinking else {}
        if answer.calls:
            rest["tool_calls"] = [call_of(call) for call in answer.calls]
        return _message(answer.content, **rest)


class GenerateWriter(NativeWriter):
    """Records of /api/generate.

    Args:
        model: Name as the client wrote it.
        has_context: The last record has `context`, the tokens of the whole exchange.
    """

    _tells_last = True

    def __init__(self, model: str, *, has_context: bool) -> None:
        super().__init__(model, b'"response":', b"")
        self._has_context = has_context

    def _context(self, answer: Answer, /) -> Fields:
        found: Fields = {}
        if self._has_context:
            prompt = unpack_tokens(answer.begin.prepared.tokens)
            found["context"] = [*prompt, *answer.tokens]
        if answer.calls:
            found["tool_calls"] = [call_of(call) for call in answer.calls]
        return found

    def _content(self, piece: Piece) -> Fields | None:
        match piece:
            case Content(text) | CallBroken(_, text):
                return {"response": text}
            case Thinking(text):
                return {"response": "", "thinking": text}
            case _:
                return None

    def _blank(self) -> Fields:
        return {"response": ""}

    def _everything(self, answer: Answer) -> Fields:
        rest: Fields = {"thinking": answer.thinking} if answer.thinking else {}
        return {"response": answer.content, **rest}


def call_of(call: CallDone) -> Fields:
    """A tool call as native clients know it."""
    function = {"index": call.index, "name": call.name, "arguments": call.arguments}
    return {"id": call.id, "function": function}


def logprobs_of(logprobs: Sequence[Logprob]) -> list[Fields]:
    """Log-probabilities as native clients know them."""
    found: list[Fields] = []
    for item in logprobs:
        fields = _likelihood(item.piece, item.logprob)
        if item.top:
            fields["top_logprobs"] = [_likelihood(*alternative) for alternative in item.top]
        found.append(fields)
    return found


def _likelihood(piece: bytes, logprob: float) -> Fields:
    return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}


def _message(content: str, **rest: object) -> Fields:
    return {"message": {"role": "assistant", "content": content, **rest}}
