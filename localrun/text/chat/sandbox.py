"""Jinja as `transformers` sets it up for chat templates, in a sandbox with limits.

A template is a program by a stranger (CVE-2024-34359). It may not reach Python, change what it is
given, or multiply little into much; memory is limited by the process and time by the parent.

Source: `transformers/utils/chat_template_utils.py` (`_cached_compile_jinja_template`).
"""

import json
from collections.abc import Callable, MutableMapping, Sequence
from datetime import datetime
from typing import NoReturn, TypeAlias, cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils
from jinja2.exceptions import SecurityError

MAX_PRODUCT_ITEMS = 1 << 20
MAX_POWER_BITS = 4096


_MakeDict: TypeAlias = Callable[..., dict[object, object]]


class TemplateRefused(jinja2.TemplateError):
    """Raised by a template's own `raise_exception`."""


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

    def getattr(self, obj: object, attribute: str) -> object:
        """Read an attribute: at once where the sandbox would find no fault, else through it.

        Its checks take most of the time of a long conversation, and what templates read are keys of
        messages, their own namespaces, places in a loop, and methods of texts.
        """
        kind = type(obj)
        if kind is dict and attribute not in _DICT_NAMES:
            values = cast("dict[object, object]", obj)
            if attribute in values:
                return values[attribute]
        elif kind is _Namespace and not attribute.startswith("_"):
            value: object = _attribute(obj, "_Namespace__attrs").get(attribute)
            if type(value) in _PLAIN_TYPES:
                return value
        elif attribute in _HARMLESS.get(kind, ()):
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

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


class _Dict:
    """`dict(…)` and `dict.fromkeys(…)`, without the class and what hangs on it."""

    def __call__(self, *args: object, **kwargs: object) -> dict[object, object]:
        """Make a dict."""
        return cast("_MakeDict", dict)(*args, **kwargs)

    def fromkeys(self, keys: Sequence[object], value: object = None) -> dict[object, object]:
        """Make a dict of keys."""
        return dict.fromkeys(keys, value)


class _Namespace(jinja2.utils.Namespace):
    """`namespace(…)` that holds no name with an underscore in front."""

    def __init__(*args: object, **kwargs: object) -> None:
        """Take the first values, as Jinja's own does."""
        self, given = cast("_Namespace", args[0]), args[1:]
        values = cast("_MakeDict", dict)(*given, **kwargs)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: object) -> None:
        """Set a value of a permitted name."""
        _check_name(name)
        super().__setitem__(name, value)


_attribute: Callable[[object, str], dict[str, object]] = object.__getattribute__
_DICT_NAMES = frozenset(dir(dict))
_PLAIN_TYPES = frozenset((str, int, bool, float, list, dict))
_HARMLESS: dict[type, frozenset[str]] = {
    str: frozenset(
        ("endswith", "lower", "lstrip", "replace", "rstrip", "split", "startswith", "strip")
    ),
    jinja2.runtime.LoopContext: frozenset(
        ("depth", "depth0", "first", "index", "index0", "last", "length", "revindex", "revindex0")
    ),
}


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}")


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


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRefused(str(message))


def make_environment(now: Callable[[], datetime]) -> jinja2.sandbox.SandboxedEnvironment:
    """The environment in which chat templates are compiled.

    Args:
        now: The clock behind `strftime_now`, in local time.
    """
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, jinja2.ext.loopcontrols],
        cache_size=0,
        optimized=False,  # a quarter less time to compile, and nothing is run while compiling
    )
    environment.filters["tojson"] = _tojson

    def strftime_now(form: object) -> str:
        return now().strftime(str(form))

    names = cast("MutableMapping[str, object]", environment.globals)
    names["raise_exception"] = _raise_exception
    names["strftime_now"] = strftime_now
    names["dict"] = _Dict()
    names["namespace"] = _Namespace
    del names["lipsum"]
    return environment
