"""Codecs as plain data, so that they can be saved without pickle: JSON beside named arrays.

A state is a pair: a dict of what JSON can hold, and a dict of arrays.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_diffult.codecs.columns import (
    MAX_DECIMALS,
    CategoryColumn,
    ColumnCodec,
    ConstantColumn,
    GappyColumn,
    NumberColumn,
)
from sklearn_diffult.codecs.containers import is_dataframe

State = tuple[dict[str, Any], dict[str, np.ndarray]]

_NAME = "column name"
_KNOTS = ("values", "low", "middle", "high")
_SPARSE = [
    f"{form}_{kind}"
    for form in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
    for kind in ("array", "matrix")
]


def claim(holds: bool, what: str) -> None:
    """Refuse a state of the wrong kind or shape.

    Raises
    ------
    ValueError
        Unless it holds.
    """
    if not holds:
        raise ValueError(f"its {what} is none that `save` could have written")


def column_to_state(codec: ColumnCodec) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return what a column learnt: plain data, and the knots of numbers, shape (4, n_knots)."""
    if isinstance(codec, GappyColumn):
        state, knots = column_to_state(codec.numbers)
        return {"gappy": state}, knots
    if isinstance(codec, ConstantColumn):
        # JSON has no NaN.
        return {"constant": None if np.isnan(codec.value) else codec.value}, None
    if isinstance(codec, NumberColumn):
        precision = {"decimals": codec.decimals, "is_discrete": codec.is_discrete}
        return {"number": precision}, np.stack([getattr(codec, name) for name in _KNOTS])
    if isinstance(codec, CategoryColumn):
        categories = [plain(each, "category") for each in codec.categories]
        return {"category": {"categories": categories, "is_one_hot": codec.is_one_hot}}, None
    raise TypeError(f"{type(codec).__name__} is no codec of a column.")


def column_from_state(
    state: dict[str, Any], knots: np.ndarray | None, may_have_gaps: bool = True
) -> ColumnCodec:
    """Undo `column_to_state`.

    Raises
    ------
    ValueError, TypeError, KeyError
        If it is not what `column_to_state` returns.
    """
    ((kind, content),) = state.items()
    if kind == "gappy":
        claim(may_have_gaps, "column")
        return GappyColumn(column_from_state(content, knots, may_have_gaps=False))
    if kind == "constant":
        claim(content is None or _is_number(content), "constant column")
        return ConstantColumn(math.nan if content is None else float(content))
    claim(all(type(content[flag]) is bool for flag in content if flag.startswith("is_")), "column")
    if kind == "number" and knots is not None:
        claim(knots.dtype == np.float64 and knots.ndim == 2, "number column")
        rising = np.diff(knots[0]) > 0
        claim(len(rising) > 0 and all(rising) and bool(np.isfinite(knots).all()), "number column")
        claim(content["decimals"] in (None, *range(MAX_DECIMALS + 1)), "number column")
        return NumberColumn(**dict(zip(_KNOTS, knots, strict=True)), **content)
    claim(kind == "category" and may_have_gaps, "column")
    categories = [plain(each, "category") for each in content["categories"]]
    claim(len(set(categories)) == len(categories) > 0, "category column")
    return CategoryColumn(**content)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def template_to_state(template: Any) -> dict[str, Any]:
    """Describe an empty container; see `containers.template_of`.

    Raises
    ------
    TypeError
        If names of columns or categories are no text, numbers or booleans.
    """
    if is_dataframe(template):
        return {
            "frame": [_dtype_to_state(dtype) for dtype in template.dtypes],
            "columns": [
                [plain(part, _NAME) for part in name]
                if isinstance(name, tuple)
                else plain(name, _NAME)
                for name in template.columns
            ],
            "names": [plain(name, _NAME) for name in template.columns.names],
        }
    if isinstance(template, list):
        return {"list": True}
    kind = type(template).__name__ if sparse.issparse(template) else "ndarray"
    return {"array": kind, "dtype": template.dtype.str, "shape": list(template.shape)}


def template_from_state(state: dict[str, Any], n_columns: int) -> Any:
    """Undo `template_to_state`, for rows of `n_columns`.

    Raises
    ------
    ValueError, TypeError, KeyError, ImportError
        If it is not what `template_to_state` returns, or names what is not installed.
    """
    if "list" in state:
        return []
    if "array" in state:
        # Nothing is allocated, or looked up by a name, before this.
        claim(state["shape"] == [0, n_columns] and isinstance(state["dtype"], str), "container")
        claim(state["array"] in ("ndarray", *_SPARSE), "container")
        empty = np.empty((0, n_columns), dtype=state["dtype"])
        claim(empty.dtype.kind in "buifOUS", "container")
        return empty if state["array"] == "ndarray" else getattr(sparse, state["array"])(empty)
    import pandas as pd

    claim(len(state["frame"]) == len(state["columns"]) == n_columns, "container")
    series = [pd.Series([], dtype=_dtype_from_state(dtype)) for dtype in state["frame"]]
    names = [plain(name, _NAME) for name in state["names"]]
    if len(names) > 1:
        columns = pd.MultiIndex.from_tuples(map(tuple, state["columns"]), names=names)
    else:
        columns = pd.Index([plain(each, _NAME) for each in state["columns"]], name=names[0])
    return pd.DataFrame(dict(enumerate(series))).set_axis(columns, axis=1)


def _dtype_to_state(dtype: Any) -> Any:
    if not hasattr(dtype, "categories"):
        return str(dtype)
    categories = [plain(each, "category") for each in dtype.categories]
    return {"categories": categories, "of": str(dtype.categories.dtype), "ordered": dtype.ordered}


def _dtype_from_state(state: Any) -> Any:
    if isinstance(state, str):
        return state
    import pandas as pd

    categories = pd.Index(state["categories"], dtype=state["of"])
    return pd.CategoricalDtype(categories, ordered=state["ordered"])


def missing_to_state(missing: Any) -> str:
    """Name what stands for a missing value."""
    name = type(missing).__name__
    return name if name in ("NAType", "NoneType") else "float"


def missing_from_state(state: str) -> Any:
    """Undo `missing_to_state`."""
    if state == "NAType":
        from pandas import NA

        return NA
    claim(state in ("NoneType", "float"), "missing value")
    return None if state == "NoneType" else math.nan


def plain(value: Any, what: str) -> Any:
    """Return a value that JSON gives back as it was.

    Raises
    ------
    TypeError
        If it is no text, number or boolean; `what` names it.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(
        f"{what} {value!r} cannot be saved: it is a {type(value).__name__}; only text, numbers and "
        "booleans can, as a saved file holds no code. Change it, or use pickle or joblib for your "
        "own use."
    )
