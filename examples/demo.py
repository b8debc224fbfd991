"""Balance a long-tailed image set with a diffusion model trained on nothing but itself.

Compares DiffusionBalancer with the free remedies: same classifier, same optimisation steps, several
seeds (each draws its own long tail, network and batches). ``DATA`` is digits (default) or
fashion-mnist, ``SEEDS`` the number of seeds.
"""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from imblearn.over_sampling import SMOTE, RandomOverSampler
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_diffult import DiffusionBalancer, WeightedTorchClassifier, make_long_tailed
from sklearn_diffult.datasets import load_fashion_mnist
from sklearn_diffult.metrics import ShotScores, shot_scores
from sklearn_diffult.plotting import FilterDisplay, SyntheticDisplay


@dataclass(frozen=True)
class Setting:
    """A data set's protocol: what is held out, how long the tail is, what counts as few."""

    load: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
    imbalance_ratio: float
    n_max: int | None
    many_more_than: int
    few_less_than: int
    n_seeds: int
    n_classifier_steps: int
    n_diffusion_steps: int | str


def digits(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split scikit-learn's digits into halves; the test half keeps all classes alike."""
    data = load_digits()
    X, X_test, y, y_test = train_test_split(
        data.images, data.target, test_size=0.5, stratify=data.target, random_state=seed
    )
    return X, y, X_test, y_test


def fashion_mnist(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fashion-MNIST as shipped: 60,000 training images, a balanced test set of 10,000."""
    return load_fashion_mnist()


SETTINGS = {
    "digits": Setting(digits, 20, None, 40, 15, 3, n_classifier_steps=400, n_diffusion_steps=800),
    "fashion-mnist": Setting(
        fashion_mnist, 100, 1000, 100, 20, 1, n_classifier_steps=1000, n_diffusion_steps="auto"
    ),
}


Build = Callable[..., WeightedTorchClassifier]


def over_sampled(sampler: Any, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run an imbalanced-learn sampler, which takes flat rows only, on images.

    As floats: its differences of bytes would wrap around.
    """
    flat, y_res = sampler.fit_resample(X.reshape(len(X), -1).astype(np.float32), y)
    if X.dtype.kind == "u":
        flat = np.rint(flat)
    return flat.reshape(-1, *X.shape[1:]).astype(X.dtype), y_res


def fit_all(
    X: np.ndarray, y: np.ndarray, seed: int, classifier: Build
) -> dict[str, Callable[[], WeightedTorchClassifier]]:
    """Return one function per method that fits the classifier its way."""
    neighbours = min(5, np.bincount(y).min() - 1)
    return {
        "cross-entropy": lambda: classifier().fit(X, y),
        "class weights": lambda: classifier(class_weight="balanced").fit(X, y),
        "Balanced Softmax": lambda: classifier(logit_adjustment=1.0).fit(X, y),
        "random over-sampling": lambda: classifier().fit(
            *over_sampled(RandomOverSampler(random_state=seed), X, y)
        ),
        "SMOTE": lambda: classifier().fit(
            *over_sampled(SMOTE(k_neighbors=neighbours, random_state=seed), X, y)
        ),
    }


def main() -> None:
    name = os.environ.get("DATA", "digits")
    if name not in SETTINGS:
        raise SystemExit(f"DATA={name!r} must be one of {sorted(SETTINGS)}.")
    setting = SETTINGS[name]
    n_seeds = int(os.environ.get("SEEDS", setting.n_seeds))
    results: dict[str, list[ShotScores]] = {}
    started = time.perf_counter()
    for seed in range(n_seeds):
        X, y, X_test, y_test = setting.load(seed)
        X, y = make_long_tailed(
            X, y, setting.imbalance_ratio, n_max=setting.n_max, random_state=seed
        )
        print(f"\nseed {seed}: {name}, training rows per class {np.bincount(y).tolist()}")

        def record(method: str, fitted: WeightedTorchClassifier, began: float) -> None:
            score = shot_scores(
                y_test,  # noqa: B023 - called within this turn of the loop
                fitted.predict(X_test),  # noqa: B023
                y,  # noqa: B023
                many_more_than=setting.many_more_than,
                few_less_than=setting.few_less_than,
            )
            results.setdefault(method, []).append(score)
            seconds = time.perf_counter() - began
            print(f"  {method:<22} {score.balanced_accuracy:.3f}   ({seconds:.0f} s)", flush=True)

        # The same for every method, with the same number of steps.
        classifier = functools.partial(
            WeightedTorchClassifier, n_steps=setting.n_classifier_steps, random_state=seed
        )
        for method, fit in fit_all(X, y, seed, classifier).items():
            began = time.perf_counter()
            record(method, fit(), began)
        began = time.perf_counter()
        balancer = DiffusionBalancer(
            n_steps=setting.n_diffusion_steps, random_state=seed, verbose=1
        )
        X_res, y_res, weights = balancer.fit_resample_weighted(X, y)
        record("DiffusionBalancer", classifier().fit(X_res, y_res, weights), began)
        if seed == 0:
            pictures = save_pictures(balancer, X_res, y_res, name)

    print_table(results, setting, name, n_seeds, time.perf_counter() - started)
    print("pictures: " + ", ".join(str(path) for path in pictures))


def save_pictures(
    balancer: DiffusionBalancer, X: np.ndarray, y: np.ndarray, name: str
) -> list[Path]:
    """Save real beside synthetic tail images, and what the filters decided."""
    mpl.use("agg")
    folder = Path(__file__).parent / "output"
    folder.mkdir(exist_ok=True)
    counts = np.bincount(y[~balancer.synthetic_mask_])
    tail = np.argsort(counts)[:5].tolist()
    displays = {
        "real_and_synthetic": SyntheticDisplay.from_resampled(
            X, y, balancer.synthetic_mask_, labels=tail
        ),
        "filter_decisions": FilterDisplay.from_balancer(balancer, X, y),
    }
    paths = []
    for kind, display in displays.items():
        paths.append(folder / f"{name}_{kind}.png")
        display.plot().figure_.savefig(paths[-1], dpi=110)
    return paths


def print_table(
    results: dict[str, list[ShotScores]],
    setting: Setting,
    name: str,
    n_seeds: int,
    seconds: float,
) -> None:
    """Print one line per method, mean and standard deviation over seeds."""
    print(
        f"\n{name}, imbalance ratio {setting.imbalance_ratio:g}, seeds 0 to {n_seeds - 1}, test "
        f"accuracy in % (mean +- standard deviation)\nmany: more than {setting.many_more_than} "
        f"training rows, few: fewer than {setting.few_less_than}\n"
    )
    columns = ["balanced_accuracy", "many", "medium", "few"]
    print(f"{'method':<22}" + "".join(f"{column:>20}" for column in columns))
    for method, scores in results.items():
        cells = [[100 * getattr(score, column) for score in scores] for column in columns]
        print(f"{method:<22}" + "".join(f"{mean_and_spread(cell):>20}" for cell in cells))
    print(
        f"\n{seconds / 60:.1f} minutes, {torch.get_num_threads()} threads, "
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, "
        f"command: DATA={name} SEEDS={n_seeds} python examples/demo.py"
    )


def mean_and_spread(values: list[float]) -> str:
    """Write a mean with the sample standard deviation, which one seed does not have."""
    spread = f" +- {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
