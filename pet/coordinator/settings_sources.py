"""Where settings come from: a TOML file and the environment, each read into full names with the spelling that was used.

Two sources of pydantic-settings. They keep, beside each value, the key as the user wrote it, so that an error can name it.
This file knows no rule about values.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from pet.coordinator.setting_names import find_full_name, is_own_place, is_section, nearest_name
from pet.errors import SettingsError

#: Prefixes of environment variables, the strongest first: ours, xaynet's newest, xaynet v0.11 and v0.10.
ENVIRONMENT_PREFIXES: Final = ("PET__", "XAYNET__", "XAYNET_")
#: A log filter of xaynet's participants, no setting of a coordinator.
_NOT_OURS: Final = frozenset({"XAYNET__CLIENT"})
#: `bind_address` without a value stands in files that go round; TOML itself has no such line.
_VALUELESS_BIND_ADDRESS: Final = re.compile(r"^([ \t]*bind_address)[ \t]*=?[ \t]*(#.*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One setting as somebody wrote it.

    Attributes:
        key: the spelling that was used, such as `pet.min_sum_count` or `PET__MODEL__LENGTH`.
        place: "file" or "environment".
    """

    key: str
    value: Any = field(repr=False)
    place: str


@dataclass(frozen=True, slots=True)
class WrittenSettings:
    """What one place holds: full name -> what was written, and warnings about keys that mean nothing."""

    by_name: dict[str, Written] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class WrittenSource(PydanticBaseSettingsSource):
    """A pydantic-settings source over settings that were read before."""

    def __init__(self, settings_class: type[BaseSettings], written: WrittenSettings) -> None:
        super().__init__(settings_class)
        self.written = written

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - the base's signature
        """Return one top-level section; the interface of pydantic-settings asks for it."""
        return self().get(field_name), field_name, True

    def __call__(self) -> dict[str, Any]:
        """Return all values as a tree of sections."""
        return nest({name: item.value for name, item in self.written.by_name.items()})


def read_file(path: Path) -> WrittenSettings:
    """Read a TOML file in any of the three versions' forms (spec 6.1, 6.2).

    Raises:
        SettingsError: the file cannot be read, is not TOML, or sets one thing to two values.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        tree = tomllib.loads(_VALUELESS_BIND_ADDRESS.sub(r'\1 = ""', text.replace("\r\n", "\n")))
    except OSError as error:
        raise SettingsError(f"settings file {path}: expected a readable file, got: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"settings file {path}: expected UTF-8, got another byte at offset {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"settings file {path}: expected TOML, got: {error}") from None
    return _collect(((keys, ".".join(keys), value) for keys, value in _leaves(tree, ())), "file")


def read_environment(environ: Mapping[str, str]) -> WrittenSettings:
    """Read the variables with one of `ENVIRONMENT_PREFIXES`; the strongest prefix wins.

    Raises:
        SettingsError: two variables of one prefix set one thing to two values.
    """
    merged = WrittenSettings()
    for prefix in reversed(ENVIRONMENT_PREFIXES):
        found = (
            (tuple(key[len(prefix) :].split("__")), key, value)
            for key, value in sorted(environ.items())
            if _prefix_of(key) == prefix and key.upper() not in _NOT_OURS
        )
        written = _collect(found, "environment")
        merged.by_name.update(written.by_name)
        merged.warnings.extend(written.warnings)
    return merged


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn full names into a tree: {"pet.sum.prob": 0.5} -> {"pet": {"sum": {"prob": 0.5}}}."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, leaf = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[leaf] = value
    return tree


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a tree into full names; the inverse of `nest`. Empty sections vanish."""
    return {".".join(path): value for path, value in _leaves(tree, ()) if value != {}}


def _prefix_of(key: str) -> str | None:
    return next((prefix for prefix in ENVIRONMENT_PREFIXES if key.upper().startswith(prefix)), None)


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value with its path; an empty section counts as a value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _collect(items: Iterable[tuple[tuple[str, ...], str, Any]], place: str) -> WrittenSettings:
    """Give each (path, key as written, value) its full name."""
    result = WrittenSettings()
    for path, key, value in items:
        if value == {} and is_section(path):
            continue
        name = find_full_name(path)
        if name is None:
            nearest = nearest_name(path)
            hint = f"; did you mean {nearest}?" if nearest else ""
            result.warnings.append(f"{key} ({place}): unknown, ignored{hint}")
            continue
        if not is_own_place(path, name):
            result.warnings.append(f"{key} ({place}): stands in another section than usual, read as {name}")
        earlier = result.by_name.get(name)
        if earlier is not None and earlier.value != value:
            raise SettingsError(f"{key} ({place}): expected one value for {name}, got another one as {earlier.key}")
        result.by_name[name] = Written(key=key, value=value, place=place)
    return result
