"""Time and memory of DiffusionBalancer on tables, beside CTGAN and ForestDiffusion.

    python benchmarks/table_time.py                  # up to three hours: --limit for each rival
    python benchmarks/table_time.py --limit 600
    python benchmarks/table_time.py --quick          # small tables; the numbers mean little

The whole of ``fit_resample`` with default parameters on a table of 10,000 x 30 with imbalance
ratio 20, then ours on 1,000 to 100,000 rows. Every run has a process of its own.

Only the standard library is imported here: on Linux a process starts with its parent's peak
memory, so a large parent would hide what the runs take. For the same reason the tables are made
in further processes, and only read in the one that is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from math import log
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from throughput import markdown_table, number

HERE = Path(__file__).resolve().parent
OURS = "DiffusionBalancer"
# The defaults of the packages themselves, where `tables.py` takes less.
RIVALS: dict[str, dict[str, Any]] = {
    "CTGAN": {},
    "ForestDiffusion": {"duplicate_K": 100, "n_jobs": -1},
}
N_COLUMNS, IMBALANCE_RATIO = 30, 20
SIZES = (1_000, 3_162, 10_000, 31_623, 100_000)
QUICK_SIZES = (1_000, 2_000)
REPETITIONS = 3

Record = dict[str, Any]


def make_table(request: Record) -> Record:
    """Write a table of two classes in several clusters: measures, counts and codes."""
    import numpy as np
    from sklearn.datasets import make_classification

    X, y = make_classification(
        request["n_rows"],
        N_COLUMNS,
        n_informative=12,
        n_redundant=6,
        n_clusters_per_class=3,
        weights=[IMBALANCE_RATIO / (IMBALANCE_RATIO + 1)],
        flip_y=0,
        shuffle=True,
        random_state=request["seed"],
    )
    X[:, 20:25] = np.rint(10 * np.abs(X[:, 20:25]))
    # Five codes, equally frequent.
    X[:, 25:] = (5 * X[:, 25:].argsort(axis=0).argsort(axis=0)) // len(X)
    np.savez(request["path"], X=X, y=y)
    return {"bytes": X.nbytes, "counts": np.bincount(y).tolist()}


def fit_resample(request: Record) -> Record:
    """Balance a table; seconds, and the growth of peak memory over imports and the table."""
    import warnings

    import numpy as np
    from cases import peak_memory
    from tables import METHODS, Fold

    method, parameters = request["method"], request["parameters"]
    if method == "CTGAN":
        import ctgan  # noqa: F401
    elif method == "ForestDiffusion":
        import ForestDiffusion  # noqa: F401
    with np.load(request["path"]) as file:
        table = Fold(file["X"], file["y"], np.zeros(N_COLUMNS, dtype=bool), request["seed"])
    warnings.simplefilter("ignore")
    baseline, started = peak_memory(), time.perf_counter()
    training = METHODS[method](table, **parameters)
    return {
        "seconds": time.perf_counter() - started,
        "growth_bytes": peak_memory() - baseline,
        "table_bytes": table.X.nbytes,
        "n_synthetic": len(training.y) - len(table.y),
        "n_repeated": training.n_repeated,
    }


def describe(request: Record) -> Record:
    """Say where and with what the numbers are made."""
    from importlib.metadata import version

    from benefit import machine

    packages = ("scikit-learn", "ctgan", "ForestDiffusion", "xgboost")
    return machine() | {"versions": {name: version(name) for name in packages}}


CASES = {case.__name__: case for case in (make_table, fit_resample, describe)}


def run_case(case: str, request: Record, threads: int, limit: float | None = None) -> Record | None:
    """Run a case in a fresh process; None if it was killed after `limit` seconds."""
    # Set here, not inherited: a library reads these when it is first imported.
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--case", case, json.dumps(request)]
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # With the workers that it may have started, also when this process is interrupted.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"case {case!r} failed:\n{errors[-4000:]}")
    reply: Record = json.loads(output.splitlines()[-1])
    return reply


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the exponent of growth: least squares among logarithms."""
    return linear_regression([log(n) for n in sizes], [log(value) for value in values]).slope


def measure(options: argparse.Namespace, folder: str) -> Record:
    """Run everything once or, ours at the size of the comparison, three times."""
    sizes = QUICK_SIZES if options.quick else SIZES
    compared = sizes[len(sizes) // 2]
    requests, tables = {}, {}
    for n_rows in sizes:
        path = f"{folder}/{n_rows}.npz"
        requests[n_rows] = {"path": path, "n_rows": n_rows, "seed": options.seed}
        tables[n_rows] = run_case("make_table", requests[n_rows], options.threads)

    def run(method: str, n_rows: int, limit: float | None = None) -> Record | None:
        parameters = RIVALS.get(method, {"n_steps": 100} if options.quick else {})
        request = requests[n_rows] | {"method": method, "parameters": parameters}
        reply = run_case("fit_resample", request, options.threads, limit)
        print(f"{method}, {n_rows:,} rows: {reply or f'killed after {limit} s'}", flush=True)
        return reply

    def run_rival(name: str) -> Record | None:
        try:
            return run(name, compared, options.limit)
        except RuntimeError as error:  # what was measured before must not be lost
            return {"failed": str(error).splitlines()[-1][:160]}

    ours = {n: [run(OURS, n)] for n in sizes}
    ours[compared] += [run(OURS, compared) for _ in range(REPETITIONS - 1)]
    return {
        "compared": compared,
        "tables": tables,
        "ours": ours,
        "rivals": {name: run_rival(name) for name in RIVALS},
    }


def markdown(report: Record) -> str:
    """Write the report. Its keys may be numbers, or text as in a JSON file."""
    machine, compared = report["machine"], int(report["compared"])
    ours = {int(n): runs for n, runs in report["ours"].items()}
    seconds = {n: median(run["seconds"] for run in runs) for n, runs in ours.items()}
    rows = [(OURS, " ".join(number(run["seconds"]) for run in ours[compared]), "1")]
    for name, run in report["rivals"].items():
        rows.append((name, *_rival_cells(run, report["limit"], seconds[compared])))
    growth = []
    for n, runs in ours.items():
        memory = median(run["growth_bytes"] for run in runs)
        over_table = number(memory / runs[0]["table_bytes"])
        growth.append((f"{n:,}", number(seconds[n]), number(memory / 2**20), over_table))
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return "\n\n".join(
        [
            "# Time of balancing a table",
            f"`{report['command']}`",
            f"{machine['date']}. {machine['cpu']}, {report['threads']} threads, torch "
            f"{machine['torch']}, {versions}; seed {report['seed']}. What the numbers mean: "
            "[README](../README.md).",
            f"## {compared:,} rows, {N_COLUMNS} columns, imbalance ratio {IMBALANCE_RATIO}",
            markdown_table(("", "s of fit_resample, each run", "times ours (median)"), rows),
            "## Growth of ours",
            markdown_table(
                ("rows", "s", "growth of peak memory, MiB", "over the table's bytes"), growth
            ),
            f"Seconds grow as rows to the power of {slope(*_points(seconds)):.2f} (least squares "
            "among logarithms). Memory is the growth of the peak over imports and the table.",
        ]
    )


def _rival_cells(run: Record | None, limit: float, ours: float) -> tuple[str, str]:
    """Write seconds and their ratio to ours; no run means that it was killed at the limit."""
    if run is None:
        return f"more than {number(limit)}", f"more than {number(limit / ours)}"
    if "failed" in run:
        return f"failed: {run['failed']}", ""
    return number(run["seconds"]), number(run["seconds"] / ours)


def _points(values: dict[int, float]) -> tuple[list[int], list[float]]:
    return list(values), list(values.values())


def main(arguments: list[str]) -> None:
    """Measure, and write what came out."""
    parser = argparse.ArgumentParser(description="Time of balancing a table.")
    parser.add_argument("--quick", action="store_true", help="a small version, to see it run")
    parser.add_argument("--limit", type=float, default=3600, help="seconds that a rival may take")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options, folder)
    report |= {
        "command": shlex.join(["python", "benchmarks/table_time.py", *arguments]),
        "machine": run_case("describe", {}, options.threads),
        "threads": options.threads,
        "seed": options.seed,
        "limit": options.limit,
    }
    path = HERE / "results" / f"table_time{'_quick' if options.quick else ''}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(report) + "\n")
    print(markdown(report))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps(CASES[sys.argv[2]](json.loads(sys.argv[3]))))
    else:
        main(sys.argv[1:])
