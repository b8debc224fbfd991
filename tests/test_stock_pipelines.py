"""The balancer in every kind of pipeline: imbalanced-learn's, scikit-learn's, and ours."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
import sklearn.pipeline
from imblearn import FunctionSampler
from imblearn.ensemble import BalancedBaggingClassifier
from imblearn.under_sampling import RandomUnderSampler
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from weighted_pipelines import (
    IMBLEARN,
    PIPELINES,
    SKLEARN,
    Y_CONTAINERS,
    X,
    Y,
    asking,
    assert_as_by_hand,
    balancer,
    by_hand,
    make_sklearn,
    pipe,
    torch_classifier,
)

from sklearn_diffult.balancer import DiffusionBalancer
from sklearn_diffult.pipeline import make_pipeline

# Stock pipelines ----------------------------------------------------------------------


@pytest.mark.parametrize("container", ["array", "series", "indexed series"])
def test_imbalanced_learns_pipeline_lets_omega_take_effect(container):
    pipeline = pipe(IMBLEARN, torch_classifier()).fit(X, Y_CONTAINERS[container](Y))
    assert_as_by_hand(pipeline, torch_classifier())


@pytest.mark.filterwarnings("ignore:A column-vector y")
@pytest.mark.parametrize("container", ["list", "frame"])
def test_imbalanced_learns_pipeline_warns_where_labels_cannot_carry_weights(container):
    with pytest.warns(UserWarning, match="cannot carry.*sklearn_diffult import Pipeline"):
        pipe(IMBLEARN, torch_classifier()).fit(X, Y_CONTAINERS[container](Y))


@pytest.mark.parametrize(
    ("final", "between"),
    [
        (LogisticRegression(), []),
        (make_sklearn("passthrough", LogisticRegression()), []),
        (torch_classifier(), [("other", RandomUnderSampler(random_state=0))]),
        (CalibratedClassifierCV(torch_classifier(), cv=2), []),
    ],
)
@pytest.mark.parametrize("container", ["array", "series"])
def test_imbalanced_learns_pipeline_warns_where_the_weights_get_lost(final, between, container):
    pipeline = pipe(IMBLEARN, final, between)
    with pytest.warns(UserWarning, match="no channel for weights.*sklearn_diffult import Pipeline"):
        pipeline.fit(X, Y_CONTAINERS[container](Y))
    if not between:
        # Not a part of them either, which would be neither the one thing nor the other.
        np.testing.assert_array_equal(pipeline.predict_proba(X), by_hand(final, None))


def test_imbalanced_learns_pipeline_does_not_warn_where_all_weights_are_one():
    pipeline = IMBLEARN(
        [("balance", balancer(weighting="row", omega=1)), ("clf", LogisticRegression())]
    )
    expected = by_hand(LogisticRegression(), None)
    np.testing.assert_array_equal(pipeline.fit(X, Y).predict_proba(X), expected)
    pipeline.fit(X, Y.tolist())


def test_a_subclass_that_overrides_fit_resample_still_hands_on_weights():
    class Noisy(DiffusionBalancer):
        def fit_resample(self, X, y):
            return super().fit_resample(X, y)

    sampler = Noisy(**balancer().get_params())
    pipeline = IMBLEARN([("balance", sampler), ("clf", torch_classifier())]).fit(X, Y)
    assert_as_by_hand(pipeline, torch_classifier())


def test_steps_between_in_imbalanced_learns_pipeline_do_not_lose_weights():
    between = [("function", FunctionTransformer()), ("off", "passthrough")]
    for container in (np.asarray, pd.Series):
        pipeline = pipe(IMBLEARN, torch_classifier(), between).fit(X, container(Y))
        assert_as_by_hand(pipeline, torch_classifier())


def test_a_search_over_the_classifier_slices_carried_weights():
    search = GridSearchCV(torch_classifier(), {"weight_decay": [0.01]}, cv=2)
    assert_as_by_hand(pipe(IMBLEARN, search).fit(X, Y), torch_classifier())
    with pytest.warns(UserWarning, match="no channel for weights"):
        pipeline = pipe(IMBLEARN, search.set_params(error_score="raise")).fit(X, pd.Series(Y))
    np.testing.assert_array_equal(pipeline.predict_proba(X), by_hand(torch_classifier(), None))


def test_balanced_bagging_takes_the_balancer_and_hands_weights_to_our_classifier():
    bagging = BalancedBaggingClassifier(
        torch_classifier(), n_estimators=2, sampler=balancer(), random_state=0
    ).fit(X, Y)
    assert bagging.predict_proba(X).shape == (30, 2)
    for member, rows in zip(bagging.estimators_, bagging.estimators_samples_, strict=True):
        sampler, classifier = member["sampler"], member["classifier"]
        expected = clone(classifier).fit(*clone(sampler).fit_resample_weighted(X[rows], Y[rows]))
        np.testing.assert_array_equal(classifier.predict_proba(X), expected.predict_proba(X))


def test_balanced_bagging_warns_that_a_classifier_of_others_gets_no_weights():
    bagging = BalancedBaggingClassifier(n_estimators=1, sampler=balancer(), random_state=0)
    with pytest.warns(UserWarning, match="no channel for weights"):
        bagging.fit(X, Y)


@pytest.mark.filterwarnings("ignore:A column-vector y")
@pytest.mark.parametrize("container", Y_CONTAINERS.values(), ids=Y_CONTAINERS)
def test_scikit_learns_pipeline_lets_omega_take_effect(container):
    pipeline = pipe(SKLEARN, torch_classifier(), [("off", "passthrough")]).fit(X, container(Y))
    assert_as_by_hand(pipeline, torch_classifier())


@pytest.mark.parametrize(
    "between",
    [
        StandardScaler(),
        FunctionTransformer(),
        FunctionTransformer(lambda rows: rows, validate=True),
        ColumnTransformer([("scale", StandardScaler(), [0])], remainder="passthrough"),
        sklearn.pipeline.FeatureUnion([("scale", StandardScaler())]),
        DiffusionBalancer(),
    ],
    ids=lambda step: type(step).__name__,
)
def test_scikit_learns_pipeline_with_a_step_between_raises(between):
    with pytest.raises(ValueError, match="sklearn_diffult import Pipeline"):
        pipe(SKLEARN, torch_classifier(), [("between", between)]).fit(X, Y)


@pytest.mark.parametrize(
    "final",
    [
        LogisticRegression(),
        HistGradientBoostingClassifier(),
        RandomForestClassifier(),
        KNeighborsClassifier(),
        DummyClassifier(),
        GridSearchCV(LogisticRegression(), {"C": [1]}),
        GridSearchCV(torch_classifier(), {"weight_decay": [0.01]}),
        CalibratedClassifierCV(torch_classifier()),
        VotingClassifier([("a", torch_classifier())]),
        OneVsRestClassifier(torch_classifier()),
        BaggingClassifier(torch_classifier()),
    ],
    ids=lambda final: str(final)[:60],
)
def test_scikit_learns_pipeline_with_a_final_step_of_others_raises(final):
    with pytest.raises(ValueError, match="sklearn_diffult import Pipeline"):
        pipe(SKLEARN, final).fit(X, Y)


# Crossings ----------------------------------------------------------------------------


@pytest.fixture(params=PIPELINES)
def kind(request):
    return PIPELINES[request.param]


@pytest.mark.parametrize("container", [np.asarray, pd.Series])
def test_a_cached_balancer_brings_its_own_weights(kind, container, tmp_path):
    for omega in (0.3, 0.9, 0.3):  # the last one comes from the cache
        pipeline = pipe(kind, torch_classifier(), memory=str(tmp_path))
        pipeline.set_params(balance__omega=omega).fit(X, container(Y))
        np.testing.assert_array_equal(
            pipeline.predict_proba(X), by_hand(torch_classifier(), omega=omega)
        )


def test_cached_steps_after_the_balancer_do_not_bring_stale_weights(tmp_path):
    between = [("identity", FunctionSampler(validate=False))]
    for omega in (0.3, 0.9):
        pipeline = pipe(IMBLEARN, torch_classifier(), between, memory=str(tmp_path))
        with pytest.warns(UserWarning, match="no channel"):
            pipeline.set_params(balance__omega=omega).fit(X, Y)
        # This sampler would have handed them on, and its cache might hand on another's.
        np.testing.assert_array_equal(
            pipeline.predict_proba(X), by_hand(torch_classifier(), None, omega=omega)
        )


def test_clones_pickles_and_refits_give_the_same_weighted_fit(kind):
    pipeline = pipe(kind, torch_classifier()).fit(X, Y)
    for again in (
        clone(pipeline).fit(X, Y),
        pickle.loads(pickle.dumps(pipeline)),
        pipeline.fit(X, Y),
    ):
        assert_as_by_hand(again, torch_classifier())


def _predictions_of_folds(pipeline, **kwargs):
    scores = cross_validate(pipeline, X, Y, cv=2, return_estimator=True, **kwargs)
    return [fitted.predict_proba(X) for fitted in scores["estimator"]]


def test_cross_validation_in_two_processes_equals_fits_by_hand(kind):
    in_processes = _predictions_of_folds(pipe(kind, torch_classifier()), n_jobs=2)
    by_our_own = _predictions_of_folds(make_pipeline(balancer(), torch_classifier()))
    unweighted = _predictions_of_folds(
        make_pipeline(balancer(weighting="row", omega=1), torch_classifier())
    )
    np.testing.assert_array_equal(in_processes, by_our_own)
    assert not np.array_equal(by_our_own, unweighted)


def test_a_search_over_omega_refits_with_the_weights_of_the_best(kind):
    search = GridSearchCV(
        pipe(kind, torch_classifier()), {"balance__omega": [0.1, 0.9]}, cv=2, error_score="raise"
    ).fit(X, Y)
    expected = by_hand(torch_classifier(), omega=search.best_params_["balance__omega"])
    np.testing.assert_array_equal(search.predict_proba(X), expected)


def test_calibration_around_a_pipeline(kind):
    calibrated = CalibratedClassifierCV(pipe(kind, torch_classifier()), cv=2).fit(X, Y)
    inner = [fold.estimator.predict_proba(X) for fold in calibrated.calibrated_classifiers_]
    expected = _predictions_of_folds(make_pipeline(balancer(), torch_classifier()))
    np.testing.assert_array_equal(inner, expected)


def test_set_output_works_in_every_pipeline(kind):
    pipeline = pipe(kind, torch_classifier()).set_output(transform="pandas").fit(X, Y)
    assert_as_by_hand(pipeline, torch_classifier())
    clone(pipeline).fit(X, Y)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    assert pipeline.fit(frame, Y).predict(frame).shape == (30,)
    for other in (frame[["b", "a", "c"]], frame.rename(columns={"a": "z"}), frame[["a", "b"]]):
        with pytest.raises(ValueError, match="feature"):
            pipeline.predict(other)


@pytest.mark.usefixtures("routing")
def test_stock_pipelines_work_with_metadata_routing(kind):
    assert_as_by_hand(pipe(kind, torch_classifier()).fit(X, Y), torch_classifier())


@pytest.mark.parametrize("routed", [False, True])
def test_scikit_learns_pipeline_refuses_weights_given_by_the_user_too(routed):
    final = torch_classifier()
    with sklearn.config_context(enable_metadata_routing=routed):
        pipeline = pipe(SKLEARN, asking(final))
        with pytest.raises(ValueError, match="only one of them can hold"):
            pipeline.fit(X, Y, **{"sample_weight" if routed else "clf__sample_weight": np.ones(30)})


def test_one_balancer_object_serves_in_every_pipeline_and_alone():
    sampler = balancer()
    for kind in PIPELINES.values():
        pipeline = kind([("balance", sampler), ("clf", torch_classifier())]).fit(X, Y)
        assert_as_by_hand(pipeline, torch_classifier())
    assert type(sampler.fit_resample(X, Y)[1]) is np.ndarray
    np.testing.assert_array_equal(sampler.transform(X), X)
