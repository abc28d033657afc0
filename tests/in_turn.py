"""Many values in one test: `in_turn` is pytest.mark.parametrize without a test of its own for every value.

Collecting, reporting and distributing a test takes two milliseconds of CPU, in every process that runs tests the memory of a
test besides; most values of the kernels' tests take less themselves. A failure says which value it was in a note. What needs
fixtures anew for each value, or marks of its own, is a parametrisation.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any


def in_turn(names: str, values: Iterable[Any], ids: Callable[[Any], str] = repr) -> Callable[[Callable], Callable]:
    """Call a test once with each value, in the test that pytest sees.

    Args:
        names: the parameter, or several joined with commas; then every value is a tuple.
        values: what the test is called with.
        ids: how the note of a failure names a value.
    """
    parameters, values = [name.strip() for name in names.split(",")], tuple(values)

    def decorate(test: Callable) -> Callable:
        signature = inspect.signature(test)
        assert set(parameters) <= signature.parameters.keys()
        assert values, f"{test.__name__}: expected values for {names}, got none"

        @functools.wraps(test)
        def with_each(**fixtures: Any) -> None:
            for value in values:
                try:
                    test(**fixtures, **dict(zip(parameters, value if len(parameters) > 1 else (value,), strict=True)))
                except BaseException as error:
                    error.add_note(f"{names}: {ids(value)}")
                    raise

        with_each.__signature__ = signature.replace(
            parameters=[parameter for name, parameter in signature.parameters.items() if name not in parameters]
        )
        #: For test_collection.py: every value that one test is called with.
        with_each.turns = [(names, values), *getattr(test, "turns", [])]
        return with_each

    return decorate
