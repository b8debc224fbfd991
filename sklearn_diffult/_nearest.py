"""Nearest rows: exact, in bounded memory, and with copies at distance 0."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.metrics import euclidean_distances, pairwise_distances_argmin
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import gen_batches

BLOCK = 4096
# Distances held at a time: 16 MiB of float64.
BLOCK_SIZE = 2**21
# Error of a squared distance from dot products, over the squared norms: far above what it can be.
ROUNDING = 1e-10
# A search takes as long as so many products of numbers, however few rows there are.
SEARCH = 400_000


def nearest_rows(rows: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Number of the reference (m, d) that is nearest to each row (n, d), shape (n,)."""
    if rows.dtype == references.dtype == np.float32:
        # Encoded rows: reckoned in float64, and no column is on another scale.
        return pairwise_distances_argmin(rows, references)
    nearest = np.empty(len(rows), dtype=np.intp)
    for block, squared, error in squared_distances(rows, references):
        least = (squared + error).min(axis=1, keepdims=True)
        take_afresh(squared, squared - error <= least, rows[block], references)
        nearest[block] = squared.argmin(axis=1)
    return nearest


def squared_distances(
    rows: np.ndarray, references: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Blocks of rows (n, d), their squared distances to references (m, d), and how wrong those are.

    Both arrays are of shape (n_block, m). Dot products are fast, but where one column is on a far
    larger scale than another their rounding hides the latter: see `take_afresh`.
    """
    centre = references.mean(axis=0, dtype=np.float64)
    norms, reference_norms = (np.square(each - centre).sum(axis=1) for each in (rows, references))
    centred = references - centre
    for block in gen_batches(len(rows), max(1, BLOCK_SIZE // len(references))):
        squared = euclidean_distances(rows[block] - centre, centred, squared=True)
        yield block, squared, ROUNDING * (norms[block, None] + reference_norms)


def take_afresh(
    squared: np.ndarray, doubtful: np.ndarray, rows: np.ndarray, references: np.ndarray
) -> None:
    """Replace doubtful squared distances of rows to references by those from differences."""
    pairs = np.argwhere(doubtful)
    n_at_a_time = max(1, BLOCK_SIZE // rows.shape[1])
    for start in range(0, len(pairs), n_at_a_time):
        i, j = pairs[start : start + n_at_a_time].T
        squared[i, j] = np.square(paired_distances(rows[i], references, j))


def nearest_distances(rows: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Euclidean distance from each row (n, d) to the nearest reference (m, d), float64 (n,)."""
    return paired_distances(rows, references, nearest_rows(rows, references))


def nearest_in_units(rows: np.ndarray, references: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Least Euclidean distance of each row (n, d) to a reference (m, d), over its unit (m,)."""
    distinct = np.unique(units)
    if rows.size * len(references) < SEARCH * len(distinct):
        n_at_a_time = max(1, BLOCK_SIZE // len(references))
        blocks = [rows[i : i + n_at_a_time] for i in range(0, len(rows), n_at_a_time)]
        found = [(cdist(block, references) / units).min(axis=1) for block in blocks]
        return np.concatenate([np.zeros(0), *found])
    least = np.full(len(rows), np.inf)
    # One search for each unit, as the nearest of references with equal units needs no division.
    for unit in distinct:
        distances = nearest_distances(rows, references[units == unit])
        least = np.minimum(least, distances / unit)
    return least


def nearest_other(rows: np.ndarray, queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Number of the nearest other row at `references` (m,) for each row at `queries`, shape (n,).

    The queries are among the references, of which there are at least two.
    """
    neighbours = NearestNeighbors(n_neighbors=2).fit(rows[references])
    pairs = references[neighbours.kneighbors(rows[queries], return_distance=False)]
    # Among twins the row itself may come second, or not at all.
    return np.where(pairs[:, 0] == queries, pairs[:, 1], pairs[:, 0])


def paired_distances(rows: np.ndarray, others: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Euclidean distance of each row (n, d) to the other row of its number, float64 (n,).

    A search's own distances come from dot products, whose rounding makes equal rows differ.
    """
    distances = np.empty(len(rows))
    # In blocks, as differences in float64 take twice the room of the rows.
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        differences = rows[block].astype(np.float64) - others[numbers[block]]
        distances[block] = np.linalg.norm(differences, axis=1)
    return distances
