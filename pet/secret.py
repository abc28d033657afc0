"""Values that must not be seen: the one `Secret`, and `hidden` for the fields of secret bytes that a record has anyway.

A `Secret` is hidden in repr, str, format and logs, is compared in constant time, and is never pickled by accident. It knows no
format: code that needs the value calls `reveal()` or `reveal_bytes()`, which are easy to search for. Keys that every signature
or decryption uses stay plain bytes, in a field made by `hidden()`.
"""

from __future__ import annotations

import dataclasses
import hmac
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, overload

__all__ = ["HIDDEN", "Secret", "hidden"]

#: What is shown in place of a secret.
HIDDEN: Final = "Secret(...)"

if TYPE_CHECKING:
    # Type checkers recognise the fields of dataclasses by this function alone.
    from dataclasses import field as hidden
else:

    def hidden(**options: Any) -> Any:
        """Return a dataclass field for secret bytes: it is left out of repr. Takes the options of `dataclasses.field`."""
        return dataclasses.field(repr=False, **options)


class Secret:
    """A password, key or token.

    Pydantic takes it as the type of a field: text, bytes or a `Secret` are accepted, and it is written to JSON hidden. A model
    with such fields should set `hide_input_in_errors`, because pydantic itself shows a refused value of another type.

    Args:
        value: text or bytes.

    Raises:
        TypeError: it is something else.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str | bytes) -> None:
        if not isinstance(value, (str, bytes)):
            raise TypeError(f"secret: expected text or bytes, got {type(value).__name__}")
        self._value: Final = value

    @overload
    @classmethod
    def of(cls, value: None) -> None: ...
    @overload
    @classmethod
    def of(cls, value: Secret | str | bytes) -> Secret: ...
    @classmethod
    def of(cls, value: Secret | str | bytes | None) -> Secret | None:
        """Return None and a secret as they are, and text or bytes as a secret."""
        return value if value is None or isinstance(value, Secret) else cls(value)

    def reveal(self) -> str:
        """Return the text.

        Raises:
            TypeError: the secret is bytes.
        """
        if not isinstance(self._value, str):
            raise TypeError("secret: expected text, got bytes")
        return self._value

    def reveal_bytes(self) -> bytes:
        """Return the bytes; those of a text are its UTF-8."""
        # A text that is no valid Unicode must not end in an error that quotes it.
        return self._value.encode(errors="surrogatepass") if isinstance(self._value, str) else self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, specification: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        is_same_kind = isinstance(self._value, str) == isinstance(other._value, str)
        return hmac.compare_digest(self.reveal_bytes(), other.reveal_bytes()) and is_same_kind

    def __hash__(self) -> int:
        return hash(self._value)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: reveal it where it has to be stored")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        from pydantic_core import PydanticCustomError, core_schema

        def validate(value: object) -> Secret:
            if isinstance(value, (Secret, str, bytes)):
                return cls.of(value)
            raise PydanticCustomError("secret_type", "expected text, got something else")

        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(cls, core_schema.str_schema()),
            python_schema=core_schema.no_info_plain_validator_function(validate),
            serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json"),
        )
