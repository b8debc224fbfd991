"""Filter synthetic rows: d1, d2, d3 and the near-copy guard, from the training data alone.

The paper (arXiv 2403.05170) names three metrics whose formulas no public page that we could reach
gives; the definitions here are ours. Every score is divided by what real rows of the class show
among themselves, so 1 means "as far as real rows are from each other" and a threshold carries over
from one data set to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from sklearn_diffult._nearest import (
    nearest_distances,
    nearest_in_units,
    nearest_other,
    paired_distances,
)

# A class with fewer rows has too few distances for a median of its own.
MIN_ROWS_FOR_OWN_SCALE = 10
# Real rows per class whose nearest neighbour is looked up.
MAX_QUERIES = 2_000
# Rows nearer than this, in units of d1, are equal but for rounding.
EXACT = 1e-6
# In nats: rows that the classifiers hold for their class at 99 % surprise nobody.
LEAST_SURPRISE = 0.01


def leave_one_out(
    rows: np.ndarray, labels: np.ndarray, *, any_class: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest other row of the class, or of any, for each real row.

    Returns
    -------
    queries, nearest : ndarray of int, shape (m,)
        Rows and the number of the nearest other one of each. Rows that are alone have no part, nor
        have all but an even spread of `MAX_QUERIES` rows of a large class: a median needs no more.
    """
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    spreads = [_even_spread(members) for members in classes]
    if any_class:
        classes, spreads = [np.arange(len(rows))], [np.concatenate(spreads)]
    found = [np.zeros((2, 0), dtype=np.int64)]
    for others, asked in zip(classes, spreads, strict=True):
        if len(others) > 1:
            found.append(np.stack([asked, nearest_other(rows, asked, others)]))
    queries, nearest = np.concatenate(found, axis=1)
    return queries, nearest


def leave_one_out_distances(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Distance from each real row to the nearest other row of its class, shape (n,).

    NaN for the rows that have no part in `leave_one_out`.
    """
    distances = np.full(len(rows), np.nan)
    queries, nearest = leave_one_out(rows, labels)
    distances[queries] = paired_distances(rows[queries], rows, nearest)
    return distances


def farthest_distances(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Distance from each real row to the farthest of its class, shape (n,); NaN where alone.

    Among an even spread of `MAX_QUERIES` rows of a large class; the others get NaN.
    """
    distances = np.full(len(rows), np.nan)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) > 1:
            chosen = _even_spread(members)
            distances[chosen] = cdist(rows[chosen], rows[chosen]).max(axis=1)
    return distances


def _even_spread(members: np.ndarray) -> np.ndarray:
    return members[np.linspace(0, len(members) - 1, min(len(members), MAX_QUERIES)).astype(int)]


def class_scales(
    values: np.ndarray, labels: np.ndarray, n_classes: int, statistic: Callable = np.median
) -> np.ndarray:
    """Typical value of real rows per class, pooled where a class has too few, shape (n_classes,).

    Always positive: where the pooled statistic is 0 (over half of the rows are duplicates), the
    mean of the positive values stands in, and 1 if there are none.
    """
    known = np.isfinite(values)
    pooled = float(statistic(values[known])) if known.any() else 0.0
    if pooled <= 0:
        positive = values[known & (values > 0)]
        pooled = float(positive.mean()) if len(positive) else 1.0
    scales = np.full(n_classes, pooled)
    for label in range(n_classes):
        own = values[known & (labels == label)]
        if len(own) >= MIN_ROWS_FOR_OWN_SCALE and statistic(own) > 0:
            scales[label] = statistic(own)
    return scales


Embed = Callable[[np.ndarray], np.ndarray]
Recall = Callable[[str, Callable[[], Any]], Any]


def compute_anew(name: str, compute: Callable[[], Any]) -> Any:
    """Recall nothing."""
    return compute()


@dataclass(frozen=True)
class Witness:
    """Features by a classifier, and which real rows it has not seen.

    Attributes
    ----------
    embed : callable
        Maps rows (n, n_values) to features (n, n_features).
    unseen : ndarray of bool, shape (n_real,)
        Rows that it was not trained on, of each class at least one; the only row of a class counts
        though it was.
    """

    embed: Embed
    unseen: np.ndarray


@dataclass
class Evidence:
    """What the metrics may look at: real rows, and what a classifier trained on them says.

    Attributes
    ----------
    rows : ndarray of shape (n_real, n_values)
        Real rows in encoded input space, flattened.
    labels : ndarray of shape (n_real,)
        Class indices of the real rows.
    n_classes : int
        Number of classes.
    twins_are_harmless : bool
        Whether rows that have an equal twin give nothing away, as in tables.
    embed : callable or None
        Maps rows (n, n_values) to features (n, n_features) of a classifier of all real rows. Needed
        by centre.
    witnesses : tuple of Witness
        Classifiers of a part of the real rows each. Needed by d2.
    surprise : callable or None
        Maps rows (n, n_values) and a class index to -log p(class | row), shape (n,). Needed by d3.
    held_out_surprise : callable or None
        Returns -log p(label | row) of each real row under a classifier that has not seen it, shape
        (n_real,); NaN where there is none. Needed by d3.
    recall : callable
        ``recall(name, compute)`` returns ``compute()``, or what it was the last time for the same
        real rows.
    """

    rows: np.ndarray
    labels: np.ndarray
    n_classes: int
    twins_are_harmless: bool = True
    embed: Embed | None = None
    witnesses: tuple[Witness, ...] = ()
    surprise: Callable[[np.ndarray, int], np.ndarray] | None = None
    held_out_surprise: Callable[[], np.ndarray] | None = None
    recall: Recall = compute_anew
    _cache: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def remember(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return ``compute()``, computed once."""
        if name not in self._cache:
            self._cache[name] = self.recall(name, compute)
        return self._cache[name]


def score_d1(evidence: Evidence, rows: np.ndarray, label: int) -> np.ndarray:
    """Distance in input space to the nearest real row of the class, over the class's scale."""
    own = evidence.rows[evidence.labels == label]
    return nearest_distances(rows, own) / d1_scales(evidence)[label]


def d1_scales(evidence: Evidence) -> np.ndarray:
    """Median distance between neighbouring real rows of each class, shape (n_classes,)."""
    return evidence.remember(
        "d1",
        lambda: class_scales(
            leave_one_out_distances(evidence.rows, evidence.labels),
            evidence.labels,
            evidence.n_classes,
        ),
    )


def score_copy(evidence: Evidence, rows: np.ndarray, label: int) -> np.ndarray:
    """Smallest d1 with regard to any class: a copy gives a row away under another label too.

    Real rows that have an equal twin do not count where twins are harmless; infinite where no row
    counts.
    """
    real = evidence.remember("gives away", lambda: _gives_away(evidence))
    if not real.any():
        return np.full(len(rows), np.inf)
    units = d1_scales(evidence)[evidence.labels[real]]
    return nearest_in_units(rows, evidence.rows[real], units)


def _gives_away(evidence: Evidence) -> np.ndarray:
    """Tell for each real row whether a synthetic one that equals it gives it away, shape (n_real,).

    In a table, what several rows share is no one's: the same few numbers, or nothing but missing
    values and categories. Twins among images are copies that somebody made.
    """
    if not evidence.twins_are_harmless:
        return np.ones(len(evidence.rows), dtype=bool)
    _, which, counts = np.unique(evidence.rows, axis=0, return_inverse=True, return_counts=True)
    return counts[which.reshape(-1)] == 1


def score_d2(evidence: Evidence, rows: np.ndarray, label: int) -> np.ndarray:
    """d1 among the features of classifiers, to the real rows that each has not seen; their mean.

    Among the rows that it has seen, a classifier draws rare classes together, so that new rows of
    the class would lie far away.
    """
    if not evidence.witnesses:
        raise ValueError("d2 needs classifiers: Evidence.witnesses is empty.")
    scales = evidence.remember("d2", lambda: _d2_scales(evidence))
    scores = []
    for number, witness in enumerate(evidence.witnesses):
        own = _unseen_features(evidence, number)[evidence.labels[witness.unseen] == label]
        scores.append(nearest_distances(witness.embed(rows), own) / scales[number, label])
    return np.mean(scores, axis=0)


def _unseen_features(evidence: Evidence, number: int) -> np.ndarray:
    """What a witness makes of the real rows that it has not seen."""
    witness = evidence.witnesses[number]
    return evidence.remember(
        f"d2 features {number}", lambda: witness.embed(evidence.rows[witness.unseen])
    )


def _d2_scales(evidence: Evidence) -> np.ndarray:
    """Median distance between neighbours of each class, shape (n_witnesses, n_classes).

    A class's share of a witness's own unit comes from all witnesses, as each has a part of its
    rows.
    """
    units, distances, labels = [], [], []
    for number, witness in enumerate(evidence.witnesses):
        labels.append(evidence.labels[witness.unseen])
        own = leave_one_out_distances(_unseen_features(evidence, number), labels[-1])
        units.append(class_scales(own, np.zeros_like(labels[-1]), 1)[0])
        distances.append(own / units[-1])
    shares = class_scales(np.concatenate(distances), np.concatenate(labels), evidence.n_classes)
    return np.outer(units, shares)


def score_d3(evidence: Evidence, rows: np.ndarray, label: int) -> np.ndarray:
    """Surprise -log p(class | row), over the mean surprise of held-out real rows of the class.

    At least over 0.01, as in a class that is easily told the mean is nothing but noise.
    """
    if evidence.surprise is None or evidence.held_out_surprise is None:
        raise ValueError("d3 needs a classifier: Evidence.surprise is None.")
    held_out = evidence.held_out_surprise
    scales = evidence.remember(
        "d3",
        # The median surprise of easy classes is next to 0; the mean is their cross-entropy.
        lambda: class_scales(held_out(), evidence.labels, evidence.n_classes, np.mean),
    )
    return evidence.surprise(rows, label) / max(scales[label], LEAST_SURPRISE)


def score_centre(evidence: Evidence, rows: np.ndarray, label: int) -> np.ndarray:
    """Distance in classifier features to the class's mean, over the class's diameter.

    The second version of the paper (Shao et al., NeurIPS 2024) calls rows with a score of at most
    1 in-distribution (ID), of at most 2 approximately so (AID), and the others out of distribution
    (OOD): see `bands`. Its diameter d_f is the largest distance between two real rows; a class of
    fewer than 10 rows gets the largest of any class, so that few of its rows are out.
    """
    if evidence.embed is None:
        raise ValueError("centre needs a classifier: Evidence.embed is None.")
    embed = evidence.embed
    features = evidence.remember("features", lambda: embed(evidence.rows))
    diameters = evidence.remember(
        "centre",
        lambda: class_scales(
            farthest_distances(features, evidence.labels),
            evidence.labels,
            evidence.n_classes,
            np.max,
        ),
    )
    centre = features[evidence.labels == label].mean(axis=0)
    return np.linalg.norm(embed(rows) - centre, axis=1) / diameters[label]


BANDS = ("ID", "AID", "OOD")


def bands(scores: np.ndarray) -> np.ndarray:
    """Name the band of each row by its score "centre": "ID", "AID" or "OOD", shape (n,).

    Examples
    --------
    >>> from sklearn_diffult.filters import bands
    >>> bands([0.2, 1.0, 1.5, 2.1]).tolist()
    ['ID', 'ID', 'AID', 'OOD']
    """
    return np.array(BANDS)[np.digitize(scores, [1.0, 2.0], right=True)]


Metric = Callable[[Evidence, np.ndarray, int], np.ndarray]

# Scores of rows (n, n_values) of one class, shape (n,); lower is closer to real.
METRICS: dict[str, Metric] = {
    "d1": score_d1,
    "d2": score_d2,
    "d3": score_d3,
    "centre": score_centre,
    "copy": score_copy,
}


@dataclass(frozen=True)
class FilterPlan:
    """Thresholds on scores: a row is kept if every score is at most its maximum.

    Attributes
    ----------
    maxima : dict of str to float
        Highest score allowed, per metric that is on.
    d1_min : float
        Rows whose d1 with regard to any class lies below are near-copies of a real row and never
        kept. 0 rejects exact copies only.
    copies_allowed : bool
        Whether even exact copies are no one's in particular.
    """

    maxima: dict[str, float]
    d1_min: float
    copies_allowed: bool = False

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics whose scores decide."""
        return sorted({*self.maxima, *([] if self.copies_allowed else ["copy"])})


@dataclass(frozen=True)
class Verdict:
    """Decisions for n rows of one class.

    Attributes
    ----------
    failed : dict of str to bool ndarray of shape (n,)
        Per metric, and ``"near_copy"``.
    badness : ndarray of shape (n,)
        Largest score over its maximum; infinite for near-copies. At most 1 means kept.
    """

    failed: dict[str, np.ndarray]
    badness: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Boolean mask of the rows that pass, shape (n,)."""
        return self.badness <= 1


def judge(scores: dict[str, np.ndarray], n_rows: int, plan: FilterPlan) -> Verdict:
    """Decide which of n rows of one class to keep, by their scores (n,) in `plan.metrics`."""
    failed = {name: scores[name] > maximum for name, maximum in plan.maxima.items()}
    badness = np.zeros(n_rows)
    for name, maximum in plan.maxima.items():
        badness = np.maximum(badness, scores[name] / maximum)
    if not plan.copies_allowed:
        failed["near_copy"] = scores["copy"] < max(plan.d1_min, EXACT)
        badness[failed["near_copy"]] = np.inf
    return Verdict(failed, badness)
