"""How one column becomes numbers that a diffusion model learns, and how it comes back.

| column | encoded as | width |
|---|---|---|
| numbers | normal score of the rank | 1 |
| numbers, some missing | the same, 0 where missing, and -1 (there) or 1 (missing) | 2 |
| one number throughout | nothing | 0 |
| one category | nothing | 0 |
| two categories | -1 or 1 | 1 |
| a few categories | one-hot, mean 0, two of them 2 apart | their number |
| many categories | binary digits of their number, -1 or 1 each | log2 of their number |

A missing value among categories is one more category; what fit did not see is 0 throughout.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.special import ndtr, ndtri

from sklearn_diffult._warnings import warn
from sklearn_diffult.codecs.cells import Cells

# Knots of a number column at most.
KNOTS = 1000
# Digits after the decimal point that a column's precision is looked for in.
MAX_DECIMALS = 8
# With at most so many distinct values that come back often, a column has no values in between.
DISCRETE = 20
# Beyond its ends a number column folds back by at most so many standard deviations.
FOLD = 0.5


class ColumnCodec(Protocol):
    """One column's encoding: cells to float32 (n_rows, width) and back to values (n_rows,).

    Numbers come back as float64, NaN where missing; categories as objects, None where missing.
    """

    @property
    def width(self) -> int:
        """Dimensions that the column takes."""
        ...

    @property
    def is_discrete(self) -> bool:
        """Whether nothing but a few values comes out."""
        ...

    def encode(self, cells: Cells) -> np.ndarray:
        """Return float32 of shape (n_rows, width)."""
        ...

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Return values of shape (n_rows,)."""
        ...


def fit_column(
    cells: Cells, weights: np.ndarray, is_category: bool, max_one_hot: int
) -> ColumnCodec:
    """Learn the encoding of a column from cells of positive weights."""
    if is_category:
        return CategoryColumn.fit(cells, max_one_hot)
    values = cells.as_numbers(is_first=True)
    present = ~np.isnan(values)
    codec: ColumnCodec
    if len(distinct := np.unique(values[present])) <= 1:
        codec = ConstantColumn(float(distinct[0]) if len(distinct) else math.nan)
    else:
        kind = cells.values.dtype if cells.values.dtype.kind == "f" else np.dtype(np.float64)
        codec = NumberColumn.fit(values[present], weights[present], float(np.finfo(kind).eps))
    return codec if present.all() or not present.any() else GappyColumn(codec)


@dataclass(frozen=True)
class ConstantColumn:
    """A column of one number, or of none: there is nothing to learn."""

    value: float
    width = 0
    is_discrete = True

    def encode(self, cells: Cells) -> np.ndarray:
        """Return nothing for each row."""
        return np.empty((len(cells.values), 0), dtype=np.float32)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Return the value for each row."""
        return np.full(len(encoded), self.value)


@dataclass(frozen=True)
class NumberColumn:
    """Numbers as normal scores: standard normal quantiles of their ranks, so that any tail is tame.

    A value that many rows share owns the interval of all their ranks: it encodes to the middle,
    and the whole interval decodes to it. In between, both ways interpolate. What a model
    generates beyond the ends folds back inside, as clipping would pile rows up there.

    Attributes
    ----------
    values : ndarray of shape (n_knots,), float64
        Distinct values in rising order: all, or at most about `KNOTS` spread evenly over the
        scores, which keeps every value of the tails.
    low, middle, high : ndarray of shape (n_knots,), float64
        Where each value's interval begins, is half over by weight, and ends.
    decimals : int or None
        Most digits seen after the decimal point, 0 for whole numbers: no more come out. None where
        the values have no such precision.
    is_discrete : bool
        Few values came back often, so none in between comes out.
    """

    values: np.ndarray
    low: np.ndarray
    middle: np.ndarray
    high: np.ndarray
    decimals: int | None
    is_discrete: bool
    width = 1

    @classmethod
    def fit(cls, numbers: np.ndarray, weights: np.ndarray, spacing: float) -> NumberColumn:
        """Learn from two or more distinct numbers, known up to a relative `spacing`, by weight."""
        values, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        mass = np.bincount(inverse, weights)
        half_row = mass / counts / 2
        total, above = mass.sum(), np.cumsum(mass)
        middle = _score((above - mass / 2) / total)
        kept: Any = slice(None)
        if len(values) > KNOTS:
            levels = ndtr(np.linspace(middle[0], middle[-1], KNOTS)) * total
            inner = np.searchsorted(above, levels[1:-1])
            kept = np.unique(np.r_[0, inner, len(values) - 1])
        decimals = _decimals(values, spacing)
        often = 2 if decimals == 0 else 5
        few = len(values) <= DISCRETE and len(numbers) >= often * len(values)
        return cls(
            values[kept],
            _score((above - mass + half_row) / total)[kept],
            middle[kept],
            _score((above - half_row) / total)[kept],
            decimals,
            few,
        )

    def encode(self, cells: Cells) -> np.ndarray:
        """Return scores; unseen values lie between their neighbours or at the end, missing at 0."""
        numbers = np.clip(cells.as_numbers(), self.values[0], self.values[-1])
        after = np.clip(np.searchsorted(self.values, numbers), 1, len(self.values) - 1)
        before = after - 1
        share = (numbers - self.values[before]) / (self.values[after] - self.values[before])
        scores = self.high[before] + share * (self.low[after] - self.high[before])
        scores = np.where(share == 0, self.middle[before], scores)
        scores = np.where(share == 1, self.middle[after], scores)
        return np.where(np.isnan(numbers), 0.0, scores).astype(np.float32)[:, None]

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Return numbers within the observed range."""
        scores = encoded[:, 0].astype(np.float64)
        inside = np.clip(scores, self.low[0], self.high[-1])
        beyond = scores - inside
        inside = inside - beyond * FOLD / (FOLD + np.abs(beyond))
        ends = np.column_stack([self.low, self.high]).ravel()
        numbers = np.interp(inside, ends, np.repeat(self.values, 2))
        if self.is_discrete:
            borders = (self.values[1:] + self.values[:-1]) / 2
            return self.values[np.searchsorted(borders, numbers)]
        if self.decimals is None:
            return numbers
        # Rounding may leave the range by the last bit.
        return np.round(numbers, self.decimals).clip(self.values[0], self.values[-1])


def _decimals(values: np.ndarray, spacing: float) -> int | None:
    """Return the fewest digits after the decimal point that write all values, None if too many."""
    for decimals in range(MAX_DECIMALS + 1):
        error = np.abs(values - np.round(values, decimals))
        if (error <= spacing * np.abs(values)).all():
            return decimals
    return None


def _score(share: np.ndarray) -> np.ndarray:
    # Rows of next to no weight would lie at infinity.
    return ndtri(np.clip(share, 1e-9, 1 - 1e-9))


@dataclass(frozen=True)
class GappyColumn:
    """A number column with missing values: a further dimension tells where."""

    numbers: ColumnCodec

    @property
    def width(self) -> int:
        """Dimensions of the numbers, and one."""
        return self.numbers.width + 1

    @property
    def is_discrete(self) -> bool:
        """Whether the numbers are."""
        return self.numbers.is_discrete

    def encode(self, cells: Cells) -> np.ndarray:
        """Return the numbers' encoding, and -1 where there is one, 1 where it is missing."""
        is_missing = np.isnan(cells.as_numbers())
        flag = np.where(is_missing, 1, -1).astype(np.float32)
        return np.column_stack([self.numbers.encode(cells), flag])

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Return numbers, NaN where the last dimension is positive."""
        return np.where(encoded[:, -1] > 0, np.nan, self.numbers.decode(encoded[:, :-1]))


@dataclass(frozen=True)
class CategoryColumn:
    """Categories, the most frequent first; every encoding decodes to one of them.

    Attributes
    ----------
    categories : list
        Distinct cells, None for a missing one.
    is_one_hot : bool
        Whether each has a dimension of its own.
    """

    categories: list[Any]
    is_one_hot: bool

    @classmethod
    def fit(cls, cells: Cells, max_one_hot: int) -> CategoryColumn:
        """Learn the categories; their order does not depend on that of the rows."""
        counts = Counter(cells.as_objects())
        ranked = sorted(counts, key=lambda each: (-counts[each], str(type(each)), str(each)))
        return cls(ranked, 2 < len(ranked) <= max_one_hot)

    @property
    def width(self) -> int:
        """One per category, or as many as binary digits."""
        n = len(self.categories)
        return n if self.is_one_hot else (n - 1).bit_length()

    @property
    def is_discrete(self) -> bool:
        """Whether there are few of them."""
        return len(self.categories) <= DISCRETE

    def encode(self, cells: Cells) -> np.ndarray:
        """Return codes; for what fit did not see their mean, 0, which stands for none of them."""
        position = {category: index for index, category in enumerate(self.categories)}
        objects = cells.as_objects()
        indices = np.array([position.get(each, -1) for each in objects])
        unseen = indices < 0
        names = dict.fromkeys(objects[row] for row in np.flatnonzero(unseen))
        if strange := [name for name in names if name is not None]:
            warn(
                f"{cells.title} holds {_listing(strange)}, not among the categories that fit saw: "
                f"{_listing([each for each in self.categories if each is not None])}. These cells "
                "are taken for missing."
            )
        if self.is_one_hot:
            codes = (math.sqrt(2) * (np.eye(self.width) - 1 / self.width))[indices]
        else:
            codes = 2 * (indices[:, None] >> np.arange(self.width) & 1) - 1
        return np.where(unseen[:, None], 0, codes).astype(np.float32)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Return the category whose code is nearest, or for invalid digits a close one."""
        if self.is_one_hot:
            indices = encoded.argmax(axis=1)
        else:
            indices = (encoded > 0) @ (1 << np.arange(self.width))
            # Without its leading digit a number that stands for no category always does.
            indices = np.where(
                indices < len(self.categories), indices, indices - (1 << self.width >> 1)
            )
        return np.array([*self.categories, None], dtype=object)[:-1][indices]


def _listing(values: list[Any]) -> str:
    shown = ", ".join(repr(value) for value in values[:5])
    return shown + (f" and {len(values) - 5} more" if len(values) > 5 else "")
