"""Which real rows generation may start from, one function and one table line each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Start = Callable[[np.ndarray, int], np.ndarray]


def rows_of_the_class(labels: np.ndarray, label: int) -> np.ndarray:
    """Return the numbers of the class's own rows."""
    return np.flatnonzero(labels == label)


def rows_of_larger_classes(labels: np.ndarray, label: int) -> np.ndarray:
    """Return the numbers of the rows of all larger classes; of the class's own if it is largest."""
    counts = np.bincount(labels)
    larger = np.flatnonzero(counts[labels] > counts[label])
    return larger if len(larger) else rows_of_the_class(labels, label)


# ``start(labels, label) -> row numbers`` from the class indices (n,) of the real rows; None: none,
# generation starts from pure noise.
STARTS: dict[str, Start | None] = {
    "noise": None,
    "class": rows_of_the_class,
    "head": rows_of_larger_classes,
}


def eligible_rows(start: Start, labels: np.ndarray, label: int) -> np.ndarray:
    """Return the numbers of the real rows that a class may start from, whatever `start` gave.

    Raises
    ------
    ValueError
        If it names no row, or rows that there are not.
    """
    found = np.asarray(start(labels, label))
    if found.dtype == bool and found.shape == labels.shape:
        found = np.flatnonzero(found)
    whole = found.ndim == 1 and len(found) > 0 and found.dtype.kind in "iu"
    if not whole or found.min() < 0 or found.max() >= len(labels):
        span = f", from {found.min()} to {found.max()}" if whole else ""
        raise ValueError(
            f"start returned an array of {found.dtype} with shape {found.shape}{span} for class "
            f"index {label}; it must name at least one of the {len(labels)} real rows, by number "
            "or as a boolean mask."
        )
    return found


def pick_rows(
    start: Start, real_labels: np.ndarray, seed: int, labels: np.ndarray, positions: np.ndarray
) -> np.ndarray:
    """Return the number of a real row for each synthetic one, by seed, class and number alone.

    All eligible rows come in a random order of the class's own before one comes again.
    """
    picked = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels).tolist():
        eligible = eligible_rows(start, real_labels, label)
        order = np.random.default_rng([seed, label]).permutation(eligible)
        members = labels == label
        picked[members] = order[positions[members] % len(order)]
    return picked
