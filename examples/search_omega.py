"""Choose omega, how much synthetic rows weigh, by cross-validation on a small table."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.preprocessing import StandardScaler

from sklearn_diffult import DiffusionBalancer, Pipeline, make_long_tailed

X, y = load_breast_cancer(return_X_y=True)
X = X[:, :10]  # the means; the spreads and extremes behind them make the task too easy
y = np.where(y == 0, "malignant", "benign")
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
X_train, y_train = make_long_tailed(X_train, y_train, imbalance_ratio=20, random_state=0)
labels, counts = np.unique(y_train, return_counts=True)
print("training rows:", dict(zip(labels.tolist(), counts.tolist(), strict=True)))

# Few steps, so that this runs in seconds; the defaults do better.
balancer = DiffusionBalancer(n_steps=100, batch_size=64, random_state=0)
pipeline = Pipeline(
    [
        ("scale", StandardScaler()),
        ("balance", balancer),
        # Any classifier that takes sample_weight: this Pipeline sees to it that they arrive.
        ("clf", LogisticRegression(max_iter=1000)),
    ]
)
search = GridSearchCV(
    pipeline, {"balance__omega": [0.0, 0.3, 0.6]}, scoring="balanced_accuracy", cv=3, n_jobs=2
)
search.fit(X_train, y_train)

print("omega   balanced accuracy in 3 folds")
for omega, mean, std in zip(
    search.cv_results_["param_balance__omega"],
    search.cv_results_["mean_test_score"],
    search.cv_results_["std_test_score"],
    strict=True,
):
    print(f"{omega:5.1f}   {mean:.3f} +- {std:.3f}")
print(f"on the test set with omega = {search.best_params_['balance__omega']}: ", end="")
print(f"{search.score(X_test, y_test):.3f}")
