"""What omega and `weight_temper` do to decisions and to probabilities on imbalanced tables.

    python benchmarks/table_omega.py                         # half an hour on one core
    python benchmarks/table_omega.py --tables glass2

The folds, classifiers and scores of `tables.py`; per fold one model is trained, and its rows are
weighed in each way. A table's lines come to ``benchmarks/results/table_omega.jsonl`` once it is
done, and are not made again by a later call.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from typing import Any

import numpy as np
from benefit import RESULTS, machine
from report import publish
from tables import BINARY, CLASSIFIERS, Fold, Training, evaluate, load_table, make_folds, smote
from tables_report import METRICS, SMOTE_ROW, over_folds, read_records
from throughput import markdown_table

from sklearn_diffult import DiffusionBalancer
from sklearn_diffult.weights import compute_weights

# Small ones, on which fits take seconds.
DEFAULT_TABLES = ["abalone9_18", "ecoli3", "glass2", "haberman", "vehicle1", "yeast_1_vs_7"]
# Weighting, omega, temper.
WAYS: dict[str, tuple[str, float, float]] = {
    f"row, omega {omega:g}": ("row", omega, 0) for omega in (0, 0.1, 0.3, 1)
} | {
    f"class, omega {omega:g}, temper {temper:g}": ("class", omega, temper)
    for omega, temper in [(0, 0), (0.1, 0), (0.5, 0), (1, 0), (0.1, 0.1), (0.1, 0.3), (0.1, 1)]
}

Record = dict[str, Any]


def measure(table: str) -> list[Record]:
    """Score SMOTE and every way to weigh on all folds of a table."""
    records: dict[str, list[Record]] = {way: [] for way in (SMOTE_ROW, *WAYS)}
    with warnings.catch_warnings(action="ignore"):
        for fold in make_folds(load_table(table), n_repeats=5):
            records[SMOTE_ROW].append(score_all(smote(fold), fold))
            balancer = DiffusionBalancer(random_state=fold.seed)
            X, y = balancer.fit_resample(fold.X, fold.y)
            for way, (weighting, omega, temper) in WAYS.items():
                weights = compute_weights(y, balancer.synthetic_mask_, omega, weighting, temper)
                kept = weights > 0  # not every classifier leaves such rows out of its binning
                records[way].append(score_all(Training(X[kept], y[kept], weights[kept]), fold))
    return [
        {"table": table, "method": way, **over_folds(folds), **machine()}
        for way, folds in records.items()
    ]


def score_all(training: Training, fold: Fold) -> Record:
    """Score the three classifiers."""
    return {"scores": {name: evaluate(name, training, fold) for name in CLASSIFIERS}}


def write_report(records: list[Record]) -> str:
    """Write means over tables and folds, one table per classifier."""
    tables = list(dict.fromkeys(record["table"] for record in records))
    known = [way for way in (SMOTE_ROW, *WAYS) if any(r["method"] == way for r in records)]
    parts = [f"Means over {', '.join(tables)}."]
    for classifier in CLASSIFIERS:
        lines = []
        for way in known:
            scores = [r["scores"][classifier] for r in records if r["method"] == way]
            means = {metric: np.mean([s[metric] for s in scores]) for metric in METRICS}
            lines.append(
                [
                    way,
                    f"{100 * means['balanced accuracy']:.1f}",
                    f"{100 * means['average precision']:.1f}",
                    f"{means['Brier score']:.4f}",
                    f"{means['log loss']:.4f}",
                ]
            )
        head = [
            "weights",
            "balanced accuracy, %",
            "average precision, %",
            "Brier score",
            "log loss",
        ]
        parts += [f"## {classifier}", markdown_table(head, lines)]
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> None:
    """Fill in what is missing, and write the report."""
    parser = argparse.ArgumentParser(description="omega on imbalanced tables.")
    parser.add_argument("--tables", choices=BINARY, nargs="+", default=DEFAULT_TABLES)
    chosen = parser.parse_args(arguments)
    path = RESULTS / "table_omega.jsonl"
    known = {record["table"] for record in read_records(path)}
    for table in chosen.tables:
        if table not in known:
            records = measure(table)
            with path.open("a") as file:
                file.writelines(json.dumps(record) + "\n" for record in records)
            print(table, flush=True)
    publish(path, "table_omega.py", arguments, write_report(read_records(path)))


if __name__ == "__main__":
    main(sys.argv[1:])
