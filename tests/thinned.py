"""A plugin of pytest that keeps one in THINNED_TO of the tests that differ in parameters alone, and one of each back-end.

For the tests of kernels once more: with another compiler, and under sanitizers, where all of them take a minute of CPU; and for
other versions of libraries, where up to THINNED_ABOVE such tests stay, because parameters that are few name libraries.
"""

import os
from collections import defaultdict

import pytest

from pet import kernels


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the first of each group, and every THINNED_TO-th after it."""
    groups: dict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        name, _, parameters = item.nodeid.partition("[")
        backend = next((backend for backend in kernels.available_backends() if backend in parameters), "")
        groups[name, backend].append(item)
    step, few = int(os.environ["THINNED_TO"]), int(os.environ.get("THINNED_ABOVE", "0"))
    kept = {item for group in groups.values() for item in group[:: step if len(group) > few else 1]}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]
