"""Columns of a table as scikit-learn's fitted attributes, also where it refuses their names."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import validate_data

RECORDS = ("n_features_in_", "feature_names_in_")


def record_columns(estimator: Any, X: Any, has_columns: bool) -> None:
    """Set `n_features_in_` and `feature_names_in_` as scikit-learn does; rows may have no columns.

    scikit-learn refuses names that occur twice or are partly text; here they only go unrecorded.
    """
    for name in RECORDS:
        # Left from an earlier fit.
        estimator.__dict__.pop(name, None)
    if not has_columns:
        return
    names = list(getattr(X, "columns", ()))
    if _can_be_recorded(names):
        validate_data(estimator, X, skip_check_array=True)
    else:
        estimator.n_features_in_ = len(names)


def compare_columns(estimator: Any, X: Any) -> Any:
    """Return the table; refuse one with other columns than the estimator was fitted to.

    Raises
    ------
    ValueError
        If number or names of the columns differ.
    """
    if hasattr(estimator, RECORDS[1]) or _can_be_recorded(list(getattr(X, "columns", ()))):
        validate_data(estimator, X, reset=False, skip_check_array=True)
    return X


def _can_be_recorded(names: list[Any]) -> bool:
    n_text = sum(isinstance(name, str) for name in names)
    return len(set(names)) == len(names) and n_text in (0, len(names))
