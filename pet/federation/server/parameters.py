"""Values of a map of strings, be it a body's or a query's, read by key: whole numbers, flags, choices, keys.

A value that breaks its rule is named by key and reason, and never shown: it may be a secret. Which keys there are is not known
here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from pet.crypto import PUBLIC_KEY_BYTES
from pet.errors import FederationValueError
from pet.federation.formats.encoding import decode_base64url

_Choice = TypeVar("_Choice", bound=StrEnum)
_Value = TypeVar("_Value")


def invalid_key(key: str, reason: str) -> FederationValueError:
    """Return the error of a value that is missing or breaks its rule."""
    return FederationValueError(f"Invalid value for key [{key}]: {reason}", key=key)


def required(entries: Mapping[str, str], key: str) -> str:
    """Return a value that has to be there, and not empty."""
    if not (value := entries.get(key)):
        raise invalid_key(key, "it is missing")
    return value


def require_all(entries: Mapping[str, str], keys: Sequence[str]) -> None:
    """Name all keys that are left out, and not one after the other."""
    missing = [key for key in keys if not entries.get(key)]
    if len(missing) > 1:
        others = ", ".join(missing[1:])
        raise invalid_key(missing[0], f"it is missing, as are {others}: expected all that the invitation holds")


def flag(entries: Mapping[str, str], key: str, *, default: bool | None = None) -> bool:
    """Return a value that is true or false, in any case; without a default it is required."""
    text = (entries.get(key) or (required(entries, key) if default is None else str(default))).lower()
    if text not in ("true", "false"):
        raise invalid_key(key, "expected true or false")
    return text == "true"


def integer(entries: Mapping[str, str], key: str, default: int | None = None, *, most_digits: int = 18) -> int:
    """Return a whole number from 0 on; without a default it is required."""
    text = entries.get(key) or (required(entries, key) if default is None else str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= most_digits):
        raise invalid_key(key, "expected a number")
    return int(text)


def choice(entries: Mapping[str, str], key: str, kind: type[_Choice], default: _Choice) -> _Choice:
    """Return one of the words of an enumeration."""
    text = entries.get(key) or default
    if text not in set(kind):
        raise invalid_key(key, f"expected {' or '.join(kind)}")
    return kind(text)


def checked(key: str, parse: Callable[[str], _Value], text: str, expected: str | None = None) -> _Value:
    """Parse a value whose parser raises; without `expected` the parser's own words are kept: they must not show the value."""
    try:
        return parse(text)
    except FederationValueError as error:
        reason = expected or str(error)
    raise invalid_key(key, reason)


def public_key(entries: Mapping[str, str], key: str) -> bytes:
    """Return a public key, given in base64url."""
    try:
        found = decode_base64url(entries.get(key, ""))
    except FederationValueError:
        found = b""
    if len(found) != PUBLIC_KEY_BYTES:
        raise invalid_key(key, f"expected a public key of {PUBLIC_KEY_BYTES} bytes in base64url")
    return found
