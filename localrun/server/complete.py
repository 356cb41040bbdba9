"""The core of every completion: from an `Ask` to the bytes that a dialect's `Writer` makes of it.

Eight streams of a small model make a thousand records a second: the plain path makes no task, no
model object and no copy for any of them, and one write for all that one wake brings.
"""

import asyncio
import time
from collections.abc import Sequence

from localrun.backends.base import Completion, Part, Sink
from localrun.errors import Cancelled
from localrun.messages import Delta, End, Logprob
from localrun.output.pieces import CallBroken, CallDone, Content, Parser, Piece, Thinking
from localrun.server.answers import Call
from localrun.server.ask import Answer, Ask, Begin, Writer
from localrun.server.outlet import Outlet
from localrun.server.prepare import Ready, prepare
from localrun.server.wire import nanoseconds
from localrun.store.library import StoredModel

DROPPED_HEADER = b"x-localrun-truncated-messages"


async def complete(call: Call, ask: Ask, writer: Writer) -> list[Answer]:
    """Answer a request for completions, to the last byte.

    Args:
        call: The request; the writer's bytes go there.
        ask: What is wanted.
        writer: Makes the bytes.

    Returns:
        The answers, complete and sent. If only the rendered prompt was asked for: one answer that
        has no end, and nothing is sent.

    Raises:
        LocalrunError: If it cannot be served or breaks off; the call still has to say so.
    """
    clock = Clock(time.monotonic())
    model = await call.rooms.shelf.find(ask.model)
    return await complete_with(call, ask, writer, model, clock)


async def complete_with(
    call: Call, ask: Ask, writer: Writer, model: StoredModel, clock: "Clock"
) -> list[Answer]:
    """The same for a model that has been found."""
    created_s = time.time()
    ready = await prepare(call.rooms, model, ask, scope=call.cache_scope)
    try:
        return await _answer(call, ask, writer, ready, Begin(ready.prepared, created_s), clock)
    finally:
        ready.lease.release()


async def _answer(
    call: Call, ask: Ask, writer: Writer, ready: Ready, begin: Begin, clock: "Clock"
) -> list[Answer]:
    if ask.render_only:
        return [Answer(0, begin)]
    if n_dropped := ready.prepared.n_dropped:
        call.headers[DROPPED_HEADER] = str(n_dropped).encode()
    if not ask.stream:
        tracks = await _run(call, ready, begin, clock, None)
        answers = [track.answer for track in tracks]
        await call.answer(200, writer.whole(answers))
        return answers
    async with Outlet(call, writer, begin, call.rooms.patience.ping_s) as outlet:
        tracks = await _run(call, ready, begin, clock, outlet)
        return [track.answer for track in tracks]


async def _run(
    call: Call, ready: Ready, begin: Begin, clock: "Clock", outlet: Outlet | None
) -> "list[_Track]":
    """Get a runner and take what it makes; every way out gives the runner back."""
    rooms = call.rooms
    async with ready.lease as runner:
        clock.loaded()
        completions = [
            runner.complete(ready.job(call.cache_scope, index)) for index in range(ready.ask.n)
        ]
        call.completions = completions
        writer = None if outlet is None else outlet.writer
        tracks = [
            _track(completion, ready, Answer(index, begin), writer, clock)
            for index, completion in enumerate(completions)
        ]
        try:
            if len(tracks) == 1:
                await _follow(tracks[0], outlet)
            else:
                await _follow_all(tracks, outlet)
        finally:
            call.completions = ()
            for completion in completions:
                completion.close()
    for track in tracks:
        rooms.counts.completed(track.answer.finished)
    if ready.prompt is not None:
        dropped, end = ready.prepared.n_dropped, tracks[0].answer.finished
        rooms.trail.note(call.cache_scope, ready.ask.model, ready.prompt, end, dropped)
    return tracks


async def _follow(track: "_Track", outlet: Outlet | None) -> None:
    """Take one completion to its end: one write for all that a wake brings."""
    completion = track.completion
    send = None if outlet is None else outlet.way
    completion.divert(_sink(track, outlet))
    while True:
        records = track.take(await completion.next())
        if track.is_over:
            break
        if records and send is not None:
            await send(records)
        completion.taken(track.n_bytes)
    if outlet is not None:
        writer = outlet.writer
        answer = track.answer
        await outlet.finish(b"".join((records, writer.end(answer), writer.close((answer,)))))


def _sink(track: "_Track", outlet: Outlet | None) -> Sink:
    """Takes deltas as they come out of the runner's frame, without waking the request's task."""
    completion = track.completion

    def take(parts: Sequence[Part]) -> bool:
        if outlet is not None and not outlet.is_clear:
            return False
        records = track.take(parts)
        if records and outlet is not None:
            outlet.send_now(records)
        completion.taken(track.n_bytes)
        return True

    return take


async def _follow_all(tracks: "Sequence[_Track]", outlet: Outlet | None) -> None:
    """Take several completions to their ends, merged as they come."""
    waiting = {asyncio.ensure_future(track.completion.next()): track for track in tracks}
    try:
        while waiting:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            woken = [(future, track) for future, track in waiting.items() if future.done()]
            records: list[bytes] = []
            for future, track in woken:
                records.append(track.take(future.result()))
                del waiting[future]
                if not track.is_over:
                    waiting[asyncio.ensure_future(track.completion.next())] = track
                elif outlet is not None:
                    records.append(outlet.writer.end(track.answer))
            await _send_merged(b"".join(records), [track for _, track in woken], outlet)
    finally:
        for future in waiting:
            future.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    if outlet is not None:
        await outlet.finish(outlet.writer.close([track.answer for track in tracks]))


async def _send_merged(records: bytes, tracks: "Sequence[_Track]", outlet: Outlet | None) -> None:
    if records and outlet is not None:
        await outlet.send(records)
    for track in tracks:
        track.completion.taken(track.n_bytes)


def _track(
    completion: Completion, ready: Ready, answer: Answer, writer: Writer | None, clock: "Clock"
) -> "_Track":
    parser = ready.parser()
    is_plain = parser is None and ready.ask.n_logprobs < 0 and ready.ask.n == 1
    if is_plain:
        return _Track(completion, answer, writer, clock)
    return _PartedTrack(completion, answer, writer, clock, parser)


class _Track:
    """One completion on its way into its answer and, if it is streamed, into records.

    Attributes:
        completion: Where it comes from.
        answer: What it becomes.
        n_bytes: Bytes of text in what was taken last.
        is_over: The end has come.
    """

    def __init__(
        self, completion: Completion, answer: Answer, writer: Writer | None, clock: "Clock"
    ) -> None:
        self.completion, self.answer, self.n_bytes, self.is_over = completion, answer, 0, False
        self._writer, self._clock = writer, clock
        self._texts: list[str] = []

    def take(self, parts: Sequence[Part]) -> bytes:
        """Add what has come; return its records."""
        records: list[bytes] = []
        texts, tokens, writer = self._texts, self.answer.tokens, self._writer
        n_bytes = 0
        for part in parts:
            if isinstance(part, End):
                self._end(part)
                break
            tokens.extend(part.tokens)
            if text := part.text:
                texts.append(text)
                n_bytes += len(text) if text.isascii() else len(text.encode())
                if writer is not None:
                    records.append(writer.text(text))
        self.n_bytes = n_bytes
        return b"".join(records)

    def _end(self, end: End) -> None:
        if end.reason == "cancelled":
            raise Cancelled("the request was cancelled")
        answer = self.answer
        answer.content = "".join(self._texts)
        answer.end, answer.metrics = end, self._clock.metrics(end)
        self.is_over = True


class _PartedTrack(_Track):
    """A completion that is more than text: it is parsed, or has log-probabilities, or siblings."""

    def __init__(
        self,
        completion: Completion,
        answer: Answer,
        writer: Writer | None,
        clock: "Clock",
        parser: Parser | None,
    ) -> None:
        super().__init__(completion, answer, writer, clock)
        self._parser = parser
        self._thoughts: list[str] = []
        self._held: list[Logprob] = []

    def take(self, parts: Sequence[Part]) -> bytes:
        """Add what has come; return its records."""
        records: list[bytes] = []
        self.n_bytes = 0
        for part in parts:
            if isinstance(part, End):
                records.append(self._emit(self._parser.finish() if self._parser else [], last=True))
                self._end(part)
                break
            records.append(self._delta(part))
        return b"".join(records)

    def _delta(self, delta: Delta) -> bytes:
        self.answer.tokens.extend(delta.tokens)
        self._held += delta.logprobs
        text = delta.text
        if not text:
            return b""
        self.n_bytes += len(text.encode())
        return self._emit([Content(text)] if self._parser is None else self._parser.feed(text))

    def _emit(self, pieces: Sequence[Piece], *, last: bool = False) -> bytes:
        """The records of pieces; log-probabilities wait for the piece that they belong to."""
        for piece in pieces:
            self._gather(piece)
        if not pieces and not (last and self._held):
            return b""
        logprobs, self._held = self._held, []
        self.answer.logprobs += logprobs
        if self._writer is None:
            return b""
        return self._writer.pieces(self.answer.index, pieces, logprobs)

    def _gather(self, piece: Piece) -> None:
        match piece:
            case Content(text):
                self._texts.append(text)
            case Thinking(text):
                self._thoughts.append(text)
            case CallDone():
                self.answer.calls.append(piece)
            case CallBroken(_, raw):
                self._texts.append(raw)
            case _:
                pass

    def _end(self, end: End) -> None:
        self.answer.thinking = "".join(self._thoughts)
        super()._end(end)


class Clock:
    """The durations of a request: begun when it was read, loaded when it got its runner."""

    def __init__(self, begun: float) -> None:
        self._begun = begun
        self._load_s = 0.0

    def loaded(self) -> None:
        """The request has its runner."""
        self._load_s = time.monotonic() - self._begun

    def metrics(self, end: End) -> dict[str, object]:
        """Ollama's counts and durations (ns); what is 0 is left out."""
        found = {
            "total_duration": nanoseconds(time.monotonic() - self._begun),
            "load_duration": nanoseconds(self._load_s),
            "prompt_eval_count": end.n_prompt,
            "prompt_eval_duration": nanoseconds(end.prefill_s),
            "eval_count": end.n_completion,
            "eval_duration": nanoseconds(end.decode_s),
        }
        return {name: value for name, value in found.items() if value}
