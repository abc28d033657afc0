"""The names a setting may have, and the value it takes when absent.

Every setting has one full name, that of xaynet's newest settings tree (spec 6.1), such as `pet.sum.count.min`; it is declared
in a field of a section. Older names (spec 6.2), with or without their section, lead to the same full name. This file knows
names and plain values: no files and no environment.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pet.coordinator.setting_field import Setting, find_settings
from pet.coordinator.setting_sections import SettingsTree

#: Full name of every setting -> what its field declares.
SETTINGS: Final[dict[str, Setting]] = {declared.name: declared for declared in find_settings(SettingsTree)}
#: Full name of every setting -> what its value must be, in words.
RULES: Final[dict[str, str]] = {name: declared.rule for name, declared in SETTINGS.items()}
#: Values that absent settings take: those that xaynet ships (spec 6.1). Absent sum2 settings take the values of sum.
SHIPPED: Final[dict[str, Any]] = {name: declared.default for name, declared in SETTINGS.items() if declared.default is not None}
#: The same for a coordinator that is started without a settings file, as one does to try it: nobody waits for an hour.
WITHOUT_FILE: Final[dict[str, Any]] = SHIPPED | {
    name: declared.without_file for name, declared in SETTINGS.items() if declared.without_file is not None
}
#: Accepted so that xaynet's files load; nothing in this release acts on them.
UNUSED: Final = frozenset(name for name, declared in SETTINGS.items() if declared.is_unused)
#: Their values are never shown.
SECRET: Final = frozenset(name for name, declared in SETTINGS.items() if declared.is_secret)
#: Without them the coordinator is open to more people, or to another server: certificates, lists of keys, credentials.
PROTECTIONS: Final = tuple(
    name for name, declared in SETTINGS.items() if (declared.is_file or declared.is_secret) and not declared.is_unused
)

_MIN_COUNTS: Final = {"pet.sum.count.min": 1, "pet.update.count.min": 3, "pet.sum2.count.min": 1}
_SECTIONS: Final = (
    frozenset(name.rpartition(".")[0] for name in RULES) | {name.split(".")[0] for name in RULES} | {"trust_anchor"}
)
#: Pairs of a minimum and a maximum.
_WINDOWS: Final = (*((phase, kind) for phase in ("sum", "update", "sum2") for kind in ("count", "time")), ("check", "time"))


def _older_names() -> dict[str, str]:
    """Map each older name, without its section, to the full name."""
    names = {older: declared.name for declared in SETTINGS.values() for older in declared.older}
    for name in SETTINGS:
        section, _, leaf = name.rpartition(".")
        if section in {"api", "mask", "model", "service"}:
            names[leaf] = name
    return names


_OLDER: Final = _older_names()


def setting_values(settings: SettingsTree) -> Iterator[tuple[str, Any]]:
    """Yield the full name and the value of every setting."""
    for name in SETTINGS:
        value: Any = settings
        for part in name.split("."):
            value = getattr(value, part)
        yield name, value


def find_full_name(path: tuple[str, ...]) -> str | None:
    """Find the setting that a path of sections and a key means, in any of the versions' spellings.

    Tried in this order: the full name; the full name without its leading `pet`; an older name, alone or in a section.
    Case does not matter.
    """
    lower = tuple(part.lower() for part in path)
    full = ".".join(lower)
    for candidate in (full, f"pet.{full}"):
        if candidate in RULES:
            return candidate
    if len(lower) <= 2:
        return _OLDER.get(lower[-1])
    return None


def is_own_place(path: tuple[str, ...], full_name: str) -> bool:
    """Return whether a key stands where some version of xaynet has it, or in no section at all."""
    lower = tuple(part.lower() for part in path)
    return (
        len(lower) != 2
        or lower[0] == full_name.split(".")[0]
        or ".".join(lower) == full_name
        or f"pet.{'.'.join(lower)}" == full_name
    )


def is_section(path: tuple[str, ...]) -> bool:
    """Return whether a path is a section that holds settings, or the empty `trust_anchor`."""
    return ".".join(path).lower() in _SECTIONS


def nearest_name(path: tuple[str, ...]) -> str | None:
    """Return the known name that an unknown key resembles most, or None if it resembles none."""
    dotted = ".".join(path).lower()
    candidates = [*RULES, *(f"pet.{name}" for name in _OLDER if name.startswith(("min_", "max_"))), *_OLDER]
    matches = difflib.get_close_matches(dotted, candidates, n=1, cutoff=0.6) or difflib.get_close_matches(
        dotted.rpartition(".")[2], list(_OLDER), n=1, cutoff=0.75
    )
    return matches[0] if matches else None


def nearest_protection(path: tuple[str, ...]) -> str | None:
    """Return which setting of `PROTECTIONS` an unknown key most likely means, or None."""
    matches = difflib.get_close_matches(".".join(path).lower(), PROTECTIONS, n=1, cutoff=0.85)
    return matches[0] if matches else None


def complete(written: Mapping[str, Any], defaults: Mapping[str, Any] = SHIPPED) -> tuple[dict[str, Any], dict[str, str]]:
    """Give every absent setting its value.

    A limit that nobody wrote never contradicts one that somebody did: the default maximum rises to a written minimum
    above it, and the default minimum sinks to a written maximum below it.

    Args:
        written: full name -> value, unchecked.
        defaults: `SHIPPED`, or `WITHOUT_FILE`.

    Returns:
        All settings (full name -> value), and for each value that is not written the reason for it, in words.
    """
    values = dict(written)
    reasons: dict[str, str] = {}
    for name, value in defaults.items():
        if name not in values:
            values[name] = value
            reasons[name] = "default" if value == SHIPPED[name] else "default without a settings file"
    for name, declared in SETTINGS.items():
        if declared.follows and name not in values:
            reasons[name] = f"as {declared.follows}"
    for phase, kind in _WINDOWS:
        _fit_window(values, reasons, phase, kind)
    if values["api.bind_address"] == "":
        values["api.bind_address"] = SHIPPED["api.bind_address"]
        reasons["api.bind_address"] = "default, as the value is empty"
    return values, reasons


def _fit_window(values: dict[str, Any], reasons: dict[str, str], phase: str, kind: str) -> None:
    """Fill one minimum and maximum, moving whichever was not written."""
    least, most = f"pet.{phase}.{kind}.min", f"pet.{phase}.{kind}.max"
    for name in (least, most):
        if name not in values:
            values[name] = values[SETTINGS[name].follows]
    low, high = _as_number(values[least]), _as_number(values[most])
    if low is None or high is None or low <= high:
        return
    if most in reasons:
        values[most], reasons[most] = values[least], f"{reasons[most]} ({values[most]}), raised to {least}"
    elif least in reasons and high >= _MIN_COUNTS.get(least, 0):
        values[least], reasons[least] = values[most], f"{reasons[least]} ({values[least]}), lowered to {most}"


def _as_number(value: Any) -> float | None:
    """Read a value that may still be text; None where it is no number (the models say so later)."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
