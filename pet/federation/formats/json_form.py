"""Records as JSON has them: what each field takes, strictly, and what is said of anything else.

A record is a dataclass whose annotations say it all; pydantic reads it, and is loaded when the first one is read. No value is
turned into another: "5" is no number, true is none, and 5.0 is no whole one. An error names the field, what was expected and
the type of what came, and never shows a value, which may be a secret or a stranger's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeVar

from pet.crypto import PUBLIC_KEY_BYTES
from pet.errors import FederationValueError, MissingExtraError, RemoteProtocolError
from pet.federation.formats.encoding import decode_base64url, encode_base64url
from pet.secret import Secret

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

_Record = TypeVar("_Record")
#: What pydantic calls what was expected, in our words; the rest is as it says it.
_EXPECTED: Final = {
    "bool_type": "true or false",
    "dataclass_type": "an object",
    "dict_type": "an object",
    "float_type": "a number",
    "frozen_set_type": "a list",
    "int_type": "a whole number",
    "secret_type": "text",
    "string_type": "text",
    "too_long": "fewer items",
    "tuple_type": "a list",
}
_MAX_PROBLEM: Final = 256


class Rules:
    """Rules of pydantic for a field, in a record that is defined without loading it."""

    def __init__(self, **rules: Any) -> None:
        self._rules: Final = rules

    def __get_pydantic_core_schema__(self, source: object, handler: Any) -> Any:
        return handler(source) | self._rules


#: A whole number from 0 on, of at most 63 bits.
Whole = Annotated[int, Rules(strict=True, ge=0, lt=2**63)]
Flag = Annotated[bool, Rules(strict=True)]
#: A number that is not negative.
Amount = Annotated[float, Rules(strict=True, ge=0, lt=2.0**63, allow_inf_nan=False)]


class Base64UrlText:
    """Marks bytes that are unpadded base64url in JSON.

    Args:
        sizes: how many they may be; none for any number.
    """

    def __init__(self, *sizes: int) -> None:
        self._sizes: Final = sizes

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> Any:
        from pydantic_core import core_schema

        written = core_schema.plain_serializer_function_ser_schema(encode_base64url)
        return core_schema.no_info_plain_validator_function(self._read, serialization=written)

    def _read(self, value: object) -> bytes:
        if not isinstance(value, str):
            raise ValueError(f"expected base64url, got {type(value).__name__}")  # noqa: TRY004 - pydantic wants this one
        data = decode_base64url(value)
        if self._sizes and len(data) not in self._sizes:
            raise ValueError(f"expected {' or '.join(map(str, self._sizes))} bytes, got {len(data)}")
        return data


#: A public key of either kind.
PublicKey = Annotated[bytes, Base64UrlText(PUBLIC_KEY_BYTES)]


class AsGiven:
    """Marks a record that the owner of the JSON form reads and writes by itself."""

    def __get_pydantic_core_schema__(self, source: type, handler: object) -> Any:
        from pydantic_core import core_schema

        left_out = core_schema.plain_serializer_function_ser_schema(lambda _: None)
        return core_schema.is_instance_schema(source, serialization=left_out)


class AsList:
    """Marks a record that is a list in JSON: its fields in their order."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        names = [field.name for field in dataclasses.fields(source)]

        def read(value: object) -> dict[str, Any]:
            if not isinstance(value, list) or len(value) != len(names):
                raise ValueError(f"expected a list of {len(names)}, got {type(value).__name__}")
            return dict(zip(names, value, strict=True))

        written = core_schema.plain_serializer_function_ser_schema(dataclasses.astuple)
        return core_schema.no_info_before_validator_function(read, handler(source), serialization=written)


class JsonForm(Generic[_Record]):
    """What one kind of record looks like as JSON. Fields that it does not know are left alone.

    It is also the mark of a field that holds such a record.

    Args:
        kind: a dataclass, or a list of something. Numbers and flags in it have the types above; text, enumerations, `Secret`
            and other such records are strict by themselves.
        names: what JSON calls a field, where that is not its name.
    """

    def __init__(self, kind: type[_Record], names: Mapping[str, str] | None = None) -> None:
        self._kind: Final = kind
        self._names: Final = names or {}
        self._fields: Final = {written: name for name, written in self._names.items()}

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> Any:
        from pydantic_core import core_schema

        written = core_schema.plain_serializer_function_ser_schema(self.fields)
        return core_schema.no_info_plain_validator_function(self.read, serialization=written)

    @cached_property
    def _adapter(self) -> TypeAdapter[_Record]:
        with MissingExtraError.naming("federation"):
            from pydantic import TypeAdapter
        return TypeAdapter(self._kind)

    def read(self, fields: object) -> _Record:
        """Read a record from decoded JSON.

        Raises:
            FederationValueError: it is something else; says which field, and shows no value.
        """
        if isinstance(fields, dict):
            known = {name: value for name, value in fields.items() if name not in self._names}
            fields = {self._fields.get(name, name): value for name, value in known.items()}
        adapter = self._adapter
        from pydantic import ValidationError

        try:
            return adapter.validate_python(fields)
        except ValidationError as error:
            problem = self._describe(error)
        # Raised here, so that no value comes along with the cause.
        raise FederationValueError(problem[:_MAX_PROBLEM])

    def receive(self, fields: object, reason: str, what: str) -> _Record:
        """Read a record that somebody else sent.

        Args:
            fields: as `read` takes them.
            reason: of the error.
            what: its name, for people.

        Raises:
            RemoteProtocolError: it is something else.
        """
        try:
            return self.read(fields)
        except FederationValueError as error:
            raise RemoteProtocolError(reason, f"{what}: {error}") from None

    def fields(self, record: _Record) -> dict[str, Any]:
        """Return a record as JSON has it, **its secrets in clear**."""
        found = _plain(self._adapter.dump_python(record))
        return {self._names.get(name, name): value for name, value in found.items()}

    def _describe(self, error: ValidationError) -> str:
        """Return what pydantic found first, without the value."""
        first = error.errors(include_url=False)[0]
        if "error" in first.get("ctx", {}):  # of a check of ours
            problem = str(first["ctx"]["error"])
        elif first["type"] == "missing":
            problem = "expected a value, got none"
        else:
            expected = _EXPECTED.get(first["type"]) or first["msg"].removeprefix("Input should be ")
            problem = f"expected {expected}, got {type(first['input']).__name__}"
        place = ".".join(self._names.get(str(part), str(part)) for part in first["loc"])
        return f"{place}: {problem}" if place else problem


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Secret):
        return value.reveal()
    return str(value) if isinstance(value, StrEnum) else value
