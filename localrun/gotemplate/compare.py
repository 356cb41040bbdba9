"""Go's rules of which values of a template may be compared. Pure.

Source: Go `text/template/funcs.go`, `eq` and `lt`.
"""

from localrun.gotemplate.values import (
    INVALID,
    NIL,
    GoError,
    Kind,
    Map,
    Pointer,
    Slice,
    Struct,
    Value,
    is_nil,
    kind_of,
    type_of,
)

_BASIC = {Kind.BOOL, Kind.INT, Kind.UINT, Kind.FLOAT, Kind.COMPLEX, Kind.STRING}
_INTEGERS = {Kind.INT, Kind.UINT}


def equal(left: Value, right: Value) -> bool:
    """Whether two values are equal.

    Raises:
        GoError: If their types cannot be compared.
    """
    kind, other = _basic_kind(left), _basic_kind(right)
    if kind != other and not {kind, other} <= _INTEGERS:
        if Kind.INVALID in {kind_of(_held(left)), kind_of(_held(right))}:
            return False
        raise GoError(f"incompatible types for comparison: {_names(left, right)}")
    if kind is not None:
        return left == right
    return _equal_compounds(_held(left), _held(right))


def _equal_compounds(left: Value, right: Value) -> bool:
    kinds = {kind_of(left), kind_of(right)}
    if len(kinds) > 1 and Kind.INVALID not in kinds:
        raise GoError(f"non-comparable types {_names(left, right)}")
    if is_nil(left) or is_nil(right):
        return is_nil(left) == is_nil(right)
    if isinstance(right, Slice | Map | Struct):
        raise GoError(f"non-comparable type {type_of(right).name}")
    return isinstance(left, Pointer) and isinstance(right, Pointer) and left.target is right.target


def less(left: Value, right: Value) -> bool:
    """Whether the left value comes before the right one.

    Raises:
        GoError: If their types have no order or cannot be compared.
    """
    kind, other = _basic_kind(left), _basic_kind(right)
    if kind is None or other is None:
        raise GoError("invalid type for comparison")
    if kind != other and not {kind, other} <= _INTEGERS:
        raise GoError(f"incompatible types for comparison: {_names(left, right)}")
    match left, right:
        case str(), str():
            return left.encode("utf-8", "surrogateescape") < right.encode(
                "utf-8", "surrogateescape"
            )
        case (bool() | complex(), _):
            raise GoError("invalid type for comparison")
        case (int() | float(), int() | float()):
            return left < right
        case _:
            raise GoError("invalid type for comparison")


def _basic_kind(value: Value) -> Kind | None:
    kind = kind_of(value)
    return kind if kind in _BASIC else None


def _held(value: Value) -> Value:
    """An empty interface is no value."""
    return INVALID if value is NIL else value


def _names(left: Value, right: Value) -> str:
    return f"{type_of(left).name} and {type_of(right).name}"
