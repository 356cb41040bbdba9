"""A client's conversation → the messages of one template → the prompt.

What a template takes as it is reaches it unchanged. What it refuses or drops in silence is put into
a form that it takes, and no word is lost:

- A system turn becomes part of the next user turn, a developer's turn is the system's.
- Turns of one role in a row are joined with a blank line where roles must alternate.
- Tools, calls and results that a template does not know are written into the texts, in the form of
  the Hermes models, which most others have seen too.
- Several calls of one answer follow each other, each with its result, where one is the most.
- Arguments are objects, or JSON text where the template adds them to text.
- A tool is completed where the template fails on what it does not say.

Source: llama.cpp's `common/chat.cpp` (`workaround`, `messages_inp_normalizer`) for the first, the
last and typed content; Ollama joins turns of a role in the same way.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import cast

from localrun.errors import TemplateFailed
from localrun.messages import Turn
from localrun.text.chat.abilities import Abilities, parts
from localrun.text.chat.calls import normalize_calls, spell_calls, split_calls, tools_text
from localrun.text.chat.templates import Message, Rendering, Templates
from localrun.text.chat.tools import completed

MAX_KNOWN = 16


class Chat:
    """Renders conversations through any Jinja template.

    Args:
        templates: Renders finished messages.
        max_known: Templates of which it remembers what they can.
    """

    def __init__(self, templates: Templates, *, max_known: int = MAX_KNOWN) -> None:
        self._templates, self._max_known = templates, max_known
        self._known: OrderedDict[str, Abilities] = OrderedDict()

    def render(
        self,
        source: str,
        turns: Sequence[Turn],
        *,
        tools: Sequence[Mapping[str, object]] = (),
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """Write a conversation up to the point where the model goes on.

        A conversation that ends with the assistant's words is continued inside them.

        Args:
            source: Jinja text.
            turns: The conversation.
            tools: What the model may call.
            variables: Special tokens and what else the template is to see.

        Raises:
            TemplateFailed: If the template cannot be read, raises, or goes over a limit.
        """
        known = dict(variables or {})
        able = self.abilities(source, known)
        before, begun = split_begun(turns)
        if begun is None:
            return self._rendered(source, _given(before, tools, known, able))
        if name := _continued_field(begun):
            whole = [*before, begun]
            try:
                return self._rendered(source, _given(whole, tools, known, able, continues=name))
            except TemplateFailed:
                pass  # it cuts or leaves out what stands last: the words go behind all others
        words = begun.content or str(_reasoning_of(begun) or "")
        return self._rendered(source, _given(before, tools, known, able)) + words

    def abilities(self, source: str, variables: Mapping[str, object]) -> Abilities:
        """What a template can; found once and kept."""
        if (known := self._known.get(source)) is not None:
            self._known.move_to_end(source)
            return known
        able = self._known[source] = Abilities(self._templates, source, variables)
        if len(self._known) > self._max_known:
            self._known.popitem(last=False)
        return able

    def _rendered(self, source: str, given: Rendering) -> str:
        try:
            return self._templates.render(source, given)
        except TemplateFailed:
            tools = completed(given.tools or ())
            if tools == list(given.tools or ()):
                raise
            return self._templates.render(source, replace(given, tools=tools))


def split_begun(turns: Sequence[Turn]) -> tuple[Sequence[Turn], Turn | None]:
    """The turns before, and the answer that the assistant has begun behind them."""
    last = turns[-1] if len(turns) > 1 else None
    if last is None or last.role != "assistant" or last.extra.get("tool_calls"):
        return turns, None
    return turns[:-1], last


def _continued_field(begun: Turn) -> str:
    if begun.content:
        return "content"
    return "reasoning_content" if _reasoning_of(begun) else ""


def _reasoning_of(turn: Turn) -> object:
    extra = turn.extra
    return extra.get("reasoning_content") or extra.get("thinking") or extra.get("reasoning")


def message_of(turn: Turn) -> Message:
    """A turn as templates see it; the extra fields cannot replace role and content."""
    return {**turn.extra, "role": turn.role, "content": turn.content}


def _given(
    turns: Sequence[Turn],
    tools: Sequence[Mapping[str, object]],
    variables: Mapping[str, object],
    able: Abilities,
    *,
    continues: str = "",
) -> Rendering:
    messages = _with_known_tools([message_of(turn) for turn in turns], able)
    offered: Sequence[Mapping[str, object]] | None = list(tools)
    if tools and not able.takes_tools:
        messages, offered = _with_system(messages, tools_text(tools, has_form=able.takes_calls)), []
    messages = _with_known_roles(messages, able)
    if not offered and able.renders_bare:
        offered = None
    if able.wants_parts:
        messages = [_with_parts(message) for message in messages]
    known = {**able.variables_of(offered or ()), **variables}
    return Rendering(messages, offered, known, continues)


def _with_known_tools(messages: list[Message], able: Abilities) -> list[Message]:
    """Calls and results in a form that the template takes."""
    has_calls = any(message.get("tool_calls") for message in messages)
    has_results = any(message["role"] == "tool" for message in messages)
    if not (has_calls or has_results):
        return messages
    are_text = has_calls and able.takes_calls and able.wants_text_arguments
    has_short_ids = has_calls and able.takes_calls and able.wants_short_ids
    messages = normalize_calls(messages, as_text=are_text, short_ids=has_short_ids)
    calls_are_unknown = has_calls and not able.takes_calls
    results_are_unknown = has_results and not able.takes_results
    if calls_are_unknown or results_are_unknown:
        return spell_calls(messages, calls=calls_are_unknown, results=results_are_unknown)
    if has_calls and _has_parallel(messages) and not able.takes_parallel:
        return split_calls(messages)
    return messages


def _has_parallel(messages: Sequence[Message]) -> bool:
    calls = (message.get("tool_calls") for message in messages)
    return any(isinstance(one, list) and len(cast("list[object]", one)) > 1 for one in calls)


def _with_system(messages: list[Message], text: str) -> list[Message]:
    """The messages with more in the system turn that stands in front."""
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": _joined(messages[0], {"content": text})}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _with_known_roles(messages: list[Message], able: Abilities) -> list[Message]:
    """Every turn in a role and at a place that the template takes."""
    roles = [message["role"] for message in messages]
    if "developer" in roles and not able.takes_developer:
        messages = [_as(message, "system", "developer") for message in messages]
        roles = [message["role"] for message in messages]
    if "system" in roles:
        messages = _with_known_system(messages, able)
    if _has_repeats(messages) and not able.takes_repeats:
        messages = _without_repeats(messages)
    return messages


def _with_known_system(messages: list[Message], able: Abilities) -> list[Message]:
    n_first = 0
    while n_first < len(messages) and messages[n_first]["role"] == "system":
        n_first += 1
    first, rest = messages[:n_first], messages[n_first:]
    if not able.takes_system:
        first, rest = [], messages
    elif n_first > 1 and not able.takes_systems:
        text = "\n\n".join(str(message["content"]) for message in first)
        first = [{**first[0], "content": text}]
    is_late = any(message["role"] == "system" for message in rest)
    if is_late and not (able.takes_system and able.takes_late_system):
        rest = _system_as_user(rest)
    return [*first, *rest]


def _system_as_user(messages: list[Message]) -> list[Message]:
    """System turns as the user's, in front of what the user says next."""
    found: list[Message] = []
    waits = False
    for message in messages:
        if waits and message["role"] in ("user", "system"):
            before = found.pop()
            text = f"{before['content']}\n{message['content']}"
            found.append({**message, "role": "user", "content": text})
        else:
            found.append(_as(message, "user", "system"))
        waits = message["role"] == "system"
    return found


def _as(message: Message, role: str, instead: str) -> Message:
    return {**message, "role": role} if message["role"] == instead else message


def _has_repeats(messages: Sequence[Message]) -> bool:
    return any(_may_join(one, two) for one, two in pairwise(messages))


def _may_join(one: Message, two: Message) -> bool:
    if one["role"] != two["role"] or one["role"] not in ("user", "assistant"):
        return False
    return not (one.get("tool_calls") or two.get("tool_calls"))


def _without_repeats(messages: Sequence[Message]) -> list[Message]:
    found: list[Message] = []
    for message in messages:
        if found and _may_join(found[-1], message):
            found[-1] = {**found[-1], **message, "content": _joined(found[-1], message)}
        else:
            found.append(message)
    return found


def _joined(one: Message, two: Message) -> str:
    return "\n\n".join(str(text) for text in (one["content"], two["content"]) if text)


def _with_parts(message: Message) -> Message:
    content = message["content"]
    return {**message, "content": parts(content)} if isinstance(content, str) else message
