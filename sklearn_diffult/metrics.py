"""Scores of classifiers on long-tailed data, and of synthetic rows against real ones.

Arrays in, arrays or floats out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ShotScores:
    """Mean recall over all classes, and over the classes with many, a medium number and few rows.

    Attributes
    ----------
    balanced_accuracy : float
        Mean recall over the classes of `y_true`, in [0, 1].
    many, medium, few : float
        The same over the classes of that group; NaN where no class is in it.
    """

    balanced_accuracy: float
    many: float
    medium: float
    few: float


def shot_groups(
    y_train: ArrayLike, many_more_than: int = 100, few_less_than: int = 20
) -> dict[str, np.ndarray]:
    """Group the classes by their number of training rows.

    Parameters
    ----------
    y_train : array-like of shape (n_rows,)
        Training labels, before any resampling.
    many_more_than : int, default=100
        A class with more rows than this is "many shot".
    few_less_than : int, default=20
        A class with fewer rows than this is "few shot"; at most ``many_more_than + 1``. The
        classes between the two are "medium shot".

    Returns
    -------
    groups : dict of str to array
        The sorted labels under "many", "medium" and "few".

    Raises
    ------
    ValueError
        When a class would be both many and few shot.

    Notes
    -----
    The default thresholds are those of Liu et al., "Large-Scale Long-Tailed Recognition in an Open
    World", CVPR 2019; small data sets need smaller ones.

    Examples
    --------
    >>> from sklearn_diffult.metrics import shot_groups
    >>> groups = shot_groups(["cat"] * 300 + ["dog"] * 50 + ["emu"] * 5)
    >>> {name: labels.tolist() for name, labels in groups.items()}
    {'many': ['cat'], 'medium': ['dog'], 'few': ['emu']}
    """
    classes, counts = np.unique(_labels("y_train", y_train), return_counts=True)
    masks = _shot_masks(counts, many_more_than, few_less_than)
    return {name: classes[mask] for name, mask in masks.items()}


def shot_scores(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    y_train: ArrayLike,
    many_more_than: int = 100,
    few_less_than: int = 20,
) -> ShotScores:
    """Score predictions by the training count of the true class.

    Parameters
    ----------
    y_true : array-like of shape (n_test,)
        True labels. Only classes that occur here are scored.
    y_pred : array-like of shape (n_test,)
        Predicted labels.
    y_train : array-like of shape (n_train,)
        Training labels, before any resampling. A class missing here is few shot.
    many_more_than, few_less_than : int, default=100, 20
        As in `shot_groups`.

    Returns
    -------
    scores : ShotScores
        Mean recall per class: over all classes, many, medium and few shot.

    Raises
    ------
    ValueError
        When `y_true` and `y_pred` differ in length, an array is empty or not one-dimensional, or a
        class would be both many and few shot.

    Examples
    --------
    >>> from sklearn_diffult.metrics import shot_scores
    >>> y_train = ["cat"] * 300 + ["dog"] * 50 + ["emu"] * 5
    >>> y_true = ["cat", "cat", "dog", "dog", "emu", "emu"]
    >>> y_pred = ["cat", "cat", "dog", "cat", "cat", "cat"]
    >>> shot_scores(y_true, y_pred, y_train)
    ShotScores(balanced_accuracy=0.5, many=1.0, medium=0.5, few=0.0)
    """
    true, predicted = _labels("y_true", y_true), _labels("y_pred", y_pred)
    if len(true) != len(predicted):
        raise ValueError(
            f"y_true has {len(true)} rows and y_pred {len(predicted)}; they must belong together."
        )
    classes, codes, n_true = np.unique(true, return_inverse=True, return_counts=True)
    recalls = np.bincount(codes, weights=true == predicted) / n_true
    trained = _labels("y_train", y_train)
    n_trained = np.array([np.sum(trained == label) for label in classes])
    groups = _shot_masks(n_trained, many_more_than, few_less_than)
    return ShotScores(
        balanced_accuracy=float(recalls.mean()),
        **{
            name: float(recalls[mask].mean()) if mask.any() else float("nan")
            for name, mask in groups.items()
        },
    )


def _labels(name: str, values: ArrayLike) -> np.ndarray:
    labels = np.asarray(values)
    if labels.ndim != 1 or labels.size == 0:
        raise ValueError(
            f"{name} has shape {labels.shape}; it must be one-dimensional with at least one label."
        )
    return labels


def _shot_masks(
    counts: np.ndarray, many_more_than: int, few_less_than: int
) -> dict[str, np.ndarray]:
    if few_less_than > many_more_than + 1:
        raise ValueError(
            f"few_less_than={few_less_than} and many_more_than={many_more_than} overlap: "
            f"few_less_than must be at most {many_more_than + 1}."
        )
    many, few = counts > many_more_than, counts < few_less_than
    return {"many": many, "medium": ~many & ~few, "few": few}


def frechet_distance(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Frechet distance between Gaussians fitted to two sets of feature vectors.

    ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))`` with means mu and unbiased covariances
    S: Eq. (6) of Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017, which
    is the FID when the features are those of an Inception network.

    Parameters
    ----------
    features_a, features_b : array-like of shape (n_a, ...) and (n_b, ...)
        One feature vector per row, finite, at least 2 rows each; further axes are flattened. The
        estimate is biased upwards when there are few rows, so compare at equal numbers of rows.

    Returns
    -------
    distance : float
        At least 0, in squared feature units; symmetric in its arguments.

    Raises
    ------
    ValueError
        When there are fewer than 2 rows, a NaN or an infinity, or the numbers of features differ.

    Notes
    -----
    No covariance is formed. With S = R^T R from a QR decomposition of the centred rows,
    tr (S_a S_b)^(1/2) is the sum of the singular values of R_a R_b^T. This stays real and exact
    when there are fewer rows than features, where a matrix square root of S_a S_b needs a repair.
    Time O((n_a + n_b) d^2) for d features.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_diffult.metrics import frechet_distance
    >>> features = np.random.RandomState(0).normal(size=(100, 3))
    >>> round(frechet_distance(features, features + [3.0, 4.0, 0.0]), 6)
    25.0
    """
    a, b = _rows("features_a", features_a, 2), _rows("features_b", features_b, 2)
    _check_same_width("features_a", a, "features_b", b)
    mean_difference = a.mean(axis=0) - b.mean(axis=0)
    factor_a, factor_b = _covariance_factor(a), _covariance_factor(b)
    overlap = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    distance = (
        mean_difference @ mean_difference
        + np.square(factor_a).sum()
        + np.square(factor_b).sum()
        - 2 * overlap
    )
    return max(0.0, float(distance))


def _covariance_factor(rows: np.ndarray) -> np.ndarray:
    """R with R^T R the unbiased covariance of the rows."""
    centred = (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"))


# Distances held at a time: 64 MiB of float64.
_CHUNK_SIZE = 2**23


def distance_to_closest_record(X_new: ArrayLike, X_real: ArrayLike) -> np.ndarray:
    """Euclidean distance from each new row to the nearest real row.

    Small distances tell of synthetic rows that copy the data they were trained on.

    Parameters
    ----------
    X_new : array-like of shape (n_new, ...)
        Rows to judge, finite numbers; further axes are flattened.
    X_real : array-like of shape (n_real, ...)
        Rows to compare with.

    Returns
    -------
    distances : float64 array of shape (n_new,)
        In the units of the rows; 0 for an exact copy.

    Raises
    ------
    ValueError
        When an array is empty, has a NaN or an infinity, or the numbers of features differ.

    Notes
    -----
    Exact search in O(n_new n_real d) time for d features, in chunks of bounded memory.

    Examples
    --------
    >>> from sklearn_diffult.metrics import distance_to_closest_record
    >>> distance_to_closest_record([[0, 0], [5, 5]], [[3, 4], [5, 5]])
    array([5., 0.])
    """
    new, real = _rows("X_new", X_new, 1), _rows("X_real", X_real, 1)
    _check_same_width("X_new", new, "X_real", real)
    # |a - b|^2 as |a|^2 + |b|^2 - 2 a.b loses digits far from the origin, so the rows are centred
    # first, and the distance to the row found is taken afresh: a copy is at exactly 0.
    centre = real.mean(axis=0)
    real = real - centre
    half_norms = np.square(real).sum(axis=1) / 2
    chunk = max(1, _CHUNK_SIZE // len(real))
    distances = np.empty(len(new))
    for start in range(0, len(new), chunk):
        rows = new[start : start + chunk] - centre
        nearest = np.argmin(half_norms - rows @ real.T, axis=1)
        distances[start : start + chunk] = np.linalg.norm(rows - real[nearest], axis=1)
    return distances


def _rows(name: str, values: ArrayLike, n_min: int) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < 2 or len(array) < n_min or array.size == 0:
        raise ValueError(
            f"{name} has shape {array.shape}; it must have at least {n_min} row(s) and 1 feature. "
            "Reshape a single feature with reshape(-1, 1)."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or infinite values; drop those rows or impute first.")
    return array.reshape(len(array), -1)


def _check_same_width(name_a: str, a: np.ndarray, name_b: str, b: np.ndarray) -> None:
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{name_a} has {a.shape[1]} features per row and {name_b} {b.shape[1]}; "
            "they must be the same features."
        )
