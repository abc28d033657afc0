"""An enrolment as people write it: a TOML file with names beside the keys.

Source: docs/spec/profile.md 6.6.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pet.crypto import decode_public_key
from pet.errors import ConfigError, SettingsError
from pet.plan import Plan

_TOP: Final = {"version", "expires", "least_updates", "plan", "members", "participants"}
_PLAN: Final = {"groups", "members", "threshold", "quorum"}
_ENTRY: Final = {"name", "key"}


def read_enrolment(path: Path) -> dict[str, Any]:
    """Read a file.

    Returns:
        The arguments of `Enrolment`.

    Raises:
        SettingsError: it cannot be read, or something in it is wrong; names the key, the value and the rule.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: expected an enrolment, got {error}") from None
    try:
        return parse_enrolment(text)
    except ConfigError as error:
        raise SettingsError(f"{path}: {error}") from None


def parse_enrolment(text: str) -> dict[str, Any]:
    """Read the text of a file.

    Returns:
        The arguments of `Enrolment`.

    Raises:
        SettingsError: something in it is wrong.
        ConfigError: a plan that cannot be.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"enrolment: expected TOML, got {error}") from None
    _require_known("", table, _TOP)
    plan = _table("plan", table)
    _require_known("plan.", plan, _PLAN)
    members = [
        _entry("members", number, each, {*_ENTRY, "participates"}) for number, each in enumerate(_list("members", table))
    ]
    others = [_entry("participants", number, each, _ENTRY) for number, each in enumerate(_list("participants", table))]
    participants = [key for key, _, takes_part in members if takes_part] + [key for key, _, _ in others]
    if len(set(participants)) != len(participants):
        raise SettingsError("participants: expected each key once, got one twice")
    return {
        "version": _number("version", table),
        "expires": _expires(table.get("expires", 0)),
        "plan": Plan(
            groups=_number("groups", plan, "plan.", 1),
            members=_number("members", plan, "plan."),
            threshold=_number("threshold", plan, "plan."),
            quorum=_number("quorum", plan, "plan."),
        ),
        "min_updates": _number("least_updates", table, "", len(participants)),
        "members": tuple(key for key, _, _ in members),
        "participants": tuple(sorted(participants)),
        "names": {key: name for key, name, _ in (*members, *others) if name},
    }


def new_draft(*, groups: int, members: int, threshold: int, quorum: int, least_updates: int | None) -> str:
    """Return the text of a file with a plan, to which nobody was added.

    Raises:
        ConfigError: a plan that cannot be.
    """
    Plan(groups=groups, members=members, threshold=threshold, quorum=quorum)
    least = "" if least_updates is None else f"least_updates = {least_updates}\n"
    numbers = f"groups = {groups}\nmembers = {members}\nthreshold = {threshold}\nquorum = {quorum}\n"
    return f"version = 1\n{least}\n[plan]\n{numbers}"


def add_entry(text: str, key: bytes, name: str, *, is_member: bool, does_participate: bool) -> str:
    """Return the text of a file with one more entry, and the next version; all else in it stays.

    Raises:
        SettingsError: the text is no enrolment, or the key is in it already.
        ConfigError: a plan that cannot be.
    """
    before = parse_enrolment(text)
    if key in before["members"] or key in before["participants"]:
        raise SettingsError(f"key: expected one that is not in the file, got {key.hex()}")
    if is_member and len(before["members"]) >= before["plan"].member_count:
        raise SettingsError(f"members: expected {before['plan'].member_count} of them, got one more")
    version = before["version"] + 1
    changed, count = re.subn(r"^version\s*=\s*\d+", f"version = {version}", text, count=1, flags=re.M)
    if not count:
        raise SettingsError("version: expected a line 'version = ' and a number, got none")
    kind = "members" if is_member else "participants"
    entry = f'\n[[{kind}]]\n{f"name = {json.dumps(name, ensure_ascii=False)}" + chr(10) if name else ""}key = "{key.hex()}"\n'
    added = changed.rstrip("\n") + "\n" + entry + ("participates = true\n" if is_member and does_participate else "")
    if parse_enrolment(added)["version"] != version:
        raise SettingsError("version: expected it outside of all tables, got it in one")
    return added


def _require_known(place: str, table: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(table.keys() - known):
        raise SettingsError(f"{place}{unknown[0]}: expected one of {', '.join(sorted(known))}, got this key")


def _table(name: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
    value = table.get(name)
    if not isinstance(value, dict):
        raise SettingsError(f"{name}: expected a table [{name}], got {type(value).__name__}")
    return value


def _list(name: str, table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    value = table.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise SettingsError(f"{name}: expected tables [[{name}]], got something else")
    return value


def _number(name: str, table: Mapping[str, Any], place: str = "", default: int | None = None) -> int:
    value = table.get(name, default)
    if type(value) is not int:
        raise SettingsError(f"{place}{name}: expected a whole number, got {value!r}")
    return value


def _expires(value: object) -> int:
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return int(value.timestamp())
    if type(value) is not int:
        raise SettingsError(f"expires: expected Unix seconds, or a time with its offset, got {value!r}")
    return value


def _entry(kind: str, number: int, entry: Mapping[str, Any], known: set[str]) -> tuple[bytes, str, bool]:
    """Return key, name, and whether a member sends updates as well."""
    place = f"{kind}[{number}]."
    _require_known(place, entry, known)
    name, text, takes_part = entry.get("name", ""), entry.get("key"), entry.get("participates", False)
    key = decode_public_key(text) if isinstance(text, str) else None
    if key is None:
        raise SettingsError(f"{place}key: expected a public key of 32 bytes in hexadecimal or base64, got {text!r}")
    if not isinstance(name, str):
        raise SettingsError(f"{place}name: expected text, got {name!r}")
    if not isinstance(takes_part, bool):
        raise SettingsError(f"{place}participates: expected true or false, got {takes_part!r}")
    return key, name, takes_part
