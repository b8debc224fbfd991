"""Scores of classifiers by how many training rows the true class had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import make_scorer


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
    masks = shot_masks(counts, many_more_than, few_less_than)
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
    classes, recalls = _recalls(true, predicted)
    trained = _labels("y_train", y_train)
    n_trained = np.array([np.sum(trained == label) for label in classes])
    groups = shot_masks(n_trained, many_more_than, few_less_than)
    return ShotScores(
        balanced_accuracy=float(recalls.mean()),
        **{name: _mean_recall(recalls[mask]) for name, mask in groups.items()},
    )


def make_shot_scorers(
    y_train: ArrayLike, many_more_than: int = 100, few_less_than: int = 20
) -> dict[str, Callable[[Any, Any, ArrayLike], float]]:
    """Make scorers of many, medium and few shot recall for ``cross_validate`` and searches.

    The groups are those of `y_train`, the same in every fold, so that the folds' scores are about
    the same classes. A scorer is not told which rows its fold trained on: a class near a
    threshold may have fewer rows there.

    Parameters
    ----------
    y_train : array-like of shape (n_train,)
        All labels that go into the cross-validation, before any resampling.
    many_more_than, few_less_than : int, default=100, 20
        As in `shot_groups`.

    Returns
    -------
    scorers : dict of str to callable
        "balanced_accuracy", and "many", "medium" and "few" where a class is in that group; pass
        as ``scoring=``. Each returns the mean recall over the group's classes that occur in the
        fold's test rows, NaN where none does; stratify the folds to avoid that.

    Raises
    ------
    ValueError
        When `y_train` is empty or not one-dimensional, or a class would be both many and few shot.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn_diffult.datasets import make_long_tailed
    >>> from sklearn_diffult.metrics import make_shot_scorers
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = make_long_tailed(X / 16, y, imbalance_ratio=20, n_max=160, random_state=0)
    >>> scores = cross_validate(LogisticRegression(), X, y, cv=3, scoring=make_shot_scorers(y))
    >>> bool(scores["test_many"].mean() > scores["test_few"].mean())
    True
    """
    groups = shot_groups(y_train, many_more_than, few_less_than)
    groups = {name: labels for name, labels in groups.items() if labels.size}
    groups = {"balanced_accuracy": np.concatenate(list(groups.values())), **groups}
    return {name: make_scorer(_group_recall, labels=labels) for name, labels in groups.items()}


def _group_recall(y_true: ArrayLike, y_pred: ArrayLike, *, labels: np.ndarray) -> float:
    classes, recalls = _recalls(_labels("y_true", y_true), _labels("y_pred", y_pred))
    return _mean_recall(recalls[np.isin(classes, labels)])


def _recalls(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted classes of the true labels, and the recall of each."""
    if len(true) != len(predicted):
        raise ValueError(
            f"y_true has {len(true)} rows and y_pred {len(predicted)}; they must belong together."
        )
    classes, codes, n_true = np.unique(true, return_inverse=True, return_counts=True)
    return classes, np.bincount(codes, weights=true == predicted) / n_true


def _mean_recall(recalls: np.ndarray) -> float:
    return float(recalls.mean()) if recalls.size else float("nan")


def _labels(name: str, values: ArrayLike) -> np.ndarray:
    labels = np.asarray(values)
    if labels.ndim != 1 or labels.size == 0:
        raise ValueError(
            f"{name} has shape {labels.shape}; it must be one-dimensional with at least one label."
        )
    return labels


def shot_masks(
    counts: np.ndarray, many_more_than: int, few_less_than: int
) -> dict[str, np.ndarray]:
    """Mark the classes of each shot group by their training counts."""
    if few_less_than > many_more_than + 1:
        raise ValueError(
            f"few_less_than={few_less_than} and many_more_than={many_more_than} overlap: "
            f"few_less_than must be at most {many_more_than + 1}."
        )
    many, few = counts > many_more_than, counts < few_less_than
    return {"many": many, "medium": ~many & ~few, "few": few}
