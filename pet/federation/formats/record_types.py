"""Whether the fields of a record that was read have the types that it declares: JSON could have anything in their place."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from pet.errors import StateError


def require_types(record: Any) -> None:
    """Check a dataclass, and those within it, against its annotations.

    Raises:
        StateError: a field holds something else; names the field, and never shows what it holds.
    """
    for name, declared in _annotations(type(record)).items():
        if not _fits(getattr(record, name), declared):
            raise StateError(f"{type(record).__name__}.{name}: expected {declared}, got something else")


def _annotations(record_type: type[Any]) -> Mapping[str, Any]:
    hints = typing.get_type_hints(record_type)
    return {field.name: hints[field.name] for field in dataclasses.fields(record_type)}


def _fits(value: Any, declared: Any) -> bool:
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in arguments)
    if origin is tuple:
        variadic = len(arguments) == 2 and arguments[1] is Ellipsis
        parts = [arguments[0]] * len(value) if variadic and isinstance(value, tuple) else list(arguments)
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
    if origin in (list, dict):
        return isinstance(value, origin) and all(
            all(map(_fits, item, arguments)) if origin is dict else _fits(item, arguments[0])
            for item in (value.items() if origin is dict else value)
        )
    if declared is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63
    if declared is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if not isinstance(value, declared):
        return False
    if dataclasses.is_dataclass(value):
        require_types(value)
    return True
