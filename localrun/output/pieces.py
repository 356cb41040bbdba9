"""The parts that an answer is made of, as a parser of the model's text finds them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Content:
    """Words for the reader."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """Words of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A tool call whose name is certain; its arguments follow.

    Attributes:
        index: Counts the calls of one answer from 0.
        id: Unique, `call_` and eight of a-z and 0-9.
        name: The tool.
    """

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of the JSON text of the arguments of call `index`."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallDone:
    """Call `index` is complete.

    Attributes:
        index: Which call.
        id: As it began.
        name: As it began.
        arguments: The decoded JSON object, keys in the order the model wrote them.
    """

    index: int
    id: str
    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class CallBroken:
    """Call `index` began and never became complete.

    Attributes:
        index: Which call.
        raw: All that the model wrote of it, markers included. Who has shown nothing of the call
            shows this as content, so that nothing is lost.
    """

    index: int
    raw: str


Piece: TypeAlias = Content | Thinking | CallBegun | CallArguments | CallDone | CallBroken


class Parser(Protocol):
    """Takes the text of one completion apart as it arrives. Never raises on what a model wrote."""

    def feed(self, text: str) -> list[Piece]:
        """Take more text; return what is certain now, maybe nothing."""
        ...

    def finish(self) -> list[Piece]:
        """The completion is over: return everything that was held back."""
        ...
