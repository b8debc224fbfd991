"""How near synthetic rows come to the real rows that they were learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_diffult._nearest import nearest_rows, paired_distances
from sklearn_diffult.filters import EXACT, Evidence, d1_scales, leave_one_out

# Below this d1 a row is a near-copy, as by the default of d1_min.
NEAR = 0.1
LOW_PERCENTILE = 5


@dataclass(frozen=True, repr=False)
class PrivacyReport:
    """Distance of synthetic rows to the closest real row, beside that of real rows.

    Distances are Euclidean, between encoded rows, to the nearest real row of *any* class: a copy
    of a row gives it away under another label too. For a real row it is the nearest other one.
    Numbers about as large as those of real rows say that the synthetic rows are no closer to the
    real ones than these are to each other.

    Attributes
    ----------
    by_class : dict of label to dict of str to int or float
        For each class that got synthetic rows, these, and under ``<key>_real`` the same for its
        real rows (for 2,000 of them where it has more):

        - ``rows``: how many,
        - ``median`` and ``low``: median and 5th percentile of the distances,
        - ``copies``: rows that equal a real row,
        - ``near_copies``: rows, copies among them, whose nearest real row is nearer than a tenth
          of the median distance between neighbouring rows of that row's class, as by the default
          `d1_min`. Where nothing is given away the guard against near-copies lets such rows
          through: next to twins, and in tables of few values.
    overall : dict of str to int or float
        The same over all these classes; NaN for distances where no class got rows. Synthetic rows
        are mostly of small classes and real ones of large classes, so compare by class.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_diffult.filters import Evidence
    >>> from sklearn_diffult.privacy import report_privacy
    >>> real = Evidence(np.arange(20.0)[:, None], np.repeat([0, 1], 10), n_classes=2)
    >>> report_privacy(real, np.array([[0.5], [3.0], [3.05]]), np.array([1, 1, 1]), ["a", "b"])
    Distance to the closest real row, in brackets that of real rows
    class       rows     median    low (5 %)  copies  near-copies
    'b'       3 (10)   0.05 (1)    0.005 (1)   1 (0)        2 (0)
    overall   3 (10)   0.05 (1)    0.005 (1)   1 (0)        2 (0)
    """

    by_class: dict[Any, dict[str, float]]
    overall: dict[str, float]

    def __repr__(self) -> str:
        lines = {"class": ["rows", "median", "low (5 %)", "copies", "near-copies"]}
        for name, summary in [*self.by_class.items(), ("overall", self.overall)]:
            keys = [key for key in summary if not key.endswith("_real")]
            cells = [f"{_short(summary[key])} ({_short(summary[key + '_real'])})" for key in keys]
            lines[name if name == "overall" else repr(name)] = cells
        first = max(map(len, lines))
        widths = [max(map(len, column)) for column in zip(*lines.values(), strict=True)]
        table = [
            f"{name:<{first}}  {'  '.join(map(str.rjust, cells, widths))}"
            for name, cells in lines.items()
        ]
        return "\n".join(
            ["Distance to the closest real row, in brackets that of real rows", *table]
        )


def _short(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.3g}"


def report_privacy(
    evidence: Evidence, rows: np.ndarray, indices: np.ndarray, classes: Sequence[Any]
) -> PrivacyReport:
    """Measure how near synthetic rows are to real ones.

    Parameters
    ----------
    evidence : Evidence
        Holds the real rows.
    rows : ndarray of shape (n_rows, n_values)
        Encoded synthetic rows, flattened; there may be none.
    indices : ndarray of shape (n_rows,)
        Their class indices.
    classes : sequence of length n_classes
        The labels.

    Returns
    -------
    report : PrivacyReport

    Notes
    -----
    Exact search in bounded memory, O((n_rows + n_queries) n_real n_values) time, where n_queries
    is the number of real rows, but at most 2,000 a class.
    """
    present = np.unique(indices)
    if not len(present):
        return PrivacyReport({}, _summarise(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0)))
    queries, others = evidence.remember(
        "closest other records",
        lambda: np.stack(leave_one_out(evidence.rows, evidence.labels, any_class=True)),
    )
    closest = nearest_rows(rows, evidence.rows)
    units = d1_scales(evidence)[evidence.labels]
    distances = paired_distances(rows, evidence.rows, closest)
    distances_real = paired_distances(evidence.rows[queries], evidence.rows, others)

    def summarise(labels: np.ndarray) -> dict[str, float]:
        chosen = np.isin(indices, labels)
        chosen_real = np.isin(evidence.labels[queries], labels)
        return _summarise(
            distances[chosen],
            units[closest[chosen]],
            distances_real[chosen_real],
            units[others[chosen_real]],
        )

    by_class = {classes[label]: summarise(np.array([label])) for label in present.tolist()}
    return PrivacyReport(by_class, summarise(present))


def _summarise(
    distances: np.ndarray, units: np.ndarray, distances_real: np.ndarray, units_real: np.ndarray
) -> dict[str, float]:
    summary: dict[str, float] = {}
    for suffix, values, unit in (
        ("", distances, units),
        ("_real", distances_real, units_real),
    ):
        low, median = np.percentile(values, [LOW_PERCENTILE, 50]) if len(values) else [np.nan] * 2
        summary |= {
            f"rows{suffix}": len(values),
            f"median{suffix}": float(median),
            f"low{suffix}": float(low),
            f"copies{suffix}": int((values < EXACT * unit).sum()),
            f"near_copies{suffix}": int((values < NEAR * unit).sum()),
        }
    return summary
