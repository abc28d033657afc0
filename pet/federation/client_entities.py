"""What the entities of a server's answers say. A malformed one raises whatever it raises; the client makes one error of it.

Source: docs/spec/federation.md 2.1, 2.15.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pet.errors import FederationValueError
from pet.federation.runtime import Regression
from pet.numbers import checked_number


def strings(values: Mapping[str, Any]) -> list[str]:
    """Return a list of strings, in either form (spec 2.15)."""
    found = values["stringList"]
    return [str(line) for line in (found["values"] if isinstance(found, dict) else found)]


def row_count(values: Mapping[str, Any]) -> int:
    """Return how many rows were learned or forgotten."""
    return int(values["rows"])


def number(value: Any) -> float:
    """Return a number of an answer; JSON has none for what is undefined, so null is NaN."""
    found = optional(value)
    return math.nan if found is None else found


def optional(value: Any) -> float | None:
    """Return a number, or None for null."""
    return None if value is None else checked_number(value, "number", error=FederationValueError)


def regression(values: Mapping[str, Any]) -> Regression:
    """Return a fit."""
    found = values["linearRegression"]
    return Regression(
        target=str(found["target"]),
        intercept=float(found["intercept"]),
        coefficients={name: float(value) for name, value in found["coefficients"].items()},
        row_count=int(found["rows"]),
        standard_errors={name: float(value) for name, value in found.get("standardErrors", {}).items()},
        intercept_standard_error=optional(found.get("interceptStandardError")),
        r_squared=optional(found.get("rSquared")),
    )
