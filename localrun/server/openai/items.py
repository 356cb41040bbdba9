"""From the input items of a response to turns. Pure.

Source: `FromResponsesRequest` of Ollama's openai package: reasoning goes into the assistant's next
turn, calls into its last one, and words between a call and its output stay in the call's turn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from localrun.errors import BadRequest
from localrun.messages import Turn
from localrun.server.openai.chunks import new_id
from localrun.server.openai.errors import InvalidField, UnsupportedField
from localrun.server.openai.fields import Body
from localrun.server.openai.turns import make_call, read_arguments, read_image

Item: TypeAlias = dict[str, object]
"""An input or output item as JSON."""

_IGNORED = ("web_search_call", "compaction")
_SPOKEN = ("input_text", "output_text", "text", "summary_text", "reasoning_text")


def read_items(body: Body) -> list[Item]:
    """The items of `input`: a text is a message of the user.

    Raises:
        BadRequest: If it is neither text nor a list of objects.
    """
    value = body.all.get("input")
    if value is None or isinstance(value, str):
        return [_message("user", value)] if value else []
    if not isinstance(value, list):
        raise InvalidField("input must be a string or array", "input")
    return [_with_id(item, at) for at, item in enumerate(cast("list[object]", value))]


def _with_id(item: object, at: int) -> Item:
    """An item that can be listed: with a type, an id, and content in parts."""
    if not isinstance(item, dict):
        raise InvalidField(f"input[{at}]: is no object", f"input[{at}]")
    given = cast("Item", item)
    kind = given.get("type") or ("message" if given.get("role") else None)
    if kind is None:
        raise InvalidField(f"input[{at}]: input item missing required 'type' field", f"input[{at}]")
    if kind == "message" and isinstance(given.get("content"), str):
        made = _message(str(given.get("role", "")), str(given["content"]))
        return {**made, **{key: given[key] for key in given if key != "content"}}
    name = given.get("id") or new_id(_PREFIXES.get(str(kind), "item_"))
    return {"id": name, **given, "type": kind}


_PREFIXES = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "function_call_output": "fco_",
}


def _message(role: str, text: str) -> Item:
    part: Item = {"type": "input_text", "text": text}
    if role == "assistant":
        part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "id": new_id("msg_"),
        "type": "message",
        "status": "completed",
        "role": role,
        "content": [part],
    }


def read_turns(items: Sequence[Item]) -> tuple[Turn, ...]:
    """The conversation that items tell.

    Raises:
        BadRequest: If one cannot be understood, or is of a kind that nobody here knows.
    """
    conversation = _Conversation()
    for at, item in enumerate(items):
        try:
            conversation.add(item, items[at + 1] if at + 1 < len(items) else {})
        except BadRequest as error:
            raise _placed(error, f"input[{at}]") from error
    return conversation.turns()


def _placed(error: BadRequest, place: str) -> InvalidField:
    """The error with its place: in words too, but where Ollama has none."""
    message = error.message
    if isinstance(error, InvalidField):
        return type(error)(f"{place}: {message}", place, hint=error.hint)
    return InvalidField(message, place, hint=error.hint)


@dataclass(slots=True)
class _Draft:
    """A turn that still grows."""

    role: str
    text: str = ""
    thinking: str = ""
    images: list[str] = field(default_factory=list[str])
    calls: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    call_id: str = ""
    tool_name: str = ""

    def turn(self) -> Turn:
        extra: dict[str, object] = {
            "thinking": self.thinking,
            "images": self.images,
            "tool_calls": self.calls,
            "tool_call_id": self.call_id,
            "tool_name": self.tool_name,
        }
        return Turn(self.role, self.text, {key: value for key, value in extra.items() if value})


class _Conversation:
    """Takes items in order and makes turns of them."""

    def __init__(self) -> None:
        self._drafts: list[_Draft] = []
        self._thinking = ""
        self._names: dict[str, str] = {}

    def turns(self) -> tuple[Turn, ...]:
        """All turns; reasoning that nothing followed has its own."""
        if self._thinking:
            self._drafts.append(self._thought(_Draft("assistant")))
        return tuple(draft.turn() for draft in self._drafts)

    def add(self, item: Item, following: Item) -> None:
        """Take an item, with a look at the one behind it."""
        kind = item.get("type")
        if kind == "message":
            self._add_message(item, following)
        elif kind == "reasoning":
            self._thinking = _reasoning(item)
        elif kind == "function_call":
            self._add_call(item)
        elif kind == "function_call_output":
            self._add_output(item)
        elif kind not in _IGNORED:
            raise UnsupportedField(f'unknown input item type: "{kind}"', "input")

    def _thought(self, draft: _Draft) -> _Draft:
        if self._thinking:
            draft.thinking, self._thinking = self._thinking, ""
        return draft

    def _add_message(self, item: Item, following: Item) -> None:
        role = _text(item, "role").lower()
        text, images = _read_content(item.get("content"))
        draft = _Draft(role, text, images=images)
        if role == "assistant":
            self._thought(draft)
            called = self._call_of(following)
            if called is not None:
                _merge(called, draft)
                return
        self._drafts.append(draft)

    def _call_of(self, item: Item) -> _Draft | None:
        """The last turn, if this item is the output of one of its calls."""
        last = self._drafts[-1] if self._drafts else None
        if last is None or item.get("type") != "function_call_output":
            return None
        wanted = item.get("call_id")
        return last if any(call.get("id") == wanted for call in last.calls) else None

    def _add_call(self, item: Item) -> None:
        name, space = _text(item, "name"), _text(item, "namespace")
        name = qualified(space, name)
        call_id, arguments = _text(item, "call_id"), _text(item, "arguments")
        call = make_call(call_id, name, _read_arguments(arguments or "{}"))
        self._names[call_id] = name
        if not (self._drafts and self._drafts[-1].role == "assistant"):
            self._drafts.append(_Draft("assistant"))
        self._thought(self._drafts[-1]).calls.append(call)

    def _add_output(self, item: Item) -> None:
        output = item.get("output")
        text, images = _read_content(output)
        call_id = _text(item, "call_id")
        name = self._names.get(call_id, "") or _text(item, "name")
        draft = _Draft("tool", text, images=images, call_id=call_id, tool_name=name)
        self._drafts.append(draft)


def _read_arguments(text: str) -> dict[str, object]:
    try:
        return read_arguments(text)
    except BadRequest as error:
        raise BadRequest("failed to parse function call arguments: no JSON object") from error


def qualified(space: str, name: str) -> str:
    """The name of a function inside a namespace, as the model sees it."""
    return name if not space or name.startswith(f"{space}.") else f"{space}.{name}"


def _merge(into: _Draft, draft: _Draft) -> None:
    gap = "\n" if into.text and draft.text else ""
    into.text += gap + draft.text
    into.images += draft.images
    into.thinking = draft.thinking or into.thinking


def _reasoning(item: Item) -> str:
    """The reasoning in an item: all of it if the client sent that back, else its summary."""
    whole = _text(item, "encrypted_content")
    return whole or _spoken(item.get("content"), "\n") or _spoken(item.get("summary"), "\n")


def _spoken(value: object, gap: str) -> str:
    parts = cast("list[object]", value) if isinstance(value, list) else []
    return gap.join(
        str(cast("Item", part).get("text", "")) for part in parts if isinstance(part, dict)
    )


def _text(item: Mapping[str, object], name: str) -> str:
    value = item.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidField(f"{name} must be a string", "input")
    return value


def _read_content(value: object) -> tuple[str, list[str]]:
    """The text, joined without a gap, and the images of a message or of a tool's output."""
    if value is None or isinstance(value, str):
        return value or "", []
    if not isinstance(value, list):
        raise InvalidField("content must be a string or array", "input")
    texts: list[str] = []
    images: list[str] = []
    for at, part in enumerate(cast("list[object]", value)):
        if not isinstance(part, dict):
            raise InvalidField(f"content[{at}]: is no object", "input")
        _read_part(at, cast("Item", part), texts, images)
    return "".join(texts), images


def _read_part(at: int, part: Item, texts: list[str], images: list[str]) -> None:
    kind = part.get("type")
    if kind in _SPOKEN:
        texts.append(_text(part, "text"))
    elif kind == "refusal":
        texts.append(_text(part, "refusal"))
    elif kind == "input_image":
        if not part.get("image_url"):
            raise UnsupportedField("images are taken as data URLs in image_url only", "input")
        images.append(read_image(part["image_url"]))
    elif kind == "input_file":
        raise BadRequest("file inputs are not currently supported")
    else:
        raise InvalidField(f"content[{at}]: unknown content type: {kind}", "input")
