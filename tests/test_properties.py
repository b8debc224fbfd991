"""What holds for whatever rows, labels, containers and dtypes come in."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

import sklearn_diffult.stages
from sklearn_diffult import DiffusionBalancer
from sklearn_diffult.codecs import make_codec
from sklearn_diffult.codecs.containers import is_dataframe
from sklearn_diffult.training_data import check_training_data, rows_to_generate
from sklearn_diffult.weights import compute_weights

FLOATS = ["float64", "float32", "float16"]
INTEGERS = ["int64", "int32", "int8", "uint64", "uint16", "uint8"]
# Floats hold no larger whole numbers than these one by one.
EXACT = 2**53


def examples(few, many):
    """Run with few drawn examples, and marked slow with many."""
    return pytest.mark.parametrize("n", [few, pytest.param(many, marks=pytest.mark.slow)])


def check(n, *strategies, phases=(Phase.generate, Phase.shrink)):
    """Run a function with `n` drawn examples, the same ones each time."""
    repeatable = settings(
        max_examples=n,
        derandomize=True,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    return lambda function: repeatable(given(*strategies)(function))()


# Rows and labels ----------------------------------------------------------------------


def numbers(dtype, n_rows, n_columns=None):
    """Values of a dtype: any at all, or few that come back."""
    shape = n_rows if n_columns is None else (n_rows, n_columns)
    anything = {}
    if dtype in FLOATS:
        anything = {"allow_infinity": False}
        if dtype == "float64":
            anything |= {"min_value": -1e300, "max_value": 1e300}
    few = st.integers(0, 5).map(np.dtype(dtype).type)
    every = hnp.from_dtype(np.dtype(dtype), **anything)
    return st.one_of(
        hnp.arrays(dtype, shape, elements=every), hnp.arrays(dtype, shape, elements=few)
    )


WORDS = st.one_of(
    st.sampled_from(["a", "b", "longer text", "", "é", "1", "nan"]), st.text(max_size=5)
)


@st.composite
def columns(draw, n_rows):
    """A column of a data frame."""
    kind = draw(st.sampled_from(["number", "nullable", "text", "categories", "bool", "objects"]))
    if kind == "number":
        return draw(st.sampled_from([*FLOATS, *INTEGERS]).flatmap(lambda d: numbers(d, n_rows)))
    if kind == "nullable":
        values = draw(st.lists(st.none() | st.integers(-9, 9), min_size=n_rows, max_size=n_rows))
        return pd.array(values, dtype=draw(st.sampled_from(["Int64", "Int8", "Float64"])))
    if kind == "bool":
        return draw(hnp.arrays(bool, n_rows))
    words = WORDS | st.none() if draw(st.booleans()) else WORDS
    if kind == "objects":
        words = st.one_of(words, st.integers(-3, 3), st.booleans(), st.just(math.nan))
    values = draw(st.lists(words, min_size=n_rows, max_size=n_rows))
    if kind == "categories":
        return pd.Categorical(values)
    return pd.Series(values, dtype=object)


@st.composite
def tables(draw, n_rows=None):
    """A table in any container."""
    n_rows = draw(st.integers(1, 30)) if n_rows is None else n_rows
    n_columns = draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["array", "frame", "list", "sparse", "objects"]))
    if kind == "frame":
        drawn = [draw(columns(n_rows)) for _ in range(n_columns)]
        return pd.DataFrame(dict(enumerate(drawn))).set_axis(
            [f"c{i}" for i in range(n_columns)], axis=1
        )
    if kind == "objects":
        drawn = [np.asarray(draw(columns(n_rows)), dtype=object) for _ in range(n_columns)]
        return np.column_stack(drawn)
    dtypes = ["float64", "float32", "int64"] if kind == "sparse" else [*FLOATS, *INTEGERS, "bool"]
    dtype = draw(st.sampled_from(dtypes))
    drawn = (
        hnp.arrays(bool, (n_rows, n_columns))
        if dtype == "bool"
        else numbers(dtype, n_rows, n_columns)
    )
    values = draw(drawn)
    if kind == "sparse":
        form = draw(st.sampled_from(["csr_matrix", "csc_matrix", "coo_matrix", "csr_array"]))
        return getattr(sparse, form)(values)
    return values.tolist() if kind == "list" else values


@st.composite
def images(draw, n_rows=None):
    """Images in any layout and dtype."""
    n_rows = draw(st.integers(1, 12)) if n_rows is None else n_rows
    height, width = draw(st.tuples(st.integers(8, 11), st.integers(8, 11)))
    channels = draw(st.sampled_from([None, 1, 3, 4]))
    shape = (height, width)
    if channels:
        shape = draw(st.sampled_from([(*shape, channels), (channels, *shape)]))
    dtype = draw(st.sampled_from(["uint8", "float32", "float64", "float16", "int16", "bool"]))
    rng = np.random.RandomState(draw(st.integers(0, 2**32 - 1)))
    values = rng.rand(n_rows, *shape) * draw(st.sampled_from([0, 1, 2, 255]))
    return values.astype(dtype)


LABELS = {
    "int": [3, 1, 2],
    "negative": [-1, 0, 7],
    "text": ["b", "a", "c"],
    "float": [1.0, 0.0, 2.0],
    "bool": [True, False],
    "bytes": np.array([0, 1, 200], dtype=np.uint8),
}


@st.composite
def labels(draw, n_rows):
    """Labels of any kind in any container; not all of them can be balanced."""
    values = np.asarray(LABELS[draw(st.sampled_from(list(LABELS)))])
    picks = draw(hnp.arrays(np.int64, n_rows, elements=st.integers(0, len(values) - 1)))
    y = values[picks]
    container = draw(st.sampled_from(["array", "list", "series", "objects", "column", "one-hot"]))
    if container == "one-hot":
        return (y[:, None] == np.unique(values)).astype(int)
    return {
        "array": y,
        "list": y.tolist(),
        "series": pd.Series(y, name="label"),
        "objects": y.astype(object),
        "column": y[:, None],
    }[container]


def fields(X):
    """Columns of a table as lists of Python objects, None where missing."""
    if is_dataframe(X):
        drawn = [X.iloc[:, i].astype(object).tolist() for i in range(X.shape[1])]
    elif sparse.issparse(X):
        drawn = X.toarray().T.tolist()
    else:
        drawn = [
            list(column) for column in zip(*(X if isinstance(X, list) else X.tolist()), strict=True)
        ]
    return [
        [None if each is pd.NA or each is None or each != each else each for each in c]
        for c in drawn
    ]


def assert_same_container(new, X):
    assert type(new) is type(X)
    if is_dataframe(X):
        assert new.dtypes.tolist() == X.dtypes.tolist()
        assert new.columns.tolist() == X.columns.tolist()
    elif not isinstance(X, list):
        assert new.dtype == X.dtype
        assert new.shape[1:] == X.shape[1:]


# Codecs -------------------------------------------------------------------------------


@examples(300, 6_000)
def test_whatever_a_table_decodes_to_was_seen_in_it(n):
    @check(n, tables(), st.integers(0, 2**32 - 1))
    def holds(X, seed):
        codec = make_codec(X).fit(X)
        encoded = codec.encode(X)
        assert encoded.dtype == torch.float32
        assert torch.isfinite(encoded).all()
        wild = torch.randn(50, *codec.sample_shape, generator=torch.Generator().manual_seed(seed))
        for new in (codec.decode(encoded), codec.decode(3 * wild)):
            assert_same_container(new, X)
            for values, seen in zip(fields(new), fields(X), strict=True):
                present = {each for each in seen if each is not None}
                assert None not in values or None in seen
                for each in set(values) - {None} - present:
                    # Between two numbers there may be others; nowhere else anything new.
                    assert not isinstance(each, str | bool)
                    ends = min(present), max(present)
                    largest = max(map(abs, ends))
                    if isinstance(each, int) and largest < EXACT:
                        assert len(present) >= 2
                        assert ends[0] <= each <= ends[1]
                    # What float64 does not hold is not exact.
                    assert ends[0] - 1e-12 * largest <= each <= ends[1] + 1e-12 * largest
                    if all(float(seen).is_integer() for seen in present):
                        assert float(each).is_integer()


@examples(200, 4_000)
def test_decoding_undoes_encoding(n):
    @check(n, tables())
    def holds(X):
        codec = make_codec(X).fit(X)
        for values, seen in zip(fields(codec.decode(codec.encode(X))), fields(X), strict=True):
            present = [each for each in seen if each is not None]
            are_numbers = not any(isinstance(each, str | bool) for each in present)
            for new, old in zip(values, seen, strict=True):
                if are_numbers and old is not None:
                    # Scores are float32, of seven digits.
                    allowed = 1e-3 * (max(present) - min(present)) + 1e-300
                    assert new == pytest.approx(old, rel=1e-9, abs=allowed)
                else:
                    assert new == old
                    # To Python, True is 1.
                    assert isinstance(new, str) == isinstance(old, str)


@examples(100, 2_000)
def test_images_come_back_and_stay_within_their_range(n):
    @check(n, images(), st.integers(0, 2**32 - 1))
    def holds(X, seed):
        codec = make_codec(X).fit(X)
        encoded = codec.encode(X)
        assert encoded.abs().max() <= 1 + 1e-6
        again = codec.decode(encoded)
        assert (again.dtype, again.shape) == (X.dtype, X.shape)
        span = float(X.max()) - float(X.min())
        np.testing.assert_allclose(
            again.astype(float), X.astype(float), rtol=1e-3, atol=1e-3 * span
        )
        wild = torch.randn(3, *codec.sample_shape, generator=torch.Generator().manual_seed(seed))
        found = codec.decode(5 * wild).astype(float)
        # One colour throughout leaves room for none but a unit above it, or below the last one.
        is_last = X.dtype.kind in "iu" and X.max() == np.iinfo(X.dtype).max
        assert found.min() >= float(X.min()) - (span == 0 and is_last)
        assert found.max() <= float(X.max()) + (span == 0 and not is_last)


# Training data ------------------------------------------------------------------------

STRATEGIES = st.one_of(
    st.sampled_from(["auto", "not minority", "not majority", "all", "minority"]),
    st.integers(1, 40),
    st.floats(0.01, 1),
    st.dictionaries(st.sampled_from([3, 1, "a", 9]), st.integers(0, 40), max_size=2),
)


@examples(200, 4_000)
def test_rows_and_labels_are_refused_or_counted_right(n):
    @check(n, st.data())
    def holds(data):
        n_rows = data.draw(st.integers(1, 20))
        X = data.draw(tables(n_rows) | images(n_rows))
        y = data.draw(labels(n_rows) | labels(n_rows + 1))
        target = data.draw(STRATEGIES)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                checked = check_training_data(X, y)
                wanted = rows_to_generate(target, checked.labels)
        except (ValueError, TypeError):
            return
        assert len(checked.labels) == n_rows
        np.testing.assert_array_equal(checked.classes[checked.indices], checked.labels)
        assert set(wanted) <= set(checked.classes.tolist())
        assert all(type(count) is int and count >= 0 for count in wanted.values())
        if isinstance(target, int) and target != 1:  # which is a ratio
            counts = dict(zip(checked.classes.tolist(), checked.counts.tolist(), strict=True))
            assert wanted == {c: target - have for c, have in counts.items() if have < target}


@examples(200, 5_000)
def test_weights_are_finite_with_tempered_class_totals_as_large_as_the_real_rows(n):
    @check(n, st.data())
    def holds(data):
        n_rows = data.draw(st.integers(1, 60))
        y = data.draw(labels(n_rows).filter(lambda y: np.ndim(y) == 1))
        mask = data.draw(hnp.arrays(bool, n_rows))
        omega = data.draw(st.floats(0, 1) | st.sampled_from([0, 1]))
        weighting = data.draw(st.sampled_from(["row", "class"]))
        temper = data.draw(st.floats(0, 1) | st.sampled_from([0, 1]))
        try:
            weights = compute_weights(y, mask, omega, weighting, temper)
        except ValueError:
            assert mask.all()
            assert omega < 1e-300
            return
        assert weights.dtype == np.float64
        assert np.isfinite(weights).all()
        assert (weights >= 0).all()
        if weighting == "row":
            assert (weights[~mask] == 1).all()
            assert (weights[mask] == omega).all()
            return
        totals, shares = [], []
        for label in set(y):
            members = np.asarray(y) == label
            totals.append(weights[members].sum())
            shares.append((members & ~mask).sum() ** temper)
            if mask[members].any() and not mask[members].all():
                assert weights[members & mask].sum() == pytest.approx(omega * totals[-1], abs=1e-9)
        if not any(mask[np.asarray(y) == label].all() for label in set(y)):
            expected = (~mask).sum() * np.array(shares) / sum(shares)
            assert totals == pytest.approx(expected.tolist())


# The whole path -----------------------------------------------------------------------


def bits(X, n_rows):
    """The first rows, told apart to the last bit."""
    if is_dataframe(X):
        return [X.iloc[:n_rows, i].reset_index(drop=True) for i in range(X.shape[1])]
    if sparse.issparse(X):
        X = X.toarray()
    if isinstance(X, list):
        return [repr(row) for row in X[:n_rows]]
    return [repr(X[:n_rows].tolist()) if X.dtype == object else X[:n_rows].tobytes()]


@examples(30, 500)
def test_rows_are_balanced_behind_untouched_ones_or_refused_before_any_work(n):
    outcomes = Counter()

    # Shrinking would take minutes.
    @check(n, st.data(), phases=[Phase.generate])
    def holds(data):
        n_rows = data.draw(st.integers(6, 25))
        X = data.draw(st.one_of(tables(n_rows), tables(n_rows), images(n_rows)))
        y = data.draw(labels(n_rows))
        balancer = DiffusionBalancer(
            n_steps=data.draw(st.integers(1, 3)),
            batch_size=data.draw(st.sampled_from([1, 4, 16])),
            omega=data.draw(st.floats(0.1, 1)),
            weighting=data.draw(st.sampled_from(["row", "class"])),
            sampling_strategy=data.draw(STRATEGIES),
            n_solver_steps=2,
            max_rounds=1,
            d3_max=None,
            device="cpu",
            random_state=0,
        )
        train = mock.Mock(wraps=sklearn_diffult.stages.train)
        with mock.patch("sklearn_diffult.stages.train", train), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                X_new, y_new, weights = balancer.fit_resample_weighted(X, y)
            except (ValueError, TypeError):
                assert not train.called
                outcomes["refused"] += 1
                return
        outcomes["balanced"] += 1
        assert_same_container(X_new, X)
        for found, expected in zip(bits(X_new, n_rows), bits(X, n_rows), strict=True):
            if isinstance(expected, pd.Series):
                pd.testing.assert_series_equal(found, expected, check_exact=True)
            else:
                assert found == expected
        assert type(y_new) is type(y)
        assert np.array_equal(np.asarray(y_new)[:n_rows], np.asarray(y))
        n_new = X_new.shape[0] if hasattr(X_new, "shape") else len(X_new)
        assert n_new == len(y_new) == len(weights) == n_rows + balancer.synthetic_mask_.sum()
        assert np.isfinite(weights).all()
        assert weights.max() > 0

    assert outcomes["balanced"] > n / 4
    assert outcomes["refused"] > 0
