"""Numbers as they are handed to people: a value, or NaN with the reason, and the bound of the error either way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from pet.federation.statistics.bounded import MAX_ERROR_SHARE, Bounded

NO_ROWS: Final = "no rows define it"
CONSTANT: Final = "a feature does not vary"


class Figure(float):
    """A number that says how exact it is; NaN where it has no digits.

    Attributes:
        bound: of its absolute error; infinite where unknown.
        reason: why it is NaN; None where it is a number.
        peers_left_out: how many peers left the pair of features out of what they shared; it is over the rows of the others.
    """

    bound: float
    reason: str | None
    peers_left_out: int

    def __new__(cls, value: float, *, bound: float = math.inf, reason: str | None = None, peers_left_out: int = 0) -> Self:
        """Make one; a plain number has an unknown bound."""
        figure = super().__new__(cls, value)
        figure.bound, figure.reason, figure.peers_left_out = bound, reason, peers_left_out
        return figure

    def entities(self, name: str) -> dict[str, object]:
        """Return the entities of an answer: null for NaN, and why."""
        found: dict[str, object] = {name: _or_null(self), "bound": _or_null(self.bound), "peersLeftOut": self.peers_left_out}
        return found if self.reason is None else found | {"reason": self.reason}

    def __getnewargs_ex__(self) -> tuple[tuple[float], dict[str, object]]:
        return (float(self),), {"bound": self.bound, "reason": self.reason, "peers_left_out": self.peers_left_out}


class Figures(dict[str, float]):
    """Numbers by name.

    Attributes:
        bounds: of their absolute errors, by name; a number without one is exact.
        reasons: why a number is NaN, by name.
    """

    def __init__(
        self,
        values: Mapping[str, float],
        *,
        bounds: Mapping[str, float] | None = None,
        reasons: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(values)
        self.bounds: Final = dict(bounds or {})
        self.reasons: Final = dict(reasons or {})

    def entities(self, name: str) -> dict[str, object]:
        """Return the entities of an answer: null for NaN, and why."""
        values = {key: _or_null(value) for key, value in self.items()}
        return {name: values, "bounds": {key: _or_null(bound) for key, bound in self.bounds.items()}, "reasons": self.reasons}


def _or_null(value: float) -> float | None:
    """Return a number as JSON has it."""
    return float(value) if math.isfinite(value) else None


def figure(quantity: Bounded, is_resolved: NDArray[np.bool_] | bool, undefined: str | None = None) -> Figure:
    """Return one number, or NaN and why.

    Args:
        quantity: a scalar.
        is_resolved: whether it has digits.
        undefined: why rows do not define it; None if they do.
    """
    value, bound = float(quantity.value), float(quantity.error)
    bound = math.inf if math.isnan(bound) else bound
    if undefined is not None:
        return Figure(math.nan, reason=undefined)
    if not is_resolved:
        return Figure(math.nan, bound=bound, reason=no_digits(bound))
    return Figure(value, bound=bound)


def finite_bounds(figures: Mapping[str, Figure]) -> dict[str, float]:
    """Return the bounds of figures, of those too that are NaN as theirs is too large; none where there is no bound."""
    return {name: found.bound for name, found in figures.items() if math.isfinite(found.bound)}


def no_digits(bound: float) -> str:
    """Return the reason for a number whose error is too large."""
    if not math.isfinite(bound):
        return "no digits: something that it is divided by cannot be distinguished from 0"
    return f"no digits: its error may be {bound:.1e}, more than {MAX_ERROR_SHARE:g} of its scale"
