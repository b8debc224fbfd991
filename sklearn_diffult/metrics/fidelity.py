"""Scores of synthetic rows against real ones.

Every metric takes vectors, or with ``features=`` any rows that this callable maps to vectors. To
use several metrics on the same rows, compute the features once and pass those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import rel_entr
from sklearn.utils import check_scalar
from sklearn.utils.validation import _num_samples

from sklearn_diffult._nearest import nearest_distances, squared_distances, take_afresh
from sklearn_diffult._seeds import new_random_state

Features = Callable[[Any], ArrayLike]

# Distances whose squares differ by less than this part of them are equal but for rounding.
_TRACE = 1e-9
# Squares of sums of larger numbers overflow.
_LARGEST = 1e150


def frechet_distance(X_new: Any, X_real: Any, *, features: Features | None = None) -> float:
    """Frechet distance between Gaussians fitted to two sets of feature vectors.

    ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))`` with means mu and unbiased covariances
    S: Eq. (6) of Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017, which
    is the FID when the features are those of an Inception network.

    Parameters
    ----------
    X_new, X_real : array-like of shape (n_new, ...) and (n_real, ...)
        One vector per row, finite, at least 2 rows each; further axes are flattened. With
        `features`, whatever that takes.
    features : callable or None, default=None
        Maps rows to vectors (n_rows, n_features), such as ``classifier.embed``.

    Returns
    -------
    distance : float
        At least 0, in squared feature units; symmetric in its arguments.

    Raises
    ------
    ValueError
        When there are fewer than 2 rows, a NaN or an infinity, or the numbers of features differ.
    TypeError
        When `features` is not callable.

    Notes
    -----
    The estimate is biased upwards when there are few rows, so compare at equal numbers of rows.

    No covariance is formed. With S = R^T R from a QR decomposition of the centred rows,
    tr (S_a S_b)^(1/2) is the sum of the singular values of R_a R_b^T. This stays real and exact
    when there are fewer rows than features, where a matrix square root of S_a S_b needs a repair.
    Time O((n_new + n_real) d^2) for d features.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_diffult.metrics import frechet_distance
    >>> rows = np.random.RandomState(0).normal(size=(100, 3))
    >>> round(frechet_distance(rows, rows + [3.0, 4.0, 0.0]), 6)
    25.0
    >>> round(frechet_distance(rows, rows + [3.0, 4.0, 0.0], features=lambda X: X[:, :1]), 6)
    9.0
    """
    new, real = _vectors_of_both(X_new, X_real, features, n_min=2)
    mean_difference = new.mean(axis=0) - real.mean(axis=0)
    factor_new, factor_real = _covariance_factor(new), _covariance_factor(real)
    overlap = np.linalg.svd(factor_new @ factor_real.T, compute_uv=False).sum()
    distance = (
        mean_difference @ mean_difference
        + np.square(factor_new).sum()
        + np.square(factor_real).sum()
        - 2 * overlap
    )
    return max(0.0, float(distance))


def _covariance_factor(rows: np.ndarray) -> np.ndarray:
    """R with R^T R the unbiased covariance of the rows."""
    centred = (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"))


def inception_score(
    X_new: Any,
    *,
    n_splits: int = 10,
    random_state: int | np.random.RandomState | None = 0,
    features: Features | None = None,
) -> tuple[float, float]:
    """Tell how sure a classifier is of each synthetic row, and how evenly it sees the classes.

    ``exp(mean over rows of KL(p(y | x) || p(y)))``, where p(y) is the mean of the p(y | x):
    Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, Section 4.

    Parameters
    ----------
    X_new : array-like of shape (n_new, n_classes)
        Class probabilities of the synthetic rows. With `features`, whatever that takes.
    n_splits : int, default=10
        Parts of equal size that are scored on their own, at most n_new.
    random_state : int, RandomState or None, default=0
        Deals the rows to the parts, as rows that come class by class would else leave each part
        with few classes. None deals differently in each call.
    features : callable or None, default=None
        Maps rows to class probabilities, such as ``classifier.predict_proba``.

    Returns
    -------
    mean, standard_deviation : float
        Over the parts (with 0 degrees of freedom taken off). The score is 1 when every row has
        the same probabilities, and n_classes when each is of one class for sure, all classes
        alike. A part of fewer rows than classes cannot score more than its number of rows.

    Raises
    ------
    ValueError
        When a row is not a distribution over the classes, or there are more splits than rows.
    TypeError
        When `n_splits` is no integer, or `features` is not callable.

    Notes
    -----
    It never looks at real rows: copies of one perfect row per class get the full score. Time
    O(n_new n_classes).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_diffult.metrics import inception_score
    >>> mean, deviation = inception_score(np.tile(np.eye(4), (50, 1)), n_splits=1)
    >>> round(mean, 6), deviation
    (4.0, 0.0)
    """
    check_scalar(n_splits, "n_splits", Integral, min_val=1)
    probabilities = _vectors("X_new", X_new, features)
    _check_distributions(probabilities)
    n_rows = len(probabilities)
    if n_splits > n_rows:
        raise ValueError(
            f"n_splits={n_splits} is more than the {n_rows} row(s) of X_new; it must be at most "
            "the number of rows."
        )
    order = new_random_state(random_state).permutation(n_rows)
    bounds = np.arange(n_splits + 1) * n_rows // n_splits
    scores = []
    for start, stop in pairwise(bounds):
        part = probabilities[order[start:stop]]
        scores.append(np.exp(rel_entr(part, part.mean(axis=0)).sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def _check_distributions(probabilities: np.ndarray) -> None:
    # Wide enough for sums of float16.
    wrong = (probabilities < 0).any(axis=1) | (np.abs(probabilities.sum(axis=1) - 1) > 1e-2)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Row {row} of X_new is no distribution over classes: its smallest value is "
            f"{probabilities[row].min():.3g} and its sum {probabilities[row].sum():.3g}. Pass "
            "class probabilities, or rows with features=classifier.predict_proba."
        )


@dataclass(frozen=True)
class ManifoldScores:
    """How far two sets of rows lie within each other's reach.

    The ball of a row is open and reaches to its k-th nearest other row of the same set.

    Attributes
    ----------
    precision : float
        Share of synthetic rows in the ball of some real row, in [0, 1].
    recall : float
        Share of real rows in the ball of some synthetic row, in [0, 1].
    density : float
        Mean number of real rows whose ball holds a synthetic row, over k; at least 0, and 1 on
        average when both sets are drawn from one distribution.
    coverage : float
        Share of real rows whose ball holds a synthetic row, in [0, 1]. On average about
        ``1 - 2**-k`` when both sets are as large and drawn from one distribution.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(
    X_new: Any, X_real: Any, *, n_neighbors: int = 5, features: Features | None = None
) -> ManifoldScores:
    """Precision, recall, density and coverage of synthetic rows.

    Precision and density fall when synthetic rows are unlike real ones, recall and coverage when
    synthetic rows leave out what is among the real ones. Density and coverage are the harder to
    fool: an outlier of a set has a large ball, which raises precision or recall.

    Parameters
    ----------
    X_new, X_real : array-like of shape (n_new, ...) and (n_real, ...)
        One vector per row, finite, more than `n_neighbors` rows each; further axes are flattened.
        With `features`, whatever that takes.
    n_neighbors : int, default=5
        k >= 1: the ball of a row reaches to its k-th nearest other row of the same set.
    features : callable or None, default=None
        Maps rows to vectors (n_rows, n_features), such as ``classifier.embed``.

    Returns
    -------
    scores : ManifoldScores

    Raises
    ------
    ValueError
        When there are too few rows for `n_neighbors`, a NaN or an infinity, or the numbers of
        features differ.
    TypeError
        When `n_neighbors` is no integer, or `features` is not callable.

    Notes
    -----
    Precision and recall: Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing
    Generative Models", NeurIPS 2019, Eqs. (1) and (2). Density and coverage: Naeem et al.,
    "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020. As in the latter's
    package ``prdc``, a row at exactly the radius is outside, which the former paper counts inside.
    This matters where rows are equal: a row with k or more copies in its set has a ball that holds
    nothing. Distances that differ by rounding alone count as equal here; in ``prdc`` rounding
    decides.

    Time O((n_new + n_real)^2 d) for d features, memory bounded beside the rows.

    Examples
    --------
    Two of three synthetic rows are between real ones, in two balls each; the third is far off, and
    two of the four real rows have no synthetic row nearby:

    >>> from sklearn_diffult.metrics import manifold_scores
    >>> X_real, X_new = [[0.0], [1.0], [10.0], [12.0]], [[0.4], [0.6], [30.0]]
    >>> manifold_scores(X_new, X_real, n_neighbors=1)
    ManifoldScores(precision=0.666..., recall=0.75, density=1.333..., coverage=0.5)
    """
    check_scalar(n_neighbors, "n_neighbors", Integral, min_val=1)
    new, real = _vectors_of_both(X_new, X_real, features)
    for name, rows in (("X_new", new), ("X_real", real)):
        if len(rows) <= n_neighbors:
            raise ValueError(
                f"{name} has {len(rows)} row(s), too few for n_neighbors={n_neighbors}: give at "
                f"least {n_neighbors + 1}, or lower n_neighbors."
            )
    new_radii, real_radii = _squared_radii(new, n_neighbors), _squared_radii(real, n_neighbors)
    n_balls = np.zeros(len(new), dtype=np.int64)
    covered, recalled = np.empty((2, len(real)), dtype=bool)
    for block, squared, error in squared_distances(real, new):
        at_real_radius = np.abs(squared - real_radii[block, None]) <= error
        at_new_radius = np.abs(squared - new_radii) <= error
        take_afresh(squared, at_real_radius | at_new_radius, real[block], new)
        in_real_ball = squared < real_radii[block, None]
        n_balls += in_real_ball.sum(axis=0)
        covered[block] = in_real_ball.any(axis=1)
        recalled[block] = (squared < new_radii).any(axis=1)
    return ManifoldScores(
        precision=float((n_balls > 0).mean()),
        recall=float(recalled.mean()),
        density=float(n_balls.mean() / n_neighbors),
        coverage=float(covered.mean()),
    )


def _squared_radii(rows: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Squared distance of each row to its k-th nearest other row, less a trace, shape (n,)."""
    radii = np.empty(len(rows))
    for block, squared, error in squared_distances(rows, rows):
        squared[np.arange(len(squared)), np.arange(len(rows))[block]] = np.inf
        reach = np.partition(squared + error, n_neighbors - 1, axis=1)[:, n_neighbors - 1]
        may_be_in_reach = squared - error <= reach[:, None]
        take_afresh(squared, may_be_in_reach, rows[block], rows)
        radii[block] = np.partition(squared, n_neighbors - 1, axis=1)[:, n_neighbors - 1]
    return (1 - _TRACE) * radii


def distance_to_closest_record(
    X_new: Any, X_real: Any, *, features: Features | None = None
) -> np.ndarray:
    """Euclidean distance from each synthetic row to the nearest real row.

    Small distances tell of synthetic rows that copy the data they were trained on.

    Parameters
    ----------
    X_new : array-like of shape (n_new, ...)
        Rows to judge, finite numbers; further axes are flattened. With `features`, whatever that
        takes.
    X_real : array-like of shape (n_real, ...)
        Rows to compare with.
    features : callable or None, default=None
        Maps rows to vectors (n_rows, n_features), such as ``classifier.embed``.

    Returns
    -------
    distances : float64 array of shape (n_new,)
        In the units of the vectors; 0 for an exact copy.

    Raises
    ------
    ValueError
        When an array is empty, has a NaN or an infinity, or the numbers of features differ.
    TypeError
        When `features` is not callable.

    Notes
    -----
    Exact search in O(n_new n_real d) time for d features, memory bounded beside the rows.

    Examples
    --------
    >>> from sklearn_diffult.metrics import distance_to_closest_record
    >>> distance_to_closest_record([[0, 0], [5, 5]], [[3, 4], [5, 5]])
    array([5., 0.])
    """
    return nearest_distances(*_vectors_of_both(X_new, X_real, features))


def _vectors_of_both(
    X_new: Any, X_real: Any, features: Features | None, n_min: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    new, real = (
        _vectors(name, rows, features, n_min)
        for name, rows in (("X_new", X_new), ("X_real", X_real))
    )
    if new.shape[1] != real.shape[1]:
        raise ValueError(
            f"X_new has {new.shape[1]} features per row and X_real {real.shape[1]}; "
            "they must be the same features."
        )
    return new, real


def _vectors(name: str, rows: Any, features: Features | None, n_min: int = 1) -> np.ndarray:
    """Rows, or what `features` maps them to, as float64 vectors (n_rows, n_features)."""
    if features is None:
        return _finite_vectors(name, rows, n_min)
    if not callable(features):
        raise TypeError(
            f"features is a {type(features).__name__}; it must be a callable that maps rows to "
            "vectors, such as the method embed of a fitted classifier, or None."
        )
    vectors = _finite_vectors(f"features({name})", features(rows), n_min)
    if len(vectors) != _num_samples(rows):
        raise ValueError(
            f"features({name}) has {len(vectors)} rows and {name} {_num_samples(rows)}; "
            "features must return one vector per row."
        )
    return vectors


def _finite_vectors(name: str, values: ArrayLike, n_min: int) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} is no array of numbers ({error}). Encode categories first, and call "
            "toarray() on sparse rows."
        ) from error
    if array.ndim < 2 or len(array) < n_min or array.size == 0:
        raise ValueError(
            f"{name} has shape {array.shape}; it must have at least {n_min} row(s) and 1 feature. "
            "Reshape a single feature with reshape(-1, 1)."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or infinite values; drop those rows or impute first.")
    largest = np.abs(array).max()
    if largest > _LARGEST or 0 < largest < 1 / _LARGEST:
        raise ValueError(
            f"The largest value of {name} is {largest:.1g}, whose square no float64 holds; scale "
            "the rows of both sets alike."
        )
    return array.reshape(len(array), -1)
