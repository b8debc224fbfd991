"""Labels, the classes they belong to, and the weight of a class."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import assert_all_finite, column_or_1d, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets


def check_labels(y: Any) -> np.ndarray:
    """Return labels as an array of shape (n_rows,); refuse None, NaN and regression targets."""
    if y is None:
        raise ValueError("A classifier requires y to be passed, but the target y is None.")
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
