"""The events of a streamed response, or its whole object. Pure.

Items stand in the order in which the model wrote them. The numbers 0 and 1 belong to what a stream
opens with, as records are made before the core asks for that.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from localrun.errors import LocalrunError
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
from localrun.server.openai.chunks import PING, SSE
from localrun.server.openai.errors import OpenAI, error_object
from localrun.server.openai.items import Item
from localrun.server.openai.outputs import (
    CallItem,
    Event,
    MessageItem,
    OutputItem,
    ReasoningItem,
    Space,
)
from localrun.server.openai.response import Response
from localrun.server.wire import dump

T = TypeVar("T", bound=OutputItem)

_N_OPENING = 2


class ResponseWriter(OpenAI):
    """Writes one response; also its dialect, as a broken stream has to end with its events.

    Args:
        response: What is being answered.
        spaces: From a tool's name to its namespace and its own name.
        keep: Called with the finished object and its output, before it is sent.
    """

    content_type = b"application/json"
    ping = PING

    def __init__(
        self,
        response: Response,
        spaces: Mapping[str, Space],
        keep: Callable[[dict[str, object], list[Item]], None],
    ) -> None:
        self._response, self._spaces, self._keep = response, spaces, keep
        self._number = _N_OPENING
        self._items: list[OutputItem] = []
        self._open: MessageItem | ReasoningItem | None = None
        self._calls: dict[int, CallItem] = {}
        self._space: str = ""

    def begin(self, _: Begin) -> bytes:
        """The response as it begins."""
        response = self._response.begun()
        kinds = ("response.created", "response.in_progress")
        return b"".join(
            _encode((kind, {"response": response}), number) for number, kind in enumerate(kinds)
        )

    def text(self, text: str) -> bytes:
        """A piece of the message."""
        message = self._open
        if isinstance(message, MessageItem):
            self._number += 1
            return message.delta_record(text, self._number - 1)
        return self._content(text, ())

    def pieces(self, _: int, pieces: Sequence[Piece], logprobs: Sequence[Logprob]) -> bytes:
        """The events of pieces; log-probabilities are told of content only."""
        records: list[bytes] = []
        for piece in pieces:
            if isinstance(piece, Content):
                records.append(self._content(piece.text, logprobs))
                logprobs = ()
            else:
                records.append(self._other(piece))
        return b"".join(records)

    def _content(self, text: str, logprobs: Sequence[Logprob]) -> bytes:
        """Words; blanks between other items are held until words follow them."""
        message, records = self._open, b""
        if not isinstance(message, MessageItem):
            text = self._space + text
            self._space = ""
            if self._items and text.isspace():
                self._space = text
                return b""
            records = self._close_open()
            message = self._add(MessageItem(len(self._items)))
            self._open = message
            records += self._records(message.opening())
        self._number += 1
        return records + message.delta_record(text, self._number - 1, logprobs)

    def _other(self, piece: Piece) -> bytes:
        match piece:
            case Thinking(text):
                return self._thinking(text)
            case CallBegun(index, call_id, name):
                return self._begin_call(index, call_id, name)
            case CallArguments(index, text):
                return self._records(self._calls[index].more(text))
            case CallDone(index, call_id, name, arguments):
                begun = b"" if index in self._calls else self._begin_call(index, call_id, name)
                done = self._calls[index].done(dump(arguments).decode())
                return begun + self._records(done)
            case CallBroken(index, raw):
                broken = self._calls.get(index)
                return self._records(broken.broken()) if broken else self._content(raw, ())
            case Content(text):
                return self._content(text, ())

    def _thinking(self, text: str) -> bytes:
        item, records = self._open, b""
        if not isinstance(item, ReasoningItem):
            records = self._close_open()
            item = self._add(ReasoningItem(len(self._items)))
            self._open = item
            records += self._records(item.opening())
        return records + self._records(item.more(text))

    def _begin_call(self, index: int, call_id: str, name: str) -> bytes:
        records = self._close_open()
        space = self._spaces.get(name, ("", name))
        call = self._add(CallItem(len(self._items), call_id, space))
        self._calls[index] = call
        return records + self._records(call.opening())

    def _add(self, item: T) -> T:
        self._items.append(item)
        return item

    def _close_open(self, status: str = "completed") -> bytes:
        item, self._open = self._open, None
        return b"" if item is None else self._records(item.closing(status))

    def _records(self, events: Sequence[Event]) -> bytes:
        records: list[bytes] = []
        for event in events:
            records.append(_encode(event, self._number))
            self._number += 1
        return b"".join(records)

    def end(self, answer: Answer) -> bytes:
        """What is still open is closed; a response without anything has an empty message."""
        records = b""
        if not self._items:
            message = self._add(MessageItem(0))
            self._open = message
            records = self._records(message.opening())
        status = "incomplete" if answer.finished.reason == "length" else "completed"
        for call in self._calls.values():
            records += self._records(call.broken())
        return records + self._close_open(status)

    def close(self, answers: Sequence[Answer]) -> bytes:
        """The finished response."""
        output = [item.shown() for item in self._items]
        response = self._response.ended(output, answers[0])
        self._keep(response, output)
        return self._records([(f"response.{response['status']}", {"response": response})])

    def whole(self, answers: Sequence[Answer]) -> bytes:
        """The whole response."""
        answer = answers[0]
        output = _output_of(answer, self._spaces)
        response = self._response.ended(output, answer)
        self._keep(response, output)
        return dump(response) + b"\n"

    def break_off(self, error: LocalrunError) -> bytes:
        """The error, and the response that failed by it."""
        output = [item.shown() for item in self._items]
        code = "server_error" if error.status >= 500 else "invalid_prompt"
        response = self._response.failed(output, code, error.message)
        told = error_object(error)
        fields = {name: told.get(name) for name in ("code", "message", "param", "hint")}
        return self._records([("error", fields), ("response.failed", {"response": response})])


class StreamedWriter(ResponseWriter):
    """The same for who wants events."""

    content_type = SSE


def _encode(event: Event, number: int) -> bytes:
    kind, fields = event
    data = dump({"type": kind, **fields, "sequence_number": number})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _output_of(answer: Answer, spaces: Mapping[str, Space]) -> list[Item]:
    """The items of a whole answer: reasoning, words, calls."""
    items: list[OutputItem] = []
    if answer.thinking:
        items.append(ReasoningItem(0, answer.thinking))
    has_words = bool(answer.content.strip())
    if has_words or not answer.calls:
        message = MessageItem(0, answer.content, answer.logprobs)
        items.append(message)
    for call in answer.calls:
        made = CallItem(0, call.id, spaces.get(call.name, ("", call.name)))
        made.done(dump(call.arguments).decode())
        items.append(made)
    status = "incomplete" if answer.finished.reason == "length" else "completed"
    for item in items:
        item.closing(status if item is items[-1] else "completed")
    return [item.shown() for item in items]
