"""Containers of rows and labels: opened as arrays, rebuilt like the one that came in.

pandas is never imported here: a DataFrame or Series brings its own class along.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse


def is_dataframe(X: Any) -> bool:
    """Tell a pandas DataFrame without importing pandas."""
    return hasattr(X, "iloc") and hasattr(X, "columns")


def is_series(y: Any) -> bool:
    """Tell a pandas Series without importing pandas."""
    return hasattr(y, "iloc") and not hasattr(y, "columns")


def template_of(X: Any) -> Any:
    """Return an empty container of the same kind, so that no training row is kept."""
    if is_dataframe(X) or is_series(X):
        return X.iloc[:0].copy()
    if sparse.issparse(X):
        return X.__class__((0, X.shape[1]), dtype=X.dtype)
    if isinstance(X, list):
        return []
    return np.asarray(X)[:0].copy()


def to_matrix(X: Any, name: str = "X") -> np.ndarray:
    """Open a table (or flat image rows) as a numeric array of shape (n_rows, n_columns).

    Raises
    ------
    TypeError
        If a column is not numeric.
    ValueError
        If there are no rows, the array is not 2-D, or a value is missing or infinite.
    """
    if is_dataframe(X):
        _check_numeric_columns(X, name)
        has_missing = bool(X.isna().to_numpy().any())
        values = np.empty((0, 0)) if has_missing else X.to_numpy()
    else:
        has_missing = False
        values = X.toarray() if sparse.issparse(X) else open_array(X, name)
    if has_missing:
        raise ValueError(_not_finite(name))
    if values.size == 0:
        raise ValueError(f"{name} is empty: its shape is {values.shape}; give at least one row.")
    if values.ndim != 2:
        raise ValueError(
            f"{name} has {values.ndim} axes; expected 2D rows (n_rows, n_columns), or images as "
            "one array of 3 or 4 axes (numpy.stack turns a list of arrays into one)."
        )
    if values.dtype == object and is_dataframe(X):
        # Mixed nullable dtypes come out as objects although every column is numeric.
        values = values.astype(np.float64)
    if values.dtype.kind not in "buif":
        raise TypeError(
            f"{name} has dtype {values.dtype}; expected numbers or booleans. "
            "Encode text and categories first, or cast with astype(float)."
        )
    check_finite(values, name)
    return values


def open_array(X: Any, name: str) -> np.ndarray:
    """Open nested sequences and array-likes; rows of different lengths get a ValueError."""
    try:
        return np.asarray(X)
    except ValueError as error:
        raise ValueError(
            f"{name} holds rows of different shapes; give rows (or images) of one shape. ({error})"
        ) from error


def _check_numeric_columns(X: Any, name: str) -> None:
    for column, dtype in zip(X.columns, X.dtypes, strict=True):
        dtype = getattr(dtype, "subtype", dtype)
        if getattr(dtype, "kind", "O") not in "buif":
            raise TypeError(
                f"column {column!r} of {name} has dtype {dtype}; expected numbers or booleans. "
                "Encode text, dates and categories first (OrdinalEncoder, OneHotEncoder)."
            )


def check_finite(values: np.ndarray, name: str) -> None:
    """Raise a ValueError where floats hold NaN or infinity."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(_not_finite(name))


def _not_finite(name: str) -> str:
    return (
        f"{name} contains NaN or infinity; every value must be finite. "
        "Impute (SimpleImputer) or drop those rows first."
    )


def rows_like(template: Any, values: np.ndarray) -> Any:
    """Put an array of rows into a container like `template`, dtypes kept."""
    if is_dataframe(template):
        # By position: names may occur twice.
        frame = template.__class__(values).astype(dict(enumerate(template.dtypes)))
        return frame.set_axis(template.columns, axis=1)
    if sparse.issparse(template):
        return template.__class__(values.astype(template.dtype))
    if isinstance(template, list):
        return list(values.tolist())
    return values.astype(template.dtype, copy=False)


def stack_rows(X: Any, X_new: Any) -> Any:
    """Append rows to rows of the same container; the first ones stay bit-identical."""
    if is_dataframe(X):
        from pandas import concat

        return concat([X, X_new], ignore_index=True)
    if sparse.issparse(X):
        return sparse.vstack([X, X_new], format=X.format)
    if isinstance(X, list):
        return X + X_new
    return np.concatenate([np.asarray(X), X_new])


def labels_like(template: Any, labels: np.ndarray) -> Any:
    """Put labels of shape (n_rows,) or (n_rows, n_outputs) into a container like `template`."""
    if is_series(template):
        return template.__class__(labels, name=template.name, dtype=template.dtype)
    if is_dataframe(template):
        return rows_like(template, labels.reshape(len(labels), -1))
    if isinstance(template, list):
        return labels.tolist()
    return labels.astype(np.asarray(template).dtype, copy=False)
