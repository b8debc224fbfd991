"""Codecs as plain data, so that they can be saved without pickle: JSON beside named arrays.

A state is a pair: a dict of what JSON can hold, and a dict of arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from sklearn_diffult.codecs.columns import (
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


def column_to_state(codec: ColumnCodec) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return what a column learnt: plain data, and the knots of numbers, shape (4, n_knots)."""
    if isinstance(codec, GappyColumn):
        state, knots = column_to_state(codec.numbers)
        return {"gappy": state}, knots
    if isinstance(codec, ConstantColumn):
        # JSON has no NaN.
        return {"constant": None if np.isnan(codec.value) else codec.value}, None
    if isinstance(codec, NumberColumn):
        flags = {"is_whole": codec.is_whole, "is_discrete": codec.is_discrete}
        return {"number": flags}, np.stack([getattr(codec, name) for name in _KNOTS])
    if isinstance(codec, CategoryColumn):
        categories = [plain(each, "category") for each in codec.categories]
        return {"category": {"categories": categories, "is_one_hot": codec.is_one_hot}}, None
    raise TypeError(f"{type(codec).__name__} is no codec of a column.")


def column_from_state(state: dict[str, Any], knots: np.ndarray | None) -> ColumnCodec:
    """Undo `column_to_state`."""
    ((kind, content),) = state.items()
    if kind == "gappy":
        return GappyColumn(column_from_state(content, knots))
    if kind == "constant":
        return ConstantColumn(float("nan") if content is None else content)
    if kind == "number" and knots is not None:
        return NumberColumn(**dict(zip(_KNOTS, knots, strict=True)), **content)
    return CategoryColumn(**content)


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


def template_from_state(state: dict[str, Any]) -> Any:
    """Undo `template_to_state`."""
    if "list" in state:
        return []
    if "array" in state:
        empty = np.empty(state["shape"], dtype=state["dtype"])
        return empty if state["array"] == "ndarray" else getattr(sparse, state["array"])(empty)
    import pandas as pd

    series = [pd.Series([], dtype=_dtype_from_state(dtype)) for dtype in state["frame"]]
    if len(state["names"]) > 1:
        columns = pd.MultiIndex.from_tuples(map(tuple, state["columns"]), names=state["names"])
    else:
        columns = pd.Index(state["columns"], name=state["names"][0])
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
    return type(missing).__name__


def missing_from_state(state: str) -> Any:
    """Undo `missing_to_state`."""
    if state == "NAType":
        from pandas import NA

        return NA
    return None if state == "NoneType" else float("nan")


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
