"""Warnings that point at the user's line, however deep inside they arise; lists in messages."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

# Whose lines the user has not written.
_LIBRARIES = {"sklearn_diffult", "sklearn", "imblearn", "joblib", "torch"}
_BETWEEN = _LIBRARIES | {
    "contextlib",
    "functools",
    "threading",
    "concurrent",
    "multiprocessing",
}


def warn(message: str) -> None:
    """Give a UserWarning at the innermost line outside this library and those that call it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def first_few(names: Sequence[str], most: int = 5) -> str:
    """List the first names of many, for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
