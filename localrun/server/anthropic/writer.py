"""The bytes of Anthropic's answers: events of a stream, or one message. Pure.

Source: the events that the `anthropic` Python package puts together again.
"""

import hashlib
from collections.abc import Sequence

from localrun.messages import End, Logprob
from localrun.output.pieces import (
    CallArguments,
    CallBegun,
    CallBroken,
    CallDone,
    Content,
    Piece,
    Thinking,
)
from localrun.server.anthropic.errors import new_id
from localrun.server.anthropic.schema import MessagesRequest
from localrun.server.ask import Answer, Begin
from localrun.server.wire import dump, dump_text

EVENTS = b"text/event-stream"


def event(name: str, fields: dict[str, object]) -> bytes:
    """One event; its data repeats its name as `type`."""
    return f"event: {name}\ndata: ".encode() + dump({"type": name, **fields}) + b"\n\n"


class MessageWriter:
    """Writes the answer to one request.

    Args:
        request: What was asked.
    """

    content_type = EVENTS
    ping = event("ping", {})

    def __init__(self, request: MessagesRequest) -> None:
        self._request = request
        self.id = new_id("msg_")
        self._blocks = _Blocks(hides_thinking=request.hides_thinking)

    def begin(self, begin: Begin) -> bytes:
        """The message without its content; what of the prompt is cached is known at the end."""
        usage = _usage_of(begin.n_prompt, 0, 0)
        return event("message_start", {"message": self._message([], usage)})

    def text(self, text: str) -> bytes:
        """A piece of text."""
        return self._blocks.text(text)

    def pieces(
        self,
        index: int,  # noqa: ARG002 (the border's; there is one completion)
        pieces: Sequence[Piece],
        logprobs: Sequence[Logprob],  # noqa: ARG002 (the border's; this API has none)
    ) -> bytes:
        """Pieces of the answer."""
        return b"".join(map(self._blocks.write, pieces))

    def end(self, answer: Answer) -> bytes:
        """Why it ended, and the usage."""
        reason, stop = self._why(answer)
        delta = {"stop_reason": reason, "stop_sequence": stop}
        return self._blocks.close() + event(
            "message_delta", {"delta": delta, "usage": self._usage(answer.finished)}
        )

    def close(self, answers: Sequence[Answer]) -> bytes:  # noqa: ARG002 (the border's)
        """The last event."""
        return event("message_stop", {})

    def whole(self, answers: Sequence[Answer]) -> bytes:
        """The message with all its content."""
        (answer,) = answers
        content: list[object] = []
        if answer.thinking:
            shown = "" if self._request.hides_thinking else answer.thinking
            content.append(
                {"type": "thinking", "thinking": shown, "signature": _signature(answer.thinking)}
            )
        if answer.content:
            content.append({"type": "text", "text": answer.content})
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
            for call in answer.calls
        ]
        message = self._message(content, self._usage(answer.finished))
        message["stop_reason"], message["stop_sequence"] = self._why(answer)
        return dump(message)

    def _message(self, content: list[object], usage: dict[str, object]) -> dict[str, object]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self._request.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def _why(self, answer: Answer) -> tuple[str, str | None]:
        """`stop_reason` and `stop_sequence`."""
        end = answer.finished
        if end.reason == "length":
            is_full = end.n_completion < self._request.max_tokens
            return "model_context_window_exceeded" if is_full else "max_tokens", None
        if answer.calls:
            return "tool_use", None
        if end.stop and end.stop in self._request.stop:
            return "stop_sequence", end.stop
        return "end_turn", None

    def _usage(self, end: End) -> dict[str, object]:
        computed = end.n_prompt - end.n_cached
        written = computed if self._request.caches else 0
        usage = _usage_of(computed - written, end.n_cached, written)
        usage["output_tokens"] = end.n_completion
        if end.n_reasoning:
            usage["output_tokens_details"] = {"thinking_tokens": end.n_reasoning}
        return usage


def _usage_of(n_input: int, n_read: int, n_written: int) -> dict[str, object]:
    """The three parts of a prompt; they add up to it."""
    return {
        "input_tokens": n_input,
        "cache_creation_input_tokens": n_written,
        "cache_read_input_tokens": n_read,
        "output_tokens": 0,
    }


def _signature(thinking: str) -> str:
    """Something that the client gives back; it proves nothing, as nothing here needs a proof."""
    return hashlib.blake2b(thinking.encode("utf-8", "replace"), digest_size=24).hexdigest()


class _Blocks:
    """The content blocks of a stream: one is open at a time, in the order of the pieces."""

    def __init__(self, *, hides_thinking: bool) -> None:
        self._hides_thinking = hides_thinking
        self._n_blocks = 0
        self._open = ""
        self._before = b""
        self._thoughts: list[str] = []
        self._has_arguments = False

    def text(self, text: str) -> bytes:
        """A piece of text, in a block of its own kind."""
        head = b"" if self._open == "text" else self._begin("text", {"text": ""}, "text_delta")
        return head + self._delta(text)

    def write(self, piece: Piece) -> bytes:
        """The events of a piece."""
        match piece:
            case Content(text):
                return self.text(text)
            case Thinking(text):
                return self._thinking(text)
            case CallBegun(_, call_id, name):
                self._has_arguments = False
                fields: dict[str, object] = {"id": call_id, "name": name, "input": {}}
                return self._begin("tool_use", fields, "input_json_delta")
            case CallArguments(_, text):
                self._has_arguments = True
                return self._delta(text)
            case CallDone():
                return self._call_done(piece)
            case CallBroken():
                return self.close()  # what was written of it has been shown

    def close(self) -> bytes:
        """Close the block that is open."""
        if not self._open:
            return b""
        kind, self._open = self._open, ""
        head = b""
        if kind == "thinking":
            signature = {
                "type": "signature_delta",
                "signature": _signature("".join(self._thoughts)),
            }
            head = event("content_block_delta", {"index": self._index, "delta": signature})
            self._thoughts.clear()
        return head + event("content_block_stop", {"index": self._index})

    @property
    def _index(self) -> int:
        return self._n_blocks - 1

    def _begin(self, kind: str, fields: dict[str, object], delta: str) -> bytes:
        before = self.close()
        self._open = kind
        self._n_blocks += 1
        field = {"text_delta": "text", "thinking_delta": "thinking"}.get(delta, "partial_json")
        # The records of a block differ in their text only.
        self._before = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%s","%s":' % (self._index, delta.encode(), field.encode())
        )
        return before + event(
            "content_block_start",
            {"index": self._index, "content_block": {"type": kind, **fields}},
        )

    def _delta(self, text: str) -> bytes:
        return self._before + dump_text(text) + b"}}\n\n"

    def _thinking(self, text: str) -> bytes:
        head = b""
        if self._open != "thinking":
            head = self._begin("thinking", {"thinking": "", "signature": ""}, "thinking_delta")
        self._thoughts.append(text)
        return head if self._hides_thinking else head + self._delta(text)

    def _call_done(self, call: CallDone) -> bytes:
        head = b""
        if not self._has_arguments:
            head = self._delta(dump(call.arguments).decode())
        return head + self.close()
