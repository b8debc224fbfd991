"""Report of `tables.py`: ranks, wins over SMOTE, closeness to real rows, time, every table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import report
from scipy import stats
from throughput import markdown_table, number

Record = dict[str, Any]
# What is on file, by table and method.
Book = dict[tuple[str, str], Record]

OURS, UNWEIGHTED = "DiffusionBalancer", "DiffusionBalancer, no weights"
SMOTE_ROW = "SMOTE / SMOTENC"
_MEANING = (
    "Means over tables; mean rank by the mean over folds, 1 the best and ties averaged, ours "
    "without weights left out. Of two classes average precision is the minority's, of several the "
    "mean over them."
)
# Whether more is better.
METRICS = {
    "balanced accuracy": True,
    "average precision": True,
    "Brier score": False,
    "log loss": False,
}
RANKED = ("balanced accuracy", "average precision")
LEVEL = 0.05


def read_records(path: Path) -> list[Record]:
    """Read one record per line; of a table and method that were repeated the last counts."""
    return report.read_records(path, keys=("table", "method"))


def over_folds(records: Sequence[Record]) -> Record:
    """Turn one record per fold into one record of lists, fractions with four digits."""
    first, rows = records[0], [record.values() for record in records]
    columns = dict(zip(first, zip(*rows, strict=True), strict=True))
    return {
        key: over_folds(column) if isinstance(first[key], dict) else [_short(v) for v in column]
        for key, column in columns.items()
    }


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def write_report(records: Sequence[Record], methods: Sequence[str]) -> str:
    """Write every part for the methods, of which those without a record are left out."""
    book = {(r["table"], r["method"]): r for r in records if r["method"] in methods}
    if not book:
        return "Nothing is on file.\n"
    known = [name for name in methods if any(method == name for _, method in book)]
    classifiers = list(dict.fromkeys(name for r in book.values() for name in r["scores"]))
    parts = [_head(book), _MEANING, *_ranks(book, known, classifiers)]
    parts.append(_fallbacks(book, known))
    if {OURS, SMOTE_ROW} <= set(known):
        parts += [f"## {OURS} against {SMOTE_ROW}", _versus_section(book, classifiers)]
    parts += ["## Distance to the closest real row, and time", _cost_section(book, known)]
    parts += ["## Every table", "In %; the best in bold, before rounding."]
    for name in classifiers:
        parts += [_table_section(scored(book, name), known, name, metric) for metric in RANKED]
    return "\n\n".join(filter(None, parts)) + "\n"


def tables_of(book: Book, *methods: str) -> list[str]:
    """List the tables that all these methods have."""
    tables = dict.fromkeys(table for table, _ in book)
    return [table for table in tables if all((table, method) in book for method in methods)]


def scored(book: Book, classifier: str) -> Book:
    """Keep what was scored with a classifier; scores of a former version are taken off the file."""
    return {key: record for key, record in book.items() if classifier in record["scores"]}


def fold_scores(book: Book, table: str, method: str, classifier: str, metric: str) -> np.ndarray:
    """Return the scores of all folds."""
    return np.array(book[table, method]["scores"][classifier][metric])


def mean_scores(
    book: Book, tables: Sequence[str], methods: Sequence[str], classifier: str, metric: str
) -> np.ndarray:
    """Return means over folds, tables by methods."""
    return np.array(
        [
            [fold_scores(book, table, method, classifier, metric).mean() for method in methods]
            for table in tables
        ]
    )


def mean_ranks(means: np.ndarray) -> np.ndarray:
    """Rank the methods of every table, 1 the best and ties averaged; mean over tables."""
    ranks: np.ndarray = stats.rankdata(-means, axis=1).mean(axis=0)
    return ranks


def f_test(differences: np.ndarray) -> float:
    """Return the p-value of Alpaydin's combined 5x2cv F test.

    Alpaydin 1999, Neural Computation 11(8). Folds come in pairs, the two halves of one split. With
    other than five pairs, or differences that are all alike, there is no evidence: 1.
    """
    if len(differences) != 10:
        return 1.0
    pairs = differences.reshape(5, 2)
    # In a pair, (p1 - mean)^2 + (p2 - mean)^2 is half the squared difference.
    variances = (pairs[:, 0] - pairs[:, 1]) ** 2 / 2
    if variances.sum() == 0:
        return 1.0
    statistic = (differences**2).sum() / (2 * variances.sum())
    return float(stats.f.sf(statistic, 10, 5))


def versus(book: Book, ours: str, theirs: str, classifier: str, metric: str) -> Record:
    """Count tables where one is better, and where the F test agrees."""
    counts = dict.fromkeys(("tables", "better", "clearly better", "worse", "clearly worse"), 0)
    for table in tables_of(book, ours, theirs):
        pair = [fold_scores(book, table, name, classifier, metric) for name in (ours, theirs)]
        differences = (pair[0] - pair[1]) * (1 if METRICS[metric] else -1)
        mean = round(float(differences.mean()), 12)
        counts["tables"] += 1
        if mean != 0:
            verdict = "better" if mean > 0 else "worse"
            counts[verdict] += 1
            counts[f"clearly {verdict}"] += f_test(differences) < LEVEL
    return counts


def distance_ratios(book: Book, method: str, key: str = "distance") -> list[float]:
    """Distance to the closest real row over that of SMOTE's rows, for each table that has both."""
    ratios = []
    for table in tables_of(book, method, SMOTE_ROW):
        theirs, smote = (
            _mean_of(book[table, name][k]) for name, k in ((method, key), (SMOTE_ROW, "distance"))
        )
        # Rows of nothing but categories are often all copies, SMOTE's too.
        if theirs is not None and smote:
            ratios.append(theirs / smote)
    return ratios


def _mean_of(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def _head(book: Book) -> str:
    records = book.values()
    machines = {f"{r['cpu']}, {r['threads']} threads, torch {r['torch']}" for r in records}
    packages = sorted({r["package"] for r in records if "package" in r})
    n_folds = sorted({len(record["seconds"]) for record in records})
    dates = sorted({record["date"] for record in records})
    return (
        f"{dates[0]} to {dates[-1]}. {'; '.join(sorted([*machines, *packages]))}. Folds: "
        f"{', '.join(map(str, n_folds))} (two halves again and again, stratified, "
        "`random_state=0`); the seed of methods and classifiers is the number of the fold. "
        "What the numbers mean: [README](../README.md)."
    )


def _ranks(book: Book, methods: Sequence[str], classifiers: Sequence[str]) -> list[str]:
    """Rank once for every choice of tables that some method was run on, the largest first.

    Means and ranks compare over the same tables only, and a slow method is not to take tables from
    the others.
    """
    choices = dict.fromkeys(tuple(tables_of(book, name)) for name in methods)
    parts = []
    for tables in sorted(choices, key=len, reverse=True):
        which = "" if len(tables) == len(tables_of(book)) else f": {', '.join(tables)}"
        parts.append(f"## Ranks over {len(tables)} tables{which}")
        parts += [_rank_section(scored(book, name), methods, tables, name) for name in classifiers]
    return parts


def _rank_section(
    book: Book, methods: Sequence[str], tables: Sequence[str], classifier: str
) -> str:
    columns: list[list[str]] = []
    methods = [name for name in methods if all((table, name) in book for table in tables)]
    # A variant of one method beside it would move the others' ranks.
    ranked = [name != UNWEIGHTED for name in methods]
    for metric in METRICS:
        means = mean_scores(book, tables, methods, classifier, metric)
        if metric in RANKED:
            columns.append([f"{100 * mean:.1f}" for mean in means.mean(axis=0)])
            ranks = iter(mean_ranks(means[:, ranked]))
            columns.append([f"{next(ranks):.2f}" if own else "" for own in ranked])
        else:
            columns.append([f"{mean:.4f}" for mean in means.mean(axis=0)])
    header = ("method", "balanced accuracy, %", "rank", "average precision, %", "rank")
    rows = zip(methods, *columns, strict=True)
    table = markdown_table((*header, "Brier score", "log loss"), rows)
    return f"### {classifier}\n\n{table}"


def _fallbacks(book: Book, methods: Sequence[str]) -> str:
    """Say where a method failed and the rows were left as they are, and what was topped up."""
    lines = []
    for method in methods:
        records = [book[table, method] for table in tables_of(book, method)]
        reasons = Counter(reason for r in records for reason in r["fallback"] if reason)
        n_folds = sum(len(record["fallback"]) for record in records)
        if reasons:
            where = [record["table"] for record in records if any(record["fallback"])]
            said = "; ".join(f"{n} times `{reason}`" for reason, n in reasons.most_common())
            lines.append(
                f"- {method} failed in {reasons.total()} of {n_folds} folds and is scored there as "
                f"if nothing had been done ({', '.join(where)}): {said}."
            )
        repeated, synthetic = (
            sum(sum(record[key]) for record in records) for key in ("n_repeated", "n_synthetic")
        )
        if repeated:
            lines.append(
                f"- {method}: {repeated:,} of {synthetic:,} rows are repeated real ones, as it "
                "did not make enough of the label."
            )
    return "\n".join(lines)


def _versus_section(book: Book, classifiers: Sequence[str]) -> str:
    rows = []
    for ours in (OURS, UNWEIGHTED):
        for classifier in classifiers:
            for metric in METRICS:
                counts = versus(scored(book, classifier), ours, SMOTE_ROW, classifier, metric)
                if counts["tables"]:
                    share = f"{100 * counts['better'] / counts['tables']:.0f} %"
                    rows.append((ours, classifier, metric, share, *counts.values()))
    header = ("", "classifier", "metric", "share better", "tables", "better", "of these clear")
    return (
        markdown_table((*header, "worse", "of these clear"), rows)
        + f"\n\nClear: p < {LEVEL} in Alpaydin's combined 5x2cv F test on the table's ten folds, "
        "not corrected for the number of tables. What is neither better nor worse is equal."
    )


def _cost_section(book: Book, methods: Sequence[str]) -> str:
    rows = []
    for method in methods:
        tables = tables_of(book, method)
        if not any(sum(book[table, method]["n_synthetic"]) for table in tables):
            continue
        seconds = {table: float(np.mean(book[table, method]["seconds"])) for table in tables}
        slowest = max(tables, key=seconds.__getitem__)
        times = (number(float(np.median(list(seconds.values())))), number(seconds[slowest]))
        ratios = distance_ratios(book, method)
        median = number(float(np.median(ratios))) if ratios else ""
        rows.append((method, median, len(ratios) or "", *times, slowest))
    real = distance_ratios(book, SMOTE_ROW, "distance_real")
    if real:
        rows.append(("real rows, to others", number(float(np.median(real))), len(real), "", "", ""))
    header = ("method", "distance over SMOTE's", "tables", "s a fold", "most", "on")
    return (
        markdown_table(header, rows) + "\n\nDistance: of each synthetic row to the closest real "
        "training row, in standard deviations of the columns; median over rows, repeated ones "
        "included, mean over folds, over the same of SMOTE's rows, median over tables. Tables "
        "where SMOTE's is 0 are left out. Real rows are those of the classes that lack some. "
        "Seconds of making the rows, a generator's training included: mean over folds, then "
        "median over tables."
    )


def _table_section(book: Book, methods: Sequence[str], classifier: str, metric: str) -> str:
    rows = []
    for table in sorted(tables_of(book)):
        means = {
            method: float(fold_scores(book, table, method, classifier, metric).mean())
            for method in methods
            if (table, method) in book
        }
        best = max(means.values())
        rows.append((table, *(_cell(means.get(method), best) for method in methods)))
    return f"### {classifier}: {metric}\n\n{markdown_table(('table', *methods), rows)}"


def _cell(mean: float | None, best: float) -> str:
    if mean is None:
        return ""
    return f"**{100 * mean:.1f}**" if mean == best else f"{100 * mean:.1f}"
