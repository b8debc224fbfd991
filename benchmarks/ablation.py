"""What each part of DiffusionBalancer is worth, on training images that no method sees.

    python benchmarks/ablation.py --jobs 8            # on a GPU: quarter of an hour; a CPU: a day
    python benchmarks/ablation.py --groups weights    # all on one generator
    python benchmarks/ablation.py --n-steps 2000      # the classifier's training cut short

Fashion-MNIST, imbalance ratio 100, as in `benefit.py --hold-out`. Each variant changes the base in
one way: the defaults, but for the guidance of 1.5, which was one of them when the tables on file
were begun. Generators and candidates are kept in `benchmarks/cache/`, each fit is written to
`benchmarks/results/ablation_*.jsonl` as soon as it is done and not repeated by a later call.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from benefit import (
    N_STEPS,
    RESULTS,
    SHOTS,
    Record,
    Task,
    Training,
    fit_and_score,
    machine,
    make_task,
    wide_unet,
)
from joblib import Parallel, delayed
from report import append_records, by_method, paired_difference, publish, read_records

from sklearn_diffult import DiffusionBalancer, WeightedTorchClassifier
from sklearn_diffult._seeds import child_seeds
from sklearn_diffult.codecs import ImageCodec
from sklearn_diffult.evidence import gather_evidence
from sklearn_diffult.filters import bands, score_centre
from sklearn_diffult.metrics import frechet_distance, inception_score
from sklearn_diffult.plans import defaults
from sklearn_diffult.weights import compute_weights

CACHE = Path(__file__).resolve().parent / "cache"
DATA, IMBALANCE_RATIO = "fashion-mnist", 100
# Of the classifier in whose features rows are compared.
N_JUDGE_STEPS = 2000
# Without guidance, the variant "guidance 1.0", did better: that is the default now.
BASE, BASE_PARAMETERS = "base", {"guidance_scale": 1.5}
OMEGA = defaults(is_image=True).omega
# Rows per class that Frechet distance and inception score look at.
N_JUDGED = 300
# Candidates per wanted row from which those of one band are taken.
BAND_SURPLUS = 3


@dataclass(frozen=True)
class Variant:
    """One change to the base: parameters of the balancer and of the classifier, or a recipe."""

    group: str
    balancer: dict[str, Any] = field(default_factory=dict)
    classifier: dict[str, Any] = field(default_factory=dict)
    recipe: Callable[[Task, dict[str, Any]], Training] | None = None


def new_balancer(task: Task, parameters: dict[str, Any]) -> DiffusionBalancer:
    """Build the base's balancer with other parameters."""
    common = {"memory": CACHE, "random_state": task.seed, "verbose": 1}
    return DiffusionBalancer(**common | BASE_PARAMETERS | parameters)


def balance(task: Task, parameters: dict[str, Any]) -> Training:
    """Balance, keeping generators and candidates for other variants."""
    balancer = new_balancer(task, parameters)
    return Training(*balancer.fit_resample_weighted(task.X, task.y))


def unbalanced(task: Task, parameters: dict[str, Any]) -> Training:
    """Leave the rows as they are."""
    return Training(task.X, task.y)


def head_share(share: float) -> Callable[[Task, dict[str, Any]], Training]:
    """Train the generator on all rows of the rarer half of classes and a share of the others'."""

    def recipe(task: Task, parameters: dict[str, Any]) -> Training:
        counts = np.bincount(task.y)
        is_head = counts > np.median(counts)
        drawn = np.random.RandomState(task.seed).rand(len(task.y))
        seen = ~is_head[task.y] | (drawn < share)
        wanted = {label: int(counts.max()) for label in np.flatnonzero(~is_head)}
        balancer = new_balancer(task, {"sampling_strategy": wanted, **parameters})
        X, y = balancer.fit_resample(task.X[seen], task.y[seen])
        synthetic = balancer.synthetic_mask_
        X = np.concatenate([task.X, X[synthetic]])
        y = np.concatenate([task.y, np.asarray(y)[synthetic]])
        is_synthetic = np.arange(len(y)) >= len(task.y)
        weights = compute_weights(y, is_synthetic, OMEGA, balancer.weighting)
        return Training(X, y, weights)

    return recipe


def only_band(name: str) -> Callable[[Task, dict[str, Any]], Training]:
    """Use synthetic rows of one band only, as many as there are."""

    def recipe(task: Task, parameters: dict[str, Any]) -> Training:
        counts = np.bincount(task.y)
        plenty = {
            label: int(n + BAND_SURPLUS * (counts.max() - n)) for label, n in enumerate(counts)
        }
        drawn = balance(task, {**parameters, "sampling_strategy": plenty})
        codec = ImageCodec().fit(task.X)
        evidence = gather_evidence(
            codec.encode(task.X), task.y, seed=child_seeds(task.seed, 4)[3], device="auto"
        )
        kept = [np.arange(len(task.y))]
        for label, n in enumerate(counts):
            rows = len(task.y) + np.flatnonzero(drawn.y[len(task.y) :] == label)
            if len(rows) == 0:
                continue
            flat = codec.encode(drawn.X[rows]).flatten(1).numpy()
            chosen = bands(score_centre(evidence, flat, label)) == name
            kept.append(rows[chosen][: counts.max() - n])
        rows = np.concatenate(kept)
        mask = rows >= len(task.y)
        y = drawn.y[rows]
        return Training(drawn.X[rows], y, compute_weights(y, mask, OMEGA, "class"))

    return recipe


VARIANTS: dict[str, Variant] = {
    BASE: Variant("weights"),
    **{f"omega {w}": Variant("weights", {"omega": w}) for w in (0.1, 0.3, 0.5, 0.7, 0.9)},
    "omega 0: class weights": Variant("weights", {"omega": 0.0}),
    **{
        f"per row, omega {w}": Variant("weights", {"weighting": "row", "omega": w})
        for w in (0.1, 0.3, 1.0)
    },
    "per row, omega 0.3, Balanced Softmax": Variant(
        "weights", {"weighting": "row", "omega": 0.3}, {"logit_adjustment": 1.0}
    ),
    **{
        f"omega {w}, weight_temper 1, Balanced Softmax": Variant(
            "weights", {"omega": w, "weight_temper": 1.0}, {"logit_adjustment": 1.0}
        )
        for w in (0.2, 0.5)
    },
    "no synthetic rows, Balanced Softmax": Variant(
        "weights", classifier={"logit_adjustment": 1.0}, recipe=unbalanced
    ),
    "weighted loss": Variant("weights", classifier={"weight_mode": "loss"}),
    "no augmentation in the classifier": Variant("weights", classifier={"augment": None}),
    "d1_max 1.5": Variant("filters", {"d1_max": 1.5}),
    **{f"d2_max {d}": Variant("filters", {"d2_max": d}) for d in (1.0, 1.5, 2.0)},
    "d3_max 5": Variant("filters", {"d3_max": 5.0}),
    "d1_max 1.5, d2_max 2, d3_max 5": Variant(
        "filters", {"d1_max": 1.5, "d2_max": 2.0, "d3_max": 5.0}
    ),
    **{
        f"band {name} only": Variant("filters", recipe=only_band(name))
        for name in ("ID", "AID", "OOD")
    },
    **{f"guidance {g}": Variant("generation", {"guidance_scale": g}) for g in (1.0, 2.5)},
    "N_t 500": Variant("generation", {"sampling_strategy": 500}),
    # Rows for every class, so that what is synthetic says nothing about the class.
    **{
        f"N_t 2000, omega {w}": Variant("generation", {"sampling_strategy": 2000, "omega": w})
        for w in (0.2, 0.5)
    },
    **{
        f"start class, noise {s}": Variant("generation", {"start": "class", "start_noise": s})
        for s in (0.5, 2.0)
    },
    "start head, noise 4": Variant("generation", {"start": "head", "start_noise": 4.0}),
    # What did best alone, with more weight, a filter or some of Balanced Softmax.
    **{
        f"guidance 1.0, {name}": Variant("combined", {"guidance_scale": 1.0, **changes})
        for name, changes in {
            "omega 0.3": {"omega": 0.3},
            "omega 0.5": {"omega": 0.5},
            "d2_max 1.5": {"d2_max": 1.5},
            "coral": {"regularizer": "coral"},
        }.items()
    },
    "guidance 1.0, half Balanced Softmax": Variant(
        "combined",
        {"guidance_scale": 1.0, "weight_temper": 0.5},
        {"logit_adjustment": 0.5},
    ),
    "no augmentation": Variant("training", {"augmentation": 0.0}),
    "cbdm": Variant("training", {"regularizer": "cbdm"}),
    "coral": Variant("training", {"regularizer": "coral"}),
    "class_temper 1": Variant("training", {"class_temper": 1.0}),
    "class_temper 0": Variant("training", {"class_temper": 0.0}),
    **{f"{n} steps": Variant("training", {"n_steps": n}) for n in (300, 1000, 5000)},
    "wide U-Net": Variant("training", {"network": wide_unet}),
    **{
        f"{100 * share:.0f} % of head rows": Variant("head", recipe=head_share(share))
        for share in (0.0, 0.4, 0.8, 1.0)
    },
}


def measure(name: str, task: Task, judge: WeightedTorchClassifier, n_steps: int) -> Record:
    """Train the classifier on one variant's rows; recall per class, and how good the rows are."""
    variant = VARIANTS[name]
    started = time.perf_counter()
    training = (variant.recipe or balance)(task, variant.balancer)
    prepared = time.perf_counter()
    return {
        "method": name,
        "group": variant.group,
        "n_synthetic": [int(n) for n in np.bincount(training.y) - np.bincount(task.y)],
        "seconds_before": round(prepared - started, 1),
        **fit_and_score(training, task, n_steps, variant.classifier),
        **judge_rows(training, task, judge),
        **machine(),
    }


def judge_rows(training: Training, task: Task, judge: WeightedTorchClassifier) -> Record:
    """Frechet distance to unseen real rows, in the mean over classes, and inception score."""
    X, y = training.X[len(task.y) :], training.y[len(task.y) :]
    real, real_y = task.scored
    distances, judged = {}, []
    for label in np.unique(y):
        rows = X[y == label][:N_JUDGED]
        if len(rows) == N_JUDGED:
            theirs = real[real_y == label][:N_JUDGED]
            distances[int(label)] = frechet_distance(rows, theirs, features=judge.embed)
            judged.append(rows)
    if not judged:
        return {"frechet_distances": {}, "inception_score": None}
    mean, _ = inception_score(np.concatenate(judged), features=judge.predict_proba)
    return {
        "frechet_distances": {label: round(float(d), 3) for label, d in distances.items()},
        "inception_score": round(float(mean), 3),
    }


def make_judge(task: Task) -> WeightedTorchClassifier:
    """Train the classifier in whose features rows are compared, on further real rows alone."""
    X, y = task.further
    rows = np.random.RandomState(0).permutation(len(y))[:20_000]
    judge = WeightedTorchClassifier(n_steps=N_JUDGE_STEPS, augment=None, random_state=0)
    return judge.fit(X[rows], y[rows])


def write_report(records: list[Record]) -> str:
    """Write the table: accuracy, difference to the base paired by seed, quality of the rows.

    The difference is over all seeds of a variant; all else is of the seed that most variants have,
    as means over other long tails do not compare.
    """
    table = by_method(records, SHOTS[DATA])
    if not table:
        return "Nothing is on file.\n"
    [(seed, _)] = Counter(record["seed"] for record in records).most_common(1)
    lines = [
        "| variant | seeds | balanced accuracy | against the base | many | medium | few "
        "| Frechet distance | inception score | synthetic rows |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    shown = {record["method"]: record for record in records if record["seed"] == seed}
    group = ""
    for name, variant in VARIANTS.items():
        if name not in table:
            continue
        if variant.group != group:
            group = variant.group
            lines.append(f"| **{group}** |" + " |" * 9)
        difference = paired_difference(table[name], table.get(BASE, {}))
        against = f"{difference.mean():+.1f}" if len(difference) and name != BASE else ""
        cells = ["", against, *[""] * 6]
        if name in shown:
            cells = _cells(table[name][seed], shown[name], against)
        lines.append("| " + " | ".join([name, str(len(table[name])), *cells]) + " |")
    return "\n".join(lines) + f"\n\nAll but differences: seed {seed}.\n"


def _cells(scores: dict[str, float], record: Record, against: str) -> list[str]:
    distances, inception = record["frechet_distances"].values(), record["inception_score"]
    return [
        f"{scores['all']:.1f}",
        against,
        *(f"{scores[group]:.1f}" for group in ("many", "medium", "few")),
        f"{np.mean(list(distances)):.2f}" if distances else "",
        f"{inception:.2f}" if inception is not None else "",
        str(sum(record["n_synthetic"])),
    ]


def main(arguments: list[str]) -> None:
    """Fill in what is missing, and print the table."""
    groups = sorted({variant.group for variant in VARIANTS.values()})
    parser = argparse.ArgumentParser(description="Ablation of DiffusionBalancer.")
    parser.add_argument("--groups", choices=groups, nargs="+", default=groups)
    parser.add_argument("--variants", choices=list(VARIANTS), nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--n-steps", type=int, default=N_STEPS[DATA], help="of the classifier")
    parser.add_argument("--jobs", type=int, default=1, help="variants side by side")
    chosen = parser.parse_args(arguments)
    path = RESULTS / f"ablation_{chosen.n_steps}.jsonl"
    for seed in chosen.seeds:
        task = make_task(DATA, IMBALANCE_RATIO, seed, hold_out=True)
        known = {record["method"] for record in read_records(path) if record["seed"] == seed}
        missing = [
            name
            for name in chosen.variants
            if name not in known and VARIANTS[name].group in chosen.groups
        ]
        if not missing:
            continue
        judge = make_judge(task)
        # The base's generator first, as most variants go on from it.
        first = [BASE] if BASE in missing else []
        for jobs, names in (
            (1, first),
            (chosen.jobs, [each for each in missing if each not in first]),
        ):
            work = (delayed(measure)(name, task, judge, chosen.n_steps) for name in names)
            for record in Parallel(jobs, return_as="generator_unordered")(work):
                append_records(path, [record])
                score = 100 * np.mean(record["recalls"])
                print(f"seed {seed}  {record['method']:<40} {score:.1f}", flush=True)
    publish(path, "ablation.py", arguments, write_report(read_records(path)))


if __name__ == "__main__":
    main(sys.argv[1:])
