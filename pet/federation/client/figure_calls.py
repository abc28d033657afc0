"""Calls for figures, over all peers or of the local project alone: of one feature, of two, regressions, averaged models.

Source: docs/spec/federation.md 1.10.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pet.federation.client.entities import figure_of_pair, figures, regression
from pet.federation.client.server_calls import ServerCalls, query_flag
from pet.federation.formats.numbers import to_floats
from pet.federation.runtime import Regression
from pet.federation.statistics.figures import Figure, Figures


class FigureCalls(ServerCalls):
    """What a peer gets: numbers, each with the bound of its error or the reason why there is none."""

    def univariate(self, project_id: str, feature: str, *, local: bool = False) -> Figures:
        """Describe a feature, over all peers or in the local project.

        Returns:
            Figures by name; NaN for what is undefined or has no digits, with the reason in `reasons`.
        """
        query = {"feature": feature, "useLocal": query_flag(local)}
        return self._read(self._get(f"{project_id}/univariate", query), lambda found: figures(found, "univariate"))

    def covariance(self, project_id: str, first: str, second: str, *, local: bool = False) -> Figure:
        """Return the population covariance of two features; NaN, with a `reason`, as in `univariate`."""
        query = {"first": first, "second": second, "useLocal": query_flag(local)}
        return self._read(self._get(f"{project_id}/covariance", query), lambda found: figure_of_pair(found, "covariance"))

    def correlation(self, project_id: str, first: str, second: str, *, local: bool = False) -> Figure:
        """Return the linear correlation of two features; NaN, with a `reason`, as in `univariate`."""
        query = {"first": first, "second": second, "useLocal": query_flag(local)}
        return self._read(self._get(f"{project_id}/correlation", query), lambda found: figure_of_pair(found, "correlation"))

    def linear_regression(
        self, project_id: str, target: str, features: Sequence[str] | None = None, *, local: bool = False
    ) -> Regression:
        """Fit one feature on others (None: on all of them), over all peers or in the local project."""
        body = json.dumps({"target": target, "features": None if features is None else list(features)}).encode()
        return self._read(self._send(f"{project_id}/regression", body, {"useLocal": query_flag(local)}), regression)

    def global_model(self, project_id: str) -> NDArray[np.float64]:
        """Return the averaged model of the last round."""
        values = self._get(f"{project_id}/model")
        return self._read(values, lambda found: to_floats(found["model"]["weights"], "weights"))
