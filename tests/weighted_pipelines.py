"""What the tests of our pipeline and of the stock ones share: data, steps, and fits by hand."""

from __future__ import annotations

import imblearn.pipeline
import numpy as np
import pandas as pd
import sklearn
import sklearn.pipeline
from sklearn.base import clone

from sklearn_diffult.balancer import DiffusionBalancer
from sklearn_diffult.classifier import WeightedTorchClassifier
from sklearn_diffult.pipeline import Pipeline

X = np.random.RandomState(0).normal(size=(30, 3))
Y = np.repeat(["few", "many"], [9, 21])
X[Y == "few"] += 1
OURS, IMBLEARN, SKLEARN = Pipeline, imblearn.pipeline.Pipeline, sklearn.pipeline.Pipeline
PIPELINES = {"ours": OURS, "imblearn": IMBLEARN, "sklearn": SKLEARN}
Y_CONTAINERS = {
    "array": np.asarray,
    "list": lambda y: list(map(str, y)),
    "series": pd.Series,
    "indexed series": lambda y: pd.Series(y, index=np.arange(len(y))[::-1] * 3),
    "frame": lambda y: pd.DataFrame({"label": y}),
}


def balancer(**changes):
    parameters = {"n_steps": 2, "n_solver_steps": 2, "d1_min": 0, "d3_max": None}
    return DiffusionBalancer(**{**parameters, "omega": 0.3, "random_state": 0, **changes})


def torch_classifier():
    return WeightedTorchClassifier("mlp", n_steps=4, random_state=0)


def pipe(kind, final, between=(), **kwargs):
    return kind([("balance", balancer()), *between, ("clf", final)], **kwargs)


def by_hand(final, keyword="sample_weight", **changes):
    """What `final` predicts for X after a fit with the weights given as an argument."""
    X_balanced, y_balanced, weights = balancer(**changes).fit_resample_weighted(X, Y)
    given = {} if keyword is None else {keyword: weights}
    return clone(final).fit(X_balanced, y_balanced, **given).predict_proba(X)


def assert_as_by_hand(pipeline, final, keyword="sample_weight"):
    expected = by_hand(final, keyword)
    # A weight that got lost must show.
    assert not np.array_equal(expected, by_hand(final, None))
    np.testing.assert_array_equal(pipeline.predict_proba(X), expected)


def asking(estimator):
    """The estimator, asking for weights where metadata routing is enabled."""
    if not sklearn.get_config()["enable_metadata_routing"]:
        return estimator
    estimator.set_fit_request(sample_weight=True)
    return estimator.set_score_request(sample_weight=True)


def make_sklearn(first, last):
    return SKLEARN([("first", first), ("clf", last)])
