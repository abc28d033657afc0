"""What each process of a session has collected, with the values of all parameters, for tests/test_collection.py to compare."""

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


def note_collected(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Write what one of several processes has collected to a file of its own, beside those of the others."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        (folder_of(config) / f"collected-{worker['workerid']}").write_text("\n".join(lines_of(items)))


def folder_of(config: pytest.Config) -> Path:
    """Return the folder of the session; that of a process is in it."""
    return Path(config.getoption("basetemp")).parent


def lines_of(items: list[pytest.Item]) -> Iterator[str]:
    """Give a line a test: its name, and a digest of the values of its parameters.

    Addresses of objects differ between processes; values must not.
    """
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)  # the bounds of large mask configs have more
    try:
        for item in items:
            callspec = getattr(item, "callspec", None)
            values = "" if callspec is None else repr(sorted(callspec.params.items()))
            values += repr(getattr(item.function, "turns", ""))
            values = re.sub(r" at 0x[0-9a-f]+|0x[0-9a-f]{8,}", "", values)
            yield f"{item.nodeid} {hashlib.sha256(values.encode()).hexdigest()[:16]}".replace("\n", " ")
    finally:
        sys.set_int_max_str_digits(limit)
