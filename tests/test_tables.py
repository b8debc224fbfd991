"""Both estimators on tables as they come: mixed, with gaps, of text, of categories only."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from imblearn.utils.estimator_checks import check_samplers_nan, check_samplers_string
from sklearn.model_selection import cross_val_score

from sklearn_diffult import DiffusionBalancer, Pipeline, WeightedTorchClassifier
from sklearn_diffult._columns import record_columns
from sklearn_diffult.codecs import TableCodec
from sklearn_diffult.codecs.columns import NumberColumn
from sklearn_diffult.training_data import check_training_data

QUICK = {
    "n_steps": 3,
    "batch_size": 16,
    "n_solver_steps": 3,
    "d3_max": None,
    "d1_min": 0.0,
    "random_state": 0,
}


def mixed(n=60):
    """Customers, whose town and gaps depend on the class."""
    random_state = np.random.RandomState(0)
    y = np.where(np.arange(n) < n // 4, "leaves", "stays")
    leaves = y == "leaves"
    towns = np.where(random_state.rand(n) < np.where(leaves, 0.8, 0.1), "Ulm", "Bonn")
    towns = np.where(random_state.rand(n) < 0.1, "Kiel", towns)
    gap = random_state.rand(n) < np.where(leaves, 0.5, 0.1)
    X = pd.DataFrame(
        {
            "age": random_state.randint(18, 90, n),
            "income": np.exp(2 * random_state.randn(n)),
            "visits": np.where(gap, np.nan, random_state.poisson(3, n)),
            "town": towns,
            "plan": pd.Categorical(random_state.choice(["basic", "pro"], n), ["pro", "basic", "x"]),
            "calls": pd.array([None if i % 5 == 0 else i % 7 for i in range(n)], dtype="Int64"),
            "active": random_state.rand(n) < 0.3,
            "country": "DE",
        },
        index=np.arange(n) + 7,
    )
    return X, pd.Series(y, index=X.index, name="churn")


def assert_balanced(X, y, X_resampled, y_resampled):
    """Real rows first and untouched, classes even, nothing new in a column."""
    pd.testing.assert_frame_equal(X_resampled[: len(X)], X.reset_index(drop=True))
    assert len(set(Counter(y_resampled).values())) == 1
    for position in range(X.shape[1]):
        was, now = X.iloc[:, position], X_resampled.iloc[:, position]
        assert was.isna().any() or not now.isna().any()
        if pd.api.types.is_numeric_dtype(was.dtype):
            assert was.min() <= now.min() <= now.max() <= was.max()
        else:
            assert set(now.dropna()) <= set(was.dropna())


def test_a_mixed_frame_comes_back_balanced_with_its_dtypes_and_its_support():
    X, y = mixed()
    assert_balanced(X, y, *DiffusionBalancer(**QUICK).fit_resample(X, y))


def test_a_frame_of_categories_only_is_balanced():
    X, y = mixed()
    X = X[["town", "plan", "active", "country"]]
    assert_balanced(X, y, *DiffusionBalancer(**QUICK).fit_resample(X, y))
    X = X[["country"]]
    assert_balanced(X, y, *DiffusionBalancer(**QUICK).fit_resample(X, y))


@pytest.mark.parametrize(("n_rare", "how_many"), [(1, "a single row"), (2, "2 rows")])
def test_a_class_of_one_or_two_rows_is_balanced_with_a_warning(n_rare, how_many):
    X, _ = mixed()
    y = np.where(np.arange(60) < n_rare, "rare", "frequent")
    with pytest.warns(UserWarning, match=f"Class 'rare' has {how_many}: .* at best variations"):
        resampled = DiffusionBalancer(**QUICK).fit_resample(X, y)
    assert_balanced(X, y, *resampled)


def test_labels_that_are_spelt_in_two_ways_are_told():
    X, _ = mixed()
    y = np.array(["no", "No", "yes", "no ", "maybe", "no"] * 10)
    found = "y has the labels 'No', 'no', 'no ', which differ in case or blanks only"
    with pytest.warns(UserWarning, match=found):
        _, resampled = DiffusionBalancer(**QUICK).fit_resample(X, y)
    assert set(Counter(resampled.tolist()).values()) == {20}


def test_many_labels_that_are_spelt_alike_are_one_warning_and_letters_none():
    X, _ = mixed()
    with pytest.warns(UserWarning, match=r"'AA', 'Aa', 'aa', .* \(and 1 more such\)") as told:
        DiffusionBalancer(**QUICK).fit(X, ["AA", "Aa", "aa", "Bb", "bb", "bb"] * 10)
    assert len(told) == 1
    DiffusionBalancer(**QUICK).fit(X, ["A", "a", "b"] * 20)


@pytest.mark.parametrize("container", [pd.DataFrame, np.array])
def test_a_column_with_a_value_for_almost_every_row_is_warned_about(container):
    frame, y = mixed()
    frame = frame[["town"]].assign(day=[f"2026-01-{i // 2}" for i in range(60)])
    DiffusionBalancer(**QUICK).fit_resample(container(frame), y)
    frame["day"] = [f"2026-01-{i}" for i in range(60)]
    title = "'day'" if container is pd.DataFrame else "1"
    with pytest.warns(UserWarning, match=f"column {title} of X holds 60 different values in 60"):
        DiffusionBalancer(**QUICK).fit_resample(container(frame), y)


def test_a_column_of_numbers_with_a_stray_text_is_warned_about():
    frame, y = mixed()
    frame = frame[["town"]].assign(amount=["n/a", *(str(1.5 * i) for i in range(59))])
    with pytest.warns(UserWarning, match="'amount' of X holds 60 .* but 'n/a' is none"):
        DiffusionBalancer(**QUICK).fit_resample(frame, y)
    mixed_values = [None, "?", *(float(i % 35) for i in range(58))]
    with pytest.warns(UserWarning, match=r"holds \d\d different values, of .* but '\?' is none"):
        DiffusionBalancer(**QUICK).fit_resample(frame.assign(amount=mixed_values), y)
    with_commas = [f"{1000 * i + 0.5:,.2f}" for i in range(60)]
    with pytest.warns(UserWarning, match="holds 60 different texts, of which most are numbers: "):
        DiffusionBalancer(**QUICK).fit_resample(frame.assign(amount=with_commas), y)


def test_of_many_columns_to_look_at_one_is_described_and_the_others_are_named():
    X = np.random.RandomState(0).normal(size=(40, 9)).round(2).astype(str)
    with pytest.warns(UserWarning, match="most are numbers") as caught:
        DiffusionBalancer(**QUICK).fit_resample(X, np.arange(40) % 4 == 0)
    assert [str(each.message).partition(" holds ")[0] for each in caught] == ["column 0 of X"]
    told = "Look at 8 more like it: column 1 of X, column 2 of X, column 3 of X, ...."
    assert str(caught[0].message).endswith(told)


def test_numbers_that_pandas_calls_categories_are_categories_to_both_estimators():
    codes = np.random.RandomState(0).choice(np.arange(10_000, 99_999, 1234), 200)
    X, y = pd.DataFrame({"zip": pd.Categorical(codes), "age": codes % 50}), np.arange(200) % 5 == 0
    balancer = DiffusionBalancer(**QUICK)
    X_resampled, _ = balancer.fit_resample(X, y)
    assert X_resampled["zip"].dtype == X["zip"].dtype
    assert not balancer.generate(300, True)["zip"].isna().any()
    as_text = X.assign(zip=X["zip"].astype(str).astype("category"))
    DiffusionBalancer(**QUICK).fit_resample(as_text, y)
    fitted = classifier(n_steps=2).fit(X, y)
    with pytest.warns(UserWarning, match="'zip' of X holds 7, not among"):
        fitted.predict(pd.DataFrame({"zip": pd.Categorical([7, 10_000]), "age": [1, 2]}))


def test_a_number_of_rows_that_every_class_has_is_warned_about():
    X, y = mixed()
    with pytest.warns(UserWarning, match="sampling_strategy=2 asks for 2 rows of each class"):
        X_resampled, _ = DiffusionBalancer(**QUICK | {"sampling_strategy": 2}).fit_resample(X, y)
    assert len(X_resampled) == 60


@pytest.mark.parametrize("container", [np.array, pd.DataFrame, np.ndarray.tolist])
@pytest.mark.parametrize(("white", "dtype"), [(16, float), (255, np.uint8)])
def test_a_table_that_looks_like_flat_images_is_warned_about(container, white, dtype):
    pixels = np.random.RandomState(0).randint(0, white + 1, (12, 64)).astype(dtype)
    pixels[0, :2] = 0, white
    y = np.arange(12) % 3 == 0
    with pytest.warns(UserWarning, match=r"flat images of 8x8 .* image_shape=\(8, 8\)"):
        DiffusionBalancer(**QUICK).fit_resample(container(pixels), y)
    for other in (pixels[:, 1:], pixels - 0.5, np.minimum(pixels, 13)):
        DiffusionBalancer(**QUICK).fit_resample(container(other), y)


@pytest.mark.parametrize("container", [np.array, np.ndarray.tolist])
def test_objects_come_back_as_array_or_list(container):
    frame, y = mixed()
    rows = frame[["age", "town", "income"]].to_numpy(dtype=object)
    X = container(rows)
    X_resampled, _ = DiffusionBalancer(**QUICK).fit_resample(X, y.tolist())
    assert type(X_resampled) is type(X)
    assert (np.array(X_resampled[:60], dtype=object) == rows).all()
    assert {tuple(map(type, row)) for row in X_resampled} == {(int, str, float)}


def test_the_checks_of_imbalanced_learn_on_text_and_on_missing_values_pass():
    balancer = DiffusionBalancer(**QUICK)
    check_samplers_string("DiffusionBalancer", balancer)
    check_samplers_nan("DiffusionBalancer", balancer)


def test_gaps_and_categories_are_about_as_frequent_as_in_the_class():
    X, y = mixed(400)
    X = X[["income", "visits", "town", "active"]]
    balancer = DiffusionBalancer(n_steps=300, batch_size=64, guidance_scale=1.0, random_state=0)
    balancer.fit(X, y)
    for label in ("leaves", "stays"):
        real, new = X[y == label], balancer.generate(400, label)
        assert new["visits"].isna().mean() == pytest.approx(real["visits"].isna().mean(), abs=0.12)
        for town in ("Ulm", "Bonn", "Kiel"):
            share = (real["town"] == town).mean()
            assert (new["town"] == town).mean() == pytest.approx(share, abs=0.12)
        quartiles = [0.25, 0.5, 0.75]
        ranks = np.searchsorted(np.sort(real["income"]), new["income"].quantile(quartiles))
        np.testing.assert_allclose(ranks / len(real), quartiles, atol=0.15)


def test_checked_training_data_follow_the_choice_of_categories():
    X = np.tile([[1.0, 0.5], [2.0, 1.5], [4.0, 2.5]], (4, 1))
    y = np.arange(12) % 2
    assert check_training_data(X, y).encoded.shape == (12, 2)
    assert check_training_data(X, y, categorical_features=[0]).encoded.shape == (12, 4)


@pytest.mark.parametrize(
    ("columns", "recorded"),
    [(["a", "b"], ["a", "b"]), (["a", "a"], None), (["a", 1], None), ([0, 1], None)],
)
def test_names_of_columns_are_recorded_where_scikit_learn_takes_them(columns, recorded):
    estimator = DiffusionBalancer()
    record_columns(estimator, pd.DataFrame(np.eye(2), columns=columns), True)
    assert estimator.n_features_in_ == 2
    assert (
        estimator.feature_names_in_.tolist() == recorded
        if recorded
        else not hasattr(estimator, "feature_names_in_")
    )


# Classifier ---------------------------------------------------------------------------


def classifier(**parameters):
    return WeightedTorchClassifier(**{"n_steps": 100, "random_state": 0} | parameters)


def test_the_classifier_learns_from_text_and_from_gaps():
    X, y = mixed(200)
    for columns in (["town"], ["visits"], list(X.columns)):
        fitted = classifier().fit(X[columns], y)
        assert fitted.score(X[columns], y) > 0.75
        order = np.random.RandomState(0).permutation(200)
        np.testing.assert_array_equal(
            fitted.predict_proba(X[columns].iloc[order]), fitted.predict_proba(X[columns])[order]
        )


def test_the_classifier_takes_gaps_where_it_saw_none_and_unseen_categories_for_gaps():
    X, y = mixed()
    X = X[["income", "town"]].copy()
    fitted = classifier(n_steps=5).fit(X, y)
    X.iloc[3, 0] = np.nan
    X.iloc[4, 1] = None
    expected = fitted.predict_proba(X)
    assert np.isfinite(expected).all()
    X.iloc[4, 1] = "Rom"
    with pytest.warns(UserWarning, match="column 'town' of X holds 'Rom'"):
        np.testing.assert_array_equal(fitted.predict_proba(X), expected)


def test_cross_validation_scores_folds_with_categories_of_their_own():
    X, y = mixed()
    X = X[["income", "town"]].copy()
    X.iloc[4, 1] = "Rom"
    with pytest.warns(UserWarning, match="holds 'Rom'"):
        scores = cross_val_score(classifier(n_steps=5), X, y, cv=3, error_score="raise")
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("kind", ["array", "objects", "lists", "text"])
def test_the_classifier_takes_tables_in_any_container(kind):
    frame, y = mixed()
    X = {
        "array": frame[["age", "visits"]].to_numpy(),
        "objects": frame[["age", "town"]].to_numpy(dtype=object),
        "lists": frame[["age", "town"]].to_numpy(dtype=object).tolist(),
        "text": frame[["town"]].to_numpy(dtype=str),
    }[kind]
    fitted = classifier(n_steps=5).fit(X, y.tolist(), np.arange(60) % 3)
    assert fitted.predict_proba(X).shape == (60, 2)
    assert fitted.n_features_in_ == len(X[0])
    with pytest.raises(ValueError, match="X has 3 features"):
        fitted.predict([[1, 2, 3]] * 2)


def test_a_mixed_frame_goes_through_the_pipeline():
    X, y = mixed()
    pipeline = Pipeline([("balance", DiffusionBalancer(**QUICK)), ("clf", classifier(n_steps=5))])
    assert pipeline.fit(X, y).predict(X).shape == (60,)


@pytest.mark.parametrize("dtype", [np.dtypes.StringDType(), "<U3", object])
def test_arrays_of_text_are_tables_whatever_their_dtype(dtype):
    X = np.array([["a", "x"], ["b", "y"]] * 8 + [["c", "x"]] * 4, dtype=dtype)
    y = np.repeat([0, 1], [16, 4])
    X_resampled, y_resampled = DiffusionBalancer(**QUICK).fit_resample(X, y)
    assert X_resampled.dtype == X.dtype
    assert set(X_resampled[20:, 0].tolist()) <= {"a", "b", "c"}
    WeightedTorchClassifier(n_steps=3, random_state=0).fit(X_resampled, y_resampled).predict(X)


def test_numbers_of_a_wide_table_are_learnt_once(monkeypatch):
    fitted = []
    fit = NumberColumn.fit
    monkeypatch.setattr(
        NumberColumn, "fit", lambda *parameters: fitted.append(0) or fit(*parameters)
    )
    X = np.random.RandomState(0).rand(5, 1100).astype(object)
    X[:, 0] = list("abcab")
    assert TableCodec().fit(X).encode(X).shape[0] == 5
    assert len(fitted) == 1099


def test_the_classifier_too_tells_of_flat_images_that_it_takes_for_a_table():
    X = np.random.RandomState(0).randint(17, size=(10, 64))
    X[0, :2] = 0, 16
    with pytest.warns(UserWarning, match=r"flat images of 8x8 .* image_shape=\(8, 8\)"):
        WeightedTorchClassifier(n_steps=2, random_state=0).fit(X, np.arange(10) % 2)


def test_classes_of_one_row_are_told_in_one_message_and_only_if_they_lack_rows():
    X = np.random.RandomState(0).rand(12, 3)
    y = np.array([0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7])
    wanted = dict.fromkeys(range(1, 7), 2)
    balancer = DiffusionBalancer(**QUICK, sampling_strategy=wanted)
    with pytest.warns(UserWarning, match="single row") as told:
        balancer.fit_resample(X, y)
    messages = [str(each.message) for each in told]
    assert len(messages) == 1
    assert messages[0].startswith("Classes 1, 2, 3, 4, 5, ... have a single row: ")
    assert len(DiffusionBalancer(**QUICK).fit_resample(X[:3], [0, 1, 2])[0]) == 3
