"""Tables: closed forms of each kind of column, and properties over many mixes of dtypes."""

from __future__ import annotations

import datetime
import decimal
import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.special import ndtri

from sklearn_diffult.codecs import TableCodec
from sklearn_diffult.codecs.columns import DISCRETE, KNOTS


def fitted(X, weights=None, **parameters):
    """Codec of a table, or of one column given as a flat list or array."""
    if np.ndim(X) == 1:
        X = np.asarray(X)[:, None]
    return TableCodec(**parameters).fit(X, weights)


def encoded(values, weights=None):
    """Encoding of one column by the codec fitted to it, shape (n_rows,)."""
    return fitted(values, weights).encode(np.asarray(values)[:, None])[:, 0].numpy()


def decoded(codec, scores):
    return codec.decode(torch.as_tensor(scores, dtype=torch.float32)[:, None])[:, 0]


def noise(codec, n_rows, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(n_rows, *codec.sample_shape, generator=generator)


def column(kind, n=500):
    random_state = np.random.RandomState(0)
    return {
        "normal": random_state.randn(n),
        "lognormal": np.exp(3 * random_state.randn(n)),
        "cauchy": random_state.standard_cauchy(n),
        "zeros and a tail": random_state.exponential(size=n) * (random_state.rand(n) > 0.6),
        "ages": random_state.randint(18, 90, n).astype(float),
        "counts": random_state.poisson(3, n).astype(float),
        "prices": random_state.choice(np.linspace(0.1, 9.9, 40).round(2), n),
    }[kind]


KINDS = ["normal", "lognormal", "cauchy", "zeros and a tail", "ages", "counts", "prices"]

# Numbers ------------------------------------------------------------------------------


def test_numbers_without_ties_become_the_normal_scores_of_their_ranks():
    values = np.exp(np.random.RandomState(0).randn(40))
    ranks = values.argsort().argsort()
    np.testing.assert_allclose(encoded(values), ndtri((ranks + 0.5) / 40), rtol=1e-6)


def test_a_value_of_many_rows_lies_in_the_middle_of_their_ranks():
    values = [5.0] * 6 + [1.5, 2.5, 7.0, 9.0]
    expected = ndtri(np.array([5.0] * 6 + [0.5, 1.5, 8.5, 9.5]) / 10)
    np.testing.assert_allclose(encoded(values), expected, rtol=1e-6)


def test_the_whole_interval_of_a_shared_value_decodes_to_it():
    codec = fitted([5.0] * 6 + [1.5, 2.5, 7.0, 9.0])
    inside = ndtri(np.linspace(2.5, 7.5, 50) / 10)
    assert (decoded(codec, inside * 0.9999) == 5.0).all()
    between = decoded(codec, ndtri(np.array([1.6, 2.4, 7.6, 8.4]) / 10))
    assert (np.diff(between) > 0).all()
    assert not np.isin(between, [2.5, 5.0, 7.0]).any()


def test_between_two_values_both_ways_are_linear():
    codec = fitted([0.25, 1.25, 7.0, 9.5])
    low, high = ndtri(np.array([0.5, 1.5]) / 4)
    scores = codec.encode(np.array([[0.5], [0.75], [1.0]]))[:, 0].numpy()
    np.testing.assert_allclose(scores, low + (high - low) * np.array([0.25, 0.5, 0.75]), rtol=1e-6)
    np.testing.assert_allclose(decoded(codec, scores), [0.5, 0.75, 1.0], rtol=1e-6)


@pytest.mark.parametrize("n", [50, 5000])
@pytest.mark.parametrize("kind", KINDS)
def test_decoding_undoes_encoding_for_seen_and_for_unseen_numbers(kind, n):
    values = column(kind, n)
    codec = fitted(values[: n // 2])
    low, high = values[: n // 2].min(), values[: n // 2].max()
    inside = values[(values >= low) & (values <= high)]
    if kind in ("counts", "ages"):
        inside = values[: n // 2]
    back = decoded(codec, codec.encode(inside[:, None])[:, 0])
    # float32 scores of up to 3.7 stand for numbers whose distance grows towards the tails.
    tolerance = 1e-6 * (1 + np.abs(inside)) + (2e-6 * np.ptp(values) if kind != "cauchy" else 0.05)
    assert (np.abs(back - inside) <= tolerance).mean() >= (1.0 if kind not in "prices" else 0.9)


@pytest.mark.parametrize("n", [50, 5000])
@pytest.mark.parametrize("dtype", ["int64", "int8", "uint16", "float64"])
def test_whole_numbers_come_back_exactly_and_whole(dtype, n):
    values = np.random.RandomState(0).randint(0, 120, n).astype(dtype)
    codec = fitted(values)
    np.testing.assert_array_equal(decoded(codec, codec.encode(values[:, None])[:, 0]), values)
    new = decoded(codec, noise(codec, 2000)[:, 0])
    assert new.dtype == dtype
    np.testing.assert_array_equal(new, np.rint(new))


@pytest.mark.parametrize("kind", ["normal", "lognormal", "cauchy"])
def test_encoded_numbers_are_standard_normal_whatever_their_tails(kind):
    scores = encoded(column(kind, 3000))
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert scores.mean() == pytest.approx(0, abs=1e-3)
    assert scores.std() == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_decodes_to_the_distribution_of_the_column(kind):
    values = column(kind, 3000)
    codec = fitted(values)
    new = decoded(codec, noise(codec, 30_000)[:, 0])
    levels = np.unique(np.quantile(values, np.linspace(0.001, 0.999, 50)))
    for below in (lambda x, level: x <= level, lambda x, level: x < level):
        real = np.array([below(values, level).mean() for level in levels])
        synthetic = np.array([below(new, level).mean() for level in levels])
        np.testing.assert_allclose(synthetic, real, atol=0.015)


@pytest.mark.parametrize("n", [20, 200, 3000])
@pytest.mark.parametrize(
    ("kind", "scale"),
    # A model whose rows spread too far must not pile up either.
    [(kind, 1.0) for kind in KINDS] + [(kind, 1.5) for kind in KINDS[:3]],
)
def test_rows_do_not_pile_up_at_the_smallest_and_the_largest_number(kind, n, scale):
    values = column(kind, n)
    codec = fitted(values)
    new = decoded(codec, noise(codec, 30_000, scale)[:, 0])
    for end in (values.min(), values.max()):
        assert (new == end).mean() <= 2 * (values == end).mean() + 0.002


@pytest.mark.parametrize("kind", KINDS)
def test_no_tensor_decodes_to_a_number_outside_the_range(kind):
    values = column(kind)
    codec = fitted(values)
    scores = np.r_[np.linspace(-9, 9, 1001), -1e6, 1e6, 1e30]
    new = decoded(codec, scores)
    assert new.min() >= values.min()
    assert new.max() <= values.max()


def test_decoding_rises_with_the_score_within_the_range():
    codec = fitted(column("cauchy"))
    end = ndtri(0.5 / 500)
    assert (np.diff(decoded(codec, np.linspace(end, -end, 5001))) >= 0).all()


def test_extreme_numbers_are_refused_before_they_overflow_and_large_ones_are_not():
    with pytest.raises(ValueError, match="column 0 of X spans .*e\\+301.*logarithm"):
        fitted([1.0, -1e301, 3.0])
    values = np.array([-1e299, 1.0, 1e299, 5e298])
    np.testing.assert_allclose(decoded(fitted(values), encoded(values)), values, 1e-6, 1e292)
    largest = np.array([np.iinfo(np.int64).max, np.iinfo(np.int64).min, 0, 5])
    back = decoded(fitted(largest), encoded(largest))
    np.testing.assert_allclose(back / 2.0**63, largest / 2.0**63, atol=1e-6)


@pytest.mark.parametrize("levels", [[2.0, 4.0], [0.1, 0.25, 7.0], [-1.0, 0.0, 1.5, 1e6]])
def test_a_column_of_few_values_has_none_in_between(levels):
    values = np.tile(levels, 10)
    codec = fitted(values)
    np.testing.assert_array_equal(decoded(codec, encoded(values)), values)
    assert set(decoded(codec, noise(codec, 500, 2.0)[:, 0])) == set(levels)


def test_few_rows_or_many_values_leave_room_in_between():
    few = fitted(np.sqrt([0.5, 1.0, 2.0, 4.0]))
    assert len(set(decoded(few, noise(few, 100)[:, 0]))) > 50
    many = fitted(np.repeat(np.arange(DISCRETE + 1) * 3, 10))
    assert len(set(decoded(many, np.linspace(-2, 2, 20_000)))) > DISCRETE + 1


@pytest.mark.parametrize("dtype", ["float64", "float32", "object"])
@pytest.mark.parametrize("decimals", [1, 2, 5])
def test_no_more_decimals_come_out_than_were_seen(decimals, dtype):
    values = np.random.RandomState(0).randn(200).round(decimals).astype(dtype)
    codec = fitted(values)
    new = decoded(codec, noise(codec, 500, 2.0)[:, 0])
    assert new.dtype == values.dtype
    np.testing.assert_array_equal(new, new.astype(np.float64).round(decimals).astype(dtype))
    assert len(set(new)) > 20


@pytest.mark.parametrize("factor", [1 / 3, 1e-9])
def test_numbers_without_a_decimal_precision_are_not_rounded(factor):
    values = np.arange(1.0, 60.0) * factor
    new = decoded(fitted(values), np.linspace(-1, 1, 500))
    assert len(set(new)) == 500


def test_a_constant_column_takes_no_dimension_and_comes_back():
    # 0.1 has no exact mean in binary.
    X = np.column_stack([np.full(30, 0.1), np.arange(30.0), np.full(30, -1e9)])
    codec = fitted(X)
    assert codec.sample_shape == (1,)
    np.testing.assert_array_equal(codec.decode(torch.randn(30, 1))[:, [0, 2]], X[:, [0, 2]])
    constant = fitted(X[:, :1])
    assert constant.sample_shape == (1,)
    np.testing.assert_array_equal(constant.decode(constant.encode(X[:, :1])), X[:, :1])


def test_a_column_keeps_at_most_a_thousand_numbers():
    codec = fitted(np.random.RandomState(0).standard_cauchy(50_000))
    assert len(codec.fields_[0].codec.values) <= KNOTS
    assert len(pickle.dumps(codec)) < 40 * KNOTS
    values = np.sort(np.random.RandomState(0).standard_cauchy(50_000))
    # Every value of the tails is among them.
    np.testing.assert_array_equal(codec.fields_[0].codec.values[-10:], values[-10:])


def test_weights_count_as_rows_repeated():
    X = np.array([[0.5], [3.0], [6.0], [7.5]])
    weighted = fitted(X, np.array([1.0, 2.0, 3.0, 1.0]))
    repeated = fitted(np.repeat(X, [1, 2, 3, 1], axis=0))
    torch.testing.assert_close(weighted.encode(X), repeated.encode(X))


# Missing values -----------------------------------------------------------------------


def test_a_missing_number_lies_at_zero_beside_a_flag():
    values = np.array([[1.5], [np.nan], [2.5], [4.0]])
    codec = fitted(values)
    scores = codec.encode(values)
    assert codec.sample_shape == (2,)
    assert scores[1].tolist() == [0, 1]
    assert scores[[0, 2, 3], 1].tolist() == [-1, -1, -1]
    np.testing.assert_allclose(scores[[0, 2, 3], 0], ndtri(np.array([1, 3, 5]) / 6), rtol=1e-6)
    np.testing.assert_allclose(codec.decode(scores), values, rtol=1e-6)


def test_columns_without_missing_values_never_give_any():
    X = np.array([[1.5, np.nan], [2.5, 0.5], [3.5, 1.0]])
    codec = fitted(X)
    new = codec.decode(noise(codec, 200, 3.0))
    assert not np.isnan(new[:, 0]).any()
    assert 0 < np.isnan(new[:, 1]).sum() < 200


def test_a_number_missing_where_none_was_before_lies_in_the_middle():
    codec = fitted([1.0, 2.0, 4.0, 8.5])
    assert codec.encode(np.array([[np.nan], [1.0]]))[0].tolist() == [0.0]


def test_a_column_of_nothing_but_missing_values_comes_back():
    X = pd.DataFrame({"a": [np.nan] * 3, "b": [None] * 3, "c": pd.array([None] * 3, "Int64")})
    codec = fitted(X)
    pd.testing.assert_frame_equal(codec.decode(codec.encode(X)), X)


# Categories ---------------------------------------------------------------------------

SIZES = {1: 0, 2: 1, 3: 3, 16: 16, 17: 5, 100: 7, 1000: 10}


@pytest.mark.parametrize("n_categories", SIZES)
def test_categories_come_back_exactly_and_noise_gives_no_new_one(n_categories):
    X = np.array([f"town {i}" for i in range(n_categories)] * 3)[:, None]
    codec = fitted(X)
    assert sum(field.codec.width for field in codec.fields_) == SIZES[n_categories]
    scores = codec.encode(X)
    assert (codec.decode(scores) == X).all()
    assert (codec.decode(scores + 0.3 * noise(codec, len(X)).clamp(-2, 2)) == X).all()
    new = codec.decode(noise(codec, 20 * n_categories, 2.0))
    assert set(new.ravel()) <= set(X.ravel())
    assert len(set(new.ravel())) > 0.9 * n_categories


def test_wide_tables_of_categories_take_fewer_dimensions_and_come_back():
    X = np.random.RandomState(0).choice(list("abcdefghijkl"), (80, 300))
    codec = fitted(X)
    assert codec.sample_shape == (300 * 4,)
    assert (codec.decode(codec.encode(X)) == X).all()
    assert fitted(X[:, :80]).sample_shape == (80 * 12,)
    assert fitted(X[:, :80], max_one_hot=11).sample_shape == (80 * 4,)


@pytest.mark.parametrize("n_categories", [2, 3, 16])
def test_two_categories_of_a_column_are_two_apart(n_categories):
    X = np.array(list("abcdefghijklmnop"))[:n_categories, None]
    scores = fitted(X).encode(X)
    distances = torch.cdist(scores, scores)
    expected = 2.0 * (1 - torch.eye(n_categories))
    torch.testing.assert_close(distances, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(scores.mean(0), torch.zeros(scores.shape[1]), atol=1e-6, rtol=0)


def test_the_code_of_a_category_does_not_depend_on_the_order_of_rows():
    X = np.random.RandomState(0).choice(list("abcdefghijklm"), (200, 1))
    assert torch.equal(fitted(X).encode(X), fitted(X[::-1]).encode(X))


def test_a_missing_category_is_one_more_category():
    X = pd.DataFrame({"town": ["Ulm", None, "Bonn", "Ulm"]}, dtype=object)
    codec = fitted(X)
    assert codec.sample_shape == (3,)
    new = codec.decode(noise(codec, 100))["town"]
    assert set(new) == {"Ulm", "Bonn", None}


@pytest.mark.parametrize("n_categories", [1, 2, 5, 50])
def test_an_unseen_category_is_named_and_lies_halfway_between_all(n_categories):
    towns = [f"town {i}" for i in range(n_categories)]
    codec = fitted(pd.DataFrame({"town": towns}))
    with pytest.warns(UserWarning, match="column 'town' of X holds 'Ulm', not among .*'town 0'"):
        encoded = codec.encode(pd.DataFrame({"town": [towns[0], "Ulm", None]}))
    assert torch.equal(encoded[:1], codec.encode(pd.DataFrame({"town": towns[:1]})))
    assert not encoded[1:].any()
    distances = torch.cdist(encoded[1:], codec.encode(pd.DataFrame({"town": towns})))
    torch.testing.assert_close(distances, distances[:1, :1].expand_as(distances))


def test_a_gap_among_categories_that_had_none_is_taken_in_silence():
    codec = fitted(pd.DataFrame({"town": ["Ulm", "Bonn", "Rom"]}))
    assert not codec.encode(pd.DataFrame({"town": ["Ulm", None]}))[1].any()


# Mixes of columns ---------------------------------------------------------------------


def series_of(kind, n, random_state):
    """A column of n rows; `kind` is a dtype."""
    whole, real = random_state.randint(0, 60, n), random_state.standard_t(2, n)
    words = np.array(["ant", "bee", "cat", "dog"])[random_state.randint(0, 4, n)]
    absent = random_state.rand(n) < 0.2
    unused = pd.CategoricalDtype(["zebra", "dog", "cat", "bee", "ant"], ordered=True)

    def with_gaps(values, gap):
        return [gap if no else value for value, no in zip(values, absent, strict=True)]

    return {
        "float64": lambda: pd.Series(real),
        "float32": lambda: pd.Series(real.astype(np.float32)),
        "float with gaps": lambda: pd.Series(with_gaps(real, np.nan)),
        "ages with gaps": lambda: pd.Series(with_gaps(whole, np.nan)),
        "int": lambda: pd.Series(whole),
        "int8": lambda: pd.Series((whole - 30).astype(np.int8)),
        "uint8": lambda: pd.Series(whole.astype(np.uint8)),
        "rating": lambda: pd.Series(whole % 5 * 2),
        "bool": lambda: pd.Series(whole > 30),
        "Int64": lambda: pd.Series(with_gaps(whole, None), dtype="Int64"),
        "Float64": lambda: pd.Series(with_gaps(real, None), dtype="Float64"),
        "boolean": lambda: pd.Series(with_gaps(whole > 40, None), dtype="boolean"),
        "sparse": lambda: pd.Series(pd.arrays.SparseArray(whole % 3, fill_value=0)),
        "str": lambda: pd.Series(words),
        "string": lambda: pd.Series(with_gaps(words, None), dtype="string"),
        "object": lambda: pd.Series(with_gaps(words, None), dtype=object),
        "numbers as objects": lambda: pd.Series(with_gaps(real.tolist(), None), dtype=object),
        "category": lambda: pd.Series(with_gaps(words, None)).astype(unused),
        "category of numbers": lambda: pd.Series(whole % 4 + 0.5, dtype="category"),
        "many words": lambda: pd.Series([f"w{i}" for i in whole], dtype=object),
        "constant": lambda: pd.Series(np.full(n, 7)),
        "constant word": lambda: pd.Series(["only"] * n),
        "constant with gaps": lambda: pd.Series(with_gaps(np.ones(n), np.nan)),
    }[kind]()


COLUMN_KINDS = [
    "float64", "float32", "float with gaps", "ages with gaps", "int", "int8", "uint8", "rating",
    "bool", "Int64", "Float64", "boolean", "sparse", "str", "string", "object",
    "numbers as objects", "category", "category of numbers", "many words", "constant",
    "constant word", "constant with gaps",
]  # fmt: skip


def frame_of(kinds, n=60, seed=0):
    random_state = np.random.RandomState(seed)
    frame = pd.concat([series_of(kind, n, random_state) for kind in kinds], axis=1)
    return frame.set_axis(kinds, axis=1)


def mixes():
    random_state = np.random.RandomState(0)
    yield from ([kind] for kind in COLUMN_KINDS)
    yield COLUMN_KINDS
    # With replacement, so that names occur twice.
    yield from (random_state.choice(COLUMN_KINDS, 8).tolist() for _ in range(8))


def assert_support_kept(new, real):
    """Same columns and dtypes; no new category, number out of range, fraction or missing value."""
    pd.testing.assert_index_equal(new.columns, real.columns)
    assert new.dtypes.tolist() == real.dtypes.tolist()
    for position, kind in enumerate(real.columns):
        was, now = (frame.iloc[:, position] for frame in (real, new))
        assert was.isna().any() or not now.isna().any(), kind
        was, now = was.dropna(), now.dropna()
        if all(isinstance(value, int | float | np.number) for value in was):
            assert now.isin(was).all() or was.min() <= now.min() <= now.max() <= was.max(), kind
            if all(float(value).is_integer() for value in was):
                assert all(float(value).is_integer() for value in now), kind
        else:
            assert now.isin(was).all(), kind
            assert {type(value) for value in now} <= {type(value) for value in was}, kind


@pytest.mark.parametrize("kinds", mixes(), ids=lambda kinds: " ".join(kinds)[:50])
def test_any_mix_of_columns_comes_back_and_keeps_its_support(kinds):
    X = frame_of(kinds)
    untouched = X.copy(deep=True)
    codec = fitted(X)
    scores = codec.encode(X)
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    pd.testing.assert_frame_equal(codec.decode(scores), X, rtol=1e-5, atol=1e-5)
    assert_support_kept(codec.decode(noise(codec, 300, 2.0)), X)
    pd.testing.assert_frame_equal(X, untouched)
    both = codec.append(X, noise(codec, 5))
    assert both.dtypes.tolist() == X.dtypes.tolist()
    pd.testing.assert_frame_equal(both[:60], X)


@pytest.mark.parametrize("kinds", mixes(), ids=lambda kinds: " ".join(kinds)[:50])
def test_what_is_decoded_encodes_to_a_fixed_point(kinds):
    X = frame_of(kinds)
    codec = fitted(X)
    once = codec.decode(noise(codec, 100))
    twice = codec.decode(codec.encode(once))
    pd.testing.assert_frame_equal(twice, once, rtol=1e-4, atol=1e-5)


def test_the_share_of_missing_values_and_categories_survives_a_perturbation():
    X = frame_of(["float with gaps", "category"], n=2000)
    codec = fitted(X)
    new = codec.decode(codec.encode(X) + 0.2 * noise(codec, 2000))
    assert (new.isna() == X.isna()).to_numpy().mean() > 0.999
    assert (new["category"].dropna() == X["category"].dropna()).mean() > 0.999


def test_object_arrays_keep_the_python_types_of_their_cells():
    X = np.array([[1, 0.5, "a", True], [3, None, "b", False], [7, 2.5, None, True]], dtype=object)
    codec = fitted(X)
    back = codec.decode(codec.encode(X))
    assert back.dtype == object
    assert [[type(cell) for cell in row] for row in back] == [
        [type(cell) for cell in row] for row in X
    ]
    assert (back[:, [0, 2, 3]] == X[:, [0, 2, 3]]).all()
    np.testing.assert_allclose(back[:, 1].astype(float), [0.5, np.nan, 2.5], rtol=1e-6)
    assert codec.sample_shape == (1 + 2 + 3 + 1,)


def test_text_arrays_and_mixed_lists_come_back():
    words = np.array([["a", "xyz"], ["b", "x"], ["a", "xy"]])
    back = fitted(words).decode(fitted(words).encode(words))
    assert back.dtype == words.dtype
    assert (back == words).all()
    rows = [[1, "a", 0.5], [2, "b", None], [5, "a", 1.5]]
    back = fitted(rows).decode(fitted(rows).encode(rows))
    assert [row[:2] for row in back] == [row[:2] for row in rows]
    assert back[1][2] is None
    assert [type(cell) for cell in back[0]] == [int, str, float]


def test_numbers_in_arrays_are_numbers_and_missing_ones_stay_missing():
    X = np.arange(120.0).reshape(40, 3)
    X[np.random.RandomState(0).rand(40, 3) < 0.3] = np.nan
    codec = fitted(X)
    assert codec.sample_shape == (6,)
    np.testing.assert_allclose(codec.decode(codec.encode(X)), X, rtol=1e-5)


def saved_and_read(codec):
    state, arrays = codec.to_state()
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    return type(codec).from_state(json.loads(json.dumps(state, allow_nan=False)), arrays)


@pytest.mark.parametrize("kinds", mixes(), ids=lambda kinds: " ".join(kinds)[:50])
def test_a_codec_survives_as_json_and_arrays(kinds):
    X = frame_of(kinds)
    codec = fitted(X)
    other = saved_and_read(codec)
    assert torch.equal(other.encode(X), codec.encode(X))
    rows = noise(codec, 50)
    pd.testing.assert_frame_equal(other.decode(rows), codec.decode(rows))


def test_codecs_of_other_containers_survive_too():
    containers = [
        np.eye(4, dtype=np.float32),
        np.array([["a"], ["bcd"]]),
        np.array([[1, "a"], [2, np.nan]], dtype=object),
        [[1, "a"], [2, None]],
        pd.DataFrame({("a", 1): [1, 2], ("b", 2): ["x", pd.NA]}),
        pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]),
    ]
    for X in containers:
        codec = fitted(X)
        rows = noise(codec, 20)
        one, other = codec.decode(rows), saved_and_read(codec).decode(rows)
        assert type(one) is type(other)
        frames = [pd.DataFrame(each) for each in (one, other)]
        pd.testing.assert_frame_equal(*frames, check_column_type=False)
    codec = fitted(sparse.csr_array(np.eye(4)))
    assert type(saved_and_read(codec).decode(noise(codec, 3))) is sparse.csr_array


def test_categories_that_json_cannot_hold_are_refused():
    X = pd.DataFrame({"a": pd.cut([1, 2, 3], 2)})
    with pytest.raises(TypeError, match="Interval; only text, numbers and booleans"):
        fitted(X).to_state()


def test_a_table_is_discrete_where_every_column_has_few_values():
    few = ["rating", "bool", "category", "constant", "constant with gaps", "object", "sparse"]
    assert fitted(frame_of(few)).is_discrete
    for kind in ("float64", "int", "float with gaps", "many words"):
        assert not fitted(frame_of([*few, kind])).is_discrete


def test_fitting_keeps_no_row():
    X = frame_of(COLUMN_KINDS)
    codec = fitted(X)
    assert len(codec.template_) == 0
    assert len(pickle.dumps(codec)) < 40_000


def test_four_hundred_columns_are_quick():
    X = np.random.RandomState(0).randn(200, 400)
    codec = fitted(X)
    assert codec.sample_shape == (400,)
    np.testing.assert_allclose(codec.decode(codec.encode(X)), X, atol=1e-5)


# Which columns are categories ---------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "widths"),
    [
        ("auto", [1, 1, 3, 1]),
        (["size"], [3, 1, None, 1]),
        ([0, 2], [3, 1, 3, 1]),
        (np.array([0, -2]), [3, 1, 3, 1]),
        (["size", "town"], [3, 1, 3, 1]),
        ([True, False, True, False], [3, 1, 3, 1]),
        (np.array([False, True, True, False]), [1, 6, 3, 1]),
        (pd.Index(["weight", "town"]), [1, 6, 3, 1]),
    ],
)
def test_categorical_features_are_named_as_in_imbalanced_learn(choice, widths):
    X = pd.DataFrame(
        {
            "size": [1, 2, 4] * 2,
            "weight": np.arange(6) + 0.5,
            "town": list("abc") * 2,
            "tame": [True, False] * 3,
        }
    )
    if None in widths:
        with pytest.raises(TypeError, match="column 'town' of X holds str such as 'a'"):
            fitted(X, categorical_features=choice)
        return
    codec = fitted(X, categorical_features=choice)
    assert [field.codec.width for field in codec.fields_] == widths
    pd.testing.assert_frame_equal(codec.decode(codec.encode(X)), X, rtol=1e-6)


def test_of_a_column_of_numbers_with_text_the_text_is_shown():
    codec = fitted(pd.DataFrame({"size": [1.0, 2.0, 4.0]}))
    with pytest.raises(TypeError, match="column 'size' of X holds str such as 'two', where num"):
        codec.encode(pd.DataFrame({"size": [1.0, "two", 4.0]}))


def test_numbers_as_categories_take_observed_values_only():
    X = np.array([[10.0, 0.1], [20.0, 0.2], [np.nan, 0.3]] * 4)
    codec = fitted(X, categorical_features=[0])
    assert codec.sample_shape == (4,)
    new = codec.decode(noise(codec, 100))
    assert set(new[~np.isnan(new[:, 0]), 0]) == {10.0, 20.0}
    assert np.isnan(new[:, 0]).any()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("all", "categorical_features='all'"),
        (3, "categorical_features=3"),
        ([2], "has 2, which X has not"),
        ([-3], "has -3, which X has not"),
        (["c"], r"has 'c', which X has not.*\['a', 'b'\]"),
        ([0.5], r"has 0\.5"),
        ([True], "masks 1 of 2"),
    ],
)
def test_categorical_features_that_are_not_there_are_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        fitted(pd.DataFrame({"a": [1, 2], "b": [3, 4]}), categorical_features=choice)


# Refused ------------------------------------------------------------------------------

DAY = datetime.date(2020, 1, 1)
REFUSED = {
    "datetime64": pd.Series(pd.date_range("2020", periods=2)),
    "datetime64[us, UTC]": pd.Series(pd.date_range("2020", periods=2, tz="UTC", unit="us")),
    "timedelta64": pd.Series(pd.to_timedelta([1, 2], unit="D")),
    "period": pd.Series(pd.period_range("2020", periods=2, freq="M")),
    "complex128": pd.Series([1j, 2.0]),
    "Timestamp": pd.Series([pd.Timestamp(2020, 1, 1), 3], dtype=object),
    "date": pd.Series([DAY, "x"], dtype=object),
    "timedelta": pd.Series([DAY - DAY, None], dtype=object),
    "NaTType": pd.Series([pd.NaT, "x"], dtype=object),
    "dict": pd.Series([{"a": 1}, 2.0], dtype=object),
    "list": pd.Series([[1], 2.0], dtype=object),
    "tuple": pd.Series([(1, [2]), 2.0], dtype=object),
    "ndarray": pd.Series([np.arange(3), 2.0], dtype=object),
}


def test_decimals_are_refused_rather_than_taken_for_text():
    X = pd.DataFrame({"price": [decimal.Decimal("1.99"), None]})
    with pytest.raises(TypeError, match="'price' of X holds Decimal.*astype"):
        fitted(X)


@pytest.mark.parametrize("choice", [None, ["size"], [True, False, False]])
def test_what_holds_no_numbers_is_a_category_whatever_the_choice(choice):
    X = pd.DataFrame(
        {
            "size": [1, 2, 3] * 4,
            "code": pd.Categorical([1000, 2000, 7000] * 4),
            "flag": np.array([True, False, None] * 4, dtype=object),
        }
    )
    codec = fitted(X, categorical_features=choice)
    new = codec.decode(noise(codec, 100))
    assert set(new["code"]) == {1000, 2000, 7000}
    assert {type(each) for each in new["flag"]} == {bool, type(None)}


def test_categories_of_nullable_integers_are_told_apart_beyond_what_floats_hold():
    codes = [2**53 - 1, 2**53, 2**53 + 1]
    X = pd.DataFrame({"code": pd.array([*codes * 4, None], dtype="Int64")})
    codec = fitted(X, categorical_features=["code"])
    new = codec.decode(noise(codec, 100))
    assert new["code"].dtype == "Int64"
    assert set(new["code"].dropna()) == set(codes)


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_neither_number_nor_category_is_refused_by_column(what):
    X = pd.DataFrame({"fine": [1, 2], "when": REFUSED[what]})
    with pytest.raises(TypeError, match="column 'when' of X holds ") as caught:
        fitted(X)
    assert what in str(caught.value)
    assert "Encode dates" in str(caught.value)


def test_infinity_is_refused_by_column():
    with pytest.raises(ValueError, match="column 1 of X contains infinity"):
        fitted(np.array([[1.0, np.inf], [2.0, 3.0]]))
    with pytest.raises(ValueError, match="column 'b' of X contains infinity"):
        fitted(pd.DataFrame({"b": [1.0, -np.inf]}))


def test_data_frames_of_other_libraries_are_refused_with_the_way_out():
    class DataFrame:
        columns = ("a",)

    with pytest.raises(TypeError, match=r"DataFrame; .*X\.to_pandas\(\)"):
        TableCodec().fit(DataFrame())


def test_sparse_tables_may_not_name_categories_by_name():
    with pytest.raises(ValueError, match="X has no column names"):
        fitted(sparse.eye_array(3, format="csr"), categorical_features=["a"])


def test_rows_in_a_tuple_are_rows_in_a_list():
    rows = tuple((float(i), "x" if i % 2 else "y") for i in range(20))
    codec = TableCodec().fit(rows)
    assert torch.equal(codec.encode(rows), TableCodec().fit(list(rows)).encode(list(rows)))
    both = codec.append(rows, codec.encode(rows)[:3])
    assert both[:20] == list(rows)
    assert [[type(cell) for cell in row] for row in both[20:]] == [[float, str]] * 3
