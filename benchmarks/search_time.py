"""How long a search over omega, weighting and d2_max takes, beside the trainings it cannot avoid.

    python benchmarks/search_time.py        # some 12 minutes on two idle cores

Long-tailed digits, default balancer, 6 x 2 x 3 candidates, 3 folds and the refit. The classifiers'
own time is taken off; what is left is set against four calls of `fit_resample` without a cache, on
the training parts of the folds and on all rows, in the same run, and against their training loops
alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from benefit import RESULTS, machine
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from sklearn_diffult import (
    DiffusionBalancer,
    Pipeline,
    WeightedTorchClassifier,
    make_long_tailed,
)
from sklearn_diffult.diffusion import trainer

GRID = {
    "balance__omega": [0.0, 0.1, 0.3, 0.5, 0.7, 1.0],
    "balance__weighting": ["class", "row"],
    "balance__d2_max": [2.0, 3.0, 4.0],
}


class Stopwatch(LogisticRegression):
    """A classifier that adds up the seconds of its own work."""

    seconds = 0.0

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Fit, timed."""
        started = time.perf_counter()
        fitted = super().fit(X, y, sample_weight)
        Stopwatch.seconds += time.perf_counter() - started
        return fitted

    def predict(self, X: Any) -> np.ndarray:
        """Predict, timed."""
        started = time.perf_counter()
        labels = super().predict(X)
        Stopwatch.seconds += time.perf_counter() - started
        return labels


def time_judges() -> list[float]:
    """Have every training of a classifier for d2 leave its seconds in a list."""
    seconds: list[float] = []
    fit = WeightedTorchClassifier.fit

    def timed(classifier: Any, *arguments: Any) -> Any:
        started = time.perf_counter()
        fitted = fit(classifier, *arguments)
        seconds.append(time.perf_counter() - started)
        return fitted

    WeightedTorchClassifier.fit = timed  # type: ignore[method-assign]
    return seconds


def count_trainings() -> list[float]:
    """Have every training of a diffusion model leave its seconds in a list."""
    seconds: list[float] = []
    run = trainer._Training.result

    def counted(training: Any) -> Any:
        seconds.append(time.perf_counter() - training._started)
        return run(training)

    trainer._Training.result = counted  # type: ignore[method-assign]
    return seconds


def main(arguments: list[str]) -> None:
    """Measure, and write what came out."""
    parser = argparse.ArgumentParser(description="Time of a search with memory.")
    parser.add_argument("--n-steps", type=int, help="of the diffusion model; default: auto")
    options = parser.parse_args(arguments)
    X, y = load_digits(return_X_y=True)
    X, y = make_long_tailed(X, y, imbalance_ratio=20, random_state=0)
    X = X.astype(np.float32)
    parameters = {
        "n_steps": options.n_steps or "auto",
        "image_shape": (8, 8),
        "random_state": 0,
        "on_shortfall": "fill",
    }
    trainings, judges = count_trainings(), time_judges()
    folds = StratifiedKFold(3)
    warnings.simplefilter("ignore")  # of classes that had to be filled up
    with tempfile.TemporaryDirectory() as memory:
        balancer = DiffusionBalancer(memory=memory, **parameters)
        pipeline = Pipeline([("balance", balancer), ("clf", Stopwatch(max_iter=200))])
        started = time.perf_counter()
        search = GridSearchCV(pipeline, GRID, cv=folds, scoring="balanced_accuracy").fit(X, y)
        total = time.perf_counter() - started
    n_trainings, classifiers, of_d2 = len(trainings), Stopwatch.seconds, sum(judges)
    best = {name.removeprefix("balance__"): v for name, v in search.best_params_.items()}
    sets = [train for train, _ in folds.split(X, y)] + [np.arange(len(y))]
    started = time.perf_counter()
    for rows in sets:
        DiffusionBalancer(**{**parameters, **best}).fit_resample(X[rows], y[rows])
    alone = time.perf_counter() - started
    record = {
        "candidates": len(search.cv_results_["params"]),
        "trainings_in_the_search": n_trainings,
        "seconds_of_the_search": round(total, 1),
        "of_which_final_classifiers": round(classifiers, 1),
        "of_which_classifiers_of_d2": round(of_d2, 1),
        "seconds_of_four_fit_resample_alone": round(alone, 1),
        "of_which_training": round(sum(trainings[n_trainings:]), 1),
        "ratio_to_four_fit_resample": round((total - classifiers) / alone, 3),
        "ratio_to_four_training_loops": round(
            (total - classifiers - of_d2) / sum(trainings[n_trainings:]), 3
        ),
    } | machine()
    text = json.dumps(record, indent=1)
    print(text)
    Path(RESULTS / "search_time.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
