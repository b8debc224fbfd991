"""Codecs turn rows of any container into a float tensor and back."""

from __future__ import annotations

from typing import Any

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
    return TableCodec(categorical_features, max_one_hot)
