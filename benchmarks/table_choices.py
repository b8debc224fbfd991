"""What the defaults for tables were chosen by, on tables that `tables.py` does not hold.

    OMP_NUM_THREADS=1 python benchmarks/table_choices.py --jobs 2    # a quarter of an hour
    python benchmarks/table_choices.py --tables glass0

How the rows weigh (the knobs between decisions and probabilities), how strict d3 is, what guidance
does, and dropout for the table classifier. Folds, classifiers and scores are those of `tables.py`,
two folds each. A table's lines come to ``benchmarks/results/table_choices.jsonl`` once it is done,
and are not made again by a later call.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from typing import Any
from unittest.mock import patch

import numpy as np
import tables
from benefit import RESULTS, machine
from joblib import Parallel, delayed
from report import append_records, publish
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from tables import Fold, Training, evaluate, load_table, make_folds
from tables_report import METRICS, OURS, SMOTE_ROW, over_folds, read_records
from throughput import markdown_table

from sklearn_diffult import DiffusionBalancer, WeightedTorchClassifier
from sklearn_diffult._fitting import auto_n_steps
from sklearn_diffult.networks.mlp_classifier import MLPClassifierNetwork

_DEVELOPMENT = (
    "abalone_3_vs_11 abalone_17_vs_7_8_9_10 appendicitis australian bupa car_good cm1 crx ecoli1 "
    "ecoli4 glass0 glass6 hepatitis ionosphere kr_vs_k_zero_vs_eight "
    "led7digit_0_2_4_5_6_7_8_9_vs_1 mammographic monk_2 page_blocks_1_3_vs_4 pc1 poker_8_9_vs_5 "
    "saheart vehicle0 vehicle3 wdbc winequality_red_8_vs_6 winequality_white_3_vs_7 wisconsin "
    "yeast3 yeast5 yeast_2_vs_4 yeast_0_3_5_9_vs_7_8"
)
DEVELOPMENT = _DEVELOPMENT.split()
REMEDIES = {
    "nothing": tables.nothing,
    "class_weight": tables.class_weight,
    SMOTE_ROW: tables.smote,
}
VARIANTS: dict[str, dict[str, Any]] = {
    OURS: {},
    "omega 0.5, weight_temper 0": {"omega": 0.5, "weight_temper": 0},
    "weight_temper 0": {"weight_temper": 0},
    "weight_temper 0.3": {"weight_temper": 0.3},
    "weight_temper 1": {"weight_temper": 1},
    "by row, omega 0.3": {"weighting": "row", "omega": 0.3},
    "by row, omega 1": {"weighting": "row", "omega": 1},
    "d3_max 1": {"d3_max": 1.0},
    "d3_max None": {"d3_max": None},
    "guidance_scale 1": {"guidance_scale": 1.0},
}
WAYS = (*REMEDIES, *VARIANTS)
# The others would tell nothing new of dropout.
OF_DROPOUT = (*REMEDIES, OURS)
NO_DROPOUT = "WeightedTorchClassifier without dropout, twice the steps"

Record = dict[str, Any]


class WithoutDropout(WeightedTorchClassifier):
    """The table classifier as it would be without dropout, after twice as many steps."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> WithoutDropout:
        """Take twice the steps."""
        n_rows = len(y) if sample_weight is None else np.count_nonzero(sample_weight)
        self.n_steps = 2 * auto_n_steps(int(n_rows), is_image=False)
        self.module = _without_dropout
        return super().fit(X, y, sample_weight)


def _without_dropout(sample_shape: tuple[int, ...], n_classes: int) -> MLPClassifierNetwork:
    return MLPClassifierNetwork(sample_shape, n_classes, dropout=0.0)


def measure(table: str, ways: list[str]) -> list[Record]:
    """Score ways to balance on both folds of a table."""
    records: dict[str, list[Record]] = {way: [] for way in ways}
    with warnings.catch_warnings(action="ignore"), tempfile.TemporaryDirectory() as memory:
        for fold in make_folds(load_table(table), n_repeats=1):
            for way in ways:
                training = REMEDIES[way](fold) if way in REMEDIES else balance(way, fold, memory)
                records[way].append(score_all(way, training, fold))
    return [
        {"table": table, "method": way, **over_folds(folds), **machine()}
        for way, folds in records.items()
    ]


def balance(way: str, fold: Fold, memory: str) -> Training:
    """Balance by a line of VARIANTS, keeping what others need again."""
    balancer = DiffusionBalancer(random_state=fold.seed, memory=memory, **VARIANTS[way])
    return Training(*balancer.fit_resample_weighted(fold.X, fold.y))


def score_all(way: str, training: Training, fold: Fold) -> Record:
    """Score all classifiers, and count synthetic rows that lie among unseen majority rows."""
    further = {NO_DROPOUT: WithoutDropout} if way in OF_DROPOUT else {}
    with patch.dict(tables.CLASSIFIERS, further):
        scores = {name: evaluate(name, training, fold) for name in tables.CLASSIFIERS}
    return {"scores": scores, "among_majority": among_majority(training, fold)}


def among_majority(training: Training, fold: Fold) -> float | None:
    """Share of synthetic rows whose nearest row of the other half is of the majority."""
    synthetic = training.X[len(fold.X) :]
    if not len(synthetic):
        return None
    scaler = StandardScaler().fit(fold.X)
    X, y = fold.scored
    nearest = NearestNeighbors(n_neighbors=1).fit(scaler.transform(X))
    found = nearest.kneighbors(scaler.transform(synthetic), return_distance=False)[:, 0]
    return float((y[found] == 0).mean())


def write_report(records: list[Record]) -> str:
    """Write means over tables and folds, one table per classifier."""
    ways = {(record["table"], record["method"]) for record in records}
    names = list(dict.fromkeys(record["table"] for record in records))
    names = [name for name in names if all((name, way) in ways for way in WAYS)]
    parts = [f"Means over {len(names)} tables and two folds each: {', '.join(names)}."]
    for classifier in (*tables.CLASSIFIERS, NO_DROPOUT):
        lines = []
        for way in OF_DROPOUT if classifier == NO_DROPOUT else WAYS:
            own = [r for r in records if r["method"] == way and r["table"] in names]
            means = {m: np.mean([r["scores"][classifier][m] for r in own]) for m in METRICS}
            among = [share for r in own for share in r["among_majority"] if share is not None]
            lines.append(
                [
                    way,
                    f"{100 * means['balanced accuracy']:.1f}",
                    f"{100 * means['average precision']:.1f}",
                    f"{means['Brier score']:.4f}",
                    f"{means['log loss']:.4f}",
                    f"{np.mean(among):.2f}" if among else "",
                ]
            )
        head = [
            "",
            "balanced accuracy, %",
            "average precision, %",
            "Brier score",
            "log loss",
            "among the majority",
        ]
        parts += [f"## {classifier}", markdown_table(head, lines)]
    parts.append(
        "Among the majority: share of synthetic rows whose nearest row of the other half, which "
        "they were not made from, is of the majority."
    )
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> None:
    """Fill in what is missing, and write the report."""
    parser = argparse.ArgumentParser(description="Defaults for tables.")
    parser.add_argument("--tables", choices=DEVELOPMENT, nargs="+", default=DEVELOPMENT)
    parser.add_argument("--jobs", type=int, default=1)
    chosen = parser.parse_args(arguments)
    path = RESULTS / "table_choices.jsonl"
    known = {(record["table"], record["method"]) for record in read_records(path)}
    missing = {table: [way for way in WAYS if (table, way) not in known] for table in chosen.tables}
    jobs = Parallel(n_jobs=chosen.jobs, return_as="generator_unordered")
    for records in jobs(delayed(measure)(table, ways) for table, ways in missing.items() if ways):
        append_records(path, records)
        print(records[0]["table"], flush=True)
    publish(path, "table_choices.py", arguments, write_report(read_records(path)))


if __name__ == "__main__":
    main(sys.argv[1:])
