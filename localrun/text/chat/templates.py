"""Render Jinja chat templates, byte for byte as `transformers`' `apply_chat_template`.

What reaches a template here are finished messages; `conversation.py` makes them. The only place
that runs a template from a model file, in the sandbox of `sandbox.py`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import CodeType, TracebackType
from typing import Final, TypeAlias, cast

import jinja2

from localrun.errors import TemplateFailed
from localrun.text.chat.sandbox import TemplateRefused, make_environment

MAX_SOURCE_CHARS = 1 << 20
MAX_OUTPUT_CHARS = 32 << 20
MAX_COMPILED = 16

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""For a model without a template whose vocabulary has `<|im_start|>`."""

PLAIN = "{{ messages | map(attribute='content') | join('\n\n') }}"
"""For any other model without a template: a single prompt verbatim, several with a blank line."""

Message: TypeAlias = dict[str, object]
"""One message as templates see it."""

_REASONING: Final = ("reasoning_content", "thinking", "reasoning")
_TAG: Final = "CONTINUE_FINAL_MESSAGE_TAG "
_FILENAME: Final = "chat template"


@dataclass(frozen=True, slots=True)
class Rendering:
    """What a template is given.

    Attributes:
        messages: The conversation.
        tools: What the model may call; None where there is nothing.
        variables: Further variables, `documents` and special tokens among them.
        continues: The field of the last message that the model is to go on with, `content` or
            `reasoning_content`; empty where it begins a message of its own.
    """

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, object]] | None = None
    variables: Mapping[str, object] = field(default_factory=dict[str, object])
    continues: str = ""


class Templates:
    """Compiles and renders; keeps what it compiled.

    Args:
        now: The clock behind `strftime_now`, in local time.
        max_compiled: Templates that are kept.
        max_chars: Characters that one may write.
    """

    def __init__(
        self,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
        *,
        max_compiled: int = MAX_COMPILED,
        max_chars: int = MAX_OUTPUT_CHARS,
    ) -> None:
        self._now = now
        self._environment = make_environment(now)
        self._max_compiled, self._max_chars = max_compiled, max_chars
        self._compiled: OrderedDict[str, jinja2.Template] = OrderedDict()

    def render(self, source: str, given: Rendering) -> str:
        """Write a conversation up to the point where the model goes on.

        Raises:
            TemplateFailed: If the template cannot be compiled, raises, is refused by the sandbox
                or goes over a limit, or does not write the words to be continued; the sentence has
                the line.
        """
        messages = [_aliased(_without_nones(message)) for message in given.messages]
        begun = ""
        if given.continues:
            begun = _tag_last(messages, given.continues, source)
        variables = {
            "documents": None,
            **given.variables,
            "messages": messages,
            "tools": given.tools,
            "add_generation_prompt": not given.continues,
        }
        text = self._run(source, variables)
        return _cut_at_tag(text, begun) if given.continues else text

    def reads(self, source: str, names: Iterable[str]) -> set[str]:
        """Which of these variables a template may read, by the words that its code holds.

        Raises:
            TemplateFailed: If it cannot be compiled.
        """
        code = self._compile(source).root_render_func.__code__
        return {name for name in names if name in code.co_consts}

    def now_text(self) -> str:
        """The time as templates print it that have no clock of their own."""
        return self._now().astimezone(UTC).strftime("%b %d %Y %H:%M:%S GMT")

    def _run(self, source: str, variables: dict[str, object]) -> str:
        template = self._compile(source)
        try:
            return "".join(self._within_limit(template.generate(variables)))
        except TemplateFailed:
            raise
        except Exception as error:  # foreign code may raise anything
            raise _failure_of(error) from error

    def _compile(self, source: str) -> jinja2.Template:
        if source in self._compiled:
            self._compiled.move_to_end(source)
            return self._compiled[source]
        if len(source) > MAX_SOURCE_CHARS:
            raise TemplateFailed(
                f"the chat template has {len(source)} characters, more than {MAX_SOURCE_CHARS}"
            )
        environment = self._environment
        try:
            code: CodeType = environment.compile(source, _FILENAME, _FILENAME)
        except Exception as error:  # foreign code may raise anything
            raise _failure_of(error) from error
        template = jinja2.Template.from_code(environment, code, dict(environment.globals))
        self._compiled[source] = template
        if len(self._compiled) > self._max_compiled:
            self._compiled.popitem(last=False)
        return template

    def _within_limit(self, pieces: Iterator[str]) -> Iterator[str]:
        n_chars = 0
        for piece in pieces:
            n_chars += len(piece)
            if n_chars > self._max_chars:
                raise TemplateFailed(
                    f"the chat template wrote more than {self._max_chars} characters"
                )
            yield piece


def _without_nones(message: Message) -> Message:
    if None not in message.values():
        return message
    return {key: value for key, value in message.items() if value is not None}


def _aliased(message: Message) -> Message:
    """The message with its reasoning under the two names by which templates know it."""
    for name in _REASONING:
        if name in message:
            reasoning = message[name]
            return {"thinking": reasoning, **message, "reasoning_content": reasoning}
    return message


def _tag_last(messages: list[Message], name: str, source: str) -> str:
    """Mark the end of the words to be continued; returns them. Changes the last message."""
    last = dict(messages[-1])
    whole = last.get(name)
    names = [name] if name not in _REASONING else [n for n in _REASONING if last.get(n) == whole]
    if not any(known in source for known in names):
        raise TemplateFailed(f"the chat template has no place for {name} to be continued")
    begun, tagged = _tagged(whole)
    last.update((each, tagged) for each in names)
    messages[-1] = last
    return begun


def _tagged(content: object) -> tuple[str, object]:
    """The words, and the content with the mark behind them; of parts the last text counts."""
    if isinstance(content, str):
        return content, content + _TAG
    pieces = list(cast("Sequence[Message]", content)) if isinstance(content, list) else []
    for at in reversed(range(len(pieces))):
        if isinstance(text := pieces[at].get("text"), str):
            pieces[at] = {**pieces[at], "text": text + _TAG}
            return text, pieces
    raise TemplateFailed("the last message has no text to be continued")


def _cut_at_tag(text: str, begun: str) -> str:
    if begun.strip() not in text or _TAG.strip() not in text:
        raise TemplateFailed("the chat template does not write the words to be continued")
    at = text.rindex(_TAG.strip())
    if text[at : at + len(_TAG)] == _TAG:
        return text[:at]
    return text[:at].rstrip()  # the template trims, and has taken the tag's own space


def _failure_of(error: Exception) -> TemplateFailed:
    line = _line_of(error.__traceback__)
    if isinstance(error, jinja2.TemplateSyntaxError):
        return _failed("cannot be read", error.message or "", error.lineno)
    if isinstance(error, TemplateRefused):
        sentence = f"the chat template refuses this conversation: {error}"
        return TemplateFailed(sentence, hint=f"raised in line {line}")
    if isinstance(error, MemoryError):
        return _failed("took too much memory", "", line)
    return _failed("failed", f"{type(error).__name__}: {error}", line)


def _failed(how: str, what: str, line: int) -> TemplateFailed:
    place = f" in line {line}" if line else ""
    return TemplateFailed(f"the chat template {how}{place}" + (f": {what}" if what else ""))


def _line_of(traceback: TracebackType | None) -> int:
    """The innermost line of the template in a traceback that Jinja has rewritten; 0 if none."""
    line = 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == _FILENAME:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
