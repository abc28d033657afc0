"""Estimators of scikit-learn as vectors, and back; logistic regression on masked sums."""

import itertools
import warnings

import numpy as np
import pytest
from lazy import Lazy

import pet
from pet.errors import ModelError

pytestmark = pytest.mark.long  # to import scikit-learn takes longer than all tests here

adapter = Lazy("pet.adapters.sklearn")
datasets, linear_model = Lazy("sklearn.datasets"), Lazy("sklearn.linear_model")
neural_network, tree = Lazy("sklearn.neural_network"), Lazy("sklearn.tree")

Z32 = pet.MaskConfig.parse("pet-1/z32,f32,bound=16,models=10")
Z64 = pet.MaskConfig.parse("pet-1/z64,f64,bound=16,models=10")


def masked_mean(vectors, config):
    """Return the mean of vectors that nobody but their owners saw."""
    total = pet.Aggregation(config, len(vectors[0]))
    seeds = []
    for vector in vectors:
        seed, masked = pet.mask_model(vector, config, on_clip="raise")
        total.add(masked)
        seeds.append(seed)
    return total.unmask(pet.sum_masks(seeds, config, len(vectors[0]))).to_array()


def rows(kind, seed):
    if kind == "classes":
        return datasets.make_classification(120, 6, n_informative=4, n_classes=3, random_state=seed)
    return datasets.make_regression(120, 6, noise=1.0, random_state=seed)


def fitted(make, kind, seed):
    x, y = rows(kind, seed)
    estimator = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one pass is not enough to converge
        return estimator.fit(x / 4, y if kind == "classes" else y / 1000)


ESTIMATORS = {
    "LogisticRegression": (lambda: linear_model.LogisticRegression(), "classes"),
    "SGDClassifier": (
        lambda: linear_model.SGDClassifier(random_state=0, max_iter=5, eta0=0.01, learning_rate="constant"),
        "classes",
    ),
    "LinearRegression": (lambda: linear_model.LinearRegression(), "numbers"),
    "LinearRegression without intercept": (lambda: linear_model.LinearRegression(fit_intercept=False), "numbers"),
    "Ridge": (lambda: linear_model.Ridge(), "numbers"),
    "SGDRegressor": (lambda: linear_model.SGDRegressor(random_state=0, max_iter=5), "numbers"),
    "MLPClassifier": (lambda: neural_network.MLPClassifier((5,), random_state=0, max_iter=3), "classes"),
    "MLPRegressor": (lambda: neural_network.MLPRegressor(hidden_layer_sizes=(4, 3), random_state=0, max_iter=3), "numbers"),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_means_of_estimators(name):
    make, kind = ESTIMATORS[name]
    estimators = [fitted(make, kind, seed) for seed in range(3)]
    for config, dtype, allowed in ((Z32, "float32", 1e-6), (Z64, None, 1e-12)):
        packed = [adapter.pack(each, dtype=dtype) for each in estimators]
        packing = packed[0][2]
        assert {each[2].digest for each in packed} == {packing.digest}
        target = fitted(make, kind, 7)
        adapter.load(target, packing, masked_mean([each[0] for each in packed], config))
        for own, others in zip(flat(target), zip(*map(flat, estimators), strict=True), strict=True):
            assert np.abs(own - np.mean(others, axis=0)).max() <= allowed
        target.predict(rows(kind, 9)[0])


def flat(estimator):
    found = [getattr(estimator, name) for name in ("coef_", "intercept_", "coefs_", "intercepts_") if hasattr(estimator, name)]
    return [np.asarray(part) for value in found for part in (value if isinstance(value, list) else [value])]


@pytest.mark.parametrize("classes", [[0, 1], ["a", "b", "c"]])
def test_estimators_that_begin_alike(classes):
    x, labels = datasets.make_classification(90, 4, n_informative=3, n_redundant=0, n_classes=len(classes), random_state=1)
    y = np.asarray(classes)[labels]
    estimator = linear_model.SGDClassifier(loss="log_loss", random_state=0)
    adapter.initialise(estimator, 4, classes)
    weights, _, packing = adapter.pack(estimator)
    assert not weights.any()
    own = linear_model.SGDClassifier(loss="log_loss", random_state=0)
    adapter.initialise(own, 4, classes)
    own.partial_fit(x, y, classes=np.asarray(classes))
    trained, _, other = adapter.pack(own)
    assert other.digest == packing.digest
    adapter.load(estimator, packing, trained)
    assert (estimator.predict(x) == own.predict(x)).all()
    regression = linear_model.SGDRegressor()
    adapter.initialise(regression, 4)
    regression.partial_fit(x, labels)
    assert regression.coef_.any()


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("data", ["binary", "iris", "separable"])
def test_federated_logistic_regression_equals_the_pooled_fit(data, fit_intercept):
    if data == "iris":
        x, y = datasets.load_iris(return_X_y=True)
        y = np.array(["setosa", "versicolor", "virginica"])[y]
    else:
        x, y = datasets.make_classification(
            300, 5, n_informative=3, class_sep=9.0 if data == "separable" else 0.6, random_state=4
        )
    participants = np.array_split(np.random.default_rng(1).permutation(len(x)), 4)
    fit = adapter.LogisticNewton(x.shape[1], np.unique(y), C=0.7, fit_intercept=fit_intercept)
    config = pet.MaskConfig.parse(f"pet-1/z64,f64,bound={2.0 ** np.ceil(np.log2(len(x) * np.abs(x).max() ** 2 + 1))},models=8")
    while not fit.is_finished:
        mean = masked_mean([fit.terms(x[own], y[own]) for own in participants], config)
        fit.step(mean * len(participants))
    pooled = linear_model.LogisticRegression(
        C=0.7, fit_intercept=fit_intercept, tol=1e-12, max_iter=100_000, solver="newton-cholesky"
    ).fit(x, y)
    estimator = fit.to_estimator()
    assert np.abs(estimator.coef_ - pooled.coef_).max() < 1e-6
    assert np.abs(estimator.predict_proba(x) - pooled.predict_proba(x)).max() < 1e-6
    if len(pooled.classes_) == 2:
        assert np.abs(estimator.intercept_ - pooled.intercept_).max() < 1e-6
    assert (estimator.predict(x) == pooled.predict(x)).all()
    assert fit.iteration_count < 40


def test_a_step_that_is_too_long_is_halved():
    """Far from the optimum, Newton's own step makes the loss grow; every participant halves it alike."""
    x, y = np.array([[1e3], [-1e3], [1.0], [2.0]]), np.array([1, 0, 1, 0])
    fit = adapter.LogisticNewton(1, [0, 1], C=1e4, max_iter=300)
    fit.coefficients = fit.coefficients + np.array([[0.0, 12.0]])
    losses = []
    while not fit.is_finished:
        total = fit.terms(x, y)
        losses.append(total[1])
        fit.step(total)
    assert any(later > earlier for earlier, later in itertools.pairwise(losses))
    pooled = linear_model.LogisticRegression(C=1e4, tol=1e-12, max_iter=100_000, solver="newton-cholesky").fit(x, y)
    assert np.abs(fit.to_estimator().coef_ - pooled.coef_).max() < 1e-6


def test_a_fit_ends_after_its_iterations():
    x, y = rows("classes", 1)
    fit = adapter.LogisticNewton(6, [0, 1, 2], max_iter=2)
    for _ in range(5):
        fit.step(fit.terms(x, y))
    assert fit.is_finished
    assert fit.iteration_count == 2


def test_other_estimators_are_refused():
    for estimator, message in (
        (
            linear_model.LogisticRegression(),
            "expected coefficients, got a LogisticRegression without any: fit it, or prepare it",
        ),
        (
            tree.DecisionTreeClassifier().fit([[0], [1]], [0, 1]),
            "expected coefficients, got a DecisionTreeClassifier without any",
        ),
        (None, "expected one of scikit-learn, got NoneType"),
        (linear_model.LogisticRegression, "expected one of scikit-learn, got type"),
    ):
        with pytest.raises(ModelError, match=message):
            adapter.pack(estimator)
    sparse = fitted(linear_model.LogisticRegression, "classes", 0).sparsify()
    with pytest.raises(ModelError, match="coef_: expected dense arrays, got csr_"):
        adapter.pack(sparse)
    weights, _, packing = adapter.pack(fitted(linear_model.LogisticRegression, "classes", 0))
    other = fitted(linear_model.Ridge, "numbers", 0)
    before = other.coef_.copy()
    with pytest.raises(ModelError, match=r"estimator: expected coefficients of shapes \{'coef_': \(3, 6\)"):
        adapter.load(other, packing, weights)
    assert np.array_equal(other.coef_, before)


def test_arguments_that_cannot_be_are_refused():
    with pytest.raises(ModelError, match="feature_count: expected a whole number of 1 or more, got 0"):
        adapter.initialise(linear_model.SGDRegressor(), 0)
    with pytest.raises(ModelError, match=r"classes: expected two or more, got \[1\]"):
        adapter.initialise(linear_model.SGDClassifier(), 2, [1, 1])
    with pytest.raises(ModelError, match="feature_count: expected a whole number of 1 or more, got '2'"):
        adapter.LogisticNewton("2", [0, 1])
    for name in ("C", "tol", "max_iter"):
        for value in (0, -1, np.nan, np.inf, None):
            with pytest.raises(ModelError, match=f"{name}: expected a finite number above 0, got "):
                adapter.LogisticNewton(2, [0, 1], **{name: value})
    fit = adapter.LogisticNewton(2, [0, 1])
    for table in (np.ones(2), np.ones((2, 3)), np.full((2, 2), np.nan)):
        with pytest.raises(ModelError, match=r"rows: expected finite numbers of shape \(n, 2\)"):
            fit.terms(table, [0, 1])
    for labels in ([0], [0, 2], [[0, 1]]):
        with pytest.raises(ModelError, match=r"labels: expected 2 of \[0, 1\]"):
            fit.terms(np.ones((2, 2)), labels)
    for total in (np.ones(3), np.full(fit.term_count, np.nan)):
        with pytest.raises(ModelError, match=f"total: expected {fit.term_count} finite numbers"):
            fit.step(total)
    assert fit.iteration_count == 0
