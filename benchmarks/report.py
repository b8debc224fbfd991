"""Tables of `benefit.py`: means with spread, and differences paired by seed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sklearn_diffult.metrics.shots import shot_masks

Record = dict[str, Any]

GROUPS = ("all", "many", "medium", "few")


def read_records(path: Path, keys: Sequence[str] = ("method", "seed")) -> list[Record]:
    """Read one record per line; of those that agree in the keys the last counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    return list({tuple(record[key] for key in keys): record for record in records}.values())


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Add one line per record."""
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def publish(path: Path, script: str, arguments: Sequence[str], text: str) -> None:
    """Write a report beside its records, below the command that made it, and print both."""
    command = shlex.join(["python", f"benchmarks/{script}", *arguments])
    text = f"`{command}`\n\n{text}"
    path.with_suffix(".md").write_text(text)
    print(text)


def shot_accuracies(record: Record, shots: tuple[int, int]) -> dict[str, float]:
    """Mean recall in % over all classes, and over those with many, a medium number and few rows."""
    recalls, counts = 100 * np.array(record["recalls"]), np.array(record["n_rows"])
    masks = {"all": counts > 0} | shot_masks(counts, *shots)
    return {
        group: float(recalls[mask].mean()) if mask.any() else np.nan
        for group, mask in masks.items()
    }


def by_method(
    records: list[Record], shots: tuple[int, int]
) -> dict[str, dict[int, dict[str, float]]]:
    """Accuracies in % by method, seed and shot group."""
    table: dict[str, dict[int, dict[str, float]]] = {}
    for record in records:
        scores = shot_accuracies(record, shots)
        table.setdefault(record["method"], {})[record["seed"]] = scores
    return table


def paired_difference(
    ours: dict[int, dict[str, float]], theirs: dict[int, dict[str, float]], group: str = "all"
) -> np.ndarray:
    """Ours minus theirs, per seed that both have."""
    seeds = sorted(set(ours) & set(theirs))
    return np.array([ours[seed][group] - theirs[seed][group] for seed in seeds])


def interval(differences: np.ndarray) -> float:
    """Half the width of the 95 % confidence interval of a mean, from Student's t."""
    n = len(differences)
    if n < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n))


def write_report(
    records: list[Record], shots: tuple[int, int], methods: list[str], ours: str, oracle: str
) -> str:
    """Write the table of one data set, and what it says about the best baseline.

    Of seeds that some method still lacks, nothing is shown: means over other long tails do not
    compare.
    """
    done = [{r["seed"] for r in records if r["method"] == name} for name in methods]
    common = set.intersection(*filter(None, done)) if any(done) else set()
    records = [record for record in records if record["seed"] in common]
    table = by_method(records, shots)
    known = [method for method in methods if method in table]
    lines = [
        "| method | seeds | balanced accuracy | many | medium | few | ours minus this |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in known:
        cells = [_mean_and_spread([s[group] for s in table[method].values()]) for group in GROUPS]
        difference = ""
        if ours in table and method != ours:
            differences = paired_difference(table[ours], table[method])
            spread = f" ± {interval(differences):.1f}" if len(differences) > 1 else ""
            difference = f"{differences.mean():+.1f}{spread}"
        lines.append(f"| {method} | {len(table[method])} | {' | '.join(cells)} | {difference} |")
    lines += [
        "",
        "Test accuracy in %: mean ± standard deviation over seeds; differences are paired",
    ]
    lines += ["by seed, ± half of their 95 % confidence interval (Student's t).", ""]
    lines += _conclusion(table, [m for m in known if m not in (ours, oracle)], ours, oracle)
    return "\n".join(lines) + "\n"


def _conclusion(table: dict[str, Any], baselines: list[str], ours: str, oracle: str) -> list[str]:
    if ours not in table or not baselines:
        return []
    means = {
        method: np.mean([scores["all"] for scores in table[method].values()])
        for method in [*baselines, ours]
    }
    best = max(baselines, key=lambda method: means[method])
    lines = [f"Best baseline: {best}, {means[best]:.1f}; ours {means[ours] - means[best]:+.1f}."]
    if oracle in table:
        gap = paired_difference(table[oracle], table[best]).mean()
        closed = paired_difference(table[ours], table[best]).mean() / gap
        lines.append(f"Share of the oracle's gap of {gap:.1f} points closed: {100 * closed:.0f} %.")
    return lines


def write_costs(records: list[Record], ours: str) -> str:
    """Say what the records were made with, and how long balancing took."""
    minutes = [r["seconds_before"] / 60 for r in records if r["method"] == ours]
    machines = sorted(
        {f"{r.get('gpu', r['cpu'])}, {r['threads']} threads, torch {r['torch']}" for r in records}
    )
    steps = sorted({r["n_steps"] for r in records})
    lines = [f"Classifier steps: {steps}. {'; '.join(machines)}."]
    if minutes:
        lines.append(f"Minutes of `fit_resample`: {', '.join(f'{m:.1f}' for m in minutes)}.")
    return "\n".join(lines) + "\n"


def _mean_and_spread(values: list[float]) -> str:
    if np.isnan(values).all():
        return ""
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"
