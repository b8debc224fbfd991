"""Numeric tables as standardised float tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sklearn_diffult.codecs.containers import (
    is_dataframe,
    rows_like,
    stack_rows,
    template_of,
    to_matrix,
)


class TableCodec:
    """Standardise numeric columns; decode keeps integers whole and ranges as observed.

    Encoded tensors have shape ``(n_rows, n_columns)``, float32, mean 0 and standard deviation 1
    per column over the rows seen by ``fit`` (constant columns encode to 0).
    """

    is_image = False

    def fit(self, X: Any, sample_weight: np.ndarray | None = None) -> TableCodec:
        """Learn mean, scale, range and integrality of every column."""
        values = to_matrix(X)
        self.template_ = template_of(X)
        self.is_integer_ = _integer_columns(X, values)
        self.dtype_ = values.dtype
        values = values.astype(np.float64, copy=False)
        self.sample_shape = (values.shape[1],)
        self.low_, self.high_ = values.min(axis=0), values.max(axis=0)
        self.mean_ = np.average(values, axis=0, weights=sample_weight)
        with np.errstate(over="ignore"):
            variance = np.average((values - self.mean_) ** 2, axis=0, weights=sample_weight)
        if not np.isfinite(variance).all():
            column = int(np.flatnonzero(~np.isfinite(variance))[0])
            raise ValueError(
                f"column {column} of X spans {self.low_[column]:g} to {self.high_[column]:g}, too "
                "wide to standardise; rescale it, for example by its logarithm."
            )
        varies = (self.high_ > self.low_) & (variance > 0)
        self.scale_ = np.where(varies, np.sqrt(np.where(varies, variance, 1.0)), 1.0)
        # The mean of a constant column may differ from its value by rounding.
        self.mean_ = np.where(self.high_ > self.low_, self.mean_, self.low_)
        return self

    def encode(self, X: Any) -> torch.Tensor:
        """Return rows as a float32 tensor of shape (n_rows, n_columns)."""
        values = to_matrix(X)
        if values.shape[1:] != self.sample_shape:
            raise ValueError(
                f"X has {values.shape[1]} columns, but fit saw {self.sample_shape[0]} columns; "
                "give the same columns in the same order."
            )
        return torch.from_numpy(((values - self.mean_) / self.scale_).astype(np.float32))

    def decode(self, encoded: torch.Tensor) -> Any:
        """Return rows in the container, columns and dtypes that ``fit`` saw."""
        values = encoded.cpu().numpy().astype(np.float64) * self.scale_ + self.mean_
        values = np.clip(values, self.low_, self.high_)
        values[:, self.is_integer_] = np.rint(values[:, self.is_integer_])
        return rows_like(self.template_, values.astype(self.dtype_))

    def concatenate(self, X: Any, X_new: Any) -> Any:
        """Append decoded rows to the original ones."""
        return stack_rows(X, X_new)


def _integer_columns(X: Any, values: np.ndarray) -> np.ndarray:
    """Mark the columns whose values cannot be fractions: integer, boolean, or list columns of ints.

    Lists carry no dtype, so numpy's inference over the whole list stands in for it.
    """
    if is_dataframe(X):
        kinds = [getattr(getattr(dtype, "subtype", dtype), "kind", "f") for dtype in X.dtypes]
        return np.array([kind in "bui" for kind in kinds])
    return np.full(values.shape[1], values.dtype.kind in "bui")
