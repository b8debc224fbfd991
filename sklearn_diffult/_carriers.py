"""What carries row weights from a balancer to a classifier through pipelines.

Three ways lead from a balancer's rows to a classifier's ``sample_weight``:

* ``sklearn_diffult.Pipeline`` takes the weights off the labels and passes them as an argument;
* imbalanced-learn's ``Pipeline`` unpacks exactly two values from ``fit_resample``, so the labels
  carry the weights (`attach_weights`);
* scikit-learn's ``Pipeline`` hands on X only, so X, y and the weights travel as one
  `BalancedRows`, which is deliberately no array: whoever cannot unpack it gets an error.

Carried weights belong to the rows they came with. Whatever could break that bond (a copy of a
Series, labels changed in place) loses the weights or raises; it never hands on wrong ones.
"""

from __future__ import annotations

from typing import Any, NoReturn

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklearn_diffult._warnings import warn

Weights = NDArray[np.float64]

USE_OUR_PIPELINE = (
    "Use `from sklearn_diffult import Pipeline` in its place (same arguments): it passes the "
    "weights on as `sample_weight`."
)


def check_weights(weights: ArrayLike, n_samples: int, source: str) -> Weights:
    checked = np.asarray(weights, dtype=np.float64)
    if checked.shape != (n_samples,):
        raise ValueError(
            f"{source} must give one weight per row, shape ({n_samples},), got {checked.shape}."
        )
    if not np.isfinite(checked).all() or (checked < 0).any():
        worst = checked[~np.isfinite(checked) | (checked < 0)][0]
        raise ValueError(f"{source} must give finite weights >= 0, got {worst:g} among them.")
    if not checked.any():
        raise ValueError(f"{source} gave every row weight 0: at least one must be positive.")
    return checked


def all_equal(sample_weight: Weights) -> bool:
    """Whether all rows weigh the same (up to rounding), so that omega is not lost without them."""
    return bool(np.allclose(sample_weight, np.mean(sample_weight), rtol=1e-9, atol=0.0))


# --------------------------------------------------------------------------------------
# Labels that carry weights (imbalanced-learn's pipeline)
# --------------------------------------------------------------------------------------

_ATTRS_KEY = "sklearn_diffult.sample_weight"


class _StaleWeightsError(ValueError):
    def __init__(self, what: str) -> None:
        super().__init__(
            f"The labels carry weights from DiffusionBalancer that no longer belong to them: {what}"
            " between the balancer and this step. imblearn.pipeline.Pipeline has no channel for "
            f"weights. {USE_OUR_PIPELINE}"
        )


class _WeightedLabels(np.ndarray):
    """Labels of shape (n_samples,) that carry one weight per row.

    Indexing slices labels and weights alike. Every other derived array (copies, views, results
    of arithmetic) carries none.
    """

    _sample_weight: Weights | None
    _labels: NDArray[Any]  # as they were when the weights were attached: in-place edits show

    @classmethod
    def carrying(cls, y: NDArray[Any], sample_weight: Weights) -> _WeightedLabels:
        labels = _plain(y)
        dtype = labels.dtype
        if not dtype.hasobject:
            # joblib.hash looks at an array's bytes, class and dtype but not at its attributes;
            # without a trace in the dtype a cache would hand out stale weights.
            dtype = np.dtype(dtype, metadata={_ATTRS_KEY: joblib.hash(sample_weight)})
        carried = labels.astype(dtype).view(cls)
        carried._sample_weight, carried._labels = sample_weight, labels.copy()
        return carried

    def __array_finalize__(self, obj: Any) -> None:
        self._sample_weight = None

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if self._sample_weight is None or not isinstance(part, np.ndarray) or part.ndim != 1:
            return part
        sliced = _WeightedLabels.carrying(part, self._sample_weight[key])
        sliced._labels = self._labels[key]
        return sliced

    def __reduce__(self) -> Any:
        if self._sample_weight is None:
            return np.array, (_plain(self),)
        return _unpickle_labels, (_plain(self), self._sample_weight, self._labels)


def _plain(y: NDArray[Any]) -> NDArray[Any]:
    array = y.view(np.ndarray)
    return array if array.dtype.metadata is None else array.view(np.dtype(array.dtype.str))


def _unpickle_labels(y: NDArray[Any], sample_weight: Weights, labels: NDArray[Any]) -> Any:
    carried = _WeightedLabels.carrying(y, sample_weight)
    carried._labels = labels
    return carried


class _SeriesWeights:
    """What `Series.attrs` holds.

    pandas deep-copies attrs into every derived Series (slices, copies, permutations) without
    slicing them, so a deep copy is stale by construction. Pickling keeps the original.
    """

    def __init__(self, y: Any, sample_weight: Weights) -> None:
        self.sample_weight, self.index = sample_weight, y.index
        self.labels = y.to_numpy(copy=True)  # in-place edits show
        self.is_stale = False

    def __deepcopy__(self, memo: dict[int, Any]) -> _SeriesWeights:
        derived = _SeriesWeights.__new__(_SeriesWeights)
        derived.__dict__ = {**self.__dict__, "is_stale": True}
        return derived

    def belongs_to(self, y: Any) -> bool:
        return (
            not self.is_stale
            and y.index.equals(self.index)
            and np.array_equal(y.to_numpy(), self.labels)
        )


def _is_series(y: Any) -> bool:
    return hasattr(y, "iloc") and hasattr(y, "attrs") and getattr(y, "ndim", None) == 1


def attach_weights(y: Any, sample_weight: ArrayLike) -> Any:
    """Let labels carry weights through a pipeline that hands on X and y only.

    Parameters
    ----------
    y : ndarray or pandas Series of shape (n_samples,), or any other container
        Labels.
    sample_weight : array-like of shape (n_samples,)
        Finite weights >= 0.

    Returns
    -------
    y : ndarray subclass or Series
        The same labels with the weights. Another container comes back as it is, with a warning
        unless all weights are equal.

    Raises
    ------
    ValueError
        If the weights do not fit the labels.

    Examples
    --------
    >>> y = attach_weights(np.array([0, 1, 1]), [1.5, 1.0, 0.5])
    >>> detach_weights(y[y == 1])
    (array([1, 1]), array([1. , 0.5]))
    """
    weights = check_weights(sample_weight, len(y), "sample_weight").copy()
    if isinstance(y, np.ndarray) and y.ndim == 1:
        return _WeightedLabels.carrying(y, weights)
    if _is_series(y):
        y = y.copy()
        y.attrs[_ATTRS_KEY] = _SeriesWeights(y, weights)
    elif not all_equal(weights):
        warn(
            f"A y of type {type(y).__name__} cannot carry the weights of DiffusionBalancer through "
            "imblearn.pipeline.Pipeline, so omega has no effect. Pass y as a 1-D array, or use "
            "`from sklearn_diffult import Pipeline`, which passes the weights on."
        )
    return y


def detach_weights(y: Any) -> tuple[Any, Weights | None]:
    """Take carried weights off.

    Parameters
    ----------
    y : any container
        Labels, possibly from `attach_weights`.

    Returns
    -------
    y : same container
        The labels alone.
    sample_weight : ndarray of shape (n_samples,), float64, or None
        The weights, None where the labels carry none.

    Raises
    ------
    ValueError
        If the labels carry weights that no longer belong to them.
    """
    if isinstance(y, _WeightedLabels):
        plain, weights = _plain(y), y._sample_weight
        if weights is not None and not np.array_equal(plain, y._labels):
            raise _StaleWeightsError("they were changed in place")
        return plain, weights
    if _is_series(y) and _ATTRS_KEY in y.attrs:
        carried = y.attrs[_ATTRS_KEY]
        if not carried.belongs_to(y):
            raise _StaleWeightsError("the Series was sliced, copied, reordered or changed")
        plain = y.copy()
        del plain.attrs[_ATTRS_KEY]
        return plain, carried.sample_weight
    return y, None


# --------------------------------------------------------------------------------------
# Rows that carry labels and weights (scikit-learn's pipeline)
# --------------------------------------------------------------------------------------


class BalancedRows:
    """Rows, labels and weights in the place of X, for estimators that know how to unpack them.

    scikit-learn's ``Pipeline`` hands the X of one step to the next but not y, while a balancer
    changes how many rows there are. Any step but `WeightedTorchClassifier` would pair the new X
    with the old y, so this is no array: every attempt to use it as one is a ValueError.

    Parameters
    ----------
    X : array-like of shape (n_samples, ...)
        Real rows first, in the order they came in, then synthetic rows.
    y : array-like of shape (n_samples,)
        Their labels.
    sample_weight : ndarray of shape (n_samples,)
        Their weights.
    n_real : int
        How many rows are real.
    """

    def __init__(self, X: Any, y: Any, sample_weight: ArrayLike, n_real: int) -> None:
        self.X = X
        self.y = y
        self.n_real = n_real
        self.sample_weight = check_weights(sample_weight, len(y), "sample_weight")

    def __getattr__(self, name: str) -> NoReturn:
        # Protocols probe for private names (pickle, copy, joblib): "absent" is their answer.
        if name.startswith("_"):
            raise AttributeError(name)
        self._refuse()

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            "scikit-learn's Pipeline cannot hand on the rows, labels and weights of "
            "DiffusionBalancer to this step: it passes X alone, and only a "
            f"WeightedTorchClassifier right after the balancer can unpack it. {USE_OUR_PIPELINE} "
            "Without a pipeline use fit_resample in the place of fit_transform."
        )

    __array__ = __len__ = __iter__ = __getitem__ = _refuse


def receive(X: Any, y: Any, sample_weight: Any = None) -> tuple[Any, Any, Any]:
    """Unpack what a balancer handed on; the first thing a classifier of ours does in `fit`.

    Parameters
    ----------
    X : BalancedRows or array-like
        What the pipeline gave as X.
    y : array-like
        What the pipeline gave as y, possibly carrying weights.
    sample_weight : array-like of shape (n_samples,) or None
        What the user gave.

    Returns
    -------
    X, y, sample_weight
        Plain containers. Weights are None where neither the balancer nor the user gave any.

    Raises
    ------
    ValueError
        If both the balancer and the user give weights, the balancer's belong to other rows, or
        weights are text.
    """
    if isinstance(sample_weight, str):
        raise ValueError(
            f"sample_weight={sample_weight!r} must be one number per row; it is class_weight that "
            "takes 'balanced'."
        )
    if isinstance(X, BalancedRows):
        rows, labels = X.X, X.y
        weights: Weights | None = X.sample_weight
        given = np.asarray(y)
        if not np.array_equal(given, np.asarray(labels)[: X.n_real]):
            raise ValueError(
                f"X holds balanced rows of which {X.n_real} are real, but the {given.size} labels "
                "given with them are not those that DiffusionBalancer was fitted on. Nothing may "
                f"change y between the balancer and the classifier. {USE_OUR_PIPELINE}"
            )
    else:
        rows, (labels, weights) = X, detach_weights(y)
    if weights is None:
        return rows, labels, sample_weight
    if sample_weight is not None:
        raise ValueError(
            "sample_weight was given, and DiffusionBalancer hands on weights of its own: only one "
            "of them can hold. Leave sample_weight out, or pass a callable as the balancer's "
            "`weighting` that combines both."
        )
    return rows, labels, weights
