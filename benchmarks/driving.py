"""What drives the other libraries alike. It imports nothing of ours, whose memory would count."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import numpy as np
import torch


def autocast(precision: str) -> AbstractContextManager[object]:
    """Work in a precision on the CPU."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast("cpu", dtype=getattr(torch, precision))


def padded_side(side: int, n_levels: int) -> int:
    """Round a side up to what the poolings between resolutions divide."""
    multiple = 2 ** (n_levels - 1)
    return -(-side // multiple) * multiple


def to_pixels(unit: np.ndarray, low: float, high: float, dtype: np.dtype) -> np.ndarray:
    """Map values in [0, 1] to the range and dtype of the training images."""
    pixels = unit * (high - low) + low
    return (np.rint(pixels) if dtype == np.uint8 else pixels).astype(dtype)
