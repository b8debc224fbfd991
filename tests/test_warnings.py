"""A warning names the user's line, not one of the library."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score

from sklearn_diffult import DiffusionBalancer, Pipeline, WeightedTorchClassifier

BALANCER = DiffusionBalancer(n_steps=2, device="cpu", random_state=0)
CLASSIFIER = WeightedTorchClassifier(n_steps=2, device="cpu", random_state=0)


def line_of(call: Callable[[], Any]) -> set[tuple[str, int]]:
    """File and line of every warning that `call` gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return {(each.filename, each.lineno) for each in caught if "flat images" in str(each.message)}


@pytest.mark.parametrize(
    "call",
    [
        lambda X, y: BALANCER.fit(X, y),
        lambda X, y: BALANCER.fit_resample(X, y),
        lambda X, y: CLASSIFIER.fit(X, y),
        lambda X, y: Pipeline([("balance", BALANCER), ("classify", CLASSIFIER)]).fit(X, y),
        lambda X, y: cross_val_score(CLASSIFIER, X, y, cv=2),
    ],
    ids=["fit", "fit_resample", "classifier", "pipeline", "cross_val_score"],
)
def test_the_line_is_the_callers(call: Callable[[Any, Any], Any]) -> None:
    X = np.random.default_rng(0).integers(0, 17, (30, 64))
    X[:, :2] = 0, 16
    y = np.repeat([0, 0, 1], 10)
    assert line_of(lambda: call(X, y)) == {(__file__, call.__code__.co_firstlineno)}


def test_the_line_is_the_callers_where_a_cached_property_warns(tmp_path) -> None:
    lock = threading.Lock()  # which nothing can pickle
    balancer = DiffusionBalancer(
        n_steps=2,
        n_solver_steps=2,
        memory=tmp_path,
        start=lambda labels, label: (lock.locked(), labels == label)[1],
        start_noise=1.0,
        random_state=0,
    )
    X, y = np.random.default_rng(0).normal(size=(30, 2)), np.repeat([0, 0, 1], 10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        balancer.fit_resample(X, y)
    files = {each.filename for each in caught if "pickle" in str(each.message)}
    assert files == {__file__}
