"""Generate and filter in rounds until every class has its count."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_diffult.filters import BANDS, FilterPlan, Verdict, bands, judge
from sklearn_diffult.streams import Scored

# After a poor round, ask for at most this many rows per row that is missing: a class none of whose
# rows pass would otherwise cost a multiple of the training.
MAX_SURPLUS = 2.0
# When a few rows are missing, ask for at least so many: half of one or two might fail again.
LEAST_FURTHER = 32
NEAR_COPY = "near_copy"
PREFIX = "rejected_"
# Share of a class's candidates at or below which more of them are no way out.
NEXT_TO_NONE = 0.05
# Rejected rows kept per class to be looked at.
MAX_EXAMPLES = 16


@dataclass
class Candidates:
    """Rows of one class, collected over the rounds.

    Attributes
    ----------
    label : int
        Class index.
    wanted : int
        Rows to keep.
    report : dict of str to int
        ``generated``, ``kept``, ``rejected_<metric>`` (a row may fail several), ``filled`` (kept
        although rejected, the least bad), ``shortfall``; where "centre" is scored, how many of the
        generated rows are in each of the bands.
    examples, reasons : list of Tensor, list of str
        The first rejected rows that are no near-copies, and which metrics each failed.
    """

    label: int
    wanted: int
    report: dict[str, int] = field(default_factory=lambda: {"generated": 0, "kept": 0})
    kept: list[Tensor] = field(default_factory=list)
    spare: list[Tensor] = field(default_factory=list)
    spare_badness: list[np.ndarray] = field(default_factory=list)
    examples: list[Tensor] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Rows still to be found."""
        return self.wanted - self.report["kept"]

    def to_ask(self) -> int:
        """Rows to generate next, more of them the fewer were kept so far."""
        generated, kept = self.report["generated"], self.report["kept"]
        if generated == 0 or self.missing == 0:
            return self.missing
        surplus = min(MAX_SURPLUS, 1.1 * generated / max(1, kept))
        return max(LEAST_FURTHER, math.ceil(self.missing * surplus))

    def take(self, found: Scored, verdict: Verdict) -> None:
        """Keep what passed, up to what is missing, and remember the rest for filling."""
        rows = found.rows
        passed = np.flatnonzero(verdict.kept)[: self.missing]
        rejected = np.flatnonzero(~verdict.kept & np.isfinite(verdict.badness))
        self.kept.append(rows[passed])
        self.report["generated"] += len(rows)
        self.report["kept"] += len(passed)
        # No more than what is missing now can ever be needed for filling.
        badness = np.concatenate([*self.spare_badness, verdict.badness[rejected]])
        best = np.argsort(badness, kind="stable")[: self.missing]
        self.spare = [torch.cat([*self.spare, rows[rejected]])[best]]
        self.spare_badness = [badness[best]]
        for name, failed in verdict.failed.items():
            key = PREFIX + name
            self.report[key] = self.report.get(key, 0) + int(failed.sum())
        if "centre" in found.scores:
            found_in = bands(found.scores["centre"])
            for band in BANDS:
                self.report[band] = self.report.get(band, 0) + int((found_in == band).sum())
        for row in rejected[: MAX_EXAMPLES - len(self.examples)]:
            self.examples.append(rows[row].clone())
            names = [name for name, failed in verdict.failed.items() if failed[row]]
            self.reasons.append(" ".join(names))

    def finish(self, fill: bool) -> list[Tensor]:
        """Hand over the rows, filled up with the least bad rejected ones if asked."""
        filling = [rows[: self.missing] for rows in self.spare if fill]
        self.report["filled"] = sum(map(len, filling))
        self.report["shortfall"] = self.missing - self.report["filled"]
        handed_over = self.kept + filling
        self.kept, self.spare = [], []
        return handed_over


@dataclass(frozen=True)
class Selection:
    """Selected rows, their class indices, and what became of each class index.

    Attributes
    ----------
    rows : Tensor "n ..."
    indices : ndarray of shape (n,)
    candidates : list of Candidates
        One per class that wanted rows, with report and examples.
    """

    rows: Tensor
    indices: np.ndarray
    candidates: list[Candidates]


def select(
    wanted: dict[int, int],
    draw: Callable[[dict[int, int]], dict[int, Scored]],
    plan: FilterPlan,
    max_rounds: int,
    fill: bool,
) -> Selection:
    """Draw rows of each class until `wanted` of them pass, in at most `max_rounds` rounds.

    Parameters
    ----------
    wanted : dict of int to int
        Rows to select per class index, all positive, at least one class.
    draw : callable
        ``draw(counts) -> scored rows``: the next rows of each class index, as many as it says.
    plan : FilterPlan
        Thresholds on the scores.
    max_rounds : int
        Rounds of generation at most.
    fill : bool
        Make up what is still missing from the least bad rejected rows, never from near-copies.

    Returns
    -------
    Selection
        Rows grouped by class index, in rising order.
    """
    candidates = [Candidates(label, count) for label, count in sorted(wanted.items())]
    for _ in range(max_rounds):
        asking = {each.label: each.to_ask() for each in candidates if each.missing > 0}
        if not asking:
            break
        drawn = draw(asking)
        for each in candidates:
            if each.label in drawn:
                found = drawn[each.label]
                verdict = judge(found.scores, len(found.rows), plan)
                each.take(found, verdict)
    chosen = {each.label: each.finish(fill) for each in candidates}
    counts = [sum(map(len, rows)) for rows in chosen.values()]
    return Selection(
        rows=torch.cat([part for rows in chosen.values() for part in rows]),
        indices=np.repeat(list(chosen), counts),
        candidates=candidates,
    )


def shortfall_message(
    reports: dict[Any, dict[str, int]], max_rounds: int, unasked: Collection[str] = ()
) -> str:
    """Say which classes got too few rows that pass, and what to change; "" if none did.

    Rows that filters on by default (`unasked`) rejected are what there would be without them: some
    of them in a class are no cause for complaint, more than half of it is.
    """
    lacking = {label: report for label, report in reports.items() if _falls_short(report, unasked)}
    if not lacking:
        return ""
    classes = "; ".join(
        f"class {label!r}: {report['filled']} rejected rows used all the same, "
        f"{report['shortfall']} rows missing, {_most_rejected(report)}"
        for label, report in lacking.items()
    )
    rejecting = {_worst(report) for report in lacking.values()} - {""}
    advice = []
    if any(map(_lets_some_pass, lacking.values())):
        advice.append("Raise max_rounds.")
    # More rounds would hardly help where next to none pass.
    elif rejecting - {NEAR_COPY}:
        advice.append(
            "Next to none passed: a model that has hardly been trained makes noise; raise n_steps."
        )
    if maxima := sorted(f"{name}_max" for name in rejecting - {NEAR_COPY}):
        advice.append(f"Raise {' and '.join(maxima)}, or turn the filter off with None.")
    if rejecting - {NEAR_COPY}:
        advice.append(
            "In classes of a few rows, a lower start_noise with start='class' keeps closer to them."
        )
    if NEAR_COPY in rejecting:
        advice.append(
            "Against near-copies of real rows lower n_steps, so that the model knows fewer by "
            "heart, raise start_noise if generation starts from real rows, or lower d1_min, which "
            "says how close is too close."
        )
    return (
        f"After max_rounds={max_rounds} too few rows had passed the filters ({classes}). "
        f"{' '.join(advice)} filter_report_ says what was rejected by which, and on_shortfall "
        "what to do about it."
    )


def _falls_short(report: dict[str, int], unasked: Collection[str]) -> bool:
    """Tell whether rows were missing, and would have been without the filters nobody asked for."""
    if report["shortfall"] or not report["filled"]:
        return report["shortfall"] > 0
    rejected = sum(report[PREFIX + name] for name in _rejecting(report) if name not in unasked)
    wanted = report["kept"] + report["filled"]
    return report["generated"] - rejected < wanted or report["filled"] > wanted / 2


def _lets_some_pass(report: dict[str, int]) -> bool:
    return report["kept"] > NEXT_TO_NONE * report["generated"]


def _worst(report: dict[str, int]) -> str:
    """Name of the metric that rejected most; "" if none rejected any."""
    return max(_rejecting(report), key=lambda name: report[PREFIX + name], default="")


def _rejecting(report: dict[str, int]) -> list[str]:
    """Names of the metrics that rejected any row, in the order of the report."""
    return [key.removeprefix(PREFIX) for key, n in report.items() if key.startswith(PREFIX) and n]


def _most_rejected(report: dict[str, int]) -> str:
    worst = _worst(report)
    if not worst:
        return "none rejected"
    n_rejected = report[PREFIX + worst]
    return f"{n_rejected} of {report['generated']} rejected as {worst.replace('_', ' ')}"
