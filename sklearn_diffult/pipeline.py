"""Pipeline that passes a balancer's weights on to its final step, or refuses to fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import imblearn.pipeline
import numpy as np
from sklearn import get_config
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.feature_selection import RFE, RFECV, SelectFromModel
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline as SklearnPipeline
from sklearn.utils import Bunch
from sklearn.utils.metadata_routing import MetadataRouter, get_routing_for_object
from sklearn.utils.validation import has_fit_parameter

from sklearn_diffult._carriers import all_equal, attach_weights, detach_weights, receive
from sklearn_diffult._labels import check_objects
from sklearn_diffult.plans import resolve
from sklearn_diffult.training_data import rows_to_generate
from sklearn_diffult.weights import compute_weights

# Their `fit(X, y, **params)` hands the parameters to the one estimator inside as they are ...
_HAND_ON_AS_GIVEN = (BaseSearchCV, RFE, SelectFromModel)
# ... or `sample_weight`, and nothing else, to every estimator inside.
_HAND_ON_TO_ALL = (StackingClassifier, VotingClassifier)
# Resamples rows in proportion to the weights, so the estimator inside needs to know of none.
_USE_WEIGHTS_THEMSELVES = (BaggingClassifier,)
_OWN_WEIGHTS = (
    "DiffusionBalancer changes the rows and hands on weights of its own: rows that have weights "
    "before are not provided for. Leave it out."
)


class Pipeline(imblearn.pipeline.Pipeline):
    """imbalanced-learn's pipeline, in which a balancer's weights reach the final step.

    Same parameters, attributes and methods as ``imblearn.pipeline.Pipeline``. Where a step makes
    weights (`DiffusionBalancer`), ``fit``, ``fit_transform`` and ``fit_predict`` pass them to the
    final step as ``sample_weight``, exactly as a fit by hand would: also through nested pipelines,
    searches, and meta-estimators that hand weights on. Where they cannot arrive and are not
    all alike, fitting raises, before anything is trained where that can be known.

    Parameters
    ----------
    steps : list of (str, estimator)
        Transformers and samplers, then the final estimator.
    transform_input : list of str or None, default=None
        Metadata that the steps transform on its way; needs metadata routing.
    memory : str, joblib.Memory or None, default=None
        Cache of fitted steps. A cached balancer brings its own weights along.
    verbose : bool, default=False
        Print the time that each step takes.

    Raises
    ------
    ValueError
        From ``fit``: if weights are not all alike and the final step, or an estimator inside it,
        takes none or a later sampler would lose them; or if the user also gives weights.

    See Also
    --------
    make_pipeline : The same without names.

    Notes
    -----
    With metadata routing enabled, estimators inside meta-estimators must request the weights:
    ``LogisticRegression().set_fit_request(sample_weight=True)``. A final step that fits by itself
    needs no request.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_diffult import DiffusionBalancer, Pipeline
    >>> X, y = load_iris(return_X_y=True)
    >>> balancer = DiffusionBalancer(n_steps=50, random_state=0)
    >>> pipeline = Pipeline([("balance", balancer), ("clf", LogisticRegression())])
    >>> pipeline.fit(X[:110], y[:110]).predict(X[[0, 60, 140]])
    array([0, 1, 2])
    """

    _receives_weights = True

    def _check_method_params(self, method: str, props: dict[str, Any], **kwargs: Any) -> Any:
        routes = get_config()["enable_metadata_routing"]
        if (
            "sample_weight" in props
            and not routes
            and any(_makes_weights(s) for _, s in self.steps)
        ):
            raise ValueError(f"sample_weight was given to fit, but {_OWN_WEIGHTS}")
        routed = super()._check_method_params(method, props, **kwargs)
        if isinstance(routed, dict):
            return routed
        # With metadata routing and nothing to route, scikit-learn answers every look-up with a
        # fresh, empty Bunch: what `_fit` adds to it would vanish.
        return Bunch(**{name: routed[name] for name, _ in self.steps})

    def _fit(self, X: Any, y: Any = None, routed_params: Any = None, raw_params: Any = None) -> Any:
        X, y, received = receive(X, y)
        makers = [i for i, (_, s) in enumerate(self.steps[:-1]) if _makes_weights(s)]
        if y is None or (received is None and not makers):
            return super()._fit(X, y, routed_params, raw_params)

        y = _array_or_series(y)
        self._refuse_foreign_weights(makers, routed_params, received)
        problem = self._why_weights_cannot_arrive(makers)
        if y.ndim > 1:
            problem = (
                f"y has shape {y.shape}, and weights travel with one label per row; give "
                "y.argmax(axis=1) in the place of one-hot columns."
            )
        if problem and (
            not all_equal(received)
            if received is not None
            else any(_will_weigh(self.steps[i][1], y) for i in makers)
        ):
            raise ValueError(problem)

        if received is not None:
            y = attach_weights(y, received)
        X, y = super()._fit(X, y, routed_params, raw_params)
        y, weights = detach_weights(y)
        made = weights
        if made is None:
            made = received if received is not None else self.steps[makers[-1]][1].sample_weight_
        if problem or weights is None:
            if all_equal(made):
                return X, y
            raise ValueError(problem or _message("a step between loses them"))
        self._give_to_final_step(weights, routed_params)
        return X, y

    def _give_to_final_step(self, weights: Any, routed_params: Any) -> None:
        name, final = self.steps[-1]
        if final is None or final == "passthrough":
            return
        for method in ("fit", "fit_transform", "fit_predict"):
            if method in routed_params[name]:
                routed_params[name][method][weight_parameter(final)] = weights

    def _refuse_foreign_weights(self, makers: list[int], routed_params: Any, received: Any) -> None:
        if len(makers) + (received is not None) > 1:
            raise ValueError(
                "More than one step hands on weights, and only one of them can hold: use one "
                "DiffusionBalancer in a pipeline."
            )
        final_name = self.steps[-1][0]
        for name in [final_name, *(self.steps[i][0] for i in makers)]:
            for given in (params for params in routed_params.get(name, {}).values() if params):
                keys = [k for k in given if k.split("__")[-1] == "sample_weight"]
                if keys:
                    raise ValueError(f"Step {name!r} was given {keys} in fit, but {_OWN_WEIGHTS}")
                if name != final_name:
                    raise ValueError(
                        f"Step {name!r} was given {sorted(given)} in fit, but DiffusionBalancer "
                        "takes X and y alone; set its parameters before."
                    )

    def _why_weights_cannot_arrive(self, makers: list[int]) -> str | None:
        first = makers[0] if makers else -1
        for name, step in self.steps[first + 1 : -1]:
            if hasattr(step, "fit_resample"):
                return _message(
                    f"the sampler {name!r} after it returns rows without weights. Put it before "
                    "DiffusionBalancer"
                )
        name, final = self.steps[-1]
        if final is None or final == "passthrough":
            return None
        if weight_parameter(final):
            refusal = _refusal_by_routing(final)
            return refusal and _message(refusal.rstrip("."))
        found, deaf = type(final).__name__, _deaf_part(final)
        reason = "" if deaf == found else f", as the {deaf} inside it does not"
        return _message(f"the final step {name!r} ({found}) does not take them{reason}")


def make_pipeline(
    *steps: Any, memory: Any = None, transform_input: list[str] | None = None, verbose: bool = False
) -> Pipeline:
    """Build a `Pipeline` whose steps are named after their classes.

    Parameters
    ----------
    *steps : estimators
        Transformers and samplers, then the final estimator.
    memory : str, joblib.Memory or None, default=None
        Cache of fitted steps.
    transform_input : list of str or None, default=None
        Metadata that the steps transform on its way; needs metadata routing.
    verbose : bool, default=False
        Print the time that each step takes.

    Returns
    -------
    pipeline : Pipeline

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.preprocessing import StandardScaler
    >>> [name for name, _ in make_pipeline(StandardScaler(), LogisticRegression()).steps]
    ['standardscaler', 'logisticregression']
    """
    return Pipeline(
        imblearn.pipeline.make_pipeline(*steps).steps,
        memory=memory,
        transform_input=transform_input,
        verbose=verbose,
    )


def weight_parameter(estimator: Any) -> str | None:
    """Name under which ``estimator.fit`` takes one weight per row, for every part that learns.

    None where it takes none, or where an estimator inside would be fitted without them.
    """
    parts = list(_learning_parts(estimator))
    if _resamples(estimator):
        return None
    if isinstance(estimator, _USE_WEIGHTS_THEMSELVES):
        return "sample_weight" if has_fit_parameter(estimator, "sample_weight") else None
    if get_config()["enable_metadata_routing"] and (parts or not _can_route(estimator)):
        reached = all(_requests_weights(e) for e in [estimator, *parts])
        return "sample_weight" if reached and all(map(weight_parameter, parts)) else None
    if isinstance(estimator, SklearnPipeline):
        name, last = estimator.steps[-1]
        inner = weight_parameter(last)
        return f"{name}__{inner}" if inner else None
    if isinstance(estimator, _HAND_ON_AS_GIVEN) and not isinstance(estimator, RFECV):
        return weight_parameter(estimator.estimator)
    if isinstance(estimator, _HAND_ON_TO_ALL):
        reached = all(weight_parameter(part) == "sample_weight" for part in parts)
    else:
        # Meta-estimators look for `sample_weight` in the signature of the estimators inside, and
        # fit without weights those that do not name it (a pipeline, a search).
        named = all(has_fit_parameter(e, "sample_weight") for e in [estimator, *parts])
        reached = named and all(map(weight_parameter, parts))
    return "sample_weight" if reached else None


def _learning_parts(estimator: Any) -> Iterator[Any]:
    """Estimators inside one that it fits on the rows and labels it was given."""
    if isinstance(estimator, SklearnPipeline):
        yield estimator.steps[-1][1]
        return
    values = estimator.get_params(deep=False).values() if hasattr(estimator, "get_params") else ()
    for value in values:
        named = value if isinstance(value, list) else [(None, value)]
        candidates = (pair[1] for pair in named if isinstance(pair, tuple) and len(pair) == 2)
        yield from (c for c in candidates if hasattr(c, "fit") and hasattr(c, "predict"))


def _deaf_part(estimator: Any) -> str:
    """Name the innermost estimator because of which weights do not reach all of this one."""
    parts = (part for part in _learning_parts(estimator) if weight_parameter(part) is None)
    part = next(parts, None)
    if part is not None:
        return _deaf_part(part)
    return repr(estimator) if isinstance(estimator, str) else type(estimator).__name__


def _refusal_by_routing(estimator: Any) -> str | None:
    """What metadata routing would say to weights once rows are made; None where they arrive.

    Scorers and transformers inside are asked too, whether they want them.
    """
    is_routed = get_config()["enable_metadata_routing"]
    if not is_routed or isinstance(estimator, _USE_WEIGHTS_THEMSELVES):
        return None
    routing = get_routing_for_object(estimator)
    if isinstance(routing, MetadataRouter):
        try:
            routing.route_params(caller="fit", params={"sample_weight": np.ones(1)})
        except UnsetMetadataPassedError as error:
            return str(error)
    return next(filter(None, map(_refusal_by_routing, _learning_parts(estimator))), None)


def _resamples(estimator: Any) -> bool:
    return isinstance(estimator, SklearnPipeline) and any(
        hasattr(step, "fit_resample") for _, step in estimator.steps
    )


def _can_route(estimator: Any) -> bool:
    try:
        get_routing_for_object(estimator)
    except NotImplementedError:  # AdaBoost takes weights only while metadata routing is disabled
        return False
    return True


def _requests_weights(estimator: Any) -> bool:
    return _can_route(estimator) and "sample_weight" in get_routing_for_object(estimator).consumes(
        "fit", ["sample_weight"]
    )


def _makes_weights(step: Any) -> bool:
    return hasattr(step, "fit_resample_weighted")


def _will_weigh(balancer: Any, y: Any) -> bool:
    """Whether to expect weights that differ, from what is known before fitting."""
    weighting, omega = getattr(balancer, "weighting", None), getattr(balancer, "omega", None)
    if weighting == "row" and omega == 1:
        return False
    labels = np.asarray(y)
    if labels.ndim > 1 or not isinstance(weighting, str):
        return True
    # "auto" weighs unequal classes differently, as 0 does.
    temper = resolve(getattr(balancer, "weight_temper", "auto"), 0.0)
    none = np.zeros(len(labels), dtype=bool)
    try:
        wanted = rows_to_generate(getattr(balancer, "sampling_strategy", "auto"), labels)
        weights = compute_weights(labels, none, 0.0, weighting, temper)
    except (TypeError, ValueError):
        # Steps before the balancer may change y; if none does, it says best what is wrong.
        return True
    return any(wanted.values()) or not all_equal(weights)


def _array_or_series(y: Any) -> Any:
    """Labels in a container that can carry weights; a single column becomes one-dimensional."""
    if isinstance(y, list | tuple):
        check_objects(y)  # an array makes text of numbers among text
    y = y if hasattr(y, "iloc") else np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        return y.iloc[:, 0] if hasattr(y, "iloc") else y[:, 0]
    return y


def _message(reason: str) -> str:
    return (
        f"The weights of DiffusionBalancer cannot reach the final step: {reason}. Use a final "
        "estimator whose fit takes sample_weight, and so does every estimator inside it (requested "
        "by `set_fit_request(sample_weight=True)` where metadata routing is enabled); put what "
        "tunes thresholds or calibrates around the whole pipeline; or let all rows weigh the same: "
        "DiffusionBalancer(weighting='row', omega=1)."
    )
