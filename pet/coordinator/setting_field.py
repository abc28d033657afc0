"""How one setting is declared: its type, default, rule, help text and older names stand in one field of one section.

A section is a pydantic model whose fields are made with `setting`; `find_settings` reads them back, for the loader, the
errors, the commands and docs/settings.md. Beside the mechanism, this file holds the value types that several sections
share. It knows no setting, no file and no environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from pet.secret import Secret

_MAX_U64: Final = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a field declares about its setting.

    Attributes:
        name: full name, such as `pet.sum.count.min`.
        rule: what the value must be, in words that follow "expected".
        help: what the setting does, in sentences for docs/settings.md.
        default: the value when absent; None where there is none.
        without_file: the default of a coordinator that is started without a settings file; None where it is the same.
        absent: what it means to have no value, in words; empty where the help text says so.
        follows: full name of the setting whose value an absent one takes; empty where there is none.
        older: names in older versions, without a section.
        is_secret: the value is never shown.
        is_unused: accepted so that xaynet's files load; nothing in this release acts on it.
        is_file: the path of a file that must be readable at the start.
    """

    name: str
    rule: str
    help: str
    default: Any
    without_file: Any
    absent: str
    follows: str
    older: tuple[str, ...]
    is_secret: bool
    is_unused: bool
    is_file: bool


def setting(
    default: Any,
    rule: str,
    help_text: str,
    *,
    without_file: Any = None,
    absent: str = "",
    follows: str = "",
    older: tuple[str, ...] = (),
    is_unused: bool = False,
    is_file: bool = False,
) -> Any:
    """Declare a setting as the default of a field; the arguments are those of `Setting`.

    The name is that of the field within its sections, and a field of a secret type is a secret.
    """
    declared = {"rule": rule, "without_file": without_file, "absent": absent, "follows": follows, "older": list(older)}
    declared |= {"is_unused": is_unused, "is_file": is_file}
    # What follows another setting has no value of its own: leaving it out by mistake must be an error.
    return Field(... if follows else default, description=help_text, json_schema_extra=declared)


class Section(BaseModel):
    """A group of settings; its docstring introduces it in docs/settings.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def find_settings(section: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    """Yield every setting of a section and of the sections in it, in the order of the fields."""
    for field_name, field in section.model_fields.items():
        name, kind = f"{prefix}{field_name}", field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from find_settings(kind, f"{name}.")
            continue
        declared: dict[str, Any] = dict(field.json_schema_extra)  # type: ignore[arg-type]
        rule, absent = declared.pop("rule"), declared["absent"]
        yield Setting(
            name=name,
            rule=f"{rule} (absent: {absent})" if absent else rule,
            help=field.description or "",
            default=None if field.is_required() else field.default,
            older=tuple(declared.pop("older")),
            is_secret=_holds_secret(kind),
            **declared,
        )


def choice(kind: Callable[[str], Any]) -> BeforeValidator:
    """Accept the names of an enumeration in any case: Prime, prime, PRIME."""
    return BeforeValidator(lambda value: kind(value.lower()) if isinstance(value, str) else value)


def _holds_secret(kind: Any) -> bool:
    return kind is Secret or any(_holds_secret(part) for part in get_args(kind))


def _refuse_bytes(secret: Secret) -> Secret:
    try:
        secret.reveal()
    except TypeError as error:
        raise PydanticCustomError("text", "{reason}", {"reason": str(error)}) from None
    return secret


def _refuse_bool(value: Any) -> Any:
    """TOML's true is no number, though Python would take it for 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("bool", "a boolean is not a number")
    return value


Whole = Annotated[int, BeforeValidator(_refuse_bool), Field(ge=0, le=_MAX_U64)]
Count = Annotated[Whole, Field(ge=1)]
Number = Annotated[float, BeforeValidator(_refuse_bool), Field(allow_inf_nan=False)]
NotNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
SecretText = Annotated[Secret, AfterValidator(_refuse_bytes)]
#: An empty path is as absent: the environment has no other way to say so.
OptionalPath = Annotated[Path, BeforeValidator(lambda value: value or None)] | None
LowerCase: Final = BeforeValidator(lambda value: str(value).lower())
