"""Federations: peers that merge the statistics of their rows, created and joined over REST, carried by NATS.

A name loads its module on first use: who only computes statistics loads no HTTP client, and `import pet.federation` loads
nothing at all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pet.federation.client.client import Client
    from pet.federation.formats.csv_table import CsvTable
    from pet.federation.runtime import Regression
    from pet.federation.statistics.analysis import correlation, covariance, linear_regression, univariate
    from pet.federation.statistics.feature import Feature, Kind
    from pet.federation.statistics.schema import Schema
    from pet.federation.statistics.statistics import Statistics
    from pet.secret import Secret

__all__ = [
    "Client",
    "CsvTable",
    "Feature",
    "Kind",
    "Regression",
    "Schema",
    "Secret",
    "Statistics",
    "correlation",
    "covariance",
    "linear_regression",
    "univariate",
]

_MODULES: Final = {
    "Client": "pet.federation.client.client",
    "CsvTable": "pet.federation.formats.csv_table",
    "Feature": "pet.federation.statistics.feature",
    "Kind": "pet.federation.statistics.feature",
    "Regression": "pet.federation.runtime",
    "Schema": "pet.federation.statistics.schema",
    "Secret": "pet.secret",
    "Statistics": "pet.federation.statistics.statistics",
    "correlation": "pet.federation.statistics.analysis",
    "covariance": "pet.federation.statistics.analysis",
    "linear_regression": "pet.federation.statistics.analysis",
    "univariate": "pet.federation.statistics.analysis",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # the next use finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
