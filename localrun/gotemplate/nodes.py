"""The parse tree of a Go template. Pure values.

Source: Go `text/template/parse`, `node.go`.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from localrun.gotemplate.values import Value


@dataclass(frozen=True, slots=True)
class Text:
    """Words that are written as they stand."""

    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    """The cursor, `.`."""


@dataclass(frozen=True, slots=True)
class NilLiteral:
    """The constant `nil`."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A bool, number or string; `value` is None for an integer that no `int` holds."""

    value: Value | None


@dataclass(frozen=True, slots=True)
class Field:
    """`.A.B`: fields of the cursor."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """`$x.A`: a variable, `$` included in its name, and fields of it."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """A function, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Chain:
    """`(…).A.B`: fields of the value of something in parentheses or of a function."""

    of: "Operand"
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """An operand with what it is given."""

    args: "tuple[Operand, ...]"
    line: int = field(compare=False, default=0)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each given the value of the one before, and the variables that take the last."""

    commands: tuple[Command, ...]
    declared: tuple[str, ...] = ()
    is_assignment: bool = False
    line: int = field(compare=False, default=0)


Operand: TypeAlias = Dot | NilLiteral | Constant | Field | Variable | Function | Chain | Pipeline


@dataclass(frozen=True, slots=True)
class Action:
    """A pipeline whose value is written, unless it declares a variable."""

    pipe: Pipeline


@dataclass(frozen=True, slots=True)
class Branch:
    """`if`, `with` and `range`; `otherwise` is None without an `else`."""

    keyword: Literal["if", "with", "range"]
    pipe: Pipeline
    body: "tuple[Node, ...]"
    otherwise: "tuple[Node, ...] | None"


@dataclass(frozen=True, slots=True)
class Invocation:
    """`template` and `block`: run a template of this name."""

    name: str
    pipe: Pipeline | None
    line: int = field(compare=False, default=0)


@dataclass(frozen=True, slots=True)
class Jump:
    """`break` and `continue`."""

    keyword: Literal["break", "continue"]


Node: TypeAlias = Text | Action | Branch | Invocation | Jump


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template and those it defines, by name; its own name is empty."""

    root: tuple[Node, ...]
    defined: dict[str, tuple[Node, ...]]
