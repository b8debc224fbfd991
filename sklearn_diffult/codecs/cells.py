"""Columns of a table as they come in, opened one by one: what they hold, and what is refused."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Collection
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_diffult._missing import is_missing
from sklearn_diffult.codecs.containers import check_rows, is_dataframe, open_array

# Beyond this, differences of values could overflow.
LARGEST = 1e300

_TIMES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)


@dataclass(frozen=True)
class Cells:
    """One column, opened.

    Attributes
    ----------
    title : str
        What messages call the column, such as "column 'age' of X".
    kind : {"real", "whole", "bool", "text"}
        Numbers with or without a fraction, truth values, or anything else that can be told apart.
    values : ndarray of shape (n_rows,)
        Numbers or booleans in their dtype, NaN where missing; or objects, None where missing.
    missing : object
        What stood for a missing value in a column of objects.
    is_declared : bool
        Whether it has pandas' dtype category, so that numbers in it are names.
    """

    title: str
    kind: str
    values: np.ndarray
    missing: Any = None
    is_declared: bool = False

    def as_numbers(self, is_first: bool = False) -> np.ndarray:
        """Return float64 of shape (n_rows,), NaN where missing; `is_first` in ``fit``.

        Raises
        ------
        TypeError
            If the column holds text.
        ValueError
            If a number is infinite or too large.
        """
        if self.kind == "text" and (present := [v for v in self.values if v is not None]):
            first = next((v for v in present if not isinstance(v, Real)), present[0])
            way_out = "fit anew on text, named in categorical_features if that lists columns"
            if is_first:
                way_out = "name this column in categorical_features too, or leave that 'auto'"
            raise TypeError(
                f"{self.title} holds {type(first).__name__} such as {first!r}, where numbers are "
                f"expected; {way_out}, or replace such values (numbers as text by astype(float))."
            )
        numbers = self.values.astype(np.float64)
        if np.isinf(numbers).any():
            raise ValueError(
                f"{self.title} contains infinity; replace it with NaN, which counts as missing, "
                "or with a number."
            )
        if (np.abs(numbers) > LARGEST).any():
            raise ValueError(
                f"{self.title} spans {np.nanmin(numbers):g} to {np.nanmax(numbers):g}, too wide; "
                "rescale it, for example by its logarithm."
            )
        return numbers

    def as_objects(self) -> list[Any]:
        """Return Python objects that can be told apart and looked up, None where missing."""
        values = self.values.tolist()
        if self.values.dtype.kind == "f":
            number = int if self.kind == "whole" else float
            return [None if value != value else number(value) for value in values]
        return values


def open_columns(X: Any) -> list[Cells]:
    """Open each column of a table.

    Raises
    ------
    TypeError
        If a column holds dates, time spans, complex numbers, or objects such as lists or dicts.
    ValueError
        If there are no rows or columns, or X is not 2-D.
    """
    if is_dataframe(X):
        check_rows(X.shape)
        return [
            _open_series(X.iloc[:, position], f"column {name!r} of X")
            for position, name in enumerate(X.columns)
        ]
    values = X.toarray() if sparse.issparse(X) else open_array(X)
    check_rows(values.shape)
    if isinstance(X, list | tuple):
        # A list has no dtype: each of its columns shall keep its own Python type.
        values = np.array(X, dtype=object)
    open_one = _open_objects if values.dtype.kind in "OUS" else _open_numbers
    return [open_one(column, f"column {i} of X") for i, column in enumerate(values.T)]


def is_category_dtype(dtype: Any) -> bool:
    """Tell pandas' dtype category without importing pandas."""
    return type(dtype).__name__ == "CategoricalDtype"


def has_columns(X: Any) -> bool:
    """Tell a data frame, or an array or list of objects or text, from rows of numbers."""
    if hasattr(X, "columns"):
        return True
    if isinstance(X, list | tuple):
        try:
            X = np.asarray(X)
        except ValueError:
            # Rows of different lengths.
            return False
    return getattr(getattr(X, "dtype", None), "kind", "f") in "OUST" and X.ndim == 2


def _open_series(series: Any, title: str) -> Cells:
    dtype = series.dtype
    if type(dtype).__name__ == "SparseDtype":
        dtype = dtype.subtype
    is_nullable = not isinstance(dtype, np.dtype)
    kind = getattr(dtype, "kind", "O")
    if kind in "mMc" or type(dtype).__name__ == "PeriodDtype":
        _refuse(title, str(dtype))
    if kind in "iuf" and is_nullable:
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        if kind != "f" and (np.abs(values) >= 2**53).any():
            # Floats do not tell them apart, and they may be names.
            return _open_objects(series.to_numpy(dtype=object), title)
        return Cells(title, "real" if kind == "f" else "whole", values)
    if kind in "OUSb" and (is_nullable or kind != "b"):
        cells = _open_objects(series.to_numpy(dtype=object), title)
        return replace(cells, is_declared=is_category_dtype(dtype))
    return _open_numbers(series.to_numpy(), title)


def _open_numbers(values: np.ndarray, title: str) -> Cells:
    kinds = {"f": "real", "i": "whole", "u": "whole", "b": "bool"}
    if values.dtype.kind not in kinds:
        _refuse(title, str(values.dtype))
    return Cells(title, kinds[values.dtype.kind], values)


def _open_objects(values: np.ndarray, title: str) -> Cells:
    items = values.tolist()
    types = set(map(type, items))
    if decimal.Decimal in types:
        raise TypeError(
            f"{title} holds Decimal, which would be taken for text. Give floats, by astype(float)."
        )
    for each in types:
        nested = issubclass(each, Collection) and not issubclass(each, str | bytes)
        if nested or each.__hash__ is None or issubclass(each, _TIMES + (complex,)):
            _refuse(title, each.__name__)
    absent = [is_missing(item) for item in items]
    cells = np.array(items + [None], dtype=object)[:-1]
    cells[absent] = None
    types = {type(item) for item in cells if item is not None}
    missing = items[absent.index(True)] if any(absent) else None
    return Cells(title, _kind_of(types), cells, missing)


def _kind_of(types: set[type]) -> str:
    if types and all(issubclass(each, bool | np.bool_) for each in types):
        return "bool"
    if bool in types or not types or not all(issubclass(each, Real) for each in types):
        return "text"
    return "whole" if all(issubclass(each, Integral) for each in types) else "real"


def _refuse(title: str, what: str) -> None:
    raise TypeError(
        f"{title} holds {what}; in a table, a value must be a string, a truth value or a "
        "number. Encode dates and time spans as numbers (days since a date) or as categories "
        "(weekday, month), and spread nested values over columns."
    )
