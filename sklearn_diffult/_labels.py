"""Labels, the classes they belong to, and the weight of a class."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils import assert_all_finite, column_or_1d, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from sklearn_diffult._missing import is_missing
from sklearn_diffult._warnings import first_few


def check_objects(y: Any) -> None:
    """Refuse what numpy, pandas or scikit-learn would trip over, in words that name y.

    Raises
    ------
    ValueError
        If a label is missing, or text comes in several columns.
    TypeError
        If there is text among numbers.
    """
    values = np.asarray(y)
    if isinstance(y, list | tuple) and values.dtype.kind in "US":
        values = np.asarray(y, dtype=object)  # numpy makes text of numbers among text
    has_gaps = values.dtype.kind == "f" and np.isnan(values).any()
    if values.dtype.kind not in "OUS" and not has_gaps:
        return
    if values.ndim > 1 and values.shape[1] > 1:
        raise ValueError(
            f"y has shape {values.shape}; give one label per row. Only one-hot columns of 0 and 1 "
            "may be several."
        )
    labels = values.ravel().tolist()
    gaps = [row for row, label in enumerate(labels) if is_missing(label)]
    if gaps:
        few = first_few([str(row) for row in gaps])
        raise ValueError(
            f"Input y contains NaN, None or NA; rows without a label: {len(gaps)} (row {few}). "
            "Drop them, or give them a label of their own."
        )
    text = next((label for label in labels if isinstance(label, str)), None)
    number = next((label for label in labels if isinstance(label, Real)), None)
    if text is not None and number is not None:
        raise TypeError(
            f"y mixes text and numbers, such as {text!r} and {number!r}, which cannot be sorted; "
            "make all of them text or all of them numbers."
        )


def check_labels(y: Any) -> np.ndarray:
    """Return labels as an array of shape (n_rows,); refuse None, NaN and regression targets."""
    if y is None:
        raise ValueError("A classifier requires y to be passed, but the target y is None.")
    check_objects(y)
    shape = np.asarray(y).shape
    if len(shape) == 2 and shape[1] > 1:
        raise ValueError(
            f"y should be a 1d array, got an array of shape {shape} instead; give one label "
            "per row, y.argmax(axis=1) in the place of one-hot columns."
        )
    y = column_or_1d(y, warn=True)
    assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    return y


def check_classes(classes: Any, seen: np.ndarray | None) -> np.ndarray:
    """Return the sorted classes of ``partial_fit``; `seen` are those of an earlier call."""
    if classes is None:
        if seen is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return seen
    classes = np.unique(column_or_1d(classes))
    if seen is not None and not np.array_equal(classes, seen):
        raise ValueError(
            f"classes={classes.tolist()} differ from those seen before, {seen.tolist()}; "
            "leave classes out after the first call."
        )
    if len(classes) < 2:
        raise ValueError(f"classes={classes.tolist()} must hold at least 2 classes.")
    return classes


def class_factors(
    class_weight: Any, y: np.ndarray, sample_weight: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Return the factor that `class_weight` gives each row, shape (n_rows,)."""
    factors = compute_class_weight(class_weight, classes=classes, y=y, sample_weight=sample_weight)
    if not np.isfinite(factors).all() or (factors < 0).any():
        raise ValueError(
            f"class_weight={class_weight!r} must hold finite numbers that are not negative."
        )
    factors = factors[np.searchsorted(classes, y)]
    if not factors.any():
        raise ValueError(f"class_weight={class_weight!r} leaves no row any weight.")
    return factors


def logit_shift(tau: float, class_mass: np.ndarray) -> np.ndarray:
    """Tau log(prior) by weight of each class, Menon et al. 2021, Eq. (10), float32 (n_classes,).

    It is 0 for a class not seen yet: the logarithm of its prior would keep it from being pushed
    down in training, and prediction goes without the shift.
    """
    is_seen, prior = class_mass > 0, class_mass / class_mass.sum()
    return (tau * np.log(prior, where=is_seen, out=np.zeros(len(prior)))).astype(np.float32)
