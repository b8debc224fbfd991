"""Train the classifiers whose opinions the filters d2 and d3 use, on the real rows alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sklearn_diffult.classifier import WeightedTorchClassifier
from sklearn_diffult.filters import Evidence, FilterPlan


def gather_evidence(
    encoded: torch.Tensor,
    indices: np.ndarray,
    plan: FilterPlan,
    *,
    seed: int,
    **classifier_parameters: Any,
) -> Evidence:
    """Collect what the metrics that are on need to look at.

    d2 takes one classifier trained on all real rows. d3 compares a synthetic row's surprise with
    that of real rows the classifier has not seen, so two classifiers are trained on a half each;
    a row's held-out surprise comes from the other half's, a synthetic row's is the mean of both.
    Classes with one row are in both halves.

    Parameters
    ----------
    encoded : Tensor of shape (n_rows, ...)
        Encoded real rows.
    indices : ndarray of shape (n_rows,)
        Their class indices, 0 to n_classes - 1, each present.
    plan : FilterPlan
        Tells which metrics are on.
    seed : int
        Seeds the classifiers and the halves.
    **classifier_parameters
        Passed to `WeightedTorchClassifier`.
    """
    n_classes = int(indices.max()) + 1
    rows = encoded.numpy()

    def train(subset: np.ndarray | slice) -> WeightedTorchClassifier:
        # Without prior correction the classifier would hardly know the rare classes.
        classifier = WeightedTorchClassifier(
            logit_adjustment=1.0, random_state=seed, **classifier_parameters
        )
        return classifier.fit(rows[subset], indices[subset])

    evidence = Evidence(encoded.flatten(1).numpy(), indices, n_classes)
    if plan.needs("features"):
        classifier = train(slice(None))
        evidence.embed = lambda flat: classifier.embed(flat.reshape(-1, *rows.shape[1:]))
    if plan.needs("probabilities"):
        halves = _halves(indices, seed)
        judges = [train(np.flatnonzero((halves == half) | (halves == 2))) for half in (0, 1)]
        surprises = [_surprise_of(judge, rows.shape[1:]) for judge in judges]
        evidence.surprise = lambda flat, label: np.mean(
            [surprise(flat, np.full(len(flat), label)) for surprise in surprises], axis=0
        )
        held_out = np.full(len(rows), np.nan)
        for half in (0, 1):
            unseen = halves == half
            held_out[unseen] = surprises[1 - half](evidence.rows[unseen], indices[unseen])
        evidence.held_out_surprise = held_out
    return evidence


def _halves(indices: np.ndarray, seed: int) -> np.ndarray:
    """Assign each row to half 0 or 1, stratified; the row of a single-row class to both (2)."""
    random_state = np.random.RandomState(seed)
    halves = np.full(len(indices), 2)
    for label in np.unique(indices):
        members = random_state.permutation(np.flatnonzero(indices == label))
        if len(members) > 1:
            halves[members] = np.arange(len(members)) % 2
    return halves


def _surprise_of(
    classifier: WeightedTorchClassifier, shape: tuple[int, ...]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def surprise(flat: np.ndarray, labels: np.ndarray) -> np.ndarray:
        log_probabilities = classifier.predict_log_proba(flat.reshape(-1, *shape))
        return -log_probabilities[np.arange(len(flat)), labels]

    return surprise
