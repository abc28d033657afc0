"""Numbers of callers: taken over exactly, or refused with an error of ours."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from pet.errors import ConfigError, FederationValueError
from pet.numbers import checked_number


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (0.1, 0.1),
        (Fraction(1, 4), 0.25),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64(3), 3.0),
        (np.int64(2**62 + 1), 2**62 + 1),
        (np.uint8(3), 3),
        (np.array(3), 3),
        (np.array(0.5, np.float16), 0.5),
    ],
)
def test_numbers_are_taken_over(value, expected):
    number = checked_number(value, "weight")
    assert (number, type(number)) == (expected, type(expected))


@pytest.mark.parametrize(
    "value",
    [
        *(10**400, -(10**400), math.nan, math.inf, np.float32("inf"), Fraction(10**400), np.array([1]), np.array("1")),
        *("1", b"1", None, True, np.True_, 1j, np.complex64(1), Decimal(1), object(), [1], np.datetime64("2020")),
    ],
)
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(FederationValueError, match=r"^weight: expected a finite number, got ") as caught:
        checked_number(value, "weight", error=FederationValueError)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("value", [0, -1, 11, Fraction(21, 2), 10**400])
def test_bounds_are_in_the_error(value):
    with pytest.raises(ConfigError, match="expected a finite number above 0 and at most 10, got "):
        checked_number(value, "seconds", above=0, most=10)
    with pytest.raises(ConfigError, match=r"expected a finite number of at least 12, got "):
        checked_number(value if value < 11 else -value, "seconds", least=12)
