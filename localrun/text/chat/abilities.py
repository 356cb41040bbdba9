"""What a chat template can say, found by trying it on short conversations.

A published template says nowhere what it knows: some raise at a system turn, some drop tool results
in silence, some want arguments as text. Each question here is answered by one or two renderings
of a few words, once per template and only when a conversation raises it.

Source: the questions are those of llama.cpp's `common/jinja/caps.cpp` and some more.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from localrun.errors import TemplateFailed
from localrun.text.chat.templates import Message, Rendering, Templates

_ONE, _TWO = "mark1one", "mark2two"
_SHORT_ID, _LONG_ID = "call00001", "call_0123456789abcdef"


def said(role: str, content: object, **more: object) -> Message:
    """A message."""
    return {"role": role, "content": content, **more}


def call(name: str, arguments: object, call_id: str) -> dict[str, object]:
    """A tool call as it stands in a message."""
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def parts(text: str) -> list[dict[str, str]]:
    """A text as the only part of a typed content."""
    return [{"type": "text", "text": text}]


def _tool(name: str) -> dict[str, object]:
    properties = {"arg": {"type": "string", "description": "An argument."}}
    parameters = {"type": "object", "properties": properties, "required": ["arg"]}
    function = {"name": name, "description": "A tool.", "parameters": parameters}
    return {"type": "function", "function": function}


class Abilities:
    """Answers about one template, each found when it is first asked.

    Args:
        templates: Renders.
        source: The template.
        variables: Special tokens and what else it may need.
    """

    def __init__(self, templates: Templates, source: str, variables: Mapping[str, object]) -> None:
        self._templates, self._source, self._variables = templates, source, variables

    @cached_property
    def renders_bare(self) -> bool:
        """Whether it renders without tools; some go through a list that must be there."""
        contents = (_ONE, parts(_ONE))
        return any(self._render([said("user", one)], None) is not None for one in contents)

    @cached_property
    def wants_parts(self) -> bool:
        """Whether content must be a list of parts: as a plain text it does not come through."""
        if self._shows(_ONE, said("user", _ONE)):
            return False
        return self._shows(_ONE, said("user", parts(_ONE)))

    @cached_property
    def takes_system(self) -> bool:
        """Whether a system turn in front comes through."""
        return self._shows(_ONE, self._say("system", _ONE), self._say("user", "a"))

    @cached_property
    def takes_systems(self) -> bool:
        """Whether two system turns in front come through."""
        before = (self._say("system", _ONE), self._say("system", _TWO))
        return self._shows((_ONE, _TWO), *before, self._say("user", "a"))

    @cached_property
    def takes_late_system(self) -> bool:
        """Whether a system turn inside a conversation comes through."""
        begin = (self._say("system", _TWO), self._say("user", "a"), self._say("assistant", "a"))
        late = (self._say("system", _ONE), self._say("user", "a"))
        return self._shows((_ONE, _TWO), *begin, *late)

    @cached_property
    def takes_developer(self) -> bool:
        """Whether it knows the developer's role, and does not write every role as it comes."""
        if "developer" not in self._source:
            return False
        return self._shows(_ONE, self._say("developer", _ONE), self._say("user", "a"))

    @cached_property
    def takes_repeats(self) -> bool:
        """Whether a role may speak twice in a row."""
        user, again = self._say("user", _ONE), self._say("user", "a")
        answer, more = self._say("assistant", "a"), self._say("assistant", _TWO)
        return self._shows((_ONE, _TWO), again, user, answer, more, again)

    @cached_property
    def takes_answer_first(self) -> bool:
        """Whether a conversation may begin with an answer, as one does that was cut."""
        return self._shows(_ONE, self._say("assistant", _ONE), self._say("user", "a"))

    @cached_property
    def takes_tools(self) -> bool:
        """Whether it tells the model what it may call."""
        found = self._render([self._say("user", "a")], [_tool(_ONE)])
        return found is not None and _ONE in found

    @cached_property
    def takes_calls(self) -> bool:
        """Whether the calls of earlier answers come through."""
        return self._shows(_ONE, *self._called(call(_ONE, {"arg": "a"}, _SHORT_ID))) or (
            self._shows(_ONE, *self._called(call(_ONE, '{"arg": "a"}', _SHORT_ID)))
        )

    @cached_property
    def takes_results(self) -> bool:
        """Whether what tools have answered comes through."""
        return self._shows(_ONE, *self._called(self._call("a"), result=_ONE))

    @cached_property
    def takes_parallel(self) -> bool:
        """Whether one answer may hold several calls."""
        calls = [self._call(_ONE), self._call(_TWO, _SHORT_ID[:-1] + "2")]
        asked = [self._say("user", "a"), said("assistant", self._typed(""), tool_calls=calls)]
        answers = [self._result("a", one["id"]) for one in calls]
        return self._shows((_ONE, _TWO), *asked, *answers)

    @cached_property
    def wants_text_arguments(self) -> bool:
        """Whether arguments must be JSON text; an object raises, vanishes or prints as Python."""
        found = self._try(self._called(call("a", {"arg": _ONE}, _SHORT_ID)))
        if found is not None and _ONE in found and "'arg': '" not in found:
            return False
        return self._shows(_ONE, *self._called(call("a", '{"arg": "' + _ONE + '"}', _SHORT_ID)))

    @cached_property
    def wants_short_ids(self) -> bool:
        """Whether a call's id must have nine letters or digits, as Mistral's must."""
        if self._shows("", *self._called(self._call("a", _LONG_ID))):
            return False
        return self._shows("", *self._called(self._call("a", _SHORT_ID)))

    @cached_property
    def _names(self) -> set[str]:
        """Of the other names by which templates ask for tools, those that this one reads."""
        return self._templates.reads(self._source, ("functions", "datetime", "xml_tools"))

    def variables_of(self, tools: Sequence[Mapping[str, object]]) -> dict[str, object]:
        """What the template wants to know beside messages and tools."""
        known: dict[str, Callable[[], object]] = {
            "functions": lambda: json.dumps(tools, ensure_ascii=False, indent=2) if tools else "",
            "datetime": self._templates.now_text,
            "xml_tools": lambda: tools or None,
        }
        return {name: known[name]() for name in self._names}

    def _typed(self, text: str) -> object:
        return parts(text) if self.wants_parts else text

    def _say(self, role: str, text: str) -> Message:
        return said(role, self._typed(text))

    def _call(self, name: str, call_id: str = _SHORT_ID) -> dict[str, object]:
        arguments: object = '{"arg": "a"}' if self.wants_text_arguments else {"arg": "a"}
        return call(name, arguments, call_id)

    def _result(self, text: str, call_id: object = _SHORT_ID) -> Message:
        return said("tool", self._typed(text), tool_call_id=call_id, name="a")

    def _called(self, one: dict[str, object], *, result: str = "a") -> list[Message]:
        answer = said("assistant", self._typed(""), tool_calls=[one])
        return [self._say("user", "a"), answer, self._result(result, one["id"])]

    def _shows(self, words: str | tuple[str, ...], *messages: Message) -> bool:
        """Whether the words come through."""
        found = self._try(messages)
        wanted = (words,) if isinstance(words, str) else words
        return found is not None and all(word in found for word in wanted)

    def _try(self, messages: Sequence[Message]) -> str | None:
        if any("tool_calls" in message for message in messages):
            return self._render(messages, [_tool("a")])
        return self._render(messages, None if self.renders_bare else ())

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None
    ) -> str | None:
        variables = {**self.variables_of(tools or ()), **self._variables}
        try:
            return self._templates.render(self._source, Rendering(messages, tools, variables))
        except TemplateFailed:
            return None
