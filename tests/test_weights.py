"""Weighting schemes, and the carriers that bring weights through pipelines or let them go."""

from __future__ import annotations

import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, clone
from sklearn.model_selection import train_test_split

from sklearn_diffult._carriers import BalancedRows, attach_weights, detach_weights, receive
from sklearn_diffult.weights import (
    WEIGHTINGS,
    TransformerFace,
    compute_weights,
    hand_on,
    hidden_from_imblearn,
)

# Class 0: 4 real. Class 1: 1 real, 3 synthetic. Class 2: 2 real, 2 synthetic.
Y = np.array([0, 0, 0, 0, 1, 2, 2, 1, 1, 1, 2, 2])
SYNTHETIC = np.arange(12) >= 7
WEIGHTS = np.linspace(0.5, 1.5, 12)
LABELS = {
    "int": Y,
    "str": np.array(["zero", "one", "two"])[Y],
    "object": np.array(["zero", "one", "two"], dtype=object)[Y],
    "bool": Y > 0,
    "float": Y.astype(float),
}


# Schemes ------------------------------------------------------------------------------


@pytest.mark.parametrize("omega", [0, 0.3, 1])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_of_every_scheme_are_finite_and_non_negative(weighting, omega):
    weights = compute_weights(Y, SYNTHETIC, omega, weighting)
    assert weights.dtype == np.float64
    assert weights.shape == (12,)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_omega_zero_leaves_real_rows_only(weighting):
    weights = compute_weights(Y, SYNTHETIC, 0, weighting)
    np.testing.assert_array_equal(weights > 0, ~SYNTHETIC)


@pytest.mark.parametrize("omega", [0, 0.25, 1])
def test_row_weighting_gives_a_synthetic_row_omega_times_a_real_one(omega):
    weights = compute_weights(Y, SYNTHETIC, omega, "row")
    np.testing.assert_allclose(weights[SYNTHETIC], omega * weights[0])
    np.testing.assert_allclose(weights[~SYNTHETIC], weights[0])


def test_row_weighting_at_omega_one_is_plain_augmentation():
    np.testing.assert_array_equal(compute_weights(Y, SYNTHETIC, 1, "row"), 1)


@pytest.mark.parametrize("omega", [0, 0.25, 1])
def test_class_weighting_gives_classes_equal_mass_and_synthetic_rows_the_share_omega(omega):
    weights = compute_weights(Y, SYNTHETIC, omega, "class")
    # In all as much as there are real rows.
    mass = (~SYNTHETIC).sum() / 3
    for label in range(3):
        assert weights[label == Y].sum() == pytest.approx(mass)
    for label in (1, 2):
        assert weights[(label == Y) & SYNTHETIC].sum() == pytest.approx(mass * omega)
    np.testing.assert_allclose(weights[Y == 0], mass / 4)


@pytest.mark.parametrize("temper", [0, 0.1, 0.5, 1])
def test_classes_weigh_by_their_real_rows_to_the_power_of_temper(temper):
    weights = compute_weights(Y, SYNTHETIC, 0.3, "class", temper)
    totals = np.array([weights[label == Y].sum() for label in range(3)])
    shares = np.array([4.0, 1.0, 2.0]) ** temper
    np.testing.assert_allclose(totals, 7 * shares / shares.sum())
    for label in (1, 2):
        assert weights[(label == Y) & SYNTHETIC].sum() == pytest.approx(0.3 * totals[label])


def test_a_class_of_synthetic_rows_only_counts_as_one_of_a_single_row():
    y, mask = [0, 0, 0, 0, 1, 1], np.array([0, 0, 0, 0, 1, 1], bool)
    weights = compute_weights(y, mask, 0.5, "class", 0.5)
    np.testing.assert_allclose(weights, [*[4 * 2 / 3 / 4] * 4, *[4 / 3 / 2] * 2])


def test_at_temper_one_and_omega_zero_real_rows_weigh_one():
    weights = compute_weights(Y, SYNTHETIC, 0, "class", 1)
    np.testing.assert_allclose(weights, np.where(SYNTHETIC, 0, 1))


def test_temper_changes_nothing_in_row_weighting_and_in_a_callable():
    for weighting in ("row", lambda y, mask, omega: 1 + mask):
        plain, tempered = (compute_weights(Y, SYNTHETIC, 0.3, weighting, t) for t in (0, 1))
        np.testing.assert_array_equal(plain, tempered)


@pytest.mark.parametrize(
    ("temper", "error"), [(-0.1, ValueError), (2, ValueError), ("1", TypeError)]
)
def test_a_temper_that_is_no_share_is_refused(temper, error):
    with pytest.raises(error, match=r"temper must .*\[0, 1\], got"):
        compute_weights(Y, SYNTHETIC, 0.3, "class", temper)


def test_class_weighting_of_balanced_real_rows_leaves_them_alone():
    np.testing.assert_allclose(compute_weights([0, 1, 1, 0], np.zeros(4, bool), 0.5, "class"), 1)


def test_a_weighting_that_writes_into_what_it_gets_spoils_nothing():
    def spoil(y, mask, omega):
        y[:], mask[:] = 7, True
        return np.ones(len(y))

    y, mask = np.array([0, 1, 1]), np.array([False, False, True])
    compute_weights(y, mask, 0.5, spoil)
    assert y.tolist() == [0, 1, 1]
    assert mask.tolist() == [False, False, True]


def test_a_class_without_real_rows_gives_its_mass_to_synthetic_ones_but_for_omega_zero():
    y, mask = [0, 0, 0, 1, 1], np.array([0, 0, 0, 1, 1], bool)
    half = compute_weights(y, mask, 0.5, "class")
    np.testing.assert_allclose(half, [0.5, 0.5, 0.5, 0.75, 0.75])
    assert compute_weights(y, mask, 0.0, "class")[3:].tolist() == [0, 0]


def test_class_weighting_does_not_depend_on_how_many_rows_were_generated():
    few = compute_weights([0, 0, 1, 1], np.array([0, 0, 0, 1], bool), 0.5, "class")
    many = compute_weights([0, 0, *[1] * 9], np.array([0, 0, 0, *[1] * 8], bool), 0.5, "class")
    assert few[2] / few[0] == pytest.approx(many[2] / many[0])


def test_permuting_rows_permutes_weights():
    order = np.random.RandomState(0).permutation(12)
    for weighting in WEIGHTINGS:
        weights = compute_weights(Y, SYNTHETIC, 0.3, weighting)
        permuted = compute_weights(Y[order], SYNTHETIC[order], 0.3, weighting)
        np.testing.assert_allclose(permuted, weights[order])


def test_a_callable_gets_arrays_and_its_weights_are_taken_as_they_are():
    def by_label(y, synthetic_mask, omega):
        assert isinstance(y, np.ndarray)
        assert synthetic_mask.dtype == bool
        return [omega + label for label in y]

    weights = compute_weights(Y.tolist(), SYNTHETIC.tolist(), 0.5, by_label)
    np.testing.assert_array_equal(weights, Y + 0.5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"omega": -0.1}, ValueError, r"omega must lie in \[0, 1\], got -0.1"),
        ({"omega": 1.5}, ValueError, "omega"),
        ({"omega": np.nan}, ValueError, "omega"),
        ({"omega": "0.5"}, TypeError, "omega must be a number"),
        ({"omega": True}, TypeError, "omega must be a number"),
        ({"weighting": "rows"}, ValueError, "'class', 'row'.*got 'rows'"),
        ({"weighting": None}, TypeError, "weighting must be one of"),
        ({"synthetic_mask": SYNTHETIC[:-1]}, ValueError, r"\(12,\).*\(11,\)"),
        ({"synthetic_mask": SYNTHETIC.astype(int)}, ValueError, "must be boolean.*int64"),
        ({"weighting": lambda y, s, o: [1, 2]}, ValueError, r"one weight per row.*got \(2,\)"),
        ({"weighting": lambda y, s, o: -1 + 0 * y}, ValueError, "finite weights >= 0"),
        ({"weighting": lambda y, s, o: np.nan * y}, ValueError, "finite weights >= 0"),
        ({"weighting": lambda y, s, o: 0 * y}, ValueError, "every row weight 0"),
        ({"synthetic_mask": SYNTHETIC | True, "omega": 0}, ValueError, "every row weight 0"),
    ],
)
def test_bad_arguments_are_named_with_the_value_seen(change, error, message):
    arguments = {"y": Y, "synthetic_mask": SYNTHETIC, "omega": 0.3, "weighting": "row", **change}
    with pytest.raises(error, match=message):
        compute_weights(**arguments)


# Labels that carry weights ------------------------------------------------------------


def _series(y):
    return pd.Series(y, index=np.arange(len(y)) * 2, name="label")


CONTAINERS = {"array": np.asarray, "series": _series}


@pytest.fixture(params=CONTAINERS)
def container(request):
    return CONTAINERS[request.param]


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_what_is_attached_is_detached_and_the_labels_come_back_plain(container, labels):
    y = container(labels)
    plain, weights = detach_weights(attach_weights(y, WEIGHTS))
    np.testing.assert_array_equal(weights, WEIGHTS)
    assert type(plain) is type(y)
    assert plain.dtype == y.dtype
    np.testing.assert_array_equal(plain, y)
    if isinstance(y, np.ndarray):
        assert plain.dtype.metadata is None
    else:
        assert plain.index.equals(y.index)
        assert plain.attrs == {}


def test_attaching_leaves_the_given_labels_alone(container):
    y = container(Y)
    attach_weights(y, WEIGHTS)
    assert detach_weights(y)[1] is None


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_pickles_and_copies_by_joblib_keep_the_weights(container, labels, tmp_path):
    carried = attach_weights(container(labels), WEIGHTS)
    joblib.dump(carried, tmp_path / "labels")
    for restored in (pickle.loads(pickle.dumps(carried)), joblib.load(tmp_path / "labels")):
        plain, weights = detach_weights(restored)
        np.testing.assert_array_equal(weights, WEIGHTS)
        np.testing.assert_array_equal(plain, labels)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_a_cache_sees_the_weights(container, labels):
    y = container(labels)
    one, same, other = (attach_weights(y, w) for w in (WEIGHTS, WEIGHTS.copy(), WEIGHTS[::-1]))
    assert joblib.hash(one) == joblib.hash(same)
    assert len({joblib.hash(y), joblib.hash(one), joblib.hash(other)}) == 3


def test_a_cache_sees_the_weights_of_a_slice():
    # Both slices hold the same labels of the same array, but rows of other weights.
    carried = attach_weights(Y, WEIGHTS)
    assert joblib.hash(carried[[0, 1]]) != joblib.hash(carried[[2, 3]])


@pytest.mark.parametrize(
    "key",
    [Y == 1, [3, 1, 1], slice(2, 9, 3), ([5, 0], Ellipsis), slice(None, None, -1)],
    ids=str,
)
def test_a_slice_of_an_array_carries_its_own_weights(key):
    plain, weights = detach_weights(attach_weights(Y, WEIGHTS)[key])
    np.testing.assert_array_equal(plain, Y[key])
    np.testing.assert_array_equal(weights, WEIGHTS[key])


def test_a_slice_of_a_pickled_slice_carries_its_own_weights():
    part = pickle.loads(pickle.dumps(attach_weights(Y, WEIGHTS)[4:]))
    np.testing.assert_array_equal(detach_weights(part[1:3])[1], WEIGHTS[5:7])


def test_a_split_by_scikit_learn_carries_its_own_weights():
    parts = train_test_split(np.arange(12), attach_weights(Y, WEIGHTS), random_state=0)
    for rows, labels in (parts[0::2], parts[1::2]):
        np.testing.assert_array_equal(detach_weights(labels)[1], WEIGHTS[rows])


@pytest.mark.parametrize(
    "derive",
    [
        np.ndarray.copy,
        np.sort,
        lambda y: y + 1,
        lambda y: y == 1,
        lambda y: y.astype(float),
        lambda y: np.concatenate([y, y]),
        lambda y: y[:, None],
        lambda y: y.take([1, 0]),
        copy.deepcopy,
    ],
)
def test_other_arrays_derived_from_the_labels_carry_none(derive):
    derived = derive(attach_weights(Y, WEIGHTS))
    assert detach_weights(derived)[1] is None
    assert detach_weights(pickle.loads(pickle.dumps(derived)))[1] is None


@pytest.mark.parametrize(
    "derive",
    [
        lambda y: y[y == 1],
        lambda y: y.iloc[:5],
        lambda y: y.sample(frac=1, random_state=0),
        lambda y: y.sample(frac=1, random_state=0).reset_index(drop=True),
        lambda y: y.sort_index(ascending=False),
        lambda y: y.reset_index(drop=True),
        lambda y: y.map(str),
        pd.Series.copy,
    ],
)
def test_a_series_derived_from_the_labels_raises_rather_than_carry_weights_of_others(derive):
    with pytest.raises(ValueError, match="no longer belong.*sklearn_diffult import Pipeline"):
        detach_weights(derive(attach_weights(_series(Y), WEIGHTS)))


def test_labels_changed_in_place_raise(container):
    carried = attach_weights(container(Y), WEIGHTS)
    carried[0] = 2
    with pytest.raises(ValueError, match="no longer belong"):
        detach_weights(carried)


def test_a_series_given_another_index_raises():
    carried = attach_weights(_series(Y), WEIGHTS)
    carried.index = carried.index[::-1]
    with pytest.raises(ValueError, match="no longer belong"):
        detach_weights(carried)


@pytest.mark.parametrize("y", [Y.tolist(), pd.DataFrame({"y": Y}), Y[:, None]], ids=type)
def test_a_container_that_cannot_carry_weights_warns_unless_all_are_one(y):
    with pytest.warns(UserWarning, match="cannot carry.*sklearn_diffult import Pipeline"):
        assert attach_weights(y, WEIGHTS) is y
    assert attach_weights(y, np.ones(12)) is y


def test_weights_that_do_not_fit_the_labels_are_refused(container):
    with pytest.raises(ValueError, match=r"sample_weight must give one weight per row"):
        attach_weights(container(Y), WEIGHTS[:-1])


# Balanced rows ------------------------------------------------------------------------


def _rows(weights=WEIGHTS):
    return BalancedRows(np.arange(24.0).reshape(12, 2), Y, weights, n_real=7)


@pytest.mark.parametrize(
    "use",
    [np.asarray, np.array, len, list, bool, lambda r: r[0], lambda r: r.shape, lambda r: r.iloc]
    + [lambda r: r.dtype, lambda r: hasattr(r, "toarray"), pd.DataFrame, sklearn.utils.check_array],
)
def test_balanced_rows_refuse_to_be_an_array_and_say_what_to_do(use):
    with pytest.raises(ValueError, match="scikit-learn's Pipeline cannot.*sklearn_diffult import"):
        use(_rows())


def test_balanced_rows_pickle_copy_and_hash_with_their_weights():
    rows = _rows()
    for again in (pickle.loads(pickle.dumps(rows)), copy.deepcopy(rows)):
        np.testing.assert_array_equal(again.sample_weight, WEIGHTS)
        assert joblib.hash(again) == joblib.hash(rows)
    assert joblib.hash(_rows(WEIGHTS[::-1])) != joblib.hash(rows)


def test_receive_unpacks_balanced_rows():
    X, y, weights = receive(_rows(), Y[:7])
    assert X.shape == (12, 2)
    np.testing.assert_array_equal(y, Y)
    np.testing.assert_array_equal(weights, WEIGHTS)


@pytest.mark.parametrize("given", [Y[:7][::-1], np.r_[Y, Y], Y[1:4]])
def test_receive_refuses_balanced_rows_beside_labels_of_other_rows(given):
    with pytest.raises(ValueError, match="not those that DiffusionBalancer was fitted on"):
        receive(_rows(), given)


def test_receive_unpacks_labels_that_carry_weights(container):
    _, y, weights = receive(np.zeros((12, 1)), attach_weights(container(Y), WEIGHTS))
    assert type(y) is type(container(Y))
    np.testing.assert_array_equal(weights, WEIGHTS)


def test_receive_leaves_plain_arguments_as_they_are():
    X, y, weights = np.zeros((12, 1)), Y, WEIGHTS
    assert all(a is b for a, b in zip(receive(X, y, weights), (X, y, weights), strict=True))
    assert receive(X, y)[2] is None


@pytest.mark.parametrize("given", ["rows", "labels"])
def test_weights_from_the_user_and_from_the_balancer_conflict(given):
    X = _rows() if given == "rows" else np.zeros((12, 1))
    y = Y[:7] if given == "rows" else attach_weights(Y, WEIGHTS)
    with pytest.raises(ValueError, match="sample_weight was given.*only one"):
        receive(X, y, np.ones(len(y)))


# The two faces ------------------------------------------------------------------------


class _Face(TransformerFace, OneToOneFeatureMixin, BaseEstimator):
    def fit(self, X, y):
        return self

    def fit_resample_weighted(self, X, y):
        self.n_features_in_ = X.shape[1]
        if hasattr(X, "columns"):
            self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        return X, y, WEIGHTS[: len(y)]


def _called_from(module, function):
    """`function` as if it had been written in another module."""
    namespace = {"__name__": module, "function": function}
    exec("def call(*args): return function(*args)\nprobe = lambda o, n: hasattr(o, n)", namespace)
    return namespace


@pytest.mark.parametrize("method", ["transform", "fit_transform"])
def test_only_imbalanced_learns_own_modules_do_not_see_the_transformer(method):
    for module in ("imblearn", "imblearn.pipeline", "imblearn.utils.estimator_checks"):
        assert not _called_from(module, None)["probe"](_Face(), method)
    for module in ("sklearn.pipeline", "imblearn_extras", "__main__"):
        assert _called_from(module, None)["probe"](_Face(), method)
    assert hasattr(_Face(), method)


def test_a_hidden_method_keeps_its_name_and_docstring():
    assert _Face.transform.__name__ == "transform"
    assert "as they are" in _Face().transform.__doc__
    assert isinstance(vars(TransformerFace)["transform"], hidden_from_imblearn)


def test_labels_handed_on_outside_a_pipeline_stay_plain():
    assert hand_on(Y, WEIGHTS) is Y


@pytest.mark.parametrize("configure", ["set_output", "global"])
def test_set_output_reaches_new_and_balanced_rows_and_survives_clone(configure):
    X = np.zeros((12, 2))
    face = _Face()
    if configure == "set_output":
        face = clone(face.set_output(transform="pandas").set_output(transform=None))
    with sklearn.config_context(transform_output="pandas" if configure == "global" else "default"):
        rows = face.fit_transform(X, Y)
        new = face.transform(X[:3])
    assert list(rows.X.columns) == list(new.columns) == ["x0", "x1"]
    assert new.shape == (3, 2)


def test_set_output_keeps_the_column_names_seen_in_fit():
    face = _Face().set_output(transform="pandas")
    face.fit_transform(pd.DataFrame(np.zeros((12, 2)), columns=["a", "b"]), Y)
    with pytest.warns(UserWarning, match="valid feature names"):
        assert list(face.transform(np.zeros((3, 2))).columns) == ["a", "b"]


def test_new_rows_are_untouched_by_default_and_images_always():
    face = _Face()
    face.fit_transform(np.zeros((12, 2)), Y)
    X, images = np.zeros((3, 2)), np.zeros((3, 8, 8))
    assert face.transform(X) is X
    assert face.set_output(transform="pandas").transform(images) is images


def test_an_unfitted_balancer_transforms_nothing():
    with pytest.raises(sklearn.exceptions.NotFittedError):
        _Face().transform(np.zeros((3, 2)))
