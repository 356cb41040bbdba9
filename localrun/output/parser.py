"""Takes a model's text apart: reasoning, content, calls, marked as a `Style` says. Pure."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from localrun.output.calls import Output, Tools, new_call_id
from localrun.output.pieces import Piece
from localrun.output.syntax.base import Reading, Syntax
from localrun.output.tape import Steps, Tape, markers_of


@dataclass(frozen=True, slots=True)
class Style:
    """How one family of models marks the parts of an answer.

    Attributes:
        reasoning_start: Opens the reasoning; empty where the model does not reason.
        reasoning_end: Closes it.
        wrappers: Markers around the content that say nothing more than that it is content.
        syntaxes: The ways in which calls are written, the model's own first.
        calls_end_reasoning: A call inside the reasoning ends it.
        reasons_anywhere: Its reasoning may begin behind content too; else only at the start of an
            answer and behind calls, because a reader may be told about `<think>`.
    """

    reasoning_start: str = ""
    reasoning_end: str = ""
    wrappers: tuple[str, ...] = ()
    syntaxes: tuple[Syntax, ...] = ()
    calls_end_reasoning: bool = False
    reasons_anywhere: bool = False


class StepsParser(ABC):
    """A parser whose reader is a generator over a tape; see `output.pieces.Parser`."""

    def __init__(self, tools: Tools, new_id: Callable[[], str] = new_call_id) -> None:
        self.reading = Reading(Tape(), Output(new_id), tools)
        self._steps = self.run()
        next(self._steps, None)

    def feed(self, text: str) -> list[Piece]:
        """Take more text; return what is certain now, maybe nothing."""
        self.reading.tape.add(text)
        next(self._steps, None)
        return self.reading.output.drain()

    def finish(self) -> list[Piece]:
        """The completion is over: return everything that was held back."""
        self.reading.tape.ended = True
        next(self._steps, None)
        return self.reading.output.drain()

    @abstractmethod
    def run(self) -> Steps[None]:
        """Read the whole completion."""


class StyleParser(StepsParser):
    """Reads what a `Style` describes.

    Args:
        style: How the parts of the answer are marked.
        tools: What may be called.
        is_open: The prompt ends inside the reasoning.
        is_formatted: The content is JSON, which may hold texts that look like markers.
        new_id: Makes the ids of calls.
    """

    def __init__(
        self,
        style: Style,
        tools: Tools,
        *,
        is_open: bool,
        is_formatted: bool = False,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._style = style
        self._is_open = is_open
        self._readers: dict[str, Syntax] = {}
        self._starts: tuple[str, ...] = ()
        sections: tuple[str, ...] = ()
        for syntax in reversed(style.syntaxes if tools else ()):
            self._readers.update(dict.fromkeys((*syntax.starts, *syntax.openers), syntax))
            self._starts = (*syntax.starts, *self._starts)
            sections = (*sections, *syntax.sections)
        openers = [marker for marker in self._readers if marker not in self._starts]
        ends = openers if style.calls_end_reasoning else ()
        everywhere = (style.reasoning_start, style.reasoning_end) if style.reasons_anywhere else ()
        self._only_at_start: tuple[str, ...] = ()
        markers = (*openers, *sections, *everywhere)
        if is_formatted:  # behind its beginning, what looks like a call is a string of the JSON
            self._only_at_start, markers = markers, ()
        self._in_prose = markers_of(*markers, *style.wrappers)
        self._in_reasoning = markers_of(style.reasoning_end, *ends)
        super().__init__(tools, new_id)

    def run(self) -> Steps[None]:
        """Read the whole completion."""
        output = self.reading.output
        marker = self._style.reasoning_start if self._is_open else (yield from self._prose())
        while marker:
            if marker == self._style.reasoning_start:
                marker = yield from self._reasoning()
            elif marker in self._readers:
                yield from self._readers[marker].read(self.reading, marker)
                marker = ""
            else:
                output.border()
                marker = ""
            if not marker:
                marker = yield from self._prose()
        output.end()

    def _prose(self) -> Steps[str]:
        """Read content up to the next marker; return that, empty at the end."""
        tape, output, style = self.reading.tape, self.reading.output, self._style
        if not output.has_content:
            yield from tape.blank(output.content)
            starts = (style.reasoning_start, style.reasoning_end, *self._starts)
            if marker := (yield from tape.one_of((*starts, *self._only_at_start))):
                return marker
        return (yield from tape.until(self._in_prose, output.content))

    def _reasoning(self) -> Steps[str]:
        """Read what the model thinks; return the marker behind it unless that is its own end."""
        tape, output, style = self.reading.tape, self.reading.output, self._style
        output.border()
        yield from tape.blank()
        yield from tape.one_of((style.reasoning_start,))
        marker = yield from tape.until(self._in_reasoning, output.thinking)
        if marker:
            output.border()
        else:
            output.end()
        return "" if marker == style.reasoning_end else marker
