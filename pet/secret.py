"""Text that must not be seen: hidden in repr, str, format and logs, compared in constant time.

It knows no format: whoever needs the text says `reveal()`, which is easy to search for.
"""

from __future__ import annotations

import hmac
from typing import Final, NoReturn

_HIDDEN: Final = "Secret(...)"


class Secret:
    """A password, key or token as text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text: Final = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __repr__(self) -> str:
        return _HIDDEN

    def __str__(self) -> str:
        return _HIDDEN

    def __format__(self, specification: str) -> str:
        return _HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: reveal it where it has to be stored")
