"""What imbalanced-learn's common checks ask, asked of tables with text and missing values."""

from __future__ import annotations

import functools
from collections import Counter
from itertools import chain

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.preprocessing import label_binarize

from sklearn_diffult import DiffusionBalancer

BALANCER = functools.partial(
    DiffusionBalancer, n_steps=50, batch_size=16, n_solver_steps=6, random_state=0
)
WELL_TRAINED = functools.partial(DiffusionBalancer, n_steps=200, batch_size=64, random_state=0)
COUNTS = {"few": 8, "many": 36, "some": 16}


def labels(counts=COUNTS):
    """Shuffled, as in real tables."""
    return np.random.RandomState(1).permutation(np.repeat(list(counts), list(counts.values())))


def customers(n=60):
    """A frame with gaps in text, in categories, and in numbers of either kind."""
    random_state = np.random.RandomState(0)
    grades = pd.CategoricalDtype(["none", "pro", "basic"], ordered=True)

    def with_gaps(values, missing):
        gap = random_state.rand(n) < 0.25
        return [missing if is_gap else v for v, is_gap in zip(values, gap, strict=True)]

    frame = {
        "town": with_gaps(random_state.choice(["Ulm", "Bonn", "Kiel"], n), None),
        "income": np.array(with_gaps(random_state.exponential(1000, n), np.nan), "float32"),
        "plan": pd.Categorical(with_gaps(random_state.choice(["basic", "pro"], n), None)),
        "calls": pd.array(with_gaps(random_state.randint(0, 9, n), None), dtype="Int64"),
        "active": random_state.rand(n) < 0.3,
        "age": random_state.randint(18, 90, n).astype("int16"),
    }
    return pd.DataFrame(frame, index=np.arange(n) + 7).astype({"plan": grades})


def objects():
    """Text and numbers, and None where either is missing."""
    cells = customers()[["town", "income", "age"]].astype(object).to_numpy()
    return np.where(pd.isna(cells), None, cells)


def numbers():
    return customers()[["income", "age", "calls"]].to_numpy(dtype="float32", na_value=np.nan)


TABLES = {
    "frame": customers,
    "objects": objects,
    "lists": lambda: objects().tolist(),
    "numbers": numbers,
    "words": lambda: customers()[["town"]].fillna("?").to_numpy(dtype="U4"),
}


@pytest.fixture(params=TABLES)
def table(request):
    return TABLES[request.param]()


def columns_of(X):
    if isinstance(X, pd.DataFrame):
        return [X.iloc[:, position] for position in range(X.shape[1])]
    return [pd.Series(list(column), dtype=object) for column in zip(*X, strict=True)]


def assert_supported(X, X_resampled):
    """No new category, no number out of range, no gap where there was none."""
    for was, now in zip(columns_of(X), columns_of(X_resampled), strict=True):
        assert was.isna().any() or not now.isna().any()
        if pd.api.types.is_number(was.dropna().iloc[0]):
            assert was.min() <= now.min() <= now.max() <= was.max()
        else:
            assert set(now.dropna()) <= set(was.dropna())


def assert_untouched(X, first):
    """The same bytes, or the very same objects."""
    if isinstance(X, pd.DataFrame):
        pd.testing.assert_frame_equal(first, X.reset_index(drop=True), check_exact=True)
    elif isinstance(X, np.ndarray) and X.dtype != object:
        assert first.tobytes() == X.tobytes()
    else:
        assert all(was is now for was, now in zip(chain(*X), chain(*first), strict=True))


def assert_same(one, other):
    """The same cells in whatever container, gaps in the same places."""
    for cells, others in zip(columns_of(one), columns_of(other), strict=True):
        missing = cells.isna().to_numpy()
        np.testing.assert_array_equal(missing, others.isna().to_numpy())
        assert cells[~missing].tolist() == others[~missing].tolist()


# Counts -------------------------------------------------------------------------------


def test_real_rows_come_first_untouched_and_rare_classes_are_filled_up(table):
    X_resampled, y_resampled = BALANCER().fit_resample(table, labels())
    assert Counter(y_resampled.tolist()) == dict.fromkeys(COUNTS, 36)
    assert y_resampled[:60].tolist() == labels().tolist()
    assert_untouched(table, X_resampled[:60])
    assert_supported(table, X_resampled)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("auto", (36, 36, 36)),
        ("all", (36, 36, 36)),
        ("not majority", (36, 36, 36)),
        ("not minority", (8, 36, 36)),
        ("minority", (36, 36, 16)),
        ({"few": 10, "some": 40}, (10, 36, 40)),
        (lambda y: {"few": 2 * Counter(y)["few"]}, (16, 36, 16)),
        (20, (20, 36, 20)),
    ],
)
def test_a_strategy_means_what_it_means_for_numbers(strategy, expected):
    balancer = BALANCER(sampling_strategy=strategy)
    X_resampled, y_resampled = balancer.fit_resample(customers(), labels())
    assert Counter(y_resampled.tolist()) == dict(zip(COUNTS, expected, strict=True))
    assert sum(balancer.sampling_strategy_.values()) == len(X_resampled) - 60


def test_a_ratio_is_one_of_two_classes():
    y = labels({"few": 10, "many": 50})
    _, y_resampled = BALANCER(sampling_strategy=0.5).fit_resample(customers(), y)
    assert Counter(y_resampled.tolist()) == {"few": 25, "many": 50}
    with pytest.raises(ValueError, match="only when the type of target is binary"):
        BALANCER(sampling_strategy=0.5).fit_resample(customers(), labels())


# Containers ---------------------------------------------------------------------------


def test_the_container_and_its_dtypes_come_back(table):
    X_resampled, _ = BALANCER().fit_resample(table, labels())
    assert type(X_resampled) is type(table)
    if isinstance(table, pd.DataFrame):
        pd.testing.assert_series_equal(X_resampled.dtypes, table.dtypes)
        assert X_resampled.index.equals(pd.RangeIndex(108))
        return
    assert getattr(X_resampled, "dtype", None) == getattr(table, "dtype", None)
    types_seen, types_now = (
        [set(column.map(type)) for column in columns_of(X)] for X in (table, X_resampled)
    )
    assert types_now == types_seen


def test_frames_arrays_and_lists_of_the_same_cells_give_the_same_rows():
    array, y = objects(), labels()
    frame = pd.DataFrame(array, columns=["town", "income", "age"]).convert_dtypes()
    from_array, _ = BALANCER().fit_resample(array, y)
    assert_same(from_array, BALANCER().fit_resample(array.tolist(), y)[0])
    assert_same(from_array, BALANCER().fit_resample(frame, y)[0])


def test_sparse_numbers_with_gaps_give_the_same_rows_as_dense_ones():
    dense = np.where(numbers() < 3, 0, numbers())
    X_resampled, _ = BALANCER().fit_resample(dense, labels())
    for container in (sparse.csr_array, sparse.csc_matrix):
        X_sparse, _ = BALANCER().fit_resample(container(dense), labels())
        assert isinstance(X_sparse, container)
        assert X_sparse.dtype == np.float32
        np.testing.assert_array_equal(X_sparse.toarray(), X_resampled)


def test_sparse_columns_stand_beside_text():
    X = customers()[["town", "active", "age"]]
    X = X.astype({"active": pd.SparseDtype(float, 0), "age": pd.SparseDtype(float, 0)})
    X_resampled, _ = BALANCER().fit_resample(X, labels())
    assert_untouched(X, X_resampled[:60])
    assert set(X_resampled["active"]) <= {0.0, 1.0}
    assert X_resampled.dtypes.equals(X.dtypes)


def test_columns_keep_the_order_in_which_they_came():
    X = customers()
    for columns in (list(X.columns[::-1]), sorted(X.columns), ["plan", "town"]):
        X_resampled, _ = BALANCER().fit_resample(X[columns], labels())
        assert X_resampled.columns.tolist() == columns
        assert_supported(X[columns], X_resampled)


def test_labels_of_any_container_give_the_same_rows():
    X, y = customers(), labels()
    X_resampled, y_resampled = BALANCER().fit_resample(X, y)
    one_hot = label_binarize(y, classes=list(COUNTS))
    for container in (y.tolist(), y[:, None], pd.DataFrame({"kind": y}), one_hot):
        again, y_again = BALANCER().fit_resample(X, container)
        pd.testing.assert_frame_equal(again, X_resampled)
        assert type(y_again) is type(container)
    np.testing.assert_array_equal(y_again, label_binarize(y_resampled, classes=list(COUNTS)))
    named = pd.Series(y, index=X.index, name="kind", dtype="category")
    pd.testing.assert_series_equal(
        BALANCER().fit_resample(X, named)[1],
        pd.Series(y_resampled, name="kind", dtype="category"),
    )


def test_frames_of_polars_are_refused_with_the_way_out():
    polars = pytest.importorskip("polars")
    X = polars.DataFrame({"town": ["Ulm", None] * 30, "age": range(60)})
    with pytest.raises(TypeError, match=r"X\.to_pandas\(\)"):
        BALANCER().fit_resample(X, labels())


# Gaps ---------------------------------------------------------------------------------


def test_gaps_are_about_as_frequent_among_synthetic_rows_as_in_their_class():
    y = labels({"few": 40, "many": 80})
    share = np.where(y == "few", 0.7, 0.15)
    X = customers(120)[["town", "income", "calls", "plan"]]
    X = X.apply(lambda column: column.fillna(column.mode()[0]))
    X = X.mask(np.random.RandomState(0).rand(*X.shape) < share[:, None])
    # All solver steps, and no d3: few steps, and choosing rows by how sure a classifier is of their
    # class, exaggerate what is typical of a class, as here the gaps themselves.
    balancer = WELL_TRAINED(sampling_strategy={"few": 240, "many": 280}, d3_max=None)
    X_resampled, y_resampled = balancer.fit_resample(X, y)
    for label in ("few", "many"):
        made = X_resampled[balancer.synthetic_mask_ & (y_resampled == label)]
        np.testing.assert_allclose(made.isna().mean(), X[y == label].isna().mean(), atol=0.15)


@pytest.mark.parametrize("usual", [np.nan, 0.0], ids=["gap", "zero"])
def test_what_many_rows_share_in_their_only_column_of_numbers_comes_out_as_often(usual):
    y = labels({"few": 40, "many": 80})
    X = customers(120)[["town", "income"]].fillna({"town": "Ulm", "income": usual})
    balancer = WELL_TRAINED()
    X_resampled, _ = balancer.fit_resample(X, y)
    is_usual = X_resampled["income"].fillna(0.0) == 0
    expected = is_usual[:120][y == "few"].mean()
    assert is_usual[balancer.synthetic_mask_].mean() == pytest.approx(expected, abs=0.15)


def test_a_column_of_nothing_but_gaps_in_a_class_stays_empty_there():
    X, y = customers()[["town", "income"]], labels()
    X.loc[y == "few", "income"] = np.nan
    X.loc[y != "few", "income"] = X["income"].fillna(1.0)
    balancer = WELL_TRAINED()
    X_resampled, y_resampled = balancer.fit_resample(X, y)
    gaps = X_resampled["income"].isna()[balancer.synthetic_mask_]
    few = (y_resampled == "few")[balancer.synthetic_mask_]
    assert gaps[few].mean() > 0.8
    assert gaps[~few].mean() < 0.2


# What is known afterwards, and what is refused ----------------------------------------


def test_columns_are_counted_and_named_and_rows_have_no_sample_indices():
    balancer = BALANCER()
    balancer.fit_resample(customers(), labels())
    names = customers().columns.tolist()
    assert balancer.n_features_in_ == len(names)
    assert balancer.feature_names_in_.tolist() == names
    assert balancer.get_feature_names_out().tolist() == names
    with pytest.raises(ValueError, match="input_features is not equal to feature_names_in_"):
        balancer.get_feature_names_out(names[::-1])
    assert balancer.sampling_strategy_ == {"few": 28, "some": 20}
    assert not hasattr(balancer, "sample_indices_")


@pytest.mark.parametrize(
    ("y", "complaint"),
    [
        (np.linspace(0, 1, 60), "Unknown label type"),
        (np.ones((60, 3), dtype=int), "Multilabel and multioutput targets are not supported"),
        (np.zeros(60), "one class only"),
        (["few"] * 59 + [None], "rows without a label: 1"),
        ([0.0] * 30 + [1.0] * 29 + [np.nan], r"rows without a label: 1 \(row 59\)"),
    ],
    ids=["continuous", "multilabel", "one class", "a gap", "a gap among numbers"],
)
def test_what_is_no_label_of_a_class_is_refused(table, y, complaint):
    with pytest.raises(ValueError, match=complaint):
        BALANCER().fit_resample(table, y)
