"""What is handed over as numbers: read, or refused, the same under every filter of warnings."""

import warnings

import numpy as np
import pytest

from pet.errors import FederationValueError
from pet.federation.formats.numbers import to_floats
from pet.federation.formats.tables import read_columns
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.rows import read_blocks
from pet.federation.statistics.schema import Schema

SCHEMA = Schema([Feature(name="a", centre=0, scale=1)], z_max=4)
NO_NUMBERS = [
    np.array([1 + 2j]),  # numpy warns, and drops the imaginary part
    [1 + 2j],
    np.array(["2020-01-01"], dtype="datetime64[D]"),  # numpy counts days without a warning
    np.array([3], dtype="timedelta64[s]"),
    [[1.0], [1.0, 2.0]],
    [object()],
    ["one"],
    np.zeros(1, dtype=[("x", "f8")]),
]
CALLS = {
    "any": lambda values: to_floats(values, "a"),
    "columns": lambda values: read_columns({"a": values}),
    "rows": lambda values: list(read_blocks({"a": values}, SCHEMA)),
    "propose": lambda values: Schema.propose(["a"], values),
}


@pytest.mark.parametrize("action", ["ignore", "error"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("values", NO_NUMBERS, ids=range(len(NO_NUMBERS)))
def test_what_is_no_number_is_refused(values, call, action):
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(FederationValueError):
            call(values)


def test_numbers_in_any_form_are_read():
    assert to_floats([1, 2.5], "a").tolist() == [1.0, 2.5]
    assert to_floats(np.array(["1", " 2.5 "]), "a").tolist() == [1.0, 2.5]
    assert to_floats(np.array([True, None], dtype=object)[:1], "a").tolist() == [1.0]
    assert to_floats(np.array([np.longdouble("1e4000")]), "a").tolist() == [np.inf]
