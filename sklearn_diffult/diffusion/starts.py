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


def pick_rows(
    start: Start, real_labels: np.ndarray, seed: int, labels: np.ndarray, positions: np.ndarray
) -> np.ndarray:
    """Return the number of a real row for each synthetic one, by seed, class and number alone.

    All eligible rows come in a random order of the class's own before one comes again.

    Raises
    ------
    ValueError
        If `start` names no row of its own for a class.
    """
    picked = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels).tolist():
        eligible = np.asarray(start(real_labels, label))
        if eligible.ndim != 1 or len(eligible) == 0 or eligible.dtype.kind not in "iu":
            raise ValueError(
                f"start returned {eligible!r} for class index {label}; it must return a "
                "non-empty 1-D array of row numbers."
            )
        order = np.random.default_rng([seed, label]).permutation(eligible)
        members = labels == label
        picked[members] = order[positions[members] % len(order)]
    return picked
