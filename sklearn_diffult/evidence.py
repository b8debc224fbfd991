"""Train the classifiers whose opinions the filters d2 and d3 use, on the real rows alone."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax

from sklearn_diffult.classifier import WeightedTorchClassifier
from sklearn_diffult.filters import Evidence, Recall, Witness, compute_anew


def gather_evidence(
    encoded: torch.Tensor,
    indices: np.ndarray,
    *,
    seed: int,
    recall: Recall = compute_anew,
    **classifier_parameters: Any,
) -> Evidence:
    """Collect what the metrics may look at; classifiers are trained when they are first asked.

    d2 and d3 compare synthetic rows with real ones that the classifier has not seen, so two are
    trained on a half of the real rows each. A real row's held-out surprise comes from the other
    half's, a synthetic row's scores are the mean of both. Classes with one row are in both halves.
    centre takes a classifier trained on all real rows.

    Parameters
    ----------
    encoded : Tensor of shape (n_rows, ...)
        Encoded real rows.
    indices : ndarray of shape (n_rows,)
        Their class indices, 0 to n_classes - 1, each present.
    seed : int
        Seeds the classifiers and the halves.
    recall : callable
        As in `Evidence`; here the classifiers go through it too, as bytes.
    **classifier_parameters
        Passed to `WeightedTorchClassifier`.
    """
    n_classes = int(indices.max()) + 1
    rows = encoded.numpy()
    halves = _halves(indices, seed)

    def train(subset: np.ndarray) -> bytes:
        # Without prior correction the classifier would hardly know the rare classes.
        classifier = WeightedTorchClassifier(
            logit_adjustment=1.0, random_state=seed, **classifier_parameters
        )
        return pickle.dumps(classifier.fit(rows[subset], indices[subset]))

    @functools.cache
    def classifier_of(half: int | None) -> WeightedTorchClassifier:
        name = "classifier" if half is None else f"classifier of half {half}"
        subset = np.flatnonzero((halves == half) | (halves == 2) | (half is None))
        classifier = pickle.loads(recall(name, lambda: train(subset)))
        # The one that trained it may have had another device.
        return classifier.set_params(**classifier_parameters)

    def held_out_surprise() -> np.ndarray:
        held_out = np.full(len(rows), np.nan)
        for half in (0, 1):
            unseen = halves == half
            if unseen.any():
                classifier = classifier_of(1 - half)
                held_out[unseen] = _surprise(classifier, rows[unseen], indices[unseen])
        return held_out

    def surprise(flat: np.ndarray, label: int) -> np.ndarray:
        own, labels = flat.reshape(-1, *rows.shape[1:]), np.full(len(flat), label)
        surprises = [_surprise(classifier_of(half), own, labels) for half in (0, 1)]
        return np.mean(surprises, axis=0)

    def embed(flat: np.ndarray, half: int | None = None) -> np.ndarray:
        return _outputs(classifier_of(half), "features", flat.reshape(-1, *rows.shape[1:]))

    return Evidence(
        encoded.flatten(1).numpy(),
        indices,
        n_classes,
        twins_are_harmless=encoded.ndim == 2,
        embed=embed,
        witnesses=tuple(
            Witness(functools.partial(embed, half=half), (halves == 1 - half) | (halves == 2))
            for half in (0, 1)
        ),
        surprise=surprise,
        held_out_surprise=held_out_surprise,
        recall=recall,
    )


def _halves(indices: np.ndarray, seed: int) -> np.ndarray:
    """Assign each row to half 0 or 1, stratified; the row of a single-row class to both (2)."""
    random_state = np.random.RandomState(seed)
    halves = np.full(len(indices), 2)
    for label in np.unique(indices):
        members = random_state.permutation(np.flatnonzero(indices == label))
        if len(members) > 1:
            halves[members] = np.arange(len(members)) % 2
    return halves


def _surprise(
    classifier: WeightedTorchClassifier, rows: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """-log p(label | row), shape (n,)."""
    logits = _outputs(classifier, "__call__", rows).astype(np.float64)
    return -log_softmax(logits, axis=1)[np.arange(len(rows)), labels]


def _outputs(classifier: WeightedTorchClassifier, method: str, rows: np.ndarray) -> np.ndarray:
    # `predict` would warn of images on another scale where a poor model's are almost flat.
    return classifier._in_blocks(method, classifier._codec.encode(rows))
