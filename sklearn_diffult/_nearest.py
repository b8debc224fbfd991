"""Nearest rows, by brute force: exact, in bounded memory, and with copies at distance 0."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import pairwise_distances_argmin


def nearest_distances(rows: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Euclidean distance from each row (n, d) to the nearest reference (m, d), float64 (n,)."""
    # The search expands |a - b|^2 into dot products, which lose digits far from the origin.
    centre = references.mean(axis=0, dtype=np.float64)
    nearest = pairwise_distances_argmin(rows - centre, references - centre)
    return paired_distances(rows, references[nearest])


def paired_distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean distance of each row (n, d) to the other row at its position, float64 (n,).

    A search's own distances come from dot products, whose rounding makes equal rows differ.
    """
    return np.linalg.norm(rows.astype(np.float64) - others, axis=1)
