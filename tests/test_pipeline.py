"""Our pipeline: weights arrive as in a weighted fit by hand, or fitting raises."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from imblearn import FunctionSampler
from imblearn.ensemble import BalancedBaggingClassifier
from imblearn.under_sampling import RandomUnderSampler
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import RFE
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from weighted_pipelines import (
    IMBLEARN,
    OURS,
    PIPELINES,
    SKLEARN,
    Y_CONTAINERS,
    X,
    Y,
    asking,
    assert_as_by_hand,
    balancer,
    make_sklearn,
    pipe,
    torch_classifier,
)

from sklearn_diffult.classifier import WeightedTorchClassifier
from sklearn_diffult.pipeline import make_pipeline

# Our pipeline: final steps that take weights ------------------------------------------

FINAL_STEPS = {
    "logistic": lambda: asking(LogisticRegression()),
    "boosting": lambda: asking(HistGradientBoostingClassifier(min_samples_leaf=2, max_iter=5)),
    "forest": lambda: asking(RandomForestClassifier(5, random_state=0)),
    "torch": lambda: asking(torch_classifier()),
}
# Name -> (builder, keyword under which it takes the weights without metadata routing).
META_STEPS = {
    "pipeline": (
        lambda: make_sklearn(FunctionTransformer(), asking(LogisticRegression())),
        "clf__sample_weight",
    ),
    "imblearn pipeline": (
        lambda: IMBLEARN([("f", FunctionTransformer()), ("c", asking(LogisticRegression()))]),
        "c__sample_weight",
    ),
    "pipeline in a pipeline": (
        lambda: make_sklearn("passthrough", OURS([("c", asking(LogisticRegression()))])),
        "clf__c__sample_weight",
    ),
    "search": (
        lambda: GridSearchCV(asking(LogisticRegression()), {"C": [0.1, 1]}, cv=2),
        "sample_weight",
    ),
    "search of a pipeline": (
        lambda: GridSearchCV(
            make_sklearn(FunctionTransformer(), asking(LogisticRegression())),
            {"clf__C": [0.1, 1]},
            cv=2,
        ),
        "clf__sample_weight",
    ),
    "calibration": (
        lambda: CalibratedClassifierCV(asking(LogisticRegression()), cv=2),
        "sample_weight",
    ),
    "bagging": (
        lambda: BaggingClassifier(asking(LogisticRegression()), 3, random_state=0),
        "sample_weight",
    ),
    "voting": (
        lambda: VotingClassifier(
            [
                ("a", asking(LogisticRegression())),
                ("b", asking(RandomForestClassifier(3, random_state=0))),
            ],
            voting="soft",
        ),
        "sample_weight",
    ),
    "stacking": (
        lambda: StackingClassifier(
            [("a", asking(LogisticRegression()))], asking(LogisticRegression()), cv=2
        ),
        "sample_weight",
    ),
    "boosting of trees": (
        lambda: AdaBoostClassifier(n_estimators=3, random_state=0),
        "sample_weight",
    ),
    "elimination": (lambda: RFE(asking(LogisticRegression())), "sample_weight"),
}


@pytest.mark.parametrize("container", Y_CONTAINERS.values(), ids=Y_CONTAINERS)
@pytest.mark.parametrize("final", FINAL_STEPS.values(), ids=FINAL_STEPS)
def test_our_pipeline_equals_a_weighted_fit_by_hand(final, container):
    assert_as_by_hand(pipe(OURS, final()).fit(X, container(Y)), final())


@pytest.mark.parametrize(("final", "keyword"), META_STEPS.values(), ids=META_STEPS)
def test_weights_go_through_estimators_that_hand_them_on(final, keyword):
    assert_as_by_hand(pipe(OURS, final()).fit(X, Y), final(), keyword)


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("final", FINAL_STEPS.values(), ids=FINAL_STEPS)
def test_our_pipeline_equals_a_weighted_fit_by_hand_with_metadata_routing(final):
    assert_as_by_hand(pipe(OURS, final()).fit(X, Y), final())
    assert_as_by_hand(
        pipe(OURS, clone(final()).set_fit_request(sample_weight=None)).fit(X, Y), final()
    )


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("name", sorted(META_STEPS.keys() - {"boosting of trees"}))
def test_weights_go_through_estimators_that_hand_them_on_with_metadata_routing(name):
    final, _ = META_STEPS[name]
    assert_as_by_hand(pipe(OURS, final()).fit(X, Y), final())


@pytest.mark.usefixtures("routing")
def test_metadata_routing_brings_weights_where_signatures_do_not():
    for final in (
        OneVsRestClassifier(asking(LogisticRegression())),
        CalibratedClassifierCV(
            make_sklearn(FunctionTransformer(), asking(LogisticRegression())), cv=2
        ),
    ):
        assert_as_by_hand(pipe(OURS, final).fit(X, Y), final)


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("requested", [None, False])
def test_an_estimator_that_does_not_request_weights_raises_with_metadata_routing(requested):
    inner = LogisticRegression().set_fit_request(sample_weight=requested)
    pipeline = make_sklearn(FunctionTransformer(), inner)
    for final in (pipeline, OneVsRestClassifier(inner), AdaBoostClassifier()):
        with pytest.raises(ValueError, match="set_fit_request"):
            pipe(OURS, final).fit(X, Y)


def test_steps_between_are_fitted_and_the_weights_pass_them_by():
    between = [
        ("scale", StandardScaler()),
        ("off", "passthrough"),
        ("function", FunctionTransformer()),
    ]
    X_balanced, y_balanced, weights = balancer().fit_resample_weighted(X, Y)
    scaler = StandardScaler().fit(X_balanced)
    final = LogisticRegression().fit(scaler.transform(X_balanced), y_balanced, weights)
    pipeline = pipe(OURS, LogisticRegression(), between).fit(X, Y)
    np.testing.assert_array_equal(
        pipeline.predict_proba(X), final.predict_proba(scaler.transform(X))
    )


@pytest.mark.parametrize("outer", [IMBLEARN, SKLEARN], ids=["imblearn", "sklearn"])
@pytest.mark.parametrize("container", [np.asarray, pd.Series])
def test_our_pipeline_as_last_step_of_a_stock_pipeline_receives_the_weights(outer, container):
    inner = make_pipeline(FunctionTransformer(), LogisticRegression())
    assert_as_by_hand(pipe(outer, inner).fit(X, container(Y)), LogisticRegression())


def test_images_are_balanced_inside_the_pipeline():
    images = np.random.RandomState(0).randint(256, size=(12, 8, 8), dtype=np.uint8)
    y = np.repeat([0, 1], [9, 3])
    sampler = balancer(network="unet", batch_size=4)
    final = WeightedTorchClassifier("mlp", n_steps=2, random_state=0)
    expected = clone(final).fit(*clone(sampler).fit_resample_weighted(images, y))
    for kind in PIPELINES.values():
        pipeline = kind([("balance", clone(sampler)), ("clf", clone(final))]).fit(images, y)
        np.testing.assert_array_equal(
            pipeline.predict_proba(images), expected.predict_proba(images)
        )


def test_make_pipeline_names_steps_and_passes_weights():
    pipeline = make_pipeline(balancer(), LogisticRegression(), memory=None, verbose=False)
    assert [name for name, _ in pipeline.steps] == ["diffusionbalancer", "logisticregression"]
    assert_as_by_hand(pipeline.fit(X, Y), LogisticRegression())


def test_a_pipeline_without_a_balancer_is_imbalanced_learns():
    sampler = RandomUnderSampler(random_state=0)
    ours, theirs = (
        kind([("sample", sampler), ("clf", LogisticRegression())]).fit(X, Y.tolist())
        for kind in (OURS, IMBLEARN)
    )
    np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    weighted = OURS([("clf", LogisticRegression())]).fit(X, Y, clf__sample_weight=np.arange(30))
    expected = LogisticRegression().fit(X, Y, np.arange(30)).predict_proba(X)
    np.testing.assert_array_equal(weighted.predict_proba(X), expected)


def test_fit_predict_and_fit_transform_of_the_final_step_get_the_weights():
    X_balanced, _, weights = balancer().fit_resample_weighted(X, Y)
    means = KMeans(2, n_init=1, random_state=0)
    scaler = StandardScaler().fit(X_balanced, sample_weight=weights)
    np.testing.assert_array_equal(
        pipe(OURS, clone(means)).fit_predict(X, Y),
        clone(means).fit_predict(X_balanced, sample_weight=weights),
    )
    np.testing.assert_array_equal(
        pipe(OURS, StandardScaler()).fit_transform(X, Y), scaler.transform(X_balanced)
    )


@pytest.mark.parametrize("kind", [OURS, IMBLEARN], ids=["ours", "imblearn"])
def test_a_pipeline_that_ends_with_the_balancer_resamples_and_returns_plain_labels(kind):
    X_balanced, y_balanced, _ = balancer().fit_resample_weighted(X, Y)
    pipeline = kind([("function", FunctionTransformer()), ("balance", balancer())])
    X_resampled, y_resampled = pipeline.fit_resample(X, Y)
    np.testing.assert_array_equal(X_resampled, X_balanced)
    np.testing.assert_array_equal(y_resampled, y_balanced)
    assert type(y_resampled) is np.ndarray
    assert pipe(kind, "passthrough").fit(X, Y).transform(X) is X


# Our pipeline: errors -----------------------------------------------------------------


@pytest.mark.parametrize(
    "final",
    [
        KNeighborsClassifier(),
        CalibratedClassifierCV(KNeighborsClassifier(), cv=2),
        CalibratedClassifierCV(make_sklearn(FunctionTransformer(), LogisticRegression()), cv=2),
        GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 2]}, cv=2),
        make_sklearn(FunctionTransformer(), KNeighborsClassifier()),
        make_sklearn(FunctionTransformer(), "passthrough"),
        VotingClassifier([("a", LogisticRegression()), ("b", KNeighborsClassifier())]),
        StackingClassifier([("a", LogisticRegression())], KNeighborsClassifier()),
        AdaBoostClassifier(KNeighborsClassifier()),
        OneVsRestClassifier(LogisticRegression()),
        BalancedBaggingClassifier(LogisticRegression(), n_estimators=2),
        make_pipeline(RandomUnderSampler(), LogisticRegression()),
        RandomUnderSampler(),
    ],
    ids=lambda final: str(final)[:60],
)
def test_a_final_step_that_would_not_use_the_weights_raises_before_training(final):
    pipeline = pipe(OURS, final)
    with pytest.raises(ValueError, match="cannot reach.*weighting='row', omega=1"):
        pipeline.fit(X, Y)
    assert not hasattr(pipeline["balance"], "sample_weight_")


def test_it_raises_before_training_where_equal_classes_shall_be_filled_up():
    # Equally frequent classes need no synthetic rows, unless the user asks for some.
    for strategy in ({"few": 12}, 12):
        pipeline = make_pipeline(balancer(sampling_strategy=strategy), KNeighborsClassifier())
        with pytest.raises(ValueError, match="cannot reach"):
            pipeline.fit(X[:18], Y[:18])
        assert not hasattr(pipeline[0], "sample_weight_")


@pytest.mark.parametrize(
    ("rows", "parameters"),
    [
        (slice(18), {}),
        (slice(None), {"weighting": "row", "sampling_strategy": 2}),
        (slice(None), {"weight_temper": 1, "sampling_strategy": 2}),
    ],
)
@pytest.mark.filterwarnings("ignore:sampling_strategy=2 asks for 2 rows of each class")
def test_a_final_step_that_takes_no_weights_serves_where_no_row_is_made_and_all_are_alike(
    rows, parameters
):
    pipeline = make_pipeline(balancer(**parameters), KNeighborsClassifier())
    pipeline.fit(X[rows], Y[rows])
    assert set(pipeline[0].sample_weight_) == {1.0}
    unequal = make_pipeline(balancer(sampling_strategy=2), KNeighborsClassifier())
    with pytest.raises(ValueError, match="cannot reach"):
        unequal.fit(X, Y)


@pytest.mark.parametrize("final", [KNeighborsClassifier(), RandomUnderSampler(random_state=0)])
def test_a_final_step_that_takes_no_weights_serves_where_all_are_one(final):
    X_balanced, y_balanced = balancer(weighting="row", omega=1).fit_resample(X, Y)
    pipeline = make_pipeline(balancer(weighting="row", omega=1), clone(final))
    if hasattr(final, "predict"):
        final.fit(X_balanced, y_balanced)
        np.testing.assert_array_equal(pipeline.fit(X, Y).predict(X), final.predict(X))
    else:
        np.testing.assert_array_equal(
            pipeline.fit_resample(X, Y)[0], final.fit_resample(X_balanced, y_balanced)[0]
        )


def test_a_sampler_after_the_balancer_would_lose_the_weights_and_raises():
    for sampler in (RandomUnderSampler(random_state=0), FunctionSampler(validate=False)):
        with pytest.raises(ValueError, match="the sampler 'other' after it returns rows without"):
            pipe(OURS, LogisticRegression(), [("other", sampler)]).fit(X, Y)


def test_a_sampler_after_the_balancer_serves_where_all_weights_are_one():
    steps = [balancer(weighting="row", omega=1), RandomUnderSampler(random_state=0)]
    assert make_pipeline(*steps, LogisticRegression()).fit(X, Y).predict(X).shape == (30,)


def test_a_sampler_before_the_balancer_is_fine():
    sampler = RandomUnderSampler(sampling_strategy={"many": 12}, random_state=0)
    final = LogisticRegression().fit(*balancer().fit_resample_weighted(*sampler.fit_resample(X, Y)))
    pipeline = make_pipeline(sampler, balancer(), LogisticRegression()).fit(X, Y)
    np.testing.assert_array_equal(pipeline.predict_proba(X), final.predict_proba(X))


@pytest.mark.parametrize(
    ("final", "given"),
    [
        (LogisticRegression(), "clf__sample_weight"),
        (make_sklearn("passthrough", LogisticRegression()), "clf__clf__sample_weight"),
        (LogisticRegression(), "balance__sample_weight"),
        (LogisticRegression(), "sample_weight"),
    ],
)
def test_weights_given_by_the_user_conflict_with_the_balancers(final, given):
    with pytest.raises(ValueError, match="weights of its own"):
        pipe(OURS, final).fit(X, Y, **{given: np.ones(30)})


def test_what_else_is_given_to_the_balancer_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'balance' was given \['n_steps'\] .* X and y alone"):
        pipe(OURS, LogisticRegression()).fit(X, Y, balance__n_steps=3)


@pytest.mark.usefixtures("routing")
def test_weights_given_by_the_user_conflict_with_metadata_routing_too():
    with pytest.raises(ValueError, match="weights of its own"):
        pipe(OURS, asking(LogisticRegression())).fit(X, Y, sample_weight=np.ones(30))


def test_two_steps_that_make_weights_conflict():
    with pytest.raises(ValueError, match="use one DiffusionBalancer"):
        make_pipeline(balancer(), balancer(), LogisticRegression()).fit(X, Y)
    with pytest.raises(ValueError, match="use one DiffusionBalancer"):
        pipe(SKLEARN, make_pipeline(balancer(), LogisticRegression())).fit(X, Y)


def test_a_search_that_reaches_no_classifier_with_weights_says_so():
    search = GridSearchCV(
        pipe(OURS, KNeighborsClassifier()), {"balance__omega": [0.1, 1]}, error_score="raise"
    )
    with pytest.raises(ValueError, match="KNeighborsClassifier"):
        search.fit(X, Y)


@pytest.mark.parametrize("column", [Y[:, None], Y[:, None].tolist(), pd.DataFrame(Y)])
def test_labels_in_a_single_column_are_labels(column):
    pipeline = pipe(OURS, torch_classifier()).fit(X, column)
    expected = pipe(OURS, torch_classifier()).fit(X, Y)
    np.testing.assert_array_equal(pipeline.predict_proba(X), expected.predict_proba(X))


def test_a_strategy_is_of_the_rows_that_the_steps_before_leave():
    fewer = RandomUnderSampler(sampling_strategy={"many": 12}, random_state=0)
    strategy = {"many": 14, "few": 16}
    pipeline = make_pipeline(fewer, balancer(sampling_strategy=strategy), LogisticRegression())
    pipeline.fit(X, Y)
    assert pipeline[1].sampling_strategy_ == {"many": 2, "few": 7}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda y: [*y[:-1], None], ValueError, "rows without a label: 1"),
        (lambda y: [*y[:-1], np.nan], ValueError, "rows without a label: 1"),
        (lambda y: [*y[:-1], 7], TypeError, "y mixes text and numbers, such as '.*' and 7"),
        (lambda y: np.array([*y[:-1], 7], dtype=object), TypeError, "y mixes text and numbers"),
        (lambda y: ["many"] * len(y), ValueError, "y holds one class only"),
    ],
)
def test_bad_labels_are_told_as_by_the_balancer_itself(change, error, message):
    with pytest.raises(error, match=message):
        make_pipeline(balancer(), LogisticRegression()).fit(X, change(Y.tolist()))


def test_one_hot_labels_are_refused_before_training(monkeypatch):
    monkeypatch.setattr("sklearn_diffult.stages.train", None)
    with pytest.raises(ValueError, match="argmax"):
        pipe(OURS, torch_classifier()).fit(X, np.eye(2, dtype=int)[(Y == "few").astype(int)])


def test_the_part_that_takes_no_weights_is_named():
    voting = VotingClassifier([("near", KNeighborsClassifier()), ("line", LogisticRegression())])
    for final in (voting, make_pipeline(StandardScaler(), voting)):
        with pytest.raises(ValueError, match="as the KNeighborsClassifier inside it does not"):
            make_pipeline(balancer(), final).fit(X, Y)
    with pytest.raises(ValueError, match="as the 'passthrough' inside it does not"):
        make_pipeline(balancer(), make_pipeline("passthrough")).fit(X, Y)


@pytest.mark.usefixtures("routing")
def test_who_has_not_said_whether_it_wants_weights_is_named_before_training(monkeypatch):
    monkeypatch.setattr("sklearn_diffult.stages.train", None)
    line = LogisticRegression().set_fit_request(sample_weight=True)
    scaled = make_sklearn(StandardScaler(), line)
    for final, deaf in (
        (GridSearchCV(line, {"C": [1, 2]}, cv=2), "LogisticRegression.score"),
        (scaled, "StandardScaler.fit_transform"),
        (CalibratedClassifierCV(scaled, cv=2), "StandardScaler.fit_transform"),
    ):
        with pytest.raises(ValueError, match=f"reach the final step.*{deaf}"):
            pipe(OURS, final).fit(X, Y)


def test_labels_are_asked_for_as_the_balancer_asks():
    with pytest.raises(
        ValueError, match="DiffusionBalancer requires y to be passed, but y is None"
    ):
        pipe(OURS, torch_classifier()).fit(X)
