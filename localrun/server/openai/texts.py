"""The bytes of a text completion, OpenAI's older form. Pure."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from localrun.messages import Logprob
from localrun.output.pieces import CallBroken, Content, Piece, Thinking
from localrun.server.ask import Answer, Begin
from localrun.server.openai.chunks import FINGERPRINT, PING, SSE, new_id, text_of, usage_of
from localrun.server.wire import dump, dump_text

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Shape:
    """What all completions of one request have in common.

    Attributes:
        model: Name as the client wrote it.
        n: Completions of one prompt that are shown.
        includes_usage: End the stream with the counts.
        tells_logprobs: Log-probabilities are shown, not only used.
        id: Of the answer.
        created: Unix time of the request.
    """

    model: str
    n: int
    includes_usage: bool
    tells_logprobs: bool
    id: str
    created: int

    @staticmethod
    def make(model: str, *, n: int, includes_usage: bool, tells_logprobs: bool) -> "Shape":
        """A fresh answer's."""
        created = int(time.time())
        return Shape(model, n, includes_usage, tells_logprobs, new_id("cmpl-"), created)

    def whole(self, choices: Sequence[object], usage: Mapping[str, object]) -> bytes:
        """The whole answer."""
        head: dict[str, object] = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }
        return dump({**head, "choices": choices, "usage": usage}) + b"\n"

    def chunk(self) -> tuple[bytes, bytes]:
        """What stands before and behind the choice of a chunk."""
        head = dump({"id": self.id, "object": "text_completion", "created": self.created})[:-1]
        tail = dump({"model": self.model, "system_fingerprint": FINGERPRINT})[1:-1]
        usage = b',"usage":null' if self.includes_usage else b""
        return b"data: " + head + b',"choices":[', b"]," + tail + usage + b"}\n\n"

    def closing(self, usage: Mapping[str, object]) -> bytes:
        """What ends a stream."""
        if not self.includes_usage:
            return DONE
        head: dict[str, object] = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "choices": [],
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "usage": usage,
        }
        return b"data: " + dump(head) + b"\n\n" + DONE


class TextWriter:
    """Chunks, or choices, of the completions of one prompt.

    Args:
        shape: What the request's completions have in common.
        echo: Text that stands in front of each.
        first: Index of this prompt's first completion in the answer.
        is_alone: This is the only prompt of the answer.
    """

    content_type = SSE
    ping = PING

    def __init__(
        self, shape: Shape, *, echo: str = "", first: int = 0, is_alone: bool = True
    ) -> None:
        self._shape, self._echo, self._first, self._is_alone = shape, echo, first, is_alone
        self._offsets: dict[int, int] = {}
        self._before, self._after = shape.chunk()
        self._text = self._before + b'{"text":'
        self._text_end = b',"index":%d,"finish_reason":null}' % first + self._after

    def begin(self, _: Begin) -> bytes:
        """The prompt, where it is to be echoed."""
        if not self._echo:
            return b""
        return b"".join(self._chunk({"text": self._echo}, at) for at in range(self._shape.n))

    def text(self, text: str) -> bytes:
        """A piece of the only completion."""
        return self._text + dump_text(text) + self._text_end

    def pieces(self, index: int, pieces: Sequence[Piece], logprobs: Sequence[Logprob]) -> bytes:
        """A chunk for each piece; the log-probabilities of all stand beside the first."""
        records: list[bytes] = []
        told = self._told(index, logprobs)
        for piece in pieces:
            if fields := _fields_of(piece):
                records.append(self._chunk({**fields, **told}, index))
                told = {}
        if told:
            records.append(self._chunk({"text": "", **told}, index))
        return b"".join(records)

    def _told(self, index: int, logprobs: Sequence[Logprob]) -> dict[str, object]:
        if not (logprobs and self._shape.tells_logprobs):
            return {}
        offset = self._offsets.get(index, len(self._echo))
        told = _logprobs(logprobs, offset)
        self._offsets[index] = offset + sum(len(text_of(logprob.piece)) for logprob in logprobs)
        return {"logprobs": told}

    def _chunk(self, fields: Mapping[str, object], index: int, reason: str | None = None) -> bytes:
        text = {"text": fields["text"], "index": self._first + index, "finish_reason": reason}
        return self._before + dump({**text, **fields}) + self._after

    def end(self, answer: Answer) -> bytes:
        """The chunk with the reason."""
        return self._chunk({"text": ""}, answer.index, answer.finished.reason)

    def close(self, answers: Sequence[Answer]) -> bytes:
        """The end of the stream, unless other prompts go on."""
        return self._shape.closing(usage_of(answers)) if self._is_alone else b""

    def whole(self, answers: Sequence[Answer]) -> bytes:
        """The whole answer."""
        return self._shape.whole(self.choices(answers), usage_of(answers))

    def choices(self, answers: Sequence[Answer]) -> list[dict[str, object]]:
        """The choices of a whole answer: the likeliest where more were made than are shown."""
        shown = list(answers)
        if len(shown) > self._shape.n:
            shown = sorted(shown, key=_mean_logprob, reverse=True)[: self._shape.n]
            shown = [replace(answer, index=at) for at, answer in enumerate(shown)]
        return [self._whole_choice(answer) for answer in shown]

    def _whole_choice(self, answer: Answer) -> dict[str, object]:
        choice: dict[str, object] = {
            "text": self._echo + answer.content,
            "index": self._first + answer.index,
            "finish_reason": answer.finished.reason,
        }
        if answer.thinking:
            choice["reasoning"] = answer.thinking
        if answer.logprobs and self._shape.tells_logprobs:
            choice["logprobs"] = _logprobs(answer.logprobs, len(self._echo))
        return choice


def _fields_of(piece: Piece) -> dict[str, object]:
    match piece:
        case Content(text) | CallBroken(_, text):
            return {"text": text}
        case Thinking(text):
            return {"text": "", "reasoning": text}
        case _:
            return {}


def _mean_logprob(answer: Answer) -> float:
    logprobs = answer.logprobs
    return sum(item.logprob for item in logprobs) / len(logprobs) if logprobs else 0.0


def _logprobs(logprobs: Sequence[Logprob], offset: int) -> dict[str, object]:
    """Log-probabilities in the older form: columns, and offsets in characters of the text."""
    tokens = [text_of(logprob.piece) for logprob in logprobs]
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    tops = [{text_of(piece): number for piece, number in logprob.top} for logprob in logprobs]
    return {
        "tokens": tokens,
        "token_logprobs": [logprob.logprob for logprob in logprobs],
        "top_logprobs": tops if any(tops) else None,
        "text_offset": offsets,
    }
