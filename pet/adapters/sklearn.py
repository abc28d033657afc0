"""scikit-learn: what estimators have learned as vectors, and back; and logistic regression that equals the pooled fit.

    from pet.adapters import sklearn as adapter

    weights, counts, packing = adapter.pack(estimator)
    adapter.load(estimator, packing, mean.to_array())

The mean of linear models, or of multi-layer perceptrons that began alike, is what federated averaging uses. For logistic
regression there is better: `LogisticNewton` adds up gradients and Hessians, and the result is that of one fit on all rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression

from pet.errors import ModelError
from pet.packing import Packing
from pet.packing import pack as pack_arrays

#: What is averaged. Everything else that a fit leaves (n_iter_, t_, the state of an optimiser) stays where it is.
_AVERAGED: Final = ("coef_", "intercept_", "coefs_", "intercepts_")

_Floats: TypeAlias = "NDArray[np.float64]"

#: Halvings of a Newton step before it is taken for rounding.
_MAX_HALVINGS: Final = 30


def pack(estimator: BaseEstimator, *, dtype: DTypeLike | None = None) -> tuple[NDArray[Any], NDArray[Any], Packing]:
    """Pack the coefficients and intercepts of an estimator: of the linear families, and of MLPClassifier and MLPRegressor.

    Args:
        estimator: fitted, or prepared by `initialise`.
        dtype: as for `pet.pack`; scikit-learn computes in float64, and "float32" halves what travels.

    Raises:
        ModelError: no estimator, one without coefficients, or one whose coefficients are no arrays.
    """
    return pack_arrays(_arrays(estimator), dtype=dtype)


def load(estimator: BaseEstimator, packing: Packing, weights: NDArray[Any], counts: NDArray[Any] | None = None) -> None:
    """Put a vector into an estimator, which has coefficients of the same shapes.

    Raises:
        ModelError: as `Packing.unpack`; other coefficients. Nothing has changed then.
    """
    new = packing.unpack(weights, counts)
    own = _arrays(estimator)
    shapes = {name: _shapes(value) for name, value in own.items()}
    expected = {name: _shapes(value) for name, value in new.items()}
    if shapes != expected:
        raise ModelError(f"estimator: expected coefficients of shapes {expected}, got {shapes}")
    for name, value in new.items():
        before = getattr(estimator, name)
        setattr(estimator, name, float(value) if np.isscalar(before) else value)


def initialise(estimator: BaseEstimator, feature_count: int, classes: ArrayLike | None = None) -> None:
    """Give a linear estimator coefficients of 0, so that every participant begins alike and `partial_fit` goes on from them.

    Args:
        estimator: of a linear family, for example SGDClassifier, SGDRegressor or LogisticRegression.
        feature_count: of a row.
        classes: labels of all participants together, for a classifier; None for a regression.

    Raises:
        ModelError: fewer than two classes, or a number of features that is none.
    """
    if not isinstance(feature_count, (int, np.integer)) or feature_count < 1:
        raise ModelError(f"feature_count: expected a whole number of 1 or more, got {feature_count!r}")
    values: dict[str, Any] = {"n_features_in_": int(feature_count)}
    if classes is None:
        values |= {"coef_": np.zeros(feature_count), "intercept_": np.zeros(1)}
    else:
        labels = _labels(classes)
        rows = 1 if len(labels) == 2 else len(labels)
        values |= {"classes_": labels, "coef_": np.zeros((rows, feature_count)), "intercept_": np.zeros(rows)}
    for name, value in values.items():
        setattr(estimator, name, value)


class LogisticNewton:
    """Logistic regression on the rows of many participants, by Newton's method on sums: it equals scikit-learn's pooled fit.

    Every participant has one, and so has who coordinates; all make the same steps, as all see the same sums::

        fit = LogisticNewton(feature_count=5, classes=[0, 1], C=1.0)
        while not fit.is_finished:
            terms = fit.terms(rows, labels)       # each participant: a vector, to be masked
            fit.step(sum_of_terms)                # all: the sum of the participants' terms
        estimator = fit.to_estimator()

    A participant's terms tell much of its rows where these are few: mask them, and let nobody see less than the sum. Their
    absolute values are at most rows * max(1, largest value of a feature)^2, which is a bound for the mask config.

    Args:
        feature_count: of a row.
        classes: labels of all participants together; two or more.
        C: inverse strength of the L2 penalty, as in scikit-learn; the intercept is not penalised.
        fit_intercept: whether there is one.
        tol: the largest gradient per row at which the fit is finished.
        max_iter: steps after which it is finished, whatever the gradient.

    Attributes:
        coefficients: shape (1 or number of classes, features + 1), the intercept last.
        is_finished: whether further steps would change nothing that matters.
        iteration_count: steps so far.

    Raises:
        ModelError: an argument outside its range.
    """

    def __init__(
        self,
        feature_count: int,
        classes: ArrayLike,
        *,
        C: float = 1.0,  # noqa: N803 - as scikit-learn names it
        fit_intercept: bool = True,
        tol: float = 1e-10,
        max_iter: int = 100,
    ) -> None:
        if not isinstance(feature_count, (int, np.integer)) or feature_count < 1:
            raise ModelError(f"feature_count: expected a whole number of 1 or more, got {feature_count!r}")
        for name, value in (("C", C), ("tol", tol), ("max_iter", max_iter)):
            if not isinstance(value, (int, float, np.integer, np.floating)) or not 0 < value < math.inf:
                raise ModelError(f"{name}: expected a finite number above 0, got {value!r}")
        self.classes: Final = _labels(classes)
        self.feature_count: Final = int(feature_count)
        self.C: Final = float(C)
        self.fit_intercept: Final = fit_intercept
        self._tol, self._max_iter = float(tol), int(max_iter)
        self._rows: Final = 1 if len(self.classes) == 2 else len(self.classes)
        self.coefficients = np.zeros((self._rows, self.feature_count + 1))
        self.is_finished = False
        self.iteration_count = 0
        self._accepted = self.coefficients
        self._accepted_loss = math.inf
        self._halving_count = 0

    @property
    def term_count(self) -> int:
        """Length of the vector of terms: row count, loss, gradient, Hessian."""
        size = self.coefficients.size
        return 2 + size + size * size

    def terms(self, rows: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
        """Return what a participant contributes to this step: row count, loss, gradient and Hessian of its rows, a vector.

        Args:
            rows: shape (n, features), finite.
            labels: n of the classes.

        Raises:
            ModelError: other shapes, values that are not finite, a label that is no class.
        """
        table = np.asarray(rows, np.float64)
        if table.ndim != 2 or table.shape[1] != self.feature_count or not np.isfinite(table).all():
            shape = f"(n, {self.feature_count})"
            raise ModelError(f"rows: expected finite numbers of shape {shape}, got shape {table.shape} or others")
        own = np.asarray(labels)
        if own.shape != (len(table),) or not np.isin(own, self.classes).all():
            raise ModelError(f"labels: expected {len(table)} of {self.classes.tolist()}, got shape {own.shape} or others")
        wide = np.column_stack([table, np.full(len(table), 1.0 if self.fit_intercept else 0.0)])
        scores = wide @ self.coefficients.T
        loss, errors, curvature = (_binary if self._rows == 1 else _multinomial)(scores, own[:, None] == self.classes)
        gradient = errors.T @ wide
        hessian = np.einsum("nkl,ni,nj->kilj", curvature, wide, wide, optimize=True)
        return np.concatenate([[len(table), loss], gradient.reshape(-1), hessian.reshape(-1)])

    def step(self, total: ArrayLike) -> None:
        """Go on with the sum of all participants' terms for the present coefficients.

        Args:
            total: the sum, `term_count` numbers; a mean has to be multiplied by the sum of the scalars first.

        Raises:
            ModelError: another number of them, or some that are not finite.
        """
        sums = np.asarray(total, np.float64)
        if sums.shape != (self.term_count,) or not np.isfinite(sums).all():
            raise ModelError(f"total: expected {self.term_count} finite numbers, got shape {sums.shape} or others")
        if self.is_finished:
            return
        self.iteration_count += 1
        size = self.coefficients.size
        row_count, penalty = max(float(sums[0]), 1.0), self._penalty()
        flat = self.coefficients.reshape(-1)
        loss = float(sums[1]) + 0.5 * float(penalty @ flat**2)
        if loss > self._accepted_loss + 1e-12 * abs(self._accepted_loss) and self._halving_count < _MAX_HALVINGS:
            # Newton's step was too long: half of it. The sums of the point that was left are not needed again.
            self._halving_count += 1
            self.coefficients = (self._accepted + self.coefficients) / 2
            return
        self._accepted, self._accepted_loss, self._halving_count = self.coefficients, loss, 0
        gradient = sums[2 : 2 + size] + penalty * flat
        if np.abs(gradient).max() <= self._tol * row_count or self.iteration_count >= self._max_iter:
            self.is_finished = True
            return
        hessian = sums[2 + size :].reshape(size, size) + np.diag(penalty)
        # Least squares: without an intercept, and along what a multinomial model leaves open, the Hessian is singular.
        self.coefficients = self.coefficients - np.linalg.lstsq(hessian, gradient, rcond=None)[0].reshape(
            self.coefficients.shape
        )

    def to_estimator(self) -> LogisticRegression:
        """Return scikit-learn's estimator with the coefficients so far, ready to predict."""
        estimator = LogisticRegression(C=self.C, fit_intercept=self.fit_intercept)
        estimator.classes_, estimator.n_features_in_ = self.classes, self.feature_count
        estimator.coef_, estimator.intercept_ = self._accepted[:, :-1].copy(), self._accepted[:, -1].copy()
        estimator.n_iter_ = np.array([self.iteration_count])
        return estimator

    def _penalty(self) -> NDArray[np.float64]:
        strengths = np.full((self._rows, self.feature_count + 1), 1 / self.C)
        strengths[:, -1] = 0
        return strengths.reshape(-1)


def _binary(scores: _Floats, truth: NDArray[np.bool_]) -> tuple[float, _Floats, _Floats]:
    """Return loss, errors and curvature of the second of two classes."""
    positive = truth[:, 1:].astype(np.float64)
    loss = float((np.logaddexp(0, scores) - positive * scores).sum())
    chance = 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
    return loss, chance - positive, (chance * (1 - chance))[:, :, None]


def _multinomial(scores: _Floats, truth: NDArray[np.bool_]) -> tuple[float, _Floats, _Floats]:
    """Return loss, errors and curvature of the softmax."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    chance = np.exp(logs)
    curvature = chance[:, :, None] * (np.eye(chance.shape[1]) - chance[:, None, :])
    return float(-logs[truth].sum()), chance - truth, curvature


def _labels(classes: ArrayLike) -> NDArray[Any]:
    labels = np.unique(np.asarray(classes))
    if len(labels) < 2:
        raise ModelError(f"classes: expected two or more, got {labels.tolist()}")
    return labels


def _arrays(estimator: object) -> dict[str, Any]:
    if not isinstance(estimator, BaseEstimator):
        raise ModelError(f"estimator: expected one of scikit-learn, got {type(estimator).__name__}")
    found = {name: getattr(estimator, name) for name in _AVERAGED if getattr(estimator, name, None) is not None}
    if not found:
        name = type(estimator).__name__
        raise ModelError(f"estimator: expected coefficients, got a {name} without any: fit it, or prepare it with initialise")
    return {name: _as_arrays(name, value) for name, value in found.items()}


def _as_arrays(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_as_arrays(name, each) for each in value]
    if not isinstance(value, (np.ndarray, float, np.floating)):
        raise ModelError(f"{name}: expected dense arrays, got {type(value).__name__}")
    return np.asarray(value)


def _shapes(value: NDArray[Any] | Sequence[Any]) -> Any:
    return value.shape if isinstance(value, np.ndarray) else [_shapes(each) for each in value]
