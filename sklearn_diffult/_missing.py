"""What counts as a missing value among objects."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_missing(item: Any) -> bool:
    """Tell None, NaN and pandas' NA without importing pandas."""
    is_nan = isinstance(item, float | np.floating) and item != item
    return item is None or is_nan or type(item).__name__ == "NAType"
