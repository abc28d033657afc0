"""A plugin of pytest that writes every collected test, with the values of its parameters, to the file COLLECTED_TESTS."""

import os
import re
import sys
from pathlib import Path

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write one line a test. Addresses of objects differ between processes; values must not."""
    sys.set_int_max_str_digits(0)  # the bounds of large mask configs have more
    lines = []
    for item in session.items:
        callspec = getattr(item, "callspec", None)
        parameters = "" if callspec is None else repr(sorted(callspec.params.items()))
        parameters += repr(getattr(item.function, "turns", ""))
        lines.append(re.sub(r" at 0x[0-9a-f]+|0x[0-9a-f]{8,}", "", f"{item.nodeid} {parameters}").replace("\n", " "))
    Path(os.environ["COLLECTED_TESTS"]).write_text("\n".join(lines))
