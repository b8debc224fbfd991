"""Checked training data: what came in, beside what the models work on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from imblearn.utils import check_sampling_strategy, check_target_type
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets

from sklearn_diffult._labels import check_objects
from sklearn_diffult._warnings import first_few
from sklearn_diffult.codecs import ImageCodec, TableCodec, make_codec
from sklearn_diffult.codecs.columns import DISCRETE
from sklearn_diffult.codecs.containers import labels_like
from sklearn_diffult.weights import Weighting, compute_weights

# Columns that are told of one by one.
MOST_CONCERNS = 3


@dataclass(frozen=True)
class TrainingData:
    """Rows and labels as they came in, and as tensors and class indices.

    Attributes
    ----------
    X, y : container
        What the user gave.
    labels : ndarray of shape (n_rows,)
        Labels without their container; column numbers where y is one-hot.
    codec : ImageCodec or TableCodec
        Fitted to X.
    encoded : Tensor of shape (n_rows, ...), float32
        Encoded rows.
    classes : ndarray of shape (n_classes,)
        Labels, sorted.
    indices : ndarray of shape (n_rows,), int64
        Class index of each row.
    is_one_hot : bool
        Whether y has one column per class.
    """

    X: Any
    y: Any
    labels: np.ndarray
    codec: ImageCodec | TableCodec
    encoded: torch.Tensor
    classes: np.ndarray
    indices: np.ndarray
    is_one_hot: bool

    @property
    def counts(self) -> np.ndarray:
        """Rows per class, shape (n_classes,)."""
        return np.bincount(self.indices)

    def with_synthetic_labels(self, indices: np.ndarray) -> tuple[np.ndarray, Any]:
        """Append synthetic rows' class indices: all labels as an array, and as y's container."""
        labels = np.concatenate([self.labels, self.classes[indices]])
        if self.is_one_hot:
            # Columns of classes without rows stay.
            one_hot = (labels[:, None] == np.arange(np.shape(self.y)[1])).astype(np.int64)
            return labels, labels_like(self.y, one_hot)
        column = labels[:, None] if np.ndim(self.y) == 2 else labels
        return labels, labels_like(self.y, column)


def check_training_data(
    X: Any,
    y: Any,
    image_shape: tuple[int, ...] | None = None,
    categorical_features: Any = "auto",
) -> TrainingData:
    """Check and encode X and y; `image_shape` and `categorical_features` as in `make_codec`.

    Raises
    ------
    ValueError, TypeError
        If X is no table or set of images that a codec takes, y holds no class labels or only one
        class, or their lengths differ.
    """
    if y is None:
        raise ValueError("DiffusionBalancer requires y to be passed, but y is None.")
    codec = make_codec(X, image_shape, categorical_features).fit(X)
    encoded = codec.encode(X)
    if np.shape(y)[:1] != encoded.shape[:1]:
        raise ValueError(
            f"X has {len(encoded)} rows, but y has shape {np.shape(y)}; give one label per row."
        )
    check_objects(y)
    assert_all_finite(y, input_name="y")
    try:
        check_classification_targets(y)
        labels, is_one_hot = check_target_type(np.asarray(y), indicate_one_vs_all=True)
    except ValueError as error:
        is_object = np.asarray(y).dtype.kind == "O"
        hint = " (of dtype object only strings: try y.astype(int))" if is_object else ""
        raise ValueError(
            "y must hold one class label per row, all integers, all strings or all booleans, or "
            f"be one-hot{hint}. {error}"
        ) from error
    odd = np.flatnonzero(np.asarray(y).sum(axis=1) != 1) if is_one_hot else np.zeros(0)
    if len(odd):
        row = np.asarray(y)[odd[0]].tolist()
        raise ValueError(f"y is one-hot, but row {odd[0]} is {row}; mark one.")
    classes, indices = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y holds one class only ({classes.tolist()[0]!r}); balancing needs at least 2 classes."
        )
    return TrainingData(X, y, labels, codec, encoded, classes, indices, is_one_hot)


def rows_to_generate(
    target: int | float | str | Mapping[Any, int] | Callable[..., Any], labels: np.ndarray
) -> dict[Any, int]:
    """Return how many rows each class lacks, by label; an int target is the paper's N_t.

    1 is the ratio that it is to imbalanced-learn: no class can lack rows of one.

    Raises
    ------
    ValueError, TypeError
        If the target does not fit the labels, or holds what is no number of rows.
    """
    classes, counts = np.unique(labels, return_counts=True)
    sizes = dict(zip(classes.tolist(), counts.tolist(), strict=True))
    if isinstance(target, bool):
        raise TypeError(f"sampling_strategy={target!r} must be a number of rows or a ratio.")
    if isinstance(target, Integral) and target != 1:
        return {label: int(target) - n for label, n in sizes.items() if n < int(target)}
    asked = repr(target)
    if callable(target):
        target = target(labels)
        if not isinstance(target, Mapping):
            raise TypeError(
                f"sampling_strategy={asked} returned {target!r}; it must return a dict from label "
                "to number of rows."
            )
    if isinstance(target, Integral):
        target = float(target)
    if isinstance(target, Mapping):
        target = dict(target)  # imbalanced-learn takes no other kind
        for label, n in target.items():
            if isinstance(n, bool) or not isinstance(n, Real) or n % 1:
                raise TypeError(
                    f"sampling_strategy[{label!r}]={n!r} must be a whole number of rows."
                )
    try:
        strategy = check_sampling_strategy(target, labels, "over-sampling")
    except ValueError as error:
        found = first_few([f"{label!r}: {n}" for label, n in sizes.items()])
        raise ValueError(
            f"sampling_strategy={asked} does not fit the classes of y and their numbers of "
            f"rows ({found}). It takes the rows that a class shall have in all, at least as many "
            f"as it has, or for two classes the ratio of small to large. {error}"
        ) from error
    return {getattr(label, "item", lambda x=label: x)(): int(n) for label, n in strategy.items()}


def check_weighting(
    weighting: Weighting, omega: float, data: TrainingData, wanted: Mapping[Any, int]
) -> None:
    """Find out before training whether a user's own weighting gives weights to the rows to come.

    Raises
    ------
    ValueError
        If it does not; and whatever it raises by itself.
    """
    lacking = [wanted.get(label, 0) for label in data.classes.tolist()]
    labels, _ = data.with_synthetic_labels(np.repeat(np.arange(len(lacking)), lacking))
    compute_weights(labels, np.arange(len(labels)) >= len(data.labels), omega, weighting)


def concerns(data: TrainingData, wanted: Mapping[Any, int], target: Any) -> list[str]:
    """Say which classes have too few rows, and which columns teach nothing."""
    sizes = zip(data.classes.tolist(), data.counts.tolist(), strict=True)
    lacking = [(label, n) for label, n in sizes if wanted.get(label, 0) > 0]
    found = [
        f"{_subject(labels)} {how_many}: synthetic rows are at best variations on what is there, "
        "judged by distances pooled over the other classes."
        for n_rows, how_many in ((1, "a single row"), (2, "2 rows"))
        if (labels := [label for label, n in lacking if n == n_rows])
    ]
    found += _spelt_alike(data.classes.tolist())
    if not wanted and isinstance(target, Integral):
        found.append(
            f"sampling_strategy={target!r} asks for {target} rows of each class, which all of them "
            'have: nothing is generated. "auto" fills up to the largest class.'
        )
    if not isinstance(data.codec, TableCodec):
        return found
    concerned = {
        column[0]: message
        for column in data.codec.categories()
        if (message := _concern(*column, len(data.labels)))
    }
    if len(concerned) <= MOST_CONCERNS:
        return [*found, *concerned.values()]
    title, *others = concerned
    names = first_few(others, MOST_CONCERNS)
    return [*found, f"{concerned[title]} Look at {len(others)} more like it: {names}."]


def _spelt_alike(labels: list[Any]) -> list[str]:
    """Say which labels differ in nothing but case or blanks, as misspelt ones do."""
    spellings: dict[str, list[str]] = {}
    for label in labels:
        # Letters by themselves are apt to differ in case.
        if isinstance(label, str) and len(label) > 1:
            spellings.setdefault("".join(label.split()).casefold(), []).append(label)
    groups = [alike for alike in spellings.values() if len(alike) > 1]
    if not groups:
        return []
    more = f" (and {len(groups) - 1} more such)" if len(groups) > 1 else ""
    return [
        f"y has the labels {first_few([repr(label) for label in groups[0]])}, which differ in case "
        f"or blanks only{more}, and takes them for classes of their own. If they are one, write "
        "them alike."
    ]


def _subject(labels: list[Any]) -> str:
    """Begin a sentence on some classes, naming the first five of many."""
    if len(labels) == 1:
        return f"Class {labels[0]!r} has"
    return f"Classes {first_few([repr(label) for label in labels])} have"


def _concern(title: str, categories: list[Any], is_declared: bool, n_rows: int) -> str:
    """Say what a column of categories seems to be in truth, "" where nothing seems wrong."""
    n = len(categories)
    texts = [each for each in categories if isinstance(each, str)]
    others = [each for each in categories if each is not None and not _is_number(each)]
    if n > DISCRETE and texts and len(others) < n / 2 and not is_declared:
        kind = "texts" if len(texts) == n else "values"
        stray = f", but {others[0]!r} is none" if others else ""
        return (
            f"{title} holds {n} different {kind}, of which most are numbers{stray}: they are taken "
            "for categories. Make it a column of numbers, NaN where there is none."
        )
    if n > max(DISCRETE, n_rows // 2):
        return (
            f"{title} holds {n} different values in {n_rows} rows, as names do: they tell nothing "
            "of new rows, and synthetic rows repeat them. Drop the column; if it holds dates, give "
            "numbers instead, such as days."
        )
    return ""


def _is_number(value: Any) -> bool:
    try:
        # Also with commas between thousands.
        float(value.replace(",", "") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return False
    return True
