"""Containers of rows and labels: opened as arrays, rebuilt like the one that came in.

pandas is never imported here: a DataFrame or Series brings its own class along.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from os import PathLike
from typing import Any

import numpy as np
from scipy import sparse
from torch import Tensor

# Rows decoded at a time, as decoding goes through wider numbers.
BLOCK = 4096


def is_dataframe(X: Any) -> bool:
    """Tell a pandas DataFrame without importing pandas."""
    return hasattr(X, "iloc") and hasattr(X, "columns")


def is_series(y: Any) -> bool:
    """Tell a pandas Series without importing pandas."""
    return hasattr(y, "iloc") and not hasattr(y, "columns")


def template_of(X: Any) -> Any:
    """Return an empty container of the same kind, so that no training row is kept."""
    if is_dataframe(X):
        return X.iloc[:0].copy()
    if sparse.issparse(X):
        return X.__class__((0, X.shape[1]), dtype=X.dtype)
    if isinstance(X, list | tuple):
        return []
    return np.asarray(X)[:0].copy()


def open_array(X: Any) -> np.ndarray:
    """Open nested sequences and array-likes.

    Raises
    ------
    TypeError
        If `X` is a data frame of another library than pandas, or a list of text.
    ValueError
        If rows have different lengths.
    """
    if hasattr(X, "columns") and not is_dataframe(X):
        raise TypeError(
            f"X is a {type(X).__module__}.{type(X).__name__}; of data frames only those of "
            "pandas are supported. Give X.to_pandas()."
        )
    if isinstance(X, list | tuple) and X and isinstance(X[0], str | PathLike):
        raise TypeError(
            f"X holds {X[0]!r} where a row or an image is expected; files are opened first: "
            "[PIL.Image.open(path) for path in X]."
        )
    try:
        values = np.asarray(X)
        # numpy's text of any length.
        return values.astype(object) if values.dtype.kind == "T" else values
    except ValueError as error:
        raise ValueError(
            f"X holds rows of different shapes; give rows (or images) of one shape. ({error})"
        ) from error


def check_rows(shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless the shape is that of at least one row and column."""
    if 0 in shape:
        raise ValueError(f"X is empty: its shape is {shape}; give at least one row and one column.")
    if not shape:
        raise ValueError(
            "X is no set of rows; give an array, a DataFrame, a sparse matrix, or a list of "
            "rows or images."
        )
    if len(shape) != 2:
        raise ValueError(
            f"X has {len(shape)} axes; expected 2D rows (n_rows, n_columns), or images, which are "
            "one array of 3 or 4 axes, and no list of arrays: numpy.stack makes one of it. Of a "
            "single column, reshape(-1, 1) or to_frame() makes a table, of a single row "
            "reshape(1, -1), or iloc[[i]] of the DataFrame."
        )


def table_like(template: Any, columns: list[np.ndarray]) -> Any:
    """Put columns of shape (n_rows,) into a container like `template`, dtypes kept."""
    if is_dataframe(template):
        # By position: names may occur twice.
        series = {i: _series_like(template.iloc[:, i], each) for i, each in enumerate(columns)}
        return template.__class__(series).set_axis(template.columns, axis=1)
    if isinstance(template, list):
        return [list(row) for row in zip(*(each.tolist() for each in columns), strict=True)]
    # Text is cut to the length of an array's dtype only once all of it is there.
    dtype = object if template.dtype.kind in "US" else template.dtype
    table = np.empty((len(columns[0]), len(columns)), dtype=dtype)
    for position, values in enumerate(columns):
        table[:, position] = _fit_in(values, template.dtype)
    if sparse.issparse(template):
        return template.__class__(table)
    return table.astype(template.dtype, copy=False)


def _series_like(series: Any, values: np.ndarray) -> Any:
    if type(series.dtype).__name__ == "SparseDtype":
        dense = _fit_in(values, series.dtype.subtype).astype(series.dtype.subtype)
        return series.__class__(dense).astype(series.dtype)
    return series.__class__(_fit_in(values, series.dtype), dtype=series.dtype)


def _fit_in(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Make whole floats safe to cast: the largest of 64-bit integers are no floats."""
    if getattr(dtype, "kind", "O") not in "iu" or values.dtype.kind != "f":
        return values
    info = np.iinfo(getattr(dtype, "numpy_dtype", dtype))
    largest = float(info.max)
    return np.clip(values, info.min, largest if largest == info.max else np.nextafter(largest, 0))


def append_decoded(X: Any, encoded: Tensor, decode: Callable[[Tensor], Any]) -> Any:
    """Append decoded rows to rows of the same container; the first ones stay bit-identical."""
    blocks = map(decode, encoded.split(BLOCK))
    if is_dataframe(X):
        from pandas import concat

        return concat([X, *blocks], ignore_index=True)
    if sparse.issparse(X):
        return sparse.vstack([X, *blocks], format=X.format)
    if isinstance(X, list | tuple):
        return list(chain(X, *blocks))
    # Filled block by block, as the new rows as a whole are often as large as the old ones.
    rows = np.asarray(X)
    both = np.empty((len(rows) + len(encoded), *rows.shape[1:]), rows.dtype)
    both[: len(rows)] = rows
    end = len(rows)
    for block in blocks:
        both[end : end + len(block)] = block
        end += len(block)
    return both


def labels_like(template: Any, labels: np.ndarray) -> Any:
    """Put labels of shape (n_rows,) or (n_rows, n_outputs) into a container like `template`."""
    if is_series(template):
        return template.__class__(labels, name=template.name, dtype=template.dtype)
    if is_dataframe(template):
        return table_like(template, list(labels.reshape(len(labels), -1).T))
    if isinstance(template, list):
        return labels.tolist()
    return labels.astype(np.asarray(template).dtype, copy=False)
