"""Where settings come from: a TOML file and the environment, each read into full names with the spelling that was used.

Both keep, beside each value, the key as the user wrote it, so that an error can name it. What is wrong with a key is
collected rather than raised, so that one run reports everything. This file knows no rule about values.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pet.coordinator.retired_settings import find_replacement
from pet.coordinator.setting_names import RULES, find_full_name, is_own_place, is_section, nearest_name, nearest_protection

#: Prefixes of environment variables, the strongest first: ours, xaynet's newest, xaynet v0.11 to v0.9, xain of June 2020.
ENVIRONMENT_PREFIXES: Final = ("PET__", "XAYNET__", "XAYNET_", "XAIN__", "XAIN_")
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
    """What one place holds.

    Attributes:
        by_name: full name -> what was written.
        warnings: one sentence for each key that means nothing.
        misspelt: one line for each of them that resembles a setting; a file with faults is shown these too.
        faults: one line for each thing that must be put right before the settings can be used.
    """

    by_name: dict[str, Written] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    misspelt: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_file(path: Path) -> WrittenSettings:
    """Read a TOML file in the form of any version (spec 6.1, 6.2).

    A file that cannot be read, or is not TOML, is a fault.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        tree = tomllib.loads(_VALUELESS_BIND_ADDRESS.sub(r'\1 = ""', text.replace("\r\n", "\n")))
        leaves = list(_leaves(tree, ()))
    except OSError as error:
        fault = f"expected a readable file, got: {error.strerror}"
    except UnicodeDecodeError as error:
        fault = f"expected UTF-8, got another byte at offset {error.start}"
    except ValueError as error:  # tomllib's own, or an integer of more digits than Python converts
        fault = f"expected TOML, got: {error}"
    except RecursionError:
        fault = "expected TOML, got values nested too deeply"
    else:
        return _collect(((keys, ".".join(keys), value) for keys, value in leaves), "file")
    return WrittenSettings(faults=[f"settings file {path}: {fault}"])


def read_environment(environ: Mapping[str, str]) -> WrittenSettings:
    """Read the variables with one of `ENVIRONMENT_PREFIXES`; the strongest prefix wins."""
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
        merged.misspelt.extend(written.misspelt)
        merged.faults.extend(written.faults)
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
    return {".".join(path): value for path, value in _leaves(tree, ()) if value != {} or ".".join(path) in RULES}


def _prefix_of(key: str) -> str | None:
    return next((prefix for prefix in ENVIRONMENT_PREFIXES if key.upper().startswith(prefix)), None)


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value with its path; an empty section counts as a value, and so does whatever a setting is set to."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and ".".join((*path, key)) not in RULES:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _collect(items: Iterable[tuple[tuple[str, ...], str, Any]], place: str) -> WrittenSettings:
    """Give each (path, key as written, value) its full name."""
    result = WrittenSettings()
    for path, key, value in items:
        if value == {} and is_section(path):
            continue
        replacement = find_replacement(path)
        if replacement is not None:
            result.faults.append(f"{key} ({place}): expected a setting, got one of an older xaynet; {replacement}")
            continue
        name = find_full_name(path)
        if name is None and place == "file" and is_section(path):
            result.faults.append(f"{key} ({place}): expected a section of settings, as in [{key}], got a value")
            continue
        if name is None:
            _note_unknown(result, path, f"{key} ({place})")
            continue
        if not is_own_place(path, name):
            result.warnings.append(f"{key} ({place}): stands in another section than usual, read as {name}")
        earlier = result.by_name.get(name)
        if earlier is not None and earlier.value != value:
            result.faults.append(f"{key} ({place}): expected one value for {name}, got another one as {earlier.key}")
            continue
        result.by_name[name] = Written(key=key, value=value, place=place)
    return result


def _note_unknown(result: WrittenSettings, path: tuple[str, ...], where: str) -> None:
    """Note a key that means nothing; where a protection was meant, as far as can be seen, it must not be left out."""
    nearest, protection = nearest_name(path), nearest_protection(path)
    if protection is not None:
        result.faults.append(f"{where}: no such setting; did you mean {protection}? Correct the name, or remove it")
        return
    result.warnings.append(f"{where}: unknown, ignored" + (f"; did you mean {nearest}?" if nearest else ""))
    if nearest:
        result.misspelt.append(f"{where}: no such setting; did you mean {nearest}?")
