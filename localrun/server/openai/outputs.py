"""The output items of a response: their events while they come, and what they are. Pure."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec

from localrun.messages import Logprob
from localrun.server.openai.chunks import new_id, response_logprobs
from localrun.server.openai.items import Item
from localrun.server.wire import dump, dump_text

Event: TypeAlias = tuple[str, Mapping[str, object]]
"""Its type, and its fields without type and number."""

Space: TypeAlias = tuple[str, str]
"""The namespace of a function, empty without one, and its name there."""


class OutputItem(Protocol):
    """One item of a response's output."""

    def opening(self) -> list[Event]:
        """What says that it is there."""
        ...

    def closing(self, status: str) -> list[Event]:
        """What says that it is over; nothing if that was said."""
        ...

    def shown(self) -> Item:
        """What it is now."""
        ...


class _Item(ABC):
    """What all items have: an id, a place, a status, and whether they are over."""

    def __init__(self, place: int, prefix: str) -> None:
        self.id = new_id(prefix)
        self.place = place
        self.status = "in_progress"

    @abstractmethod
    def shown(self) -> Item:
        """What it is now."""

    def opening(self) -> list[Event]:
        """The item without anything in it."""
        return [("response.output_item.added", {"output_index": self.place, "item": self.shown()})]

    def _closed(self) -> Event:
        return "response.output_item.done", {"output_index": self.place, "item": self.shown()}

    def _at(self, **fields: object) -> dict[str, object]:
        return {"item_id": self.id, "output_index": self.place, **fields}


class MessageItem(_Item):
    """Words for the reader."""

    def __init__(self, place: int, text: str = "", logprobs: Sequence[Logprob] = ()) -> None:
        super().__init__(place, "msg_")
        self._texts = [text] if text else []
        self._logprobs = list(logprobs)
        kind = b"response.output_text.delta"
        at = dump({"type": kind.decode(), **self._at(content_index=0)})[:-1]
        self._head = b"event: " + kind + b"\ndata: " + at + b',"delta":'

    def delta_record(self, text: str, number: int, logprobs: Sequence[Logprob] = ()) -> bytes:
        """The whole event of a piece of text: the hot path."""
        self._texts.append(text)
        told = b"[]"
        if logprobs:
            self._logprobs += logprobs
            told = response_logprobs(logprobs)
        rest = b',"logprobs":%s,"sequence_number":%d}\n\n' % (told, number)
        return self._head + dump_text(text) + rest

    def _part(self) -> dict[str, object]:
        return {
            "type": "output_text",
            "text": "".join(self._texts),
            "annotations": [],
            "logprobs": msgspec.Raw(response_logprobs(self._logprobs)),
        }

    def shown(self) -> Item:
        """The message; without a part before there is any."""
        content = [] if self.status == "in_progress" and not self._texts else [self._part()]
        return {
            "id": self.id,
            "type": "message",
            "status": self.status,
            "role": "assistant",
            "content": content,
        }

    def opening(self) -> list[Event]:
        """The message, and its only part."""
        part = self._at(content_index=0, part=self._part())
        return [*super().opening(), ("response.content_part.added", part)]

    def closing(self, status: str) -> list[Event]:
        """The text, its part, the message."""
        self.status = status
        part = self._part()
        done = self._at(content_index=0, text=part["text"], logprobs=part["logprobs"])
        return [
            ("response.output_text.done", done),
            ("response.content_part.done", self._at(content_index=0, part=part)),
            self._closed(),
        ]


class ReasoningItem(_Item):
    """Words of the reasoning, as a summary of one part.

    `encrypted_content` is the reasoning itself, as in Ollama: clients send it back unread.
    """

    def __init__(self, place: int, text: str = "") -> None:
        super().__init__(place, "rs_")
        self._texts = [text] if text else []

    def _text(self) -> str:
        return "".join(self._texts)

    def shown(self) -> Item:
        """The item; with nothing in it before it is over."""
        item: Item = {"id": self.id, "type": "reasoning", "summary": []}
        if self.status == "in_progress":
            return item
        summary = [{"type": "summary_text", "text": self._text()}]
        return {**item, "summary": summary, "encrypted_content": self._text()}

    def opening(self) -> list[Event]:
        """The item, and the part of its summary."""
        part = {"type": "summary_text", "text": ""}
        added = self._at(summary_index=0, part=part)
        return [*super().opening(), ("response.reasoning_summary_part.added", added)]

    def more(self, text: str) -> list[Event]:
        """More words."""
        self._texts.append(text)
        delta = self._at(summary_index=0, delta=text)
        return [("response.reasoning_summary_text.delta", delta)]

    def closing(self, status: str) -> list[Event]:
        """The text, its part, the item."""
        self.status = status
        text = self._text()
        part = {"type": "summary_text", "text": text}
        return [
            ("response.reasoning_summary_text.done", self._at(summary_index=0, text=text)),
            ("response.reasoning_summary_part.done", self._at(summary_index=0, part=part)),
            self._closed(),
        ]


class CallItem(_Item):
    """The call of a function."""

    def __init__(self, place: int, call_id: str, space: Space) -> None:
        super().__init__(place, "fc_")
        self._call_id, self._space = call_id, space
        self._texts: list[str] = []

    def shown(self) -> Item:
        """The call; its namespace where it has one."""
        space, name = self._space
        item: Item = {
            "id": self.id,
            "type": "function_call",
            "status": self.status,
            "call_id": self._call_id,
            "name": name,
            "arguments": "".join(self._texts),
        }
        return {**item, "namespace": space} if space else item

    def more(self, text: str) -> list[Event]:
        """More of the arguments."""
        self._texts.append(text)
        return [("response.function_call_arguments.delta", self._at(delta=text))]

    def done(self, arguments: str) -> list[Event]:
        """The call is complete; its arguments are told now if they were not while they came."""
        events = [] if self._texts else self.more(arguments)
        return events + self.closing("completed")

    def broken(self) -> list[Event]:
        """It never became complete; nothing where it did."""
        return self.closing("incomplete")

    def closing(self, status: str) -> list[Event]:
        """The arguments, the call."""
        if self.status != "in_progress":
            return []
        self.status = status
        name, arguments = self._space[1], "".join(self._texts)
        done = self._at(name=name, arguments=arguments)
        return [("response.function_call_arguments.done", done), self._closed()]
