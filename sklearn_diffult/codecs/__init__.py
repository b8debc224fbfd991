"""Codecs turn rows of any container into a float tensor and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sklearn_diffult._warnings import warn
from sklearn_diffult.codecs.cells import has_columns
from sklearn_diffult.codecs.containers import check_rows
from sklearn_diffult.codecs.image import ImageCodec, looks_like_images
from sklearn_diffult.codecs.table import TableCodec

__all__ = [
    "ImageCodec",
    "TableCodec",
    "check_rows",
    "has_columns",
    "looks_like_images",
    "make_codec",
]


def make_codec(
    X: Any,
    image_shape: tuple[int, ...] | None = None,
    categorical_features: Any = "auto",
    max_one_hot: int = 16,
) -> ImageCodec | TableCodec:
    """Return the unfitted codec for what `X` holds.

    Arrays of three or four axes, lists of Pillow images, and flat rows that come with an
    `image_shape` are images; everything else is a table. For the other parameters see
    `TableCodec`; images do without.
    """
    if image_shape is not None or looks_like_images(X):
        return ImageCodec(image_shape)
    if message := _seem_images(X):
        warn(message)
    return TableCodec(categorical_features, max_one_hot)


def _seem_images(X: Any) -> str:
    """Say that a table seems to hold square grey images, "" where it does not."""
    try:
        values = np.asarray(X)
    except (TypeError, ValueError):
        # Rows of different lengths, or columns that no dtype holds together.
        return ""
    n_columns = values.shape[1] if values.ndim == 2 and len(values) > 0 else 0
    side = math.isqrt(n_columns)
    if side < 8 or side**2 != n_columns or values.dtype.kind not in "iuf":
        return ""
    # Pixels of the well-known data sets have 16 or 255 for white, and no fractions.
    if values.min() != 0 or values.max() not in (16, 255) or np.any(values % 1):
        return ""
    return (
        f"X looks like flat images of {side}x{side} pixels, and is taken for a table: with "
        f"image_shape=({side}, {side}) they would be learnt as images."
    )
