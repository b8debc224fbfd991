"""Row weights: the schemes that make them from omega, and a balancer's faces that hand them on."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from numbers import Real
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline as SklearnPipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from sklearn_diffult._carriers import (
    USE_OUR_PIPELINE,
    BalancedRows,
    Weights,
    all_equal,
    attach_weights,
    check_weights,
)
from sklearn_diffult._columns import compare_columns
from sklearn_diffult._warnings import warn

Weighting = Callable[[NDArray[Any], NDArray[np.bool_], float], ArrayLike]
# The library's own also get the temper.
_Scheme = Callable[[NDArray[Any], NDArray[np.bool_], float, float], ArrayLike]


# --------------------------------------------------------------------------------------
# Schemes
# --------------------------------------------------------------------------------------


def _row_weights(
    y: NDArray[Any], synthetic_mask: NDArray[np.bool_], omega: float, temper: float
) -> ArrayLike:
    """Weigh a real row 1 and a synthetic row omega (arXiv 2403.05170, weighted cross-entropy)."""
    return np.where(synthetic_mask, omega, 1.0)


def _class_weights(
    y: NDArray[Any], synthetic_mask: NDArray[np.bool_], omega: float, temper: float
) -> ArrayLike:
    """Share the mass out by ``n_real ** temper``; a class's synthetic rows hold omega of its part.

    All of it is that of the real rows. They are what the synthetic ones were told from, and a model
    with a regulariser would take a larger mass for more evidence than there is.
    """
    classes, indices = np.unique(y, return_inverse=True)
    n_real, n_synthetic = (
        np.bincount(indices[kind], minlength=len(classes))
        for kind in (~synthetic_mask, synthetic_mask)
    )
    shares = np.maximum(n_real, 1.0) ** temper
    masses = (n_real.sum() or len(y)) * shares / shares.sum()
    # A class of one kind keeps its whole mass; but omega = 0 leaves no synthetic rows.
    split = np.where(n_real == 0, float(omega > 0), omega) * (n_synthetic > 0)
    real = masses * (1 - split) / np.maximum(1, n_real)
    synthetic = masses * split / np.maximum(1, n_synthetic)
    return np.where(synthetic_mask, synthetic[indices], real[indices])


WEIGHTINGS: dict[str, _Scheme] = {"row": _row_weights, "class": _class_weights}


def compute_weights(
    y: ArrayLike,
    synthetic_mask: ArrayLike,
    omega: float,
    weighting: str | Weighting,
    temper: float = 0.0,
) -> Weights:
    """Weigh real and synthetic rows.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels of all rows, real and synthetic.
    synthetic_mask : array-like of bool of shape (n_samples,)
        True where a row is synthetic.
    omega : float in [0, 1]
        Weight of a synthetic row (``"row"``) or share of its class's mass that the synthetic
        rows of a class hold together (``"class"``). 0 means real rows only.
    weighting : {"row", "class"} or callable
        ``"row"``: 1 for a real row, omega for a synthetic one. ``"class"``: classes share as much
        weight as there are real rows in proportion to ``n_real ** temper``, where n_real is 1 in
        classes without any; a class of rows of one kind gives all of it to those (to synthetic
        ones unless omega is 0, when its part is missing). A callable
        ``(y, synthetic_mask, omega) -> weights of shape (n_samples,)`` gets arrays.
    temper : float in [0, 1], default=0.0
        For ``"class"`` only: 0 makes classes equally heavy, 1 as heavy as they have real rows.

    Returns
    -------
    sample_weight : ndarray of shape (n_samples,), float64
        Finite and non-negative.

    Raises
    ------
    ValueError
        For omega or temper outside [0, 1], an unknown weighting, lengths that differ, a mask that
        is not boolean, or weights that are not finite, negative, of the wrong length or all zero.
    TypeError
        If omega or temper is not a number, or weighting neither a name nor a callable.

    Examples
    --------
    >>> synthetic = [False, False, False, False, True, True]
    >>> compute_weights([0, 0, 0, 1, 1, 1], synthetic, 0.5, "row")
    array([1. , 1. , 1. , 1. , 0.5, 0.5])
    >>> compute_weights([0, 0, 0, 1, 1, 1], synthetic, 0.5, "class")
    array([0.66666667, 0.66666667, 0.66666667, 1.        , 0.5       ,
           0.5       ])
    >>> compute_weights([0, 0, 0, 1, 1, 1], synthetic, 0.5, "class", temper=1.0)
    array([1.  , 1.  , 1.  , 0.5 , 0.25, 0.25])
    """
    check_share("omega", omega)
    check_share("temper", temper)
    labels, mask = np.asarray(y), np.asarray(synthetic_mask)
    if mask.dtype != bool or mask.shape != labels.shape:
        raise ValueError(
            f"synthetic_mask must be boolean with one value per label: y has shape "
            f"{labels.shape}, synthetic_mask has shape {mask.shape} and dtype {mask.dtype}."
        )
    if callable(weighting):
        # Copies, as it may write into what it gets.
        weights = weighting(labels.copy(), mask.copy(), float(omega))
    else:
        weights = _own_scheme(weighting)(labels, mask, float(omega), float(temper))
    name = getattr(weighting, "__name__", weighting)
    return check_weights(weights, len(labels), f"weighting={name!r}")


def check_share(name: str, value: float) -> None:
    """Refuse what is no number, True with it, by a TypeError; outside [0, 1] by a ValueError."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number in [0, 1], got {value!r}.")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value!r}.")


def _own_scheme(weighting: str) -> _Scheme:
    if not isinstance(weighting, str):
        raise TypeError(
            f"weighting must be one of {sorted(WEIGHTINGS)} or a callable "
            f"(y, synthetic_mask, omega) -> weights, got {weighting!r}."
        )
    if weighting not in WEIGHTINGS:
        raise ValueError(
            f"weighting must be one of {sorted(WEIGHTINGS)} or a callable, got {weighting!r}."
        )
    return WEIGHTINGS[weighting]


# --------------------------------------------------------------------------------------
# A balancer's faces: a sampler to imbalanced-learn, a transformer to scikit-learn
# --------------------------------------------------------------------------------------

# Class attribute of those that call `receive` in fit.
_RECEIVER = "_receives_weights"
_VALIDATORS = ("sklearn.base", "sklearn_compat.base")


def _frames_up(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _module(frame: FrameType) -> str:
    return frame.f_globals.get("__name__", "")


def hand_on(y: Any, sample_weight: Weights) -> Any:
    """Labels as `DiffusionBalancer.fit_resample` returns them: plain, or carrying weights.

    Only a step inside imbalanced-learn's pipeline gets labels that carry weights; everybody who
    calls `fit_resample` directly, or fits a pipeline that ends with the balancer, gets plain ones.

    Parameters
    ----------
    y : container of shape (n_samples,)
        Labels.
    sample_weight : ndarray of shape (n_samples,)
        Weights.

    Returns
    -------
    y : container of shape (n_samples,)
        The result of `attach_weights`, or `y` itself; with a warning where the rest of the
        pipeline would ignore the weights or lose them on the way.
    """
    caller = _caller_of_fit_resample(sys._getframe(1))
    if caller is None or _module(caller) != "imblearn.pipeline":
        return y
    if caller.f_code.co_name == "fit_resample":  # the balancer is the pipeline's last step
        return y
    for frame in _frames_up(caller):
        pipeline = frame.f_locals.get("self")
        if _module(frame) == "imblearn.pipeline" and hasattr(pipeline, "steps"):
            if _are_lost(pipeline, y):
                _warn_of_loss(pipeline, sample_weight)
                return y
            break
    return attach_weights(y, sample_weight)


def _caller_of_fit_resample(frame: FrameType | None) -> FrameType | None:
    """Skip what may stand in between: overrides of `fit_resample`, scikit-learn's validation."""
    for caller in _frames_up(frame):
        if _module(caller) == "imblearn.pipeline":
            return caller
        if caller.f_code.co_name != "fit_resample" and _module(caller) not in _VALIDATORS:
            return caller
    return None


def _are_lost(pipeline: Any, y: Any) -> bool:
    """Whether labels with weights would reach no one who unpacks them all."""
    n_samplers = sum(hasattr(step, "fit_resample") for _, step in pipeline.steps)
    is_kept = n_samplers == 1 or hasattr(pipeline, _RECEIVER)
    return not (is_kept and _receives_weights(pipeline, from_series=hasattr(y, "iloc")))


def _warn_of_loss(pipeline: Any, sample_weight: Weights) -> None:
    steps = [step for _, step in pipeline.steps]
    if all_equal(sample_weight) or steps[-1] in (None, "passthrough"):
        return
    warn(
        "imblearn.pipeline.Pipeline has no channel for weights, so the weights of "
        f"DiffusionBalancer do not reach {type(steps[-1]).__name__} and omega has no effect. "
        f"{USE_OUR_PIPELINE}"
    )


def _receives_weights(estimator: Any, from_series: bool) -> bool:
    """Whether an estimator unpacks labels that carry weights, itself or by the one inside.

    A search takes a part of them, which a Series' weights do not survive.
    """
    if hasattr(estimator, _RECEIVER):
        return True
    if isinstance(estimator, SklearnPipeline):
        return _receives_weights(estimator.steps[-1][1], from_series)
    is_search = isinstance(estimator, BaseSearchCV) and not from_series
    return is_search and _receives_weights(estimator.estimator, from_series)


class hidden_from_imblearn:
    """Method that imbalanced-learn's own modules do not see.

    imbalanced-learn refuses a pipeline step that shows `fit`, `transform` and `fit_resample`
    together, scikit-learn's pipeline demands `fit` and `transform`. One object can serve in both
    only if it shows each of them the face it expects.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        functools.update_wrapper(self, method)  # type: ignore[arg-type]

    def __get__(self, instance: Any, owner: type | None = None) -> Callable[..., Any]:
        if _module(sys._getframe(1)).partition(".")[0] == "imblearn":
            raise AttributeError(f"{self._method.__name__} is hidden from imbalanced-learn")
        return self._method.__get__(instance, owner)


class TransformerFace:
    """What makes a sampler with `fit_resample_weighted` a step of scikit-learn's pipeline.

    Not scikit-learn's `TransformerMixin`: its `set_output` would wrap `BalancedRows`.
    """

    @hidden_from_imblearn
    def transform(self, X: Any) -> Any:
        """Return new rows as they are: balancing is for training rows only.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            New rows.

        Returns
        -------
        X : array-like of shape (n_samples, ...)
            The same rows, in the container that `set_output` chose where X is 2-D.

        Raises
        ------
        ValueError
            If a container was chosen and a table has other columns than in fit.
        """
        check_is_fitted(self)
        return self._in_output_container(X)

    @hidden_from_imblearn
    def fit_transform(self, X: Any, y: Any) -> BalancedRows:
        """Fit, and hand on balanced rows with their labels and weights.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Training rows.
        y : array-like of shape (n_samples,)
            Training labels.

        Returns
        -------
        rows : BalancedRows
            Not an array: only `WeightedTorchClassifier` can unpack it.
        """
        X_balanced, y_balanced, sample_weight = self.fit_resample_weighted(X, y)  # type: ignore[attr-defined]
        X_balanced = self._in_output_container(X_balanced)
        return BalancedRows(X_balanced, y_balanced, sample_weight, n_real=len(y))

    def set_output(self, *, transform: str | None = None) -> TransformerFace:
        """Choose the container of 2-D rows, as scikit-learn's transformers do.

        It is that of what a pipeline hands on; `fit_resample` keeps the one that came in.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"} or None, default=None
            None leaves the choice as it was. `WeightedTorchClassifier` takes no polars.

        Returns
        -------
        self : object
        """
        if transform is not None:
            # The name is scikit-learn's: `clone` copies the choice under it.
            self._sklearn_output_config = {"transform": transform}
        return self

    def _in_output_container(self, X: Any) -> Any:
        chosen = getattr(self, "_sklearn_output_config", {}).get("transform")
        container = chosen or get_config()["transform_output"]
        if container == "default" or getattr(X, "ndim", None) != 2:
            return X
        # It would get the names that fit saw.
        compare_columns(self, X)
        identity = FunctionTransformer(
            feature_names_out=lambda _, names: getattr(self, "feature_names_in_", names)
        )
        return identity.set_output(transform=container).fit_transform(X)
