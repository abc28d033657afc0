"""Numbers as callers give them: of Python, of fractions, and NumPy's scalars, checked before anything else sees them.

`float(10**400)`, `f"{x:g}"` and JSON each have an error of their own for a number that does not fit; here it is one of pet.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Final

import numpy as np

from pet.errors import ConfigError, PetError

#: How many characters of a refused value are shown.
_MAX_SHOWN: Final = 40


def checked_number(
    value: object,
    name: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    error: type[PetError] = ConfigError,
) -> float | int:
    """Return a number as JSON and every library take it: an int or a float of Python.

    Args:
        value: an integer of any size that a float can come near, a float, a fraction, or a NumPy scalar of such a kind; also
            an array without dimensions. NumPy's are taken over exactly; a fraction is rounded to a float.
        name: of the value, for the error.
        least: it is at least this.
        above: it is more than this.
        most: it is at most this.
        error: what is raised.

    Raises:
        PetError: it is something else, not finite, or outside; of the class that was asked for.
    """
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    number: float | int | None = None
    if not isinstance(value, bool) and isinstance(value, Real):  # numpy.bool_ is no Real
        try:
            number = int(value) if isinstance(value, Integral) else float(value)
            is_right = math.isfinite(number) and least <= number <= most and number > above
        except (OverflowError, ValueError):
            is_right = False
    if number is None or not is_right:
        raise error(f"{name}: expected {_expectation(least, above, most)}, got {shown_value(value)}")
    return number


def shown_value(value: object) -> str:
    """Return a value for an error, however large it is."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"  # writing one of a million digits takes long, and is refused
    text = repr(value) if isinstance(value, (Real, str, bytes, type(None))) else f"an object of type {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def _expectation(least: float, above: float, most: float) -> str:
    parts = ["a finite number"]
    if above > -math.inf:
        parts.append(f"above {_shown_limit(above)}")
    if least > -math.inf:
        parts.append(f"of at least {_shown_limit(least)}")
    if most < math.inf:
        parts.append(f"{'and' if len(parts) > 1 else 'of'} at most {_shown_limit(most)}")
    return " ".join(parts)


def _shown_limit(limit: float) -> str:
    """Return a limit with all its digits if it is whole: 33554432, where `:g` would round it."""
    return f"{limit:.0f}" if limit == int(limit) and abs(limit) < 1e20 else f"{limit:g}"
