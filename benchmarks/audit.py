"""Validity and worth of synthetic rows by the package resample-audit: SMOTE's and ours.

    python benchmarks/audit.py                               # 20 tables: 15 minutes
    python benchmarks/audit.py --tables glass2 new_thyroid1

The package makes rows from a half of each class and asks whether their nearest neighbours in the
other half are of the majority (ER_split, lower is better; ER_naive asks the half they were made
from), and how much F1 they add to a logistic regression over the better of class weights and a
moved threshold (information gain). Each audit is a line of ``benchmarks/results/audit.jsonl`` at
once and not repeated by a later call.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from benefit import RESULTS, machine
from imblearn.over_sampling import SMOTE
from report import append_records, publish
from sklearn.preprocessing import StandardScaler
from tables import BINARY, load_table
from tables_report import OURS, read_records
from throughput import markdown_table

from sklearn_diffult import DiffusionBalancer

Record = dict[str, Any]

SAMPLERS: dict[str, Callable[..., Any]] = {"SMOTE": SMOTE, OURS: DiffusionBalancer}
QUICK: dict[str, dict[str, Any]] = {OURS: {"n_steps": 50}}
NUMBERS = ("er_split", "er_naive", "info_gain", "delta_brier")


def measure(table: str, method: str, quick: bool) -> Record:
    """Audit one sampler, with its default parameters, on one table."""
    from resample_audit import audit

    rows = load_table(table)
    # Its distance (Hassanat's) is bounded in every column but depends on the unit, in which a
    # column of fractions hardly counts beside one of thousands: both get columns of one spread.
    X = StandardScaler().fit_transform(rows.X)
    parameters = {"random_state": 0} | (QUICK.get(method, {}) if quick else {})
    started = time.perf_counter()
    with warnings.catch_warnings(action="ignore"):
        try:
            # A factory, as it wants a fresh sampler for each of its halves.
            found = audit(X, rows.y, lambda: SAMPLERS[method](**parameters), seed=0).to_dict()
            result = {key: round(float(found[key]), 4) for key in NUMBERS}
            result |= {key: found[key] for key in ("n_synth", "splits_used", "best_baseline")}
        except ValueError as error:
            result = {"failed": str(error)[:160]}
    seconds = round(time.perf_counter() - started, 1)
    package = {"package": f"resample-audit {version('resample-audit')}"}
    return {"table": table, "method": method, **result, "seconds": seconds} | machine() | package


def write_report(records: Sequence[Record]) -> str:
    """Write the share of tables on which ours does better, and every table."""
    if not records:
        return "Nothing is on file.\n"
    done = {(r["table"], r["method"]): r for r in records if "failed" not in r}
    tables = sorted({r["table"] for r in records if all((r["table"], m) in done for m in SAMPLERS)})
    pairs = [[done[table, method] for method in ("SMOTE", OURS)] for table in tables]
    rows = [
        (smote["table"], *(f"{side[key]:.3f}" for key in NUMBERS for side in (smote, ours)))
        for smote, ours in pairs
    ]
    header = ("table", *(f"{key}, {side}" for key in NUMBERS for side in ("SMOTE", "ours")))
    about = sorted(
        {f"{r['cpu']}, {r['threads']} threads, torch {r['torch']}, {r['package']}" for r in records}
    )
    failed = [record for record in records if "failed" in record]
    lines = [
        f"{'; '.join(about)}. Default parameters, `random_state=0`, standardised columns.",
        f"ER_split is lower than SMOTE's on {_share(pairs, 'er_split', -1)}, information gain "
        f"higher on {_share(pairs, 'info_gain', 1)}, Brier score lower on "
        f"{_share(pairs, 'delta_brier', -1)}.",
        markdown_table(header, rows),
        "er: share of synthetic rows whose nearest real neighbour is of the majority. info_gain: "
        "F1 over that of the best free remedy. delta_brier: Brier score over that of the rows as "
        "they are.",
        *(f"{r['method']} failed on {r['table']}: {r['failed']}." for r in failed),
    ]
    return "\n\n".join(lines) + "\n"


def _share(pairs: Sequence[Sequence[Record]], key: str, sign: int) -> str:
    """Count the tables where ours is better, more being so if `sign` is 1."""
    better = sum(sign * (ours[key] - smote[key]) > 0 for smote, ours in pairs)
    equal = sum(ours[key] == smote[key] for smote, ours in pairs)
    return f"{better} of {len(pairs)} tables" + (f" ({equal} equal)" if equal else "")


def main(arguments: list[str]) -> None:
    """Fill in what is missing, and write the report."""
    parser = argparse.ArgumentParser(description="Audit of SMOTE's and our rows.")
    parser.add_argument("--tables", choices=BINARY, nargs="+", default=BINARY)
    parser.add_argument("--quick", action="store_true", help="a small version, to see it run")
    parser.add_argument("--anew", action="store_true", help="repeat what is on file")
    chosen = parser.parse_args(arguments)
    path = RESULTS / f"audit{'_quick' if chosen.quick else ''}.jsonl"
    known = set() if chosen.anew else {(r["table"], r["method"]) for r in read_records(path)}
    for table in chosen.tables:
        for method in SAMPLERS:
            if (table, method) in known:
                continue
            record = measure(table, method, chosen.quick)
            append_records(path, [record])
            print({key: record.get(key) for key in ("table", "method", "seconds", *NUMBERS)})
    publish(path, "audit.py", arguments, write_report(read_records(path)))


if __name__ == "__main__":
    main(sys.argv[1:])
