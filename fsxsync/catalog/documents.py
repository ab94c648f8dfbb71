"""Values of `model` as JSON: a field more or less needs no migration."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

_Value = TypeVar("_Value")


def encode(value: Any) -> Any:
    """A value of `model` as JSON's types. Bytes become text that keeps what is no UTF-8 (surrogateescape)."""
    if (names := _field_names(type(value))) is not None:
        return {name: encode(getattr(value, name)) for name in names}
    match value:
        case Enum():
            return value.value
        case bytes():
            return value.decode("utf-8", "surrogateescape")
        case frozenset():
            return sorted(encode(item) for item in value)
        case tuple():
            return [encode(item) for item in value]
    return value


def _field_names(kind: Any) -> tuple[str, ...] | None:
    """The fields of a dataclass or a named tuple."""
    if is_dataclass(kind):
        return tuple(field.name for field in fields(kind))
    names: tuple[str, ...] | None = getattr(kind, "_fields", None)
    return names


def decode(wanted: type[_Value], value: Any) -> _Value:
    """The inverse of `encode`: the types of the fields say what to make. A field that this version does
    not know is left out, one that is missing has its default.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is no such value.
    """
    result: _Value = _decode(wanted, value)
    return result


def _decode(wanted: Any, value: Any) -> Any:
    if (known := _field_names(wanted)) is not None:
        hints = get_type_hints(wanted)
        return wanted(**{name: _decode(hints[name], item) for name, item in value.items() if name in known})
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in {types.UnionType, Union}:
        some = next(argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _decode(some, value)
    if origin is frozenset:
        return frozenset(_decode(arguments[0], item) for item in value)
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_decode(kind, item) for kind, item in zip(kinds, value, strict=True))
    if wanted is bytes:
        return value.encode("utf-8", "surrogateescape")
    if wanted is float and isinstance(value, int):
        return float(value)
    if issubclass(wanted, Enum):
        return wanted(value)
    if not isinstance(value, wanted):
        raise TypeError(f"{value!r} is not of {wanted.__name__}")
    return value
