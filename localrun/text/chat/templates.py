"""Render Jinja chat templates in a sandbox. The only place that runs a template from a model file.

A template is a program by a stranger (CVE-2024-34359). It runs in Jinja's immutable sandbox, set
up as `transformers` sets it up so that published templates work, with limits on what it writes and
multiplies; memory is limited by the process and time by the parent, who kills the process.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from datetime import datetime
from types import CodeType, TracebackType
from typing import NoReturn, cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
from jinja2.exceptions import SecurityError

from localrun.errors import TemplateFailed
from localrun.messages import Turn

MAX_SOURCE_CHARS = 1 << 20
MAX_OUTPUT_CHARS = 8 << 20
MAX_PRODUCT_ITEMS = 1 << 20
MAX_POWER_BITS = 4096
MAX_COMPILED = 16

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""For a model without a template whose vocabulary has `<|im_start|>`."""

PLAIN = "{{ messages | map(attribute='content') | join('\n\n') }}"
"""For any other model without a template: a single prompt verbatim, several with a blank line."""

_FILENAME = "chat template"


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` marks a model's words for training: a plain block."""

    tags = {"generation"}  # noqa: RUF012 (the base class declares it so)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """Keep the body, drop the marks."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox without operators that make much out of little."""

    intercepted_binops = frozenset(("*", "**"))

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: object, right: object
    ) -> object:
        """Multiply or raise within limits."""
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(many, Sequence) and isinstance(times, int):
                    n_items = len(cast("Sequence[object]", many))
                    _limit(n_items * times, MAX_PRODUCT_ITEMS, "items in a product")
        elif isinstance(left, int) and isinstance(right, int):
            _limit(left.bit_length() * right, MAX_POWER_BITS, "bits in a power")
        result: object = super().call_binop(context, operator, left, right)
        return result


def _limit(number: int, most: int, what: str) -> None:
    if number > most:
        raise SecurityError(f"{number} {what}, more than {most}")


def _tojson(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 (templates pass it by place)
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002 (templates pass it by place)
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


class _Refused(jinja2.TemplateError):
    """Raised by a template's own `raise_exception`."""


def _raise_exception(message: object) -> NoReturn:
    raise _Refused(str(message))


def _make_environment(now: Callable[[], datetime]) -> _Sandbox:
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, jinja2.ext.loopcontrols],
        cache_size=0,
    )
    environment.filters["tojson"] = _tojson

    def strftime_now(form: object) -> str:
        return now().strftime(str(form))

    names = cast("MutableMapping[str, object]", environment.globals)
    names["raise_exception"] = _raise_exception
    names["strftime_now"] = strftime_now
    for unwanted in ("lipsum", "cycler", "joiner"):
        del names[unwanted]
    return environment


class Templates:
    """Compiles and renders; keeps what it compiled.

    Args:
        now: The clock behind `strftime_now`, in local time.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now().astimezone()) -> None:
        self._environment = _make_environment(now)
        self._compiled: OrderedDict[str, jinja2.Template] = OrderedDict()

    def render(
        self,
        source: str,
        turns: Sequence[Turn],
        *,
        bos_token: str = "",
        eos_token: str = "",
        extra: Mapping[str, object] | None = None,
    ) -> str:
        """Render a conversation up to the point where the model goes on.

        A conversation that ends with the assistant's words is continued inside them, as
        llama-server does: the others are rendered and those words stand behind.

        Args:
            source: Jinja text.
            turns: The conversation.
            bos_token: The model's first token as text.
            eos_token: The model's last token as text.
            extra: Further variables.

        Raises:
            TemplateFailed: If the template cannot be compiled, raises, is refused by the sandbox
                or goes over a limit; the sentence has the line.
        """
        before, begun = _split_begun(turns)
        variables = {
            "messages": [message_of(_with_known_role(turn, source)) for turn in before],
            "bos_token": bos_token,
            "eos_token": eos_token,
            "add_generation_prompt": True,
            "tools": None,
            "documents": None,
            **(extra or {}),
        }
        try:
            return "".join(_within_limit(self._compile(source).generate(variables))) + begun
        except TemplateFailed:
            raise
        except jinja2.TemplateSyntaxError as error:
            raise _failed("cannot be read", error.message or "", error.lineno) from error
        except _Refused as error:
            raise TemplateFailed(
                f"the chat template refuses this conversation: {error}",
                hint=f"raised in line {_line_of(error.__traceback__)}",
            ) from error
        except MemoryError as error:
            raise _failed("took too much memory", "", _line_of(error.__traceback__)) from None
        except Exception as error:  # foreign code may raise anything
            what = f"{type(error).__name__}: {error}"
            raise _failed("failed", what, _line_of(error.__traceback__)) from error

    def _compile(self, source: str) -> jinja2.Template:
        if source in self._compiled:
            self._compiled.move_to_end(source)
            return self._compiled[source]
        if len(source) > MAX_SOURCE_CHARS:
            raise TemplateFailed(
                f"the chat template has {len(source)} characters, more than {MAX_SOURCE_CHARS}"
            )
        environment = self._environment
        code: CodeType = environment.compile(source, _FILENAME, _FILENAME)
        template = jinja2.Template.from_code(environment, code, dict(environment.globals))
        self._compiled[source] = template
        if len(self._compiled) > MAX_COMPILED:
            self._compiled.popitem(last=False)
        return template


def message_of(turn: Turn) -> dict[str, object]:
    """A turn as templates see it; the extra fields cannot replace role and content."""
    return {**turn.extra, "role": turn.role, "content": turn.content}


def _with_known_role(turn: Turn, source: str) -> Turn:
    """A developer's turn is the system's, in the eyes of a template that knows no developer."""
    if turn.role != "developer" or "developer" in source:
        return turn
    return Turn("system", turn.content, turn.extra)


def _split_begun(turns: Sequence[Turn]) -> tuple[Sequence[Turn], str]:
    """The turns to render, and the begun answer of the assistant behind them."""
    if len(turns) > 1 and turns[-1].role == "assistant" and not turns[-1].extra:
        return turns[:-1], turns[-1].content
    return turns, ""


def _within_limit(pieces: Iterator[str]) -> Iterator[str]:
    n_chars = 0
    for piece in pieces:
        n_chars += len(piece)
        if n_chars > MAX_OUTPUT_CHARS:
            raise TemplateFailed(f"the chat template wrote more than {MAX_OUTPUT_CHARS} characters")
        yield piece


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
