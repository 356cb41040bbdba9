"""The bytes of a chat completion. Pure.

A piece of content is one join of parts that were made before: eight streams of a small model make
a thousand of them a second.
"""

import time
from collections.abc import Sequence

from localrun.messages import Logprob
from localrun.output.pieces import (
    CallArguments,
    CallBegun,
    CallBroken,
    CallDone,
    Content,
    Piece,
    Thinking,
)
from localrun.server.ask import Answer, Begin
from localrun.server.openai.chunks import (
    FINGERPRINT,
    PING,
    SSE,
    chat_logprobs,
    finish_reason,
    new_id,
    usage_of,
)
from localrun.server.wire import dump, dump_text

_DONE = b"data: [DONE]\n\n"


class ChatWriter:
    """Chunks of a streamed chat, or its whole answer.

    The reasoning stands in `reasoning`, where clients of Ollama look, and again in
    `reasoning_content`, where those of DeepSeek, vLLM and llama-server do; programs that know both
    take one of them.

    Args:
        model: Name as the client wrote it.
        includes_usage: End the stream with the counts.
    """

    content_type = SSE
    ping = PING

    def __init__(self, model: str, *, includes_usage: bool = False) -> None:
        self.id = new_id("chatcmpl-")
        self._model, self._includes_usage = model, includes_usage
        self._created = int(time.time())
        self._choices: dict[int, _Choice] = {}
        head = dump({**self._head("chat.completion.chunk"), "choices": 0})
        self._start = b"data: " + head[:-2] + b'[{"index":'
        self._text = self._start + b'0,"delta":{"content":'
        self._text_end = b'},"finish_reason":null}]}\n\n'
        self._first = self._choice(0)

    def _head(self, kind: str) -> dict[str, object]:
        return {
            "id": self.id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": FINGERPRINT,
        }

    def _choice(self, index: int) -> "_Choice":
        if index not in self._choices:
            self._choices[index] = _Choice()
        return self._choices[index]

    def begin(self, _: Begin) -> bytes:
        """Nothing: the first delta names the role."""
        return b""

    def text(self, text: str) -> bytes:
        """A delta of content."""
        if self._first.is_new:
            return self._delta(0, b'"content":' + dump_text(text))
        return self._text + dump_text(text) + self._text_end

    def pieces(self, index: int, pieces: Sequence[Piece], logprobs: Sequence[Logprob]) -> bytes:
        """A delta for each piece; the log-probabilities of all stand beside the first."""
        told = chat_logprobs(logprobs) if logprobs else b""
        records: list[bytes] = []
        choice = self._choice(index)
        for piece in pieces:
            if delta := choice.delta(piece):
                records.append(self._delta(index, delta, told))
                told = b""
        if told:
            records.append(self._delta(index, b'"content":""', told))
        return b"".join(records)

    def _delta(self, index: int, fields: bytes, logprobs: bytes = b"") -> bytes:
        choice = self._choice(index)
        role = b'"role":"assistant",' if choice.is_new else b""
        if role and not fields.startswith(b'"content":'):
            role += b'"content":"",'
        choice.is_new = False
        number = b"%d" % index
        end = b'},"finish_reason":null'
        if logprobs:
            end += b',"logprobs":' + logprobs
        return b"".join((self._start, number, b',"delta":{', role, fields, end, b"}]}\n\n"))

    def end(self, answer: Answer) -> bytes:
        """The chunk with the reason; an empty completion has its role first."""
        choice = self._choice(answer.index)
        record = self._delta(answer.index, b'"content":""') if choice.is_new else b""
        reason = finish_reason(answer.finished, has_calls=bool(answer.calls))
        finish = b'%d,"delta":{},"finish_reason":"%s"}]}\n\n' % (answer.index, reason.encode())
        return record + self._start + finish

    def close(self, answers: Sequence[Answer]) -> bytes:
        """The counts where they were asked for, and the mark of the end."""
        if not self._includes_usage:
            return _DONE
        fields = self._head("chat.completion.chunk")
        return (
            b"data: "
            + dump({**fields, "choices": [], "usage": usage_of(answers)})
            + b"\n\n"
            + _DONE
        )

    def whole(self, answers: Sequence[Answer]) -> bytes:
        """The whole answer."""
        head = dump(self._head("chat.completion"))[:-1]
        choices = b",".join(map(_whole_choice, answers))
        usage = dump(usage_of(answers))
        return b"".join((head, b',"choices":[', choices, b'],"usage":', usage, b"}\n"))

    def rendered(self, answer: Answer) -> bytes:
        """The answer of who only wants to see the prompt."""
        message = {"role": "", "content": ""}
        choice = {"index": 0, "message": message, "finish_reason": None}
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        debug = {"rendered_template": answer.begin.prepared.text}
        fields = self._head("chat.completion")
        return dump({**fields, "choices": [choice], "usage": usage, "_debug_info": debug}) + b"\n"


class _Choice:
    """One of the completions of a stream."""

    def __init__(self) -> None:
        self.is_new = True
        self._begun: set[int] = set()
        self._has_arguments: set[int] = set()

    def delta(self, piece: Piece) -> bytes:
        """The fields of a delta; empty where a piece says nothing new."""
        match piece:
            case Content(text):
                return b'"content":' + dump_text(text)
            case Thinking(text):
                words = dump_text(text)
                return b'"content":"","reasoning":' + words + b',"reasoning_content":' + words
            case CallBegun(index, call_id, name):
                return self._begin_call(index, call_id, name)
            case CallArguments(index, text):
                self._has_arguments.add(index)
                return _arguments(index, text)
            case CallDone():
                return self._end_call(piece)
            case CallBroken(index, raw):
                return b"" if index in self._begun else b'"content":' + dump_text(raw)

    def _begin_call(self, index: int, call_id: str, name: str) -> bytes:
        self._begun.add(index)
        call = {
            "index": index,
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": ""},
        }
        return b'"content":"","tool_calls":' + dump([call])

    def _end_call(self, call: CallDone) -> bytes:
        """Nothing where all has been said while it came."""
        if call.index in self._has_arguments:
            return b""
        arguments = dump(call.arguments).decode()
        if call.index in self._begun:
            return _arguments(call.index, arguments)
        self._begun.add(call.index)
        return b'"content":"","tool_calls":' + dump([call_object(call, call.index)])


def _arguments(index: int, text: str) -> bytes:
    return b'"tool_calls":' + dump([{"index": index, "function": {"arguments": text}}])


def call_object(call: CallDone, index: int) -> dict[str, object]:
    """A complete call."""
    arguments = dump(call.arguments).decode()
    return {
        "id": call.id,
        "index": index,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _whole_choice(answer: Answer) -> bytes:
    message: dict[str, object] = {"role": "assistant", "content": answer.content}
    if answer.thinking:
        message |= {"reasoning": answer.thinking, "reasoning_content": answer.thinking}
    if answer.calls:
        message["tool_calls"] = [call_object(call, at) for at, call in enumerate(answer.calls)]
    reason = finish_reason(answer.finished, has_calls=bool(answer.calls))
    choice = dump({"index": answer.index, "message": message, "finish_reason": reason})
    if not answer.logprobs:
        return choice
    return choice[:-1] + b',"logprobs":' + chat_logprobs(answer.logprobs) + b"}"
