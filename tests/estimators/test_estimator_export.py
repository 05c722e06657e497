"""One table over the estimators that people use: each exports within 1e-5 of itself."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification, make_regression
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestCentroid
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from groundup.errors import ModelError
from groundup.estimators._converters import round_down
from groundup.estimators.export import export_estimator, supports

Boosted = HistGradientBoostingClassifier
CLASSIFIERS = [
    AdaBoostClassifier(n_estimators=5, random_state=0),
    BaggingClassifier(n_estimators=3, random_state=0),
    BernoulliNB(),
    CalibratedClassifierCV(LinearSVC(), cv=2),
    DecisionTreeClassifier(random_state=0),
    ExtraTreesClassifier(n_estimators=10, random_state=0),
    GaussianNB(),
    GradientBoostingClassifier(n_estimators=10, random_state=0),
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    Boosted(max_iter=15),
    Boosted(max_iter=5, max_leaf_nodes=None, min_samples_leaf=1),
    KNeighborsClassifier(),
    LinearDiscriminantAnalysis(),
    LinearSVC(),
    LogisticRegression(),
    LogisticRegressionCV(cv=2, l1_ratios=(0.0,), use_legacy_attributes=False),
    MLPClassifier((16,), max_iter=30, random_state=0),
    NuSVC(),
    QuadraticDiscriminantAnalysis(),
    RandomForestClassifier(n_estimators=10, random_state=0),
    RidgeClassifier(),
    SGDClassifier(random_state=0),
    SGDClassifier(loss="log_loss", random_state=0),
    SVC(),
    SVC(kernel="linear"),
    StackingClassifier([("a", Boosted(max_iter=3)), ("b", LogisticRegression())], cv=2),
    VotingClassifier([("a", GaussianNB()), ("b", LogisticRegression()), ("c", Boosted(max_iter=3))], voting="soft"),
    VotingClassifier([("a", GaussianNB()), ("b", LogisticRegression()), ("c", Boosted(max_iter=3))], voting="hard"),
    *(make_pipeline(scaler, Boosted(max_iter=5)) for scaler in (StandardScaler(), MinMaxScaler(clip=True), RobustScaler(), MaxAbsScaler())),
    make_pipeline(StandardScaler(), SVC()),
    make_pipeline(StandardScaler(with_mean=False), PolynomialFeatures(2), LogisticRegression(max_iter=500)),
    make_pipeline(StandardScaler(with_std=False), RandomForestClassifier(n_estimators=5, random_state=0)),
]
REGRESSORS = [
    AdaBoostRegressor(n_estimators=5, random_state=0),
    BaggingRegressor(n_estimators=3, random_state=0),
    BayesianRidge(),
    DecisionTreeRegressor(random_state=0),
    ElasticNet(alpha=0.01),
    ExtraTreesRegressor(n_estimators=10, random_state=0),
    GaussianProcessRegressor(),
    GradientBoostingRegressor(n_estimators=10, random_state=0),
    HistGradientBoostingRegressor(max_iter=15),
    HistGradientBoostingRegressor(max_iter=15, loss="poisson"),
    HistGradientBoostingRegressor(max_iter=15, loss="quantile", quantile=0.8),
    HuberRegressor(),
    KNeighborsRegressor(),
    Lasso(alpha=0.01),
    LinearRegression(),
    LinearSVR(random_state=0),
    MLPRegressor(hidden_layer_sizes=(16,), max_iter=30, random_state=0),
    PoissonRegressor(),
    RandomForestRegressor(n_estimators=10, random_state=0),
    Ridge(),
    SGDRegressor(random_state=0),
    SVR(),
    StackingRegressor([("a", Ridge()), ("b", HistGradientBoostingRegressor(max_iter=3))], cv=2),
    VotingRegressor([("a", Ridge()), ("b", HistGradientBoostingRegressor(max_iter=3))]),
    make_pipeline(StandardScaler(), SVR()),
    make_pipeline(MinMaxScaler(), HistGradientBoostingRegressor(max_iter=5)),
]


def name(estimator: Any) -> str:
    return "-".join(type(step).__name__ for _, step in estimator.steps) if isinstance(estimator, Pipeline) else type(estimator).__name__


def run(model: Any, X: Any) -> Any:
    (scores,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"features": X})
    return scores


def fit(estimator: Any, X: Any, y: Any) -> Any:
    with warnings.catch_warnings():  # unconverged fits and notices of what will change: not what is tested here
        warnings.simplefilter("ignore")
        return estimator.fit(X, y)


def expected(estimator: Any, X: Any, n_outputs: int) -> Any:
    if not is_classifier(estimator):
        return estimator.predict(X)[:, None]
    if not hasattr(estimator, "predict_proba"):
        return np.eye(n_outputs)[estimator.predict(X)]
    columns = np.zeros((len(X), n_outputs))
    columns[:, estimator.classes_] = estimator.predict_proba(X)
    return columns


def hard(X: Any, rng: np.random.Generator) -> Any:
    """The rows that were fitted on, so that values stand on thresholds, and their float32 neighbours on either side."""
    above, below = np.nextafter(X, np.float32(np.inf)), np.nextafter(X, np.float32(-np.inf))
    return np.concatenate([X, above, below, rng.normal(0, 3, X.shape).astype("f4")])


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=name)
def test_classifier(estimator: Any, n_classes: int, seed: int) -> None:
    X, y = make_classification(450, 11, n_informative=7, n_redundant=0, n_classes=n_classes, random_state=seed)
    X = X.astype(np.float32)
    fit(estimator, X, y)
    assert supports(estimator) is None
    new = hard(X, np.random.default_rng(seed))
    for n_outputs in (n_classes, n_classes + 1):  # a class that training lacked has a column, too
        scores = run(export_estimator(estimator, 11, n_outputs), new)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected(estimator, new, n_outputs), atol=1e-5)


@pytest.mark.parametrize("estimator", REGRESSORS, ids=name)
def test_regressor(estimator: Any, seed: int) -> None:
    X, y = make_regression(450, 11, noise=5, random_state=seed)
    X, y = X.astype(np.float32), np.abs(y / y.std())
    fit(estimator, X, y)
    assert supports(estimator) is None
    new = hard(X, np.random.default_rng(seed))[: 3 * len(X)]  # far from the data, e^x of a Poisson model is beyond 1e-5 of anything
    scores = run(export_estimator(estimator, (11,), 1), new)
    assert (scores.dtype, scores.shape) == (np.float32, (len(new), 1))
    np.testing.assert_allclose(scores, expected(estimator, new, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cls", [HistGradientBoostingClassifier, HistGradientBoostingRegressor])
def test_booster_sends_missing_values_the_same_way(cls: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(500, 5)).astype(np.float32)
    X[rng.random(X.shape) < 0.2] = np.nan
    y = (np.nan_to_num(X[:, 0], nan=2.0) + np.isnan(X[:, 1]) > 0.7).astype(int)
    model = cls(max_iter=20).fit(X, y)
    np.testing.assert_allclose(run(export_estimator(model, 5, 2 if is_classifier(model) else 1), X), expected(model, X, 2), atol=1e-5)


def test_booster_with_categories_is_refused() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 6, (300, 2)).astype(np.float32)
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features=[0]).fit(X, np.isin(X[:, 0], [1, 4]).astype(int))
    with pytest.raises(ModelError, match="leave categorical_features out"):
        export_estimator(model, 2, 2)


def test_thresholds_round_down() -> None:
    rng = np.random.default_rng(0)
    t = np.concatenate([rng.normal(size=1000) * 10.0 ** rng.integers(-30, 30, 1000), [0.0, np.inf, -np.inf, 1e300, -1e300, 0.1, 0.5]])
    low = round_down(t)
    with np.errstate(over="ignore"):
        neighbours = np.nextafter(low, np.float32(np.inf)), np.nextafter(low, np.float32(-np.inf))
    for x in (low, *neighbours):
        np.testing.assert_array_equal(x.astype(np.float64) <= t, x <= low)


def test_images_are_flattened_in_the_graph() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2, 3, 5)).astype(np.float32), np.arange(60) % 3
    model = LogisticRegression().fit(X.reshape(60, -1), y)
    np.testing.assert_allclose(run(export_estimator(model, (2, 3, 5), 3), X), model.predict_proba(X.reshape(60, -1)), atol=1e-5)


class Own(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A user's own estimator, which nobody has written a converter for."""

    def fit(self, X: Any, y: Any) -> Own:
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.classes_[0])


@pytest.mark.parametrize("estimator", [Own(), NearestCentroid(), make_pipeline(StandardScaler(), Own())], ids=name)
def test_missing_converter_is_named(estimator: Any) -> None:
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    missing = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    with pytest.raises(ModelError, match=f"{type(missing).__name__} has no converter"):
        export_estimator(estimator.fit(X, y), 3, 2)


def test_labels_that_are_no_indices_are_refused() -> None:
    X = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(ModelError, match="class indices"):
        export_estimator(LogisticRegression().fit(X, np.where(X[:, 0] > 0, "a", "b")), 3, 2)
    with pytest.raises(ModelError, match="not all below n_outputs = 2"):
        export_estimator(LogisticRegression().fit(X, np.arange(40) % 3), 3, 2)


def test_booster_tells_neighbouring_floats_apart(seed: int) -> None:
    """A threshold between two adjacent float32 values is no float32; rounded to the nearest it would fall on one of them."""
    rng = np.random.default_rng(seed)
    low = rng.normal(size=16).astype(np.float32)
    high = np.nextafter(low, np.float32(np.inf))
    X = np.where(rng.random((400, 16)) < 0.5, low, high)
    y = (high == X).astype(float) @ 2.0 ** np.arange(16)
    model = HistGradientBoostingRegressor(max_iter=30, min_samples_leaf=2).fit(X, y)
    assert np.ptp(model.predict(X)) > 1000, "the trees must split between the two values"
    np.testing.assert_allclose(run(export_estimator(model, 16, 1), X), expected(model, X, 1), rtol=1e-5)
