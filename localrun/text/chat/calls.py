"""Tool calls and their results in the forms that templates take. Pure."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import cast

from localrun.text.chat.templates import Message

_ID_CHARS = 9


def normalize_calls(
    messages: Sequence[Message], *, as_text: bool, short_ids: bool
) -> list[Message]:
    """Every call with type, id, name and arguments, every result with its call's id and name.

    Args:
        messages: The conversation, calls as the dialects write them.
        as_text: Arguments are to be JSON text, not an object.
        short_ids: Ids are to be nine letters or digits.
    """
    normal = _Normalizer(as_text=as_text, short_ids=short_ids)
    return [normal.message(message) for message in messages]


class _Normalizer:
    """Goes through a conversation and remembers which calls have had no result."""

    def __init__(self, *, as_text: bool, short_ids: bool) -> None:
        self._as_text, self._short_ids = as_text, short_ids
        self._n_calls = 0
        self._names: dict[str, str] = {}
        self._open: list[str] = []

    def message(self, message: Message) -> Message:
        if message["role"] == "tool":
            return self._result(message)
        calls = message.get("tool_calls")
        if not isinstance(calls, list):
            return message
        self._open = []
        return {**message, "tool_calls": [self._call(one) for one in cast("list[object]", calls)]}

    def _call(self, one: object) -> object:
        if not isinstance(one, dict):
            return one
        call = cast("Message", one)
        function = call.get("function")
        if not isinstance(function, dict):
            return call
        given = cast("Message", function)
        call_id = self._id(str(call.get("id") or f"call{self._n_calls:05}"))
        self._n_calls += 1
        self._names[call_id] = str(given.get("name", ""))
        self._open.append(call_id)
        arguments = _arguments(given.get("arguments"), as_text=self._as_text)
        function = {**given, "arguments": arguments}
        return {**call, "id": call_id, "type": call.get("type") or "function", "function": function}

    def _result(self, message: Message) -> Message:
        known = message.get("tool_call_id")
        name = message.get("name") or message.get("tool_name")
        call_id = self._id(str(known)) if known else self._next_open(name)
        if call_id in self._open:
            self._open.remove(call_id)
        name = name or self._names.get(call_id)
        more = {"tool_call_id": call_id, "name": name}
        return {**message, **{key: value for key, value in more.items() if value}}

    def _next_open(self, name: object) -> str:
        """The first call that waits for a result, of this name if there is one."""
        named = (call_id for call_id in self._open if self._names[call_id] == name)
        return next(named, self._open[0] if self._open else "")

    def _id(self, call_id: str) -> str:
        is_short = len(call_id) == _ID_CHARS and call_id.isascii() and call_id.isalnum()
        if not self._short_ids or is_short:
            return call_id
        digest = hashlib.blake2b(call_id.encode("utf-8", "replace"), digest_size=10).digest()
        return base64.b32encode(digest).decode().lower()[:_ID_CHARS]


def _arguments(value: object, *, as_text: bool) -> object:
    """Arguments as an object or as text; what is no JSON object stays as it is."""
    if as_text:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return {} if value is None else value
    try:
        read: object = json.loads(value) if value.strip() else {}
    except (ValueError, RecursionError):
        return value
    return cast("object", read) if isinstance(read, dict) else value


def spell_calls(messages: Sequence[Message], *, calls: bool, results: bool) -> list[Message]:
    """Calls, results or both written into the texts; results become the user's words."""
    found: list[Message] = []
    follows_result = False
    for message in messages:
        is_result = results and message["role"] == "tool"
        if is_result:
            text = f"<tool_response>\n{message['content']}\n</tool_response>"
            if follows_result:
                found[-1] = {"role": "user", "content": f"{found[-1]['content']}\n{text}"}
            else:
                found.append({"role": "user", "content": text})
        elif calls and isinstance(message.get("tool_calls"), list):
            found.append(_spelled(message))
        else:
            found.append(message)
        follows_result = is_result
    return found


def _spelled(message: Message) -> Message:
    blocks = [str(message["content"])] if message["content"] else []
    for one in cast("list[object]", message["tool_calls"]):
        function: object = cast("Message", one).get("function") if isinstance(one, dict) else one
        text = json.dumps(function, ensure_ascii=False, default=str)
        blocks.append(f"<tool_call>\n{text}\n</tool_call>")
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(blocks)}


def split_calls(messages: Sequence[Message]) -> list[Message]:
    """One call an answer, each followed by its result."""
    found: list[Message] = []
    at = 0
    while at < len(messages):
        message, at = messages[at], at + 1
        calls = message.get("tool_calls")
        if not isinstance(calls, list) or len(cast("list[object]", calls)) < 2:
            found.append(message)
            continue
        results: list[Message] = []
        while at < len(messages) and messages[at]["role"] == "tool":
            results.append(messages[at])
            at += 1
        found += _one_by_one(message, cast("list[Message]", calls), results)
    return found


def _one_by_one(
    message: Message, calls: Sequence[Message], results: Sequence[Message]
) -> list[Message]:
    found: list[Message] = []
    rest = list(results)
    for number, one in enumerate(calls):
        bare = {"role": message["role"], "content": ""} if number else message
        found.append({**bare, "tool_calls": [one]})
        mine = [result for result in rest if result.get("tool_call_id") == one.get("id")]
        found += mine
        rest = [result for result in rest if result not in mine]
    return [*found, *rest]


def tools_text(tools: Sequence[Mapping[str, object]], *, has_form: bool) -> str:
    """What the model may call, for templates that cannot say it.

    Args:
        tools: As the client wrote them.
        has_form: The model has learnt a form for calls; else it is told one.
    """
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = f"You may call one or more of these tools:\n<tools>\n{lines}\n</tools>"
    if has_form:
        return text
    return (
        f"{text}\n"
        "To call one, write its name and arguments as a JSON object between these tags:\n"
        '<tool_call>\n{"name": "…", "arguments": {…}}\n</tool_call>'
    )
