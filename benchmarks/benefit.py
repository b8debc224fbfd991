"""What DiffusionBalancer adds to a classifier, beside the free remedies and an oracle.

    python benchmarks/benefit.py                                # Fashion-MNIST, imbalance ratio 100
    python benchmarks/benefit.py --imbalance-ratio 10           # or 50
    python benchmarks/benefit.py --n-steps 2000                 # training cut short
    python benchmarks/benefit.py --data digits --imbalance-ratio 20
    python benchmarks/benefit.py --n-max 6000 --n-steps 8000 --seeds 0 1 --methods ...    # a GPU

Every method trains the package's default classifier for the same number of steps; every seed draws
its own long tail, network and batches. Every method comes twice, the second time with a classifier
that does not change its images at random in training. Each fit is written to
``benchmarks/results/`` as soon as it is done and not repeated by a later call, so a run may be
stopped at any time. ``--hold-out`` scores on training images that no method sees, in the place of
the test images: for choices.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import cpu_name
from imblearn.over_sampling import SMOTE, RandomOverSampler
from report import append_records, publish, read_records, write_costs, write_report
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_diffult import DiffusionBalancer, WeightedTorchClassifier, make_long_tailed
from sklearn_diffult.datasets import load_fashion_mnist
from sklearn_diffult.networks.unet import UNet

RESULTS = Path(__file__).resolve().parent / "results"
# What "auto" takes for the balanced rows.
N_STEPS = {"digits": 1800, "fashion-mnist": 6000}
N_MAX = {"digits": None, "fashion-mnist": 1000}
# Classes with more rows than the first are many shot, with fewer than the second few shot; with
# another n_max they are as many times as large.
SHOTS = {"digits": (40, 15), "fashion-mnist": (100, 20)}
HELD_OUT = 10_000

Images = tuple[np.ndarray, np.ndarray]
Record = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """What a method hands to the classifier."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None = None
    parameters: dict[str, Any] | None = None
    about: dict[str, Any] | None = None


@dataclass(frozen=True)
class Task:
    """One seed's long-tailed rows, further real rows that no method sees, and rows to score on."""

    X: np.ndarray
    y: np.ndarray
    further: Images
    scored: Images
    seed: int

    @cached_property
    def balanced(self) -> Training:
        """Rows and weights of DiffusionBalancer with default parameters, made once."""
        return balanced_by(DiffusionBalancer(random_state=self.seed, verbose=1), self)


def make_task(
    data: str, imbalance_ratio: float, seed: int, hold_out: bool, n_max: int | None = None
) -> Task:
    """Draw a long tail; what is left of the training rows is there for the oracle."""
    X, y, X_test, y_test = _load(data, seed)
    if hold_out:
        X, X_test, y, y_test = train_test_split(
            X, y, test_size=min(HELD_OUT, len(X) // 3), stratify=y, random_state=0
        )
    number = np.arange(len(y))
    n_max = N_MAX[data] if n_max is None else n_max
    kept, y_tail = make_long_tailed(number, y, imbalance_ratio, n_max, random_state=seed)
    left = np.setdiff1d(number, kept)
    return Task(X[kept], y_tail, (X[left], y[left]), (X_test, y_test), seed)


def _load(data: str, seed: int) -> tuple[np.ndarray, ...]:
    if data == "fashion-mnist":
        return load_fashion_mnist()
    digits = load_digits()
    X, X_test, y, y_test = train_test_split(
        digits.images, digits.target, test_size=0.5, stratify=digits.target, random_state=seed
    )
    return X, y, X_test, y_test


# --------------------------------------------------------------------------------------
# Methods
# --------------------------------------------------------------------------------------


def cross_entropy(task: Task) -> Training:
    """Leave the rows as they are."""
    return Training(task.X, task.y)


def class_weights(task: Task) -> Training:
    """Weigh each class by one over its count."""
    return Training(task.X, task.y, parameters={"class_weight": "balanced"})


def balanced_softmax(task: Task) -> Training:
    """Add the logarithm of the class shares to the logits in training."""
    return Training(task.X, task.y, parameters={"logit_adjustment": 1.0})


def random_over_sampling(task: Task) -> Training:
    """Repeat rows until the classes are alike."""
    return Training(*_over_sampled(RandomOverSampler(random_state=task.seed), task))


def smote(task: Task) -> Training:
    """Interpolate between neighbours of a class until the classes are alike."""
    return Training(*_over_sampled(_smote(task), task))


def smote_of_bytes(task: Task) -> Training:
    """Give SMOTE the images as they come: its differences of bytes wrap around."""
    return Training(*_over_sampled(_smote(task), task, task.X.dtype))


def smote_then_weights(task: Task) -> Training:
    """Let SMOTE go half the way to the largest class, and class weights the rest."""
    counts = np.bincount(task.y)
    half = {label: max(int(n), int(counts.max()) // 2) for label, n in enumerate(counts)}
    X, y = _over_sampled(_smote(task, sampling_strategy=half), task)
    return Training(X, y, parameters={"class_weight": "balanced"})


def diffusion_balancer(task: Task) -> Training:
    """Balance with default parameters."""
    return task.balanced


def wider_diffusion_balancer(task: Task) -> Training:
    """Balance with a U-Net of seven times the parameters, which wants a GPU."""
    return balanced_by(
        DiffusionBalancer(network=wide_unet, random_state=task.seed, verbose=1), task
    )


def wide_unet(sample_shape: tuple[int, ...], n_classes: int) -> UNet:
    """Build the default network for images of this size, 128 channels wide and not 48."""
    channels, height, width = sample_shape
    return UNet((channels, height, width), n_classes, width=128, patch=2)


def balanced_by(balancer: DiffusionBalancer, task: Task) -> Training:
    """Rows and weights of a balancer, with the speed of its training."""
    rows = balancer.fit_resample_weighted(task.X, task.y)
    about = {
        "n_diffusion_steps": len(balancer.loss_curve_),
        "rows_per_second": round(balancer.rows_per_second_),
        "n_parameters": sum(each.numel() for each in balancer.denoiser_.parameters()),
    }
    return Training(*rows, about=about)


def oracle(task: Task) -> Training:
    """Put further real rows, as many as there are, in the place of synthetic ones."""
    X, y = task.further
    counts = np.bincount(task.y)
    chosen = [np.flatnonzero(y == label)[: counts.max() - n] for label, n in enumerate(counts)]
    rows = np.concatenate(chosen)
    return Training(
        np.concatenate([task.X, X[rows]]),
        np.concatenate([task.y, y[rows]]),
        parameters={"class_weight": "balanced"},
    )


def unaugmented(method: Callable[[Task], Training]) -> Callable[[Task], Training]:
    """Keep the classifier from changing its images at random."""

    def method_unaugmented(task: Task) -> Training:
        training = method(task)
        return replace(training, parameters=(training.parameters or {}) | {"augment": None})

    return method_unaugmented


OURS, WIDER, ORACLE = (
    "DiffusionBalancer",
    "DiffusionBalancer, wide U-Net",
    "oracle: further real rows",
)
# Only where the images are bytes.
BYTES = "SMOTE of bytes"
PLAIN = "augment=None: "
METHODS: dict[str, Callable[[Task], Training]] = {
    "cross-entropy": cross_entropy,
    "class weights": class_weights,
    "Balanced Softmax": balanced_softmax,
    "random over-sampling": random_over_sampling,
    "SMOTE": smote,
    "SMOTE halfway, class weights": smote_then_weights,
    BYTES: smote_of_bytes,
    OURS: diffusion_balancer,
    WIDER: wider_diffusion_balancer,
    ORACLE: oracle,
}
METHODS |= {PLAIN + name: unaugmented(method) for name, method in METHODS.items()}


def _smote(task: Task, **parameters: Any) -> SMOTE:
    neighbours = min(5, int(np.bincount(task.y).min()) - 1)
    return SMOTE(k_neighbors=neighbours, random_state=task.seed, **parameters)


def _over_sampled(sampler: Any, task: Task, dtype: Any = np.float32) -> Images:
    """Run an imbalanced-learn sampler, which takes flat rows only; pixels get their dtype back."""
    flat, y = sampler.fit_resample(task.X.reshape(len(task.X), -1).astype(dtype), task.y)
    if np.issubdtype(task.X.dtype, np.integer):
        flat = np.rint(flat)
    return flat.reshape(-1, *task.X.shape[1:]).astype(task.X.dtype), y


# --------------------------------------------------------------------------------------
# Measurement
# --------------------------------------------------------------------------------------


def measure(method: str, task: Task, n_steps: int) -> Record:
    """Train the classifier a method's way; recall per class, and seconds before and in its fit."""
    started = time.perf_counter()
    training = METHODS[method](task)
    prepared = time.perf_counter()
    return {
        "method": method,
        "n_rows_trained_on": len(training.y),
        "seconds_before": round(prepared - started, 1),
        **(training.about or {}),
        **fit_and_score(training, task, n_steps, training.parameters or {}),
    }


def fit_and_score(
    training: Training, task: Task, n_steps: int, parameters: dict[str, Any]
) -> Record:
    """Train the classifier on given rows; recall per class, and seconds of its fit."""
    started = time.perf_counter()
    classifier = WeightedTorchClassifier(n_steps=n_steps, random_state=task.seed, **parameters)
    classifier.fit(training.X, training.y, training.weights)
    fitted = time.perf_counter()
    X, y = task.scored
    guesses = classifier.predict(X)
    return {
        "seed": task.seed,
        "n_steps": n_steps,
        "n_rows": [int(n) for n in np.bincount(task.y)],
        "recalls": [round(float((guesses[y == k] == k).mean()), 4) for k in np.unique(y)],
        "seconds_of_fit": round(fitted - started, 1),
    }


def machine() -> Record:
    """Say where and with what the numbers were made."""
    return {
        "cpu": cpu_name(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def write_tables(records: list[Record], shots: tuple[int, int]) -> str:
    """Write a table of the default classifier and one of the classifier without augmentation."""
    parts = []
    ours = OURS if any(record["method"] == OURS for record in records) else WIDER
    for title, prefix in (
        ("Default classifier", ""),
        ("Classifier without augmentation, `augment=None`", PLAIN),
    ):
        methods = [name for name in METHODS if name.startswith(PLAIN) == bool(prefix)]
        if any(record["method"] in methods for record in records):
            table = write_report(records, shots, methods, prefix + ours, prefix + ORACLE)
            parts.append(f"## {title}\n\n{table.replace(PLAIN, '')}")
    return "\n".join([*parts, write_costs(records, ours)])


def main(arguments: list[str]) -> None:
    """Fill in what is missing of the tables of one data set, and print them."""
    parser = argparse.ArgumentParser(description="Benefit of DiffusionBalancer.")
    parser.add_argument("--data", choices=sorted(N_STEPS), default="fashion-mnist")
    parser.add_argument("--imbalance-ratio", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    # Hours on a CPU.
    common = [name for name in METHODS if name.removeprefix(PLAIN) != WIDER]
    parser.add_argument("--methods", choices=list(METHODS), nargs="+", default=common)
    parser.add_argument("--n-steps", type=int)
    parser.add_argument("--n-max", type=int, help="rows of the largest class")
    parser.add_argument("--hold-out", action="store_true")
    parser.add_argument("--anew", action="store_true", help="repeat fits that are on file")
    chosen = parser.parse_args(arguments)
    n_steps = chosen.n_steps or N_STEPS[chosen.data]
    name = f"benefit_{chosen.data}_{chosen.imbalance_ratio}_{n_steps}"
    name += f"_n_max_{chosen.n_max}" if chosen.n_max else ""
    path = RESULTS / f"{name}{'_hold_out' if chosen.hold_out else ''}.jsonl"
    for seed in chosen.seeds:
        task = make_task(chosen.data, chosen.imbalance_ratio, seed, chosen.hold_out, chosen.n_max)
        known = {record["method"] for record in read_records(path) if record["seed"] == seed}
        for method in chosen.methods:
            if method in known and not chosen.anew:
                continue
            if method.removeprefix(PLAIN) == BYTES and task.X.dtype != np.uint8:
                continue
            record = measure(method, task, n_steps) | machine()
            append_records(path, [record])
            score = np.mean(record["recalls"])
            print(f"seed {seed}  {method:<32} {100 * score:.1f}", flush=True)
    usual = N_MAX[chosen.data]
    scale = chosen.n_max / usual if chosen.n_max and usual else 1
    many, few = (round(scale * n_rows) for n_rows in SHOTS[chosen.data])
    publish(path, "benefit.py", arguments, write_tables(read_records(path), (many, few)))


if __name__ == "__main__":
    main(sys.argv[1:])
