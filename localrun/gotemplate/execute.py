"""Run a parsed template on a value. Pure.

Source: Go `text/template/exec.go`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NoReturn, TypeAlias

from localrun.errors import TemplateFailed
from localrun.gotemplate.functions import Signature, describe
from localrun.gotemplate.lexer import HINT, fail
from localrun.gotemplate.nodes import (
    Action,
    Branch,
    Chain,
    Command,
    Constant,
    Dot,
    Field,
    Function,
    Invocation,
    Jump,
    NilLiteral,
    Node,
    Operand,
    Pipeline,
    Template,
    Text,
    Variable,
)
from localrun.gotemplate.printing import print_value
from localrun.gotemplate.values import (
    INVALID,
    NIL,
    GoError,
    Kind,
    Map,
    Slice,
    Struct,
    Value,
    followed,
    is_true,
    kind_of,
    type_of,
    zero_of,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one run may do.

    Attributes:
        n_chars: Characters of the text, and of any string on the way.
        n_steps: Nodes and iterations.
        depth: Templates inside each other.
    """

    n_chars: int = 1 << 24
    n_steps: int = 2_000_000
    depth: int = 60

    def check_text(self, n_chars: int) -> None:
        """Refuse a text that is too long.

        Raises:
            TemplateFailed: If it has more characters than allowed.
        """
        if n_chars > self.n_chars:
            raise TemplateFailed(
                f"the template writes more than {self.n_chars} characters", hint=HINT
            )


_Method: TypeAlias = Callable[[Value], Value]
_Flow: TypeAlias = Literal["on", "break", "continue"]


@dataclass(slots=True)
class Run:
    """One execution of a template.

    Attributes:
        template: What is executed.
        functions: What it may call.
        limits: How much it may do.
        gives_zero: Whether a missing entry of a map is its type's zero value, which cannot be
            looked into, rather than no value, which can.
    """

    template: Template
    functions: Mapping[str, Signature]
    limits: Limits = field(default_factory=Limits)
    gives_zero: bool = True
    _pieces: list[str] = field(default_factory=list[str])
    _n_chars: int = 0
    _n_steps: int = 0
    _line: int = 1

    def text(self, data: Value) -> str:
        """Run the template on a value.

        Raises:
            TemplateFailed: If it fails or exceeds a limit; the sentence names the line.
        """
        frame = _Frame(self, [("$", data)])
        frame.nodes(self.template.root, data)
        return "".join(self._pieces)

    def limits_left(self) -> Limits:
        """What a run after this one may still do."""
        n_chars = self.limits.n_chars - self._n_chars
        return replace(self.limits, n_chars=n_chars, n_steps=self.limits.n_steps - self._n_steps)

    def write(self, text: str) -> None:
        """Add to the output."""
        self._n_chars += len(text)
        self.limits.check_text(self._n_chars)
        self._pieces.append(text)

    def step(self) -> None:
        """Count one step."""
        self._n_steps += 1
        if self._n_steps > self.limits.n_steps:
            self.fail(f"more than {self.limits.n_steps} steps")

    def at(self, line: int) -> None:
        """Remember where we are, for an error."""
        self._line = line or self._line

    def fail(self, message: str) -> NoReturn:
        """End with an error at the present line."""
        fail(self._line, message)


@dataclass(slots=True)
class _Frame:
    """The variables of one template that runs; those it invokes have frames of their own."""

    run: Run
    variables: list[tuple[str, Value]]
    depth: int = 0

    def nodes(self, nodes: Iterable[Node], dot: Value) -> _Flow:
        for node in nodes:
            self.run.step()
            match node:
                case Text(text):
                    self.run.write(text)
                case Action(pipe):
                    self._act(pipe, dot)
                case Jump() | Branch():
                    flow = node.keyword if isinstance(node, Jump) else self._branch(node, dot)
                    if flow != "on":
                        return flow
                case Invocation():
                    self._invoke(node, dot)
        return "on"

    def _act(self, pipe: Pipeline, dot: Value) -> None:
        value = self.pipeline(pipe, dot)
        if not pipe.declared:
            self.run.write(self._printed(value))

    def _printed(self, value: Value) -> str:
        if value is INVALID:
            return "<no value>"
        return print_value(followed(value))

    def _invoke(self, node: Invocation, dot: Value) -> None:
        self.run.at(node.line)
        nodes = self.run.template.defined.get(node.name)
        nodes = self.run.template.root if node.name == "" else nodes
        if nodes is None:
            self.run.fail(f"template {node.name!r} not defined")
        if self.depth >= self.run.limits.depth:
            self.run.fail(f"templates are more than {self.run.limits.depth} levels deep")
        value = self.pipeline(node.pipe, dot) if node.pipe else INVALID
        _Frame(self.run, [("$", value)], self.depth + 1).nodes(nodes, value)

    def _branch(self, node: Branch, dot: Value) -> _Flow:
        n_variables = len(self.variables)
        value = self.pipeline(node.pipe, dot)
        if node.keyword == "range":
            flow = self._range(node, followed(value), dot)
        elif is_true(value):
            flow = self.nodes(node.body, value if node.keyword == "with" else dot)
        else:
            flow = self.nodes(node.otherwise or (), dot)
        del self.variables[n_variables:]
        return flow

    def _range(self, node: Branch, value: Value, dot: Value) -> _Flow:
        n_variables = len(self.variables)
        is_empty = True
        for key, item in self._items(node.pipe, value):
            is_empty = False
            self.run.step()
            self._set_loop_variables(node.pipe, key, item)
            flow = self.nodes(node.body, item)
            del self.variables[n_variables:]
            if flow == "break":
                break
        return self.nodes(node.otherwise or (), dot) if is_empty else "on"

    def _items(self, pipe: Pipeline, value: Value) -> Iterable[tuple[Value, Value]]:
        if isinstance(value, Slice):
            return enumerate(value.values())
        if isinstance(value, Map):
            return value.pairs()
        if value is INVALID:
            return ()
        if not isinstance(value, int) or isinstance(value, bool):
            self.run.fail(f"range can't iterate over {describe(value)}")
        if len(pipe.declared) > 1:
            self.run.fail("a number gives one variable to range over it")
        return ((INVALID, type(value)(one)) for one in range(value))

    def _set_loop_variables(self, pipe: Pipeline, key: Value, item: Value) -> None:
        names = pipe.declared
        values = (key, item)[-len(names) :] if names else ()
        for offset, (name, value) in enumerate(zip(names, values, strict=True)):
            if pipe.is_assignment:
                self._assign(name, value)
            else:
                self.variables[offset - len(names)] = (name, value)

    def _assign(self, name: str, value: Value) -> None:
        for place in range(len(self.variables) - 1, -1, -1):
            if self.variables[place][0] == name:
                self.variables[place] = (name, value)
                return
        self.run.fail(f"undefined variable: {name}")

    def _variable(self, name: str) -> Value:
        found = next((value for known, value in reversed(self.variables) if known == name), None)
        return self.run.fail(f"undefined variable: {name}") if found is None else found

    def pipeline(self, pipe: Pipeline, dot: Value) -> Value:
        """The value of the last command; variables of the pipeline are set to it."""
        self.run.at(pipe.line)
        value: Value = INVALID
        final: tuple[Value, ...] = ()
        for command in pipe.commands:
            self.run.step()
            self.run.at(command.line)
            value = self._command(command, dot, final)
            value = INVALID if value is NIL else value
            final = (value,)
        for name in pipe.declared:
            if pipe.is_assignment:
                self._assign(name, value)
            else:
                self.variables.append((name, value))
        return value

    def _command(self, command: Command, dot: Value, final: tuple[Value, ...]) -> Value:
        first, args = command.args[0], command.args[1:]
        match first:
            case Function(name):
                return self._call(name, args, dot, final)
            case Field(names):
                return self._fields(dot, names, is_given=bool(args or final))
            case Chain(of, names):
                return self._fields(self._value(of, dot), names, is_given=bool(args or final))
            case Variable(names) if len(names) > 1:
                value = self._variable(names[0])
                return self._fields(value, names[1:], is_given=bool(args or final))
            case _:
                if args or final or isinstance(first, NilLiteral):
                    self.run.fail("this is no function")
                return self._value(first, dot)

    def _value(self, operand: Operand, dot: Value) -> Value:
        """The value of an operand that is given nothing."""
        match operand:
            case Constant(value):
                return self.run.fail("a number overflows int") if value is None else value
            case Pipeline():
                return self.pipeline(operand, dot)
            case Function(name):
                return self._call(name, (), dot, ())
            case Dot() | NilLiteral():
                return dot if isinstance(operand, Dot) else INVALID
            case Field() | Variable() | Chain():
                return self._reached(operand, dot)

    def _reached(self, operand: Field | Variable | Chain, dot: Value) -> Value:
        match operand:
            case Field(names):
                return self._fields(dot, names)
            case Variable(names):
                return self._fields(self._variable(names[0]), names[1:])
            case Chain(of, names):
                return self._fields(self._value(of, dot), names)

    def _fields(self, value: Value, names: Sequence[str], *, is_given: bool = False) -> Value:
        for place, name in enumerate(names):
            value = self._field(value, name, is_given=is_given and place == len(names) - 1)
        return value

    def _field(self, receiver: Value, name: str, *, is_given: bool) -> Value:
        if receiver is INVALID:
            return INVALID
        if receiver is NIL:
            self.run.fail(f"nothing to take .{name} from")
        value = followed(receiver)
        for holder in (receiver, value):
            method = _method(holder, name)
            if method is not None and not is_given:
                return method(holder)
        if is_given:
            self.run.fail(f"{name} takes no arguments")
        return self._own_field(value, name)

    def _own_field(self, value: Value, name: str) -> Value:
        if isinstance(value, Struct) and name[0].isupper() and value.type.field_of(name):
            return value.values[name]
        if not isinstance(value, Map):
            self.run.fail(f"can't evaluate field {name} in type {describe(value)}")
        found = (value.items or {}).get(name)
        return self._missing(value) if found is None else found

    def _missing(self, map_: Map) -> Value:
        elem = map_.type.elem
        return zero_of(elem) if self.run.gives_zero and elem is not None else INVALID

    def _call(
        self, name: str, args: Sequence[Operand], dot: Value, final: tuple[Value, ...]
    ) -> Value:
        if name in {"and", "or"}:
            return self._either(name, args, dot, final)
        function = self.run.functions[name]
        n_args, n_fixed = len(args) + len(final), len(function.fixed)
        if n_args < n_fixed or (n_args > n_fixed and function.rest is None):
            self.run.fail(f"wrong number of args for {name}: want {n_fixed} got {n_args}")
        values = [
            self._argument(self._given(one, dot, function, place), function, place)
            for place, one in enumerate(args)
        ]
        values += [self._argument(one, function, len(args)) for one in final]
        try:
            return function.call(values)
        except GoError as error:
            self.run.fail(f"error calling {name}: {error}")

    def _given(self, operand: Operand, dot: Value, function: Signature, place: int) -> Value:
        """An argument's value; where a string is wanted, a constant must be one."""
        if function.parameter(place) == "string" and isinstance(operand, NilLiteral):
            self.run.fail("cannot assign nil to string")
        return self._value(operand, dot)

    def _argument(self, value: Value, function: Signature, place: int) -> Value:
        parameter = function.parameter(place)
        if parameter == "string" and not isinstance(value, str):
            self.run.fail(f"wrong type for value; expected string; got {describe(value)}")
        if parameter == "any" and value is INVALID:
            return NIL
        return INVALID if parameter == "value" and value is NIL else value

    def _either(
        self, name: str, args: Sequence[Operand], dot: Value, final: tuple[Value, ...]
    ) -> Value:
        """`and` and `or`: the first argument that settles it, the rest is not looked at."""
        if not args and not final:
            self.run.fail(f"wrong number of args for {name}: want at least 1 got 0")
        value: Value = INVALID
        for arg in args:
            value = self._value(arg, dot)
            if is_true(value) == (name == "or"):
                return value
        return final[0] if final else value


def _method(value: Value, name: str) -> _Method | None:
    if kind_of(value) not in {Kind.SLICE, Kind.MAP, Kind.STRUCT, Kind.POINTER}:
        return None
    type_ = type_of(value)
    if name == "String" and type_.text is not None:
        return type_.text
    return (type_.methods or {}).get(name)
