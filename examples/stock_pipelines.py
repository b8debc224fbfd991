"""The same two steps in three libraries' pipelines: the weights arrive in each."""

from __future__ import annotations

import imblearn.pipeline
import numpy as np
import sklearn.pipeline
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

import sklearn_diffult
from sklearn_diffult import DiffusionBalancer, WeightedTorchClassifier, make_long_tailed

X, y = load_wine(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
X_train, y_train = make_long_tailed(X_train, y_train, imbalance_ratio=8, random_state=0)


def fit_in(library, omega):
    # Few steps, so that this runs in seconds.
    balancer = DiffusionBalancer(omega=omega, n_steps=50, random_state=0)
    classifier = WeightedTorchClassifier(n_steps=100, random_state=0)
    return library.Pipeline([("balance", balancer), ("clf", classifier)]).fit(X_train, y_train)


for omega in (0.0, 0.5):
    pipelines = [
        fit_in(library, omega) for library in (sklearn_diffult, imblearn.pipeline, sklearn.pipeline)
    ]
    probabilities = [pipeline.predict_proba(X_test) for pipeline in pipelines]
    same = all(np.allclose(probabilities[0], other) for other in probabilities[1:])
    agree = "agree" if same else "differ"
    rare = probabilities[0][:, -1].mean()
    print(f"omega = {omega}: the pipelines {agree}; mean probability of the rare class {rare:.4f}")
