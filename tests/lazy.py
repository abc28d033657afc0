"""Modules that are imported when something of them is used: every process of a session collects every file, and few run it."""

import importlib
from typing import Any


class Lazy:
    """Stands for a module.

    Args:
        name: its full name.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        """Import the module, and return something of it."""
        if attribute.startswith(("__", "_pytest", "_mock")):
            raise AttributeError(attribute)  # pytest asks every object of a file for its own marks
        return getattr(importlib.import_module(self._name), attribute)
