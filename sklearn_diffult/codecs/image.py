"""Images of any layout as float tensors "n c h w" in [-1, 1]."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, TypeGuard

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from scipy import sparse

from sklearn_diffult._missing import is_missing
from sklearn_diffult._warnings import warn
from sklearn_diffult.codecs.containers import (
    append_decoded,
    check_rows,
    is_dataframe,
    open_array,
    table_like,
    template_of,
)
from sklearn_diffult.codecs.states import State, claim, template_from_state, template_to_state

CHANNELS = (1, 3, 4)
MODES = {"L": 1, "RGB": 3, "RGBA": 4}
MIN_SIDE = 8
# Fitted attributes that JSON can hold.
_PLAIN = ("mode_", "layout_", "pixel_shape_", "low_", "high_", "is_whole_", "sample_shape")
# Images that span less of what `fit` saw, or more by such a factor, were scaled otherwise.
OTHER_SCALE = 8
# Fewer images may be dark ones.
MANY_IMAGES = 10


def looks_like_images(X: Any) -> bool:
    """Tell whether `X` can only be images: 3 or 4 axes, or a list of Pillow images."""
    return _is_pillow_list(X) or getattr(X, "ndim", 2) in (3, 4)


class ImageCodec:
    """Bring images to float32 "n c h w" in [-1, 1] and back to the layout they came in.

    Parameters
    ----------
    image_shape : tuple of int or None, default=None
        ``(height, width)``, ``(height, width, channels)`` or ``(channels, height, width)`` of flat
        rows; None where the array's own axes tell.

    Notes
    -----
    -1 and 1 stand for the lowest and highest value that ``fit`` observed, and decoded values
    are clipped to that span, and whole numbers where all were. As each side has at least 8 pixels
    and the channels are 1, 3 or 4, channels-first and channels-last can always be told apart.
    """

    is_image = True
    is_discrete = False

    def __init__(self, image_shape: tuple[int, ...] | None = None):
        self.image_shape = image_shape

    def fit(self, X: Any, sample_weight: np.ndarray | None = None) -> ImageCodec:
        """Learn layout, size and value range; weights play no part."""
        pixels = self._pixels(X)
        self.flat_template_ = None if self.image_shape is None else template_of(X)
        self.mode_ = X[0].mode if _is_pillow_list(X) else None
        self.layout_ = _layout(pixels.shape[1:])
        self.pixel_shape_ = pixels.shape[1:]
        self.dtype_ = pixels.dtype
        self.low_, self.high_ = _span(pixels)
        self.is_whole_ = pixels.dtype.kind in "bui" or bool(np.all(pixels % 1 == 0))
        self.sample_shape = tuple(self._to_nchw(pixels[:1]).shape[1:])
        return self

    def encode(self, X: Any) -> torch.Tensor:
        """Return images as a float32 tensor "n c h w" in [-1, 1]."""
        pixels = self._pixels(X)
        if pixels.shape[1:] != self.pixel_shape_:
            raise ValueError(
                f"X holds images of shape {pixels.shape[1:]}, but fit saw {self.pixel_shape_}; "
                "bring them to the same size and layout."
            )
        # Wide integers and float64 may lose their differences in float32.
        values = pixels.astype(np.result_type(pixels.dtype, np.float32))
        scaled = (values - self.low_) * (2.0 / (self.high_ - self.low_)) - 1.0
        return torch.from_numpy(np.ascontiguousarray(self._to_nchw(scaled), dtype=np.float32))

    def decode(self, encoded: torch.Tensor) -> Any:
        """Return images in the container, layout and dtype that ``fit`` saw."""
        wide = np.result_type(self.dtype_, np.float32)
        unit = (encoded.cpu().clamp(-1, 1).numpy().astype(wide) + 1.0) / 2.0
        values = self._from_nchw(unit * (self.high_ - self.low_) + self.low_)
        # Rounding may lead beyond the ends by a last digit.
        values = np.clip(values, self.low_, self.high_)
        if self.is_whole_:
            values = np.rint(values)
        values = values.astype(self.dtype_)
        if self.mode_ is not None:
            return [Image.fromarray(image) for image in values]
        if self.flat_template_ is not None:
            return table_like(self.flat_template_, list(values.reshape(len(values), -1).T))
        return values

    def has_fractions(self, encoded: torch.Tensor) -> bool:
        """Tell whether encoded images have pixels between whole numbers."""
        pixels = (encoded.double() + 1) / 2 * (self.high_ - self.low_) + self.low_
        # Of float32, a pixel of 65,535 is known to 0.008.
        return bool((pixels - pixels.round()).abs().max() > 0.05)

    def append(self, X: Any, encoded: torch.Tensor) -> Any:
        """Append encoded images to the original ones."""
        return append_decoded(X, encoded, self.decode)

    def to_state(self) -> State:
        """Return what ``fit`` learnt as a dict for JSON and a dict of arrays, here empty."""
        flat = self.flat_template_
        state = {
            "image_shape": None if self.image_shape is None else list(map(int, self.image_shape)),
            "template": None if flat is None else template_to_state(flat),
            "dtype": self.dtype_.str,
            **{name: getattr(self, name) for name in _PLAIN},
        }
        return state, {}

    @classmethod
    def from_state(cls, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> ImageCodec:
        """Return a fitted codec from what `to_state` gave."""
        shape, template = state["image_shape"], state["template"]
        codec = cls(None if shape is None else tuple(shape))
        for name in _PLAIN:
            value = state[name]
            setattr(codec, name, tuple(value) if isinstance(value, list) else value)
        claim(_is_shape(codec.pixel_shape_) and _is_shape(codec.sample_shape), "shape of images")
        claim(shape is None or codec.image_shape == codec.pixel_shape_, "image_shape")
        claim(codec.layout_ == _layout(codec.pixel_shape_), "layout")
        axes = dict(zip(codec.layout_.split()[1:], codec.pixel_shape_, strict=True))
        claim(codec.sample_shape == (axes.get("c", 1), axes["h"], axes["w"]), "shape of images")
        ends = (codec.low_, codec.high_)
        claim(all(type(end) in (int, float) for end in ends), "range of pixels")
        claim(-math.inf < codec.low_ < codec.high_ < math.inf, "range of pixels")
        claim(type(codec.is_whole_) is bool, "pixels")
        claim(codec.mode_ is None or MODES[codec.mode_] == codec.sample_shape[0], "mode")
        claim(isinstance(state["dtype"], str), "dtype of pixels")
        codec.dtype_ = np.dtype(state["dtype"])
        claim(codec.dtype_.kind in "buif", "dtype of pixels")
        n_pixels = math.prod(codec.pixel_shape_)
        claim((template is None) == (shape is None), "container")
        codec.flat_template_ = template and template_from_state(template, n_pixels)
        return codec

    def _pixels(self, X: Any) -> np.ndarray:
        """Open any accepted container as an array of images with its own layout."""
        if _is_pillow_list(X):
            pixels = _open_pillow(X)
        elif self.image_shape is not None:
            pixels = self._unflatten(X)
        else:
            if sparse.issparse(X):
                raise TypeError("X is sparse; images must be dense arrays. Use X.toarray().")
            pixels = open_array(X)
        _check_pixels(pixels, getattr(self, "pixel_shape_", None))
        return pixels

    def _unflatten(self, X: Any) -> np.ndarray:
        if not _is_shape(self.image_shape):
            raise ValueError(
                f"image_shape={self.image_shape!r} must be (height, width), "
                "(height, width, channels) or (channels, height, width), positive integers."
            )
        if sparse.issparse(X):
            raise TypeError(
                "X is sparse, but image_shape asks for images, which must be dense. "
                "Use X.toarray(), or image_shape=None for a table."
            )
        if np.ndim(X) != 2:
            raise ValueError(
                f"image_shape={self.image_shape!r} describes flat rows, but X has {np.ndim(X)} "
                f"axes; give numpy.reshape(X, (-1, {math.prod(self.image_shape)})), or fit with "
                "image_shape=None, for arrays that have image axes."
            )
        values = open_array(X)
        check_rows(values.shape)
        is_mixed = values.dtype == object and is_dataframe(X)
        if is_mixed and all(_holds_numbers(X.iloc[:, i]) for i in range(X.shape[1])):
            # Numbers of several nullable dtypes come out as objects.
            values = X.to_numpy(dtype=np.float64, na_value=np.nan)
        if values.dtype.kind not in "buif":
            raise TypeError(f"X has dtype {values.dtype}; pixels must be numbers or booleans.")
        if values.shape[1] != np.prod(self.image_shape):
            raise ValueError(
                f"image_shape={self.image_shape!r} needs rows of {np.prod(self.image_shape)} "
                f"values, but X has {values.shape[1]} columns."
            )
        return values.reshape(-1, *self.image_shape)

    def _to_nchw(self, pixels: np.ndarray) -> np.ndarray:
        if self.layout_ == "n h w":
            return pixels[:, np.newaxis]
        return rearrange(pixels, f"{self.layout_} -> n c h w")

    def _from_nchw(self, images: np.ndarray) -> np.ndarray:
        if self.layout_ == "n h w":
            return images[:, 0]
        return rearrange(images, f"n c h w -> {self.layout_}")


def tell_other_scale(encoded: torch.Tensor, codec: object) -> torch.Tensor:
    """Return encoded rows; warn if they are images whose pixels are not on the scale of `fit`."""
    if not isinstance(codec, ImageCodec):
        return encoded
    spread = float(encoded.max() - encoded.min()) / 2
    # A few images may all be dark, but not between whole numbers.
    is_telling = len(encoded) >= MANY_IMAGES or (codec.is_whole_ and codec.has_fractions(encoded))
    least = 1 / OTHER_SCALE if is_telling else 1 / OTHER_SCALE**2
    if 0 < spread < least or float(encoded.abs().max()) > OTHER_SCALE:
        warn(
            f"X's pixels span {spread:.2g} times what they did in fit; give images on the same "
            "scale, such as 0 to 255 or 0 to 1."
        )
    return encoded


def _is_shape(image_shape: Any) -> TypeGuard[tuple[int, ...]]:
    return (
        isinstance(image_shape, tuple | list)
        and len(image_shape) in (2, 3)
        and all(isinstance(side, int | np.integer) and side > 0 for side in image_shape)
    )


def _holds_numbers(series: Any) -> bool:
    is_object = series.dtype == object
    return series.dtype.kind in "buif" or (
        is_object and all(isinstance(cell, Real) or is_missing(cell) for cell in series)
    )


def _is_pillow_list(X: Any) -> bool:
    return isinstance(X, list | tuple) and len(X) > 0 and isinstance(X[0], Image.Image)


def _open_pillow(images: Any) -> np.ndarray:
    first = images[0]
    for index, image in enumerate(images):
        if not isinstance(image, Image.Image):
            raise TypeError(f"X[{index}] is {type(image).__name__}; expected a Pillow image.")
        if image.mode not in MODES:
            raise ValueError(
                f"X[{index}] has mode {image.mode!r}; expected one of {sorted(MODES)}. "
                "Use image.convert('RGB') or image.convert('L')."
            )
        if (image.size, image.mode) != (first.size, first.mode):
            raise ValueError(
                f"X[{index}] has size {image.size} and mode {image.mode!r}, but X[0] has "
                f"{first.size} and {first.mode!r}; resize and convert them to be alike."
            )
    return np.stack([np.asarray(image) for image in images])


def _check_pixels(pixels: np.ndarray, seen: tuple[int, ...] | None) -> None:
    if pixels.shape == seen:
        raise ValueError(
            f"X is one image of shape {seen}, where several are expected; give X[None], of a "
            "Pillow image [X]."
        )
    if pixels.ndim not in (3, 4):
        is_flat = seen is not None and pixels.ndim == 2 and pixels.shape[1] == math.prod(seen)
        hint = f" fit saw {seen}: X.reshape(-1, *{seen})." if is_flat else ""
        raise ValueError(
            f"X has {pixels.ndim} axes; images are (n, height, width), (n, height, width, "
            f"channels), (n, channels, height, width), or flat rows with image_shape.{hint}"
        )
    if pixels.dtype.kind not in "buif":
        raise TypeError(
            f"X has dtype {pixels.dtype}; images must be integers or floats. If the images "
            "differ in size, resize them to one shape first."
        )
    if 0 in pixels.shape:
        raise ValueError(f"X is empty: its shape is {pixels.shape}; give at least one image.")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ValueError(
            "X contains NaN or infinity; every pixel must be finite. Replace the values or drop "
            "those images first."
        )
    layout = _layout(pixels.shape[1:])
    sides = [pixels.shape[layout.split().index(axis)] for axis in "hw"]
    if min(sides) < MIN_SIDE:
        raise ValueError(
            f"X holds images of {sides[0]} x {sides[1]} pixels; each side must be at least "
            f"{MIN_SIDE}. Pad or enlarge them, or pass flat rows as a table."
        )


def _layout(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return "n h w"
    if shape[2] in CHANNELS:
        return "n h w c"
    if shape[0] in CHANNELS:
        return "n c h w"
    raise ValueError(
        f"X holds images of shape {shape}; one axis must be channels, first or last, and "
        f"channels must be one of {CHANNELS}."
    )


def _span(pixels: np.ndarray) -> tuple[float, float]:
    # uint8 too: digits of 16 grey levels in bytes would otherwise fill a sixteenth of the range,
    # and drown in what little noise a model leaves.
    low, high = float(pixels.min()), float(pixels.max())
    if low < high:
        return low, high
    # A span to divide by, of values that the dtype has.
    is_top = pixels.dtype.kind in "iu" and low == np.iinfo(pixels.dtype).max
    return (low - 1.0, high) if is_top else (low, high + 1.0)
