"""What examples of imbalanced-learn do with SMOTE, done with SMOTE and with the balancer alike."""

from __future__ import annotations

import contextlib
import functools
import io
from collections import Counter

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from imblearn import FunctionSampler
from imblearn.metrics import (
    classification_report_imbalanced,
    geometric_mean_score,
    make_index_balanced_accuracy,
    sensitivity_specificity_support,
)
from imblearn.over_sampling import ADASYN, SMOTE, SMOTEN, SMOTENC, RandomOverSampler
from imblearn.pipeline import Pipeline, make_pipeline
from imblearn.tensorflow import balanced_batch_generator
from imblearn.under_sampling import EditedNearestNeighbours, TomekLinks
from imblearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_param_validation,
)
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.inspection import DecisionBoundaryDisplay
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    RocCurveDisplay,
    classification_report,
    cohen_kappa_score,
    make_scorer,
)
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_predict,
    cross_validate,
    train_test_split,
    validation_curve,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import estimator_checks_generator

import sklearn_diffult
from sklearn_diffult import DiffusionBalancer

mpl.use("agg")
BALANCER = functools.partial(DiffusionBalancer, n_steps=50, batch_size=16, random_state=0)
SAMPLERS = {
    "SMOTE": functools.partial(SMOTE, k_neighbors=3, random_state=0),
    "DiffusionBalancer": BALANCER,
}


@pytest.fixture(params=SAMPLERS)
def new_sampler(request):
    return SAMPLERS[request.param]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def rows(counts=(70, 14), n_features=4, class_sep=1.0):
    """Numbers of as many classes as there are counts."""
    X, y = make_classification(
        4 * max(counts) * len(counts),
        n_features=n_features,
        n_informative=n_features,
        n_redundant=0,
        n_classes=len(counts),
        n_clusters_per_class=1,
        class_sep=class_sep,
        flip_y=0,
        random_state=0,
    )
    kept = np.concatenate([np.flatnonzero(y == c)[:n] for c, n in enumerate(counts)])
    order = np.random.RandomState(0).permutation(kept)
    return X[order], y[order]


def weights_get_lost(sampler):
    """SMOTE has no weights; the balancer's find no way through imbalanced-learn's pipeline."""
    if isinstance(sampler, DiffusionBalancer):
        return pytest.warns(UserWarning, match="no channel for weights")
    return contextlib.nullcontext()


# Sampling strategies ------------------------------------------------------------------


def half_as_many_again(y):
    return {label: 3 * n // 2 for label, n in Counter(y).items() if n < 20}


@pytest.mark.parametrize(
    ("counts", "strategy", "expected"),
    [
        ((40, 10), 0.5, (40, 20)),
        ((40, 10), 1.0, (40, 40)),
        ((40, 16, 8), "auto", (40, 40, 40)),
        ((40, 16, 8), "all", (40, 40, 40)),
        ((40, 16, 8), "not majority", (40, 40, 40)),
        ((40, 16, 8), "not minority", (40, 40, 8)),
        ((40, 16, 8), "minority", (40, 16, 40)),
        ((40, 16, 8), {1: 20, 2: 50}, (40, 20, 50)),
        ((40, 16, 8), half_as_many_again, (40, 24, 12)),
    ],
)
def test_a_strategy_gives_the_counts_that_smote_gives(counts, strategy, expected):
    X, y = rows(counts)
    samplers = [new(sampling_strategy=strategy) for new in SAMPLERS.values()]
    for sampler in samplers:
        _, y_resampled = sampler.fit_resample(X, y)
        assert Counter(y_resampled.tolist()) == dict(enumerate(expected))
    assert samplers[0].sampling_strategy_ == samplers[1].sampling_strategy_


@pytest.mark.parametrize("strategy", [{"few": 30}, lambda y: {"few": 3 * Counter(y)["few"]}])
def test_a_strategy_names_classes_as_y_does(new_sampler, strategy):
    X, y = rows((40, 10))
    labels = np.array(["many", "few"])[y]
    _, y_resampled = new_sampler(sampling_strategy=strategy).fit_resample(X, labels)
    assert Counter(y_resampled.tolist()) == {"many": 40, "few": 30}


@pytest.mark.parametrize(
    ("counts", "strategy"),
    [
        ((40, 10), 0.1),
        ((40, 16, 8), 0.5),
        ((40, 10), 2.0),
        ((40, 10), {1: 2}),
        ((40, 10), {7: 20}),
        ((40, 10), [1]),
        ((40, 10), "majority"),
        ((40, 10), "fewest"),
    ],
)
def test_a_strategy_that_smote_refuses_is_refused_before_training(new_sampler, counts, strategy):
    sampler = new_sampler(sampling_strategy=strategy)
    with pytest.raises(ValueError, match="sampling_strategy|samples|target class|ratio"):
        sampler.fit_resample(*rows(counts))
    assert not hasattr(sampler, "denoiser_")


def test_the_integer_1_is_the_ratio_that_it_is_to_smote():
    _, y_resampled = BALANCER(sampling_strategy=1).fit_resample(*rows((40, 10)))
    assert Counter(y_resampled.tolist()) == {0: 40, 1: 40}


# Pipelines ----------------------------------------------------------------------------


def test_a_pipeline_of_pca_cleaning_sampler_and_neighbours_classifies_unseen_rows(new_sampler):
    X_train, X_test, y_train, y_test = train_test_split(*rows((140, 28)), random_state=0)
    model = make_pipeline(
        PCA(2), EditedNearestNeighbours(), new_sampler(), KNeighborsClassifier(n_neighbors=1)
    )
    with weights_get_lost(model[2]):
        predicted = model.fit(X_train, y_train).predict(X_test)
    report = classification_report(y_test, predicted, output_dict=True)
    assert report["macro avg"]["support"] == len(y_test)
    assert report["macro avg"]["recall"] > 0.8
    X_resampled, y_resampled = model[:-1].fit_resample(X_train, y_train)
    assert X_resampled.shape == (2 * (y_resampled == 0).sum(), 2)


# What SMOTEENN and SMOTETomek do, which themselves take nothing but a SMOTE.
@pytest.mark.parametrize("cleaning", [EditedNearestNeighbours(), TomekLinks()])
def test_cleaning_may_follow_over_sampling(new_sampler, cleaning):
    X, y = rows((40, 10), class_sep=0.3)
    model = make_pipeline(new_sampler(), cleaning)
    with weights_get_lost(model[0]):
        cleaned = model.fit_resample(X, y)
    by_hand = cleaning.fit_resample(*new_sampler().fit_resample(X, y))
    for one, other in zip(cleaned, by_hand, strict=True):
        np.testing.assert_array_equal(one, other)


def test_neighbours_learn_from_the_balanced_rows_and_omega_changes_nothing():
    X, y = rows((40, 10), class_sep=0.3)
    by_hand = KNeighborsClassifier(n_neighbors=1).fit(*BALANCER().fit_resample(X, y))
    for omega in (0.1, 0.9):
        model = make_pipeline(BALANCER(omega=omega), KNeighborsClassifier(n_neighbors=1))
        with pytest.warns(UserWarning, match="do not reach KNeighborsClassifier and omega has no"):
            model.fit(X, y)
        np.testing.assert_array_equal(model[-1]._fit_X, by_hand._fit_X)
        np.testing.assert_array_equal(model.predict(X), by_hand.predict(X))


@pytest.mark.parametrize("make", [make_pipeline, sklearn_diffult.make_pipeline])
def test_neighbours_get_rows_that_all_weigh_one_without_a_warning(make):
    X, y = rows((40, 10), class_sep=0.3)
    balancer = BALANCER(weighting="row", omega=1)
    by_hand = KNeighborsClassifier().fit(*balancer.fit_resample(X, y))
    model = make(balancer, KNeighborsClassifier()).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), by_hand.predict_proba(X))


def test_our_pipeline_refuses_neighbours_where_rows_differ_in_weight():
    model = sklearn_diffult.make_pipeline(BALANCER(), KNeighborsClassifier())
    with pytest.raises(ValueError, match="KNeighborsClassifier"):
        model.fit(*rows((40, 10)))


@pytest.mark.filterwarnings("ignore:imblearn.pipeline.Pipeline has no channel")
@pytest.mark.parametrize(
    "labels_of",
    [
        lambda X, y: make_pipeline(BALANCER(), DecisionTreeClassifier()).fit(X, y).predict(X),
        lambda X, y: make_pipeline(BALANCER(), DecisionTreeClassifier()).fit(X, y).classes_,
        lambda X, y: make_pipeline(BALANCER(), TomekLinks()).fit_resample(X, y)[1],
    ],
    ids=["predictions", "classes", "resampled labels"],
)
def test_labels_that_come_out_of_a_pipeline_are_saved_without_a_warning(labels_of):
    labels = labels_of(*rows((40, 10)))
    np.save(io.BytesIO(), labels)


# Validation curve, searches, cross-validation -----------------------------------------


@pytest.mark.parametrize(
    ("name", "parameter", "values"),
    [
        ("SMOTE", "k_neighbors", [1, 3]),
        ("SMOTE", "sampling_strategy", [0.5, 1.0]),
        ("DiffusionBalancer", "sampling_strategy", [0.5, 1.0]),
        ("DiffusionBalancer", "guidance_scale", [1.0, 2.0]),
    ],
)
def test_a_validation_curve_over_a_parameter_of_the_sampler(name, parameter, values):
    model = Pipeline([("sampler", SAMPLERS[name]()), ("tree", DecisionTreeClassifier())])
    with weights_get_lost(model["sampler"]):
        train_scores, test_scores = validation_curve(
            model.set_params(tree__random_state=0),
            *rows(),
            param_name=f"sampler__{parameter}",
            param_range=values,
            cv=3,
            scoring=make_scorer(cohen_kappa_score),
            error_score="raise",
        )
    assert train_scores.shape == test_scores.shape == (2, 3)
    # An unpruned tree knows the real rows that it was trained on by heart; chance is 0.
    assert (train_scores == 1).all()
    assert (test_scores.mean(axis=1) > 0.2).all()


def test_a_search_over_sampler_and_classifier_together(new_sampler):
    X, y = rows()
    model = Pipeline([("sampler", new_sampler()), ("clf", LogisticRegression())])
    grid = {"sampler__sampling_strategy": [0.5, "auto"], "clf__C": [1]}
    search = GridSearchCV(
        model, grid, cv=2, scoring=make_scorer(geometric_mean_score), error_score="raise"
    )
    with weights_get_lost(model["sampler"]):
        search.fit(X, y)
    chosen = search.best_params_["sampler__sampling_strategy"]
    fitted = search.best_estimator_["sampler"]
    assert fitted.sampling_strategy_ == {1: {0.5: 21, "auto": 56}[chosen]}
    assert search.best_score_ > 0.8


def test_folds_are_scored_on_real_rows_only(new_sampler):
    X, y = rows()
    model = make_pipeline(new_sampler(), LogisticRegression())
    with weights_get_lost(model[0]):
        scores = cross_validate(model, X, y, cv=2, return_indices=True, error_score="raise")
        probability = cross_val_predict(model, X, y, cv=2, method="predict_proba")
    assert sorted(np.concatenate(scores["indices"]["test"])) == list(range(len(X)))
    display = RocCurveDisplay.from_predictions(y, probability[:, 1])
    assert display.roc_auc > 0.8


# Reports and metrics ------------------------------------------------------------------


@functools.cache
def true_and_predicted(name):
    """Labels of unseen rows of overlapping classes, and what a linear model says."""
    X, y = rows((240, 24), class_sep=0.4)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
    sampler = SAMPLERS.get(name, FunctionSampler)()
    model = make_pipeline(StandardScaler(), sampler, LogisticRegression())
    with weights_get_lost(sampler):
        return y_test, model.fit(X_train, y_train).predict(X_test)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_report_for_imbalanced_data_counts_real_rows(name):
    y_test, predicted = true_and_predicted(name)
    report = classification_report_imbalanced(y_test, predicted, output_dict=True)
    assert {label: report[label]["sup"] for label in ("0", "1")} == {"0": 60, "1": 6}
    assert report["total_support"] == 66
    for metric in ("pre", "rec", "spe", "f1", "geo", "iba"):
        assert 0 < report[f"avg_{metric}"] <= 1
    text = classification_report_imbalanced(y_test, predicted, target_names=["many", "few"])
    assert {"pre", "rec", "spe", "f1", "geo", "iba", "sup", "many", "few"} <= set(text.split())


@pytest.mark.parametrize("name", SAMPLERS)
def test_metrics_for_imbalanced_data_rise_above_those_without_balancing(name):
    balanced, unbalanced = true_and_predicted(name), true_and_predicted("nothing")
    index_balanced = make_index_balanced_accuracy(alpha=0.1, squared=True)(geometric_mean_score)
    for score in (geometric_mean_score, index_balanced):
        assert score(*balanced) > score(*unbalanced) + 0.05
    sensitivity, specificity, _ = sensitivity_specificity_support(*balanced, average="binary")
    squared, dominance = sensitivity * specificity, sensitivity - specificity
    assert geometric_mean_score(*balanced) == pytest.approx(squared**0.5)
    expected = pytest.approx((1 + 0.1 * dominance) * squared)
    assert index_balanced(*balanced, average="binary") == expected


# Comparison of over-samplers ----------------------------------------------------------


def test_decision_regions_of_over_samplers_are_drawn_side_by_side():
    X, y = rows((40, 16, 8), n_features=2, class_sep=1.5)
    samplers = [
        FunctionSampler(),
        RandomOverSampler(shrinkage=0.2, random_state=0),
        SAMPLERS["SMOTE"](),
        ADASYN(n_neighbors=3, random_state=0),
        BALANCER(),
    ]
    figure, axes = plt.subplots(1, len(samplers))
    for ax, sampler in zip(axes, samplers, strict=True):
        model = make_pipeline(sampler, LogisticRegression())
        with weights_get_lost(sampler):
            model.fit(X, y)
        regions = DecisionBoundaryDisplay.from_estimator(
            model, X, response_method="predict", grid_resolution=20, ax=ax
        )
        assert set(np.unique(regions.response)) == {0, 1, 2}
        X_resampled, y_resampled = sampler.fit_resample(X, y)
        ax.scatter(*X_resampled.T, c=y_resampled, label=type(sampler).__name__)
    figure.canvas.draw()
    n_points = [len(ax.collections[-1].get_offsets()) for ax in axes]
    assert n_points[0] == 64
    assert n_points[1] == n_points[2] == n_points[4] == 120


@pytest.mark.parametrize("new", [SMOTE, functools.partial(BALANCER, n_steps=200, batch_size=64)])
def test_synthetic_rows_lie_where_their_class_does(new):
    X, y = rows((40, 16, 8), n_features=2, class_sep=1.5)
    X_resampled, y_resampled = new(random_state=0).fit_resample(X, y)
    judge = KNeighborsClassifier(3).fit(X, y)
    assert judge.score(X_resampled[64:], y_resampled[64:]) > 0.85


def test_there_are_no_sample_indices_as_rows_are_new(new_sampler):
    X, y = rows((40, 10))
    sampler = new_sampler()
    sampler.fit_resample(X, y)
    assert not hasattr(sampler, "sample_indices_")
    with pytest.raises(ValueError, match="sample_indices_"):
        balanced_batch_generator(X, y, sampler=sampler)


# Mixed types --------------------------------------------------------------------------


def customers():
    random_state = np.random.RandomState(0)
    X = pd.DataFrame(
        {
            "town": random_state.choice(["Ulm", "Bonn", "Kiel"], 60),
            "income": 1000 * random_state.rand(60),
            "code": random_state.choice([3, 70, 900], 60),
        },
        index=np.arange(60) + 100,
    )
    y = pd.Series(np.where(np.arange(60) < 15, "leaves", "stays"), index=X.index, name="churn")
    return X, y


def assert_mixed(X, X_resampled, y_resampled):
    pd.testing.assert_frame_equal(X_resampled[:60], X.reset_index(drop=True), check_exact=True)
    assert X_resampled.index.equals(pd.RangeIndex(90))
    assert y_resampled.index.equals(pd.RangeIndex(90))
    assert y_resampled.name == "churn"
    assert Counter(y_resampled) == {"stays": 45, "leaves": 45}
    for name in ("town", "code"):
        assert set(X_resampled[name]) == set(X[name])
    assert X_resampled["income"].between(X["income"].min(), X["income"].max()).all()
    assert X_resampled["income"][60:].nunique() > 15


MIXED = {"SMOTENC": functools.partial(SMOTENC, random_state=0), "DiffusionBalancer": BALANCER}


@pytest.mark.parametrize("new", MIXED.values(), ids=MIXED)
@pytest.mark.parametrize(
    "categorical_features",
    [["town", "code"], [0, 2], [True, False, True], np.array([True, False, True])],
    ids=["names", "positions", "mask", "mask as array"],
)
def test_categories_are_named_in_each_way_that_smotenc_takes(new, categorical_features):
    X, y = customers()
    sampler = new(categorical_features=list(categorical_features))
    assert_mixed(X, *sampler.fit_resample(X, y))


@pytest.mark.parametrize("new", MIXED.values(), ids=MIXED)
def test_categories_of_pandas_are_found_and_keep_their_dtype(new):
    X, y = customers()
    ordered = pd.CategoricalDtype(["Ulm", "Kiel", "Bonn", "Rom"], ordered=True)
    X = X.astype({"town": ordered, "code": "category"})
    assert_mixed(X, *new(categorical_features="auto").fit_resample(X, y))


@pytest.mark.parametrize("new", MIXED.values(), ids=MIXED)
def test_an_array_of_objects_keeps_the_type_of_every_cell(new):
    X, y = customers()
    cells = X.to_numpy(dtype=object)
    X_resampled, _ = new(categorical_features=[0, 2]).fit_resample(cells, y.to_numpy())
    assert X_resampled.dtype == object
    assert (X_resampled[:60] == cells).all()
    assert {tuple(map(type, row)) for row in X_resampled} == {(str, float, int)}


@pytest.mark.parametrize("new", [functools.partial(SMOTEN, random_state=0), BALANCER])
def test_an_array_of_categories_only_gets_no_new_one(new):
    X, y = customers()
    cells = np.c_[X["town"], np.where(X["code"] > 3, "large", "small")].astype(object)
    X_resampled, y_resampled = new().fit_resample(cells, y.to_numpy())
    assert Counter(y_resampled.tolist()) == {"stays": 45, "leaves": 45}
    for was, now in zip(cells.T, X_resampled.T, strict=True):
        assert set(was) == set(now)


def encode():
    text = make_column_selector(dtype_exclude="number")
    return make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), text), remainder=SimpleImputer()
    )


def test_a_sampler_after_the_encoders_of_a_frame(new_sampler):
    X, y = customers()
    X.iloc[::4, 1] = np.nan
    model = make_pipeline(encode(), StandardScaler(with_mean=False), new_sampler(), tree())
    with weights_get_lost(model[2]):
        model.fit(X, y)
    assert set(model.predict(X)) == {"leaves", "stays"}


def tree():
    return HistGradientBoostingClassifier(max_iter=5)


@pytest.mark.parametrize("make", [make_pipeline, sklearn_diffult.make_pipeline])
def test_the_balancer_stands_before_the_encoders_too(make):
    X, y = customers()
    X.iloc[::4, 1] = np.nan
    X.iloc[::7, 0] = None
    model = make(BALANCER(), encode(), tree())
    with weights_get_lost(model[0]) if make is make_pipeline else contextlib.nullcontext():
        model.fit(X, y)
    assert model.predict(X[::-1]).shape == (60,)


# What a sampler is --------------------------------------------------------------------


def framed(container):
    """Anything as a frame, where values, dtypes, names and index show."""
    if sparse.issparse(container):
        return pd.DataFrame.sparse.from_spmatrix(container)
    return pd.DataFrame(container)


X_CONTAINERS = {
    "float32": np.float32,
    "float16": np.float16,
    "Fortran order": np.asfortranarray,
    "lists": np.ndarray.tolist,
    "csr_array": sparse.csr_array,
    "csr_matrix": sparse.csr_matrix,
    "csc_matrix": sparse.csc_matrix,
    "frame": pd.DataFrame,
    "named frame": lambda X: pd.DataFrame(X, index=range(9, 59), columns=list("dbca")),
}


@pytest.mark.parametrize("container", X_CONTAINERS.values(), ids=X_CONTAINERS)
def test_rows_come_back_in_the_container_that_smote_gives(container):
    X, y = rows((40, 10))
    smotes, ours = (new().fit_resample(container(X), y)[0] for new in SAMPLERS.values())
    assert type(ours) is type(smotes)
    assert framed(ours).index.equals(framed(smotes).index)
    pd.testing.assert_frame_equal(framed(ours)[:50], framed(smotes)[:50], check_exact=True)


Y_CONTAINERS = {
    "int8": np.int8,
    "float64": np.float64,
    "bool": lambda y: y == 1,
    "text": lambda y: np.array(["a", "few", "some"])[y],
    "list": np.ndarray.tolist,
    "series": lambda y: pd.Series(y, name="y", index=range(9, 9 + len(y))),
    "categories": lambda y: pd.Series(np.array(["no", "yes", "x"])[y], dtype="category"),
    "frame": lambda y: pd.DataFrame({"y": y}),
    "one-hot": np.eye(3, dtype=int).__getitem__,
}


@pytest.mark.parametrize("container", Y_CONTAINERS.values(), ids=Y_CONTAINERS)
def test_labels_come_back_as_from_smote(container):
    X, y = rows((40, 10, 6))
    smotes, ours = (new().fit_resample(X, container(y))[1] for new in SAMPLERS.values())
    assert type(ours) is type(smotes)
    assert np.ndim(ours) == np.ndim(smotes)
    pd.testing.assert_frame_equal(framed(ours), framed(smotes))


def test_samplers_are_configured_copied_and_called_alike(new_sampler):
    X, y = rows((40, 10))
    sampler = clone(new_sampler()).set_params(sampling_strategy=0.5)
    assert sampler.get_params()["sampling_strategy"] == 0.5
    assert sampler.fit(X, y) is sampler
    assert sampler.sampling_strategy_ == {1: 10}
    X_resampled, y_resampled = sampler.fit_resample(X=X, y=y)
    assert X_resampled.shape == (60, 4)
    assert sampler.n_features_in_ == 4
    np.testing.assert_array_equal(X_resampled[:50], X)
    np.testing.assert_array_equal(y_resampled[:50], y)
    again, _ = clone(sampler).fit_resample(X, y)
    np.testing.assert_array_equal(again, X_resampled)


@pytest.mark.parametrize(
    "check", [check_param_validation, check_dataframe_column_names_consistency]
)
def test_what_imbalanced_learn_asks_of_its_own_samplers_besides_holds(check, new_sampler):
    sampler = new_sampler()
    check(type(sampler).__name__, sampler)


@pytest.mark.xfail(strict=True, reason="there is a method transform, but no transformer_tags")
def test_scikit_learns_checks_can_be_made_for_the_balancer():
    assert list(estimator_checks_generator(BALANCER()))
