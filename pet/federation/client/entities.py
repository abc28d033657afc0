"""What the entities of a server's answers say. A malformed one raises whatever it raises; the client makes one error of it.

Source: docs/spec/federation.md 2.1, 2.15.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from pet.errors import FederationValueError
from pet.federation.formats.learning_records import Taken
from pet.federation.records import Confirm, MemberList, MemberState
from pet.federation.runtime import Regression
from pet.federation.statistics.figures import Figure, Figures
from pet.numbers import checked_number

_HELD_BACK: Final[Mapping[str, type]] = {"rows": int, "least": int, "forgets": bool}


def strings(values: Mapping[str, Any]) -> list[str]:
    """Return a list of strings, in either form (spec 2.15)."""
    found = values["stringList"]
    return [str(line) for line in (found["values"] if isinstance(found, dict) else found)]


def taken(values: Mapping[str, Any]) -> Taken:
    """Return how many rows a piece of a table was, and whether the table is done."""
    return Taken(rows=int(values["rows"]), is_done=bool(values["done"]))


def row_counts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entity `rows`: counts, what the rule of minimum rows holds back, and the unfinished tables."""
    found = values["rows"]
    counts = {name: int(found[name]) for name in ("learned", "shared", "tables")}
    kinds = {"request": str, "change": str, "pieces": int, "rows": int, "idleSeconds": float}
    pending = [{name: kind(unit[name]) for name, kind in kinds.items()} for unit in found["pending"]]
    held = found.get("heldBack")
    held_back = None if held is None else {name: kind(held[name]) for name, kind in _HELD_BACK.items()}
    return {**counts, "heldBack": held_back, "pending": pending}


def members(values: Mapping[str, Any]) -> MemberList:
    """Return the entity `members`."""
    found = values["members"]
    return MemberList(
        code=str(found["code"]),
        confirm=Confirm(found["confirm"]),
        members=tuple(
            MemberState(
                name=str(member["name"]),
                uuid=str(member["uuid"]),
                fingerprint=str(member["fingerprint"]),
                is_confirmed=bool(member["isConfirmed"]),
                is_this=bool(member["isThis"]),
                is_admin=bool(member["isAdmin"]),
            )
            for member in found["members"]
        ),
    )


def number(value: Any) -> float:
    """Return a number of an answer; JSON has none for what is undefined, so null is NaN."""
    found = optional(value)
    return math.nan if found is None else found


def optional(value: Any) -> float | None:
    """Return a number, or None for null."""
    return None if value is None else checked_number(value, "number", error=FederationValueError)


def figures(values: Mapping[str, Any], name: str) -> Figures:
    """Return figures by name, with the reasons of those that are NaN; servers of earlier versions give no reasons."""
    found = {key: number(value) for key, value in values[name].items()}
    return Figures(found, bounds=_numbers(values.get("bounds", {})), reasons=_texts(values.get("reasons", {})))


def figure_of_pair(values: Mapping[str, Any], name: str) -> Figure:
    """Return a figure of a pair of features."""
    value, bound = number(values[name]), optional(values.get("bound"))
    reason = values.get("reason")
    return Figure(
        value,
        bound=math.inf if bound is None else bound,
        reason=None if reason is None else str(reason),
        peers_left_out=int(values.get("peersLeftOut", 0)),
    )


def regression(values: Mapping[str, Any]) -> Regression:
    """Return a fit."""
    found = values["linearRegression"]
    return Regression(
        target=str(found["target"]),
        intercept=number(found["intercept"]),
        coefficients=_numbers(found["coefficients"]),
        row_count=int(found["rows"]),
        standard_errors=_numbers(found.get("standardErrors", {})),
        intercept_standard_error=_if_given(found, "interceptStandardError"),
        r_squared=_if_given(found, "rSquared"),
        bounds=_numbers(found.get("bounds", {})),
        reasons=_texts(found.get("reasons", {})),
    )


def contract_state(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contract of a peer, and a change that waits for consent."""
    proposed = values["proposed"]
    return {
        "contract": _contract(values["contract"]),
        "proposed": None if proposed is None else _contract(proposed),
        "acceptsContracts": bool(values["acceptsContracts"]),
    }


def _contract(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"lines": [str(line) for line in found["lines"]], "number": int(found["number"])}


def _if_given(found: Mapping[str, Any], name: str) -> float | None:
    """Return a number that servers need not give; NaN if it is undefined."""
    return number(found[name]) if name in found else None


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): number(value) for name, value in found.items()}


def _texts(found: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in found.items()}
