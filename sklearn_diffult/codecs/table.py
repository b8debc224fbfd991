"""Tables of any mix of columns as float tensors of shape (n_rows, n_dimensions)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch

from sklearn_diffult.codecs.cells import Cells, is_category_dtype, open_columns
from sklearn_diffult.codecs.columns import CategoryColumn, ColumnCodec, fit_column
from sklearn_diffult.codecs.containers import (
    append_decoded,
    is_dataframe,
    table_like,
    template_of,
)
from sklearn_diffult.codecs.states import (
    State,
    claim,
    column_from_state,
    column_to_state,
    missing_from_state,
    missing_to_state,
    template_from_state,
    template_to_state,
)

# Dimensions above which categories take less room.
MAX_WIDTH = 1024


@dataclass(frozen=True)
class Field:
    """A column's codec, and what its cells looked like if they were Python objects."""

    codec: ColumnCodec
    is_object: bool
    is_whole: bool
    missing: Any

    @classmethod
    def fit(cls, cells: Cells, is_category: bool, weights: np.ndarray, max_one_hot: int) -> Field:
        """Learn a column from cells of positive weights."""
        codec = fit_column(cells, weights, is_category, max_one_hot)
        return cls(codec, cells.values.dtype == object, cells.kind == "whole", cells.missing)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Return cells as the container wants them."""
        values = self.codec.decode(encoded)
        if not self.is_object:
            return values
        if values.dtype != object:
            number = int if self.is_whole else float
            values = np.array([None if v != v else number(v) for v in values] + [None], object)[:-1]
        values[[value is None for value in values]] = self.missing
        return values


class TableCodec:
    """Bring tables to float32 of shape (n_rows, n_dimensions) and back to the container they were.

    Parameters
    ----------
    categorical_features : {"auto"}, array-like of int, str or bool, or None, default="auto"
        As in imbalanced-learn's SMOTENC: positions, names or a mask of the columns whose values
        are categories; all others must be numbers. ``"auto"``: the columns of text, of booleans
        and of pandas' dtype category, so that in an array of numbers there are none. None: none.
    max_one_hot : int, default=16
        The most categories that have a dimension each; more are told apart by binary digits. It
        is halved while the table has more than 1,024 dimensions.

    Notes
    -----
    Numbers become normal scores, categories one-hot vectors or binary digits, see
    `sklearn_diffult.codecs.columns`. Whatever is decoded was seen in that column: numbers lie
    within its range, are whole where it was, and are observed ones where it had few; a category
    is always an observed one, and values are missing only where some were.

    Distances between encoded rows are sensible: two numbers drawn at random are 1.1 apart on
    average (root mean square 1.4), two categories of a column are 2 apart, and so are a number and
    a missing one; among more than `max_one_hot` categories two are 2 times the root of the number
    of differing digits apart. Equal rows are equally encoded, in whatever order and company.

    The cost is that of sorting each column. What is kept is at most 1,000 numbers or the
    categories of each column, never a row.
    """

    is_image = False

    def __init__(self, categorical_features: Any = "auto", max_one_hot: int = 16):
        self.categorical_features = categorical_features
        self.max_one_hot = max_one_hot

    def fit(self, X: Any, sample_weight: np.ndarray | None = None) -> TableCodec:
        """Learn every column from rows of positive weights."""
        columns = open_columns(X)
        n_rows = len(columns[0].values)
        weights = np.ones(n_rows) if sample_weight is None else np.asarray(sample_weight, float)
        names = list(X.columns) if is_dataframe(X) else None
        are_categories = _resolve_categories(self.categorical_features, columns, names)
        pairs = list(zip(columns, are_categories, strict=True))
        max_one_hot = self.max_one_hot
        self.fields_ = [Field.fit(*pair, weights, max_one_hot) for pair in pairs]
        while any(are_categories) and self._width() > MAX_WIDTH and max_one_hot > 2:
            max_one_hot //= 2
            self.fields_ = [
                Field.fit(*pair, weights, max_one_hot) if pair[1] else field
                for pair, field in zip(pairs, self.fields_, strict=True)
            ]
        self.template_ = template_of(X)
        self.sample_shape = (self._width(),)
        return self

    def encode(self, X: Any) -> torch.Tensor:
        """Return rows as a float32 tensor of shape (n_rows, n_dimensions)."""
        columns = open_columns(X)
        if len(columns) != len(self.fields_):
            raise ValueError(
                f"X has {len(columns)} columns, but fit saw {len(self.fields_)} columns; "
                "give the same columns in the same order."
            )
        encoded = np.zeros((len(columns[0].values), *self.sample_shape), dtype=np.float32)
        for cells, field, place in zip(columns, self.fields_, self._places(), strict=True):
            encoded[:, place] = field.codec.encode(cells)
        return torch.from_numpy(encoded)

    def decode(self, encoded: torch.Tensor) -> Any:
        """Return rows in the container, columns and dtypes that ``fit`` saw."""
        values = encoded.cpu().numpy()
        pairs = zip(self.fields_, self._places(), strict=True)
        return table_like(self.template_, [field.decode(values[:, at]) for field, at in pairs])

    @property
    def is_discrete(self) -> bool:
        """Whether every column has a few values only, so that equal rows are no one's copies."""
        return all(field.codec.is_discrete for field in self.fields_)

    def categories(self) -> list[tuple[str, list[Any], bool]]:
        """Return what messages call each column of categories, these, and if pandas calls it so."""
        names: list[Any] = list(range(len(self.fields_)))
        declared = [False] * len(names)
        if is_dataframe(self.template_):
            names = list(self.template_.columns)
            declared = [is_category_dtype(dtype) for dtype in self.template_.dtypes]
        return [
            (f"column {name!r} of X", field.codec.categories, is_declared)
            for name, field, is_declared in zip(names, self.fields_, declared, strict=True)
            if isinstance(field.codec, CategoryColumn)
        ]

    def append(self, X: Any, encoded: torch.Tensor) -> Any:
        """Append encoded rows to the original ones."""
        return append_decoded(X, encoded, self.decode)

    def to_state(self) -> State:
        """Return what ``fit`` learnt as a dict for JSON and a dict of arrays.

        Raises
        ------
        TypeError
            If a category or a column's name is no text, number or boolean.
        """
        fields, arrays = [], {}
        for position, field in enumerate(self.fields_):
            column, knots = column_to_state(field.codec)
            missing = missing_to_state(field.missing)
            fields.append([column, field.is_object, field.is_whole, missing])
            if knots is not None:
                arrays[str(position)] = knots
        return {"fields": fields, "template": template_to_state(self.template_)}, arrays

    @classmethod
    def from_state(cls, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> TableCodec:
        """Return a fitted codec from what `to_state` gave; `fit` would use default parameters."""
        codec = cls()
        codec.fields_ = []
        for position, (column, is_object, is_whole, missing) in enumerate(state["fields"]):
            claim(type(is_object) is bool and type(is_whole) is bool, "column")
            read = column_from_state(column, arrays.get(str(position)))
            codec.fields_.append(Field(read, is_object, is_whole, missing_from_state(missing)))
        claim(len(codec.fields_) > 0, "table")
        codec.template_ = template_from_state(state["template"], len(codec.fields_))
        codec.sample_shape = (codec._width(),)
        return codec

    def _width(self) -> int:
        # A network needs something to work on even where every column is constant.
        return max(1, sum(field.codec.width for field in self.fields_))

    def _places(self) -> list[slice]:
        """Where each column's dimensions are."""
        ends = accumulate((field.codec.width for field in self.fields_), initial=0)
        return [slice(start, end) for start, end in pairwise(ends)]


def _resolve_categories(
    choice: Any, columns: Sequence[Cells], names: list[Any] | None
) -> list[bool]:
    """Tell for each column whether its values are categories.

    Raises
    ------
    ValueError
        If the choice names what is not there, or is none of the forms allowed.
    """
    if isinstance(choice, str) and choice == "auto":
        return [column.is_declared or column.kind in ("bool", "text") for column in columns]
    # These hold no numbers that could be given back, whatever the choice says.
    chosen = [
        column.is_declared or (column.kind == "bool" and column.values.dtype == object)
        for column in columns
    ]
    if choice is None:
        return chosen
    if isinstance(choice, str):
        raise ValueError(_bad_choice(choice, "is no list", names))
    keys = np.asarray(choice, dtype=object).tolist()
    if not isinstance(keys, list):
        raise ValueError(_bad_choice(choice, "is no list", names))
    if keys and all(isinstance(key, bool | np.bool_) for key in keys):
        if len(keys) != len(columns):
            raise ValueError(_bad_choice(choice, f"masks {len(keys)} of {len(columns)}", names))
        return [bool(key) or always for key, always in zip(keys, chosen, strict=True)]
    for key in keys:
        if isinstance(key, str):
            matches = [i for i, name in enumerate(names or []) if name == key]
        elif isinstance(key, int | np.integer) and -len(columns) <= key < len(columns):
            matches = [int(key)]
        else:
            matches = []
        if not matches:
            raise ValueError(_bad_choice(choice, f"has {key!r}, which X has not", names))
        for match in matches:
            chosen[match] = True
    return chosen


def _bad_choice(choice: Any, what: str, names: list[Any] | None) -> str:
    columns = f"X's columns are {names[:10]}" if names else "X has no column names"
    return (
        f"categorical_features={choice!r} {what}; it must be 'auto', None, a list of positions, a "
        f"list of column names, or a boolean mask with one value per column. {columns}."
    )
