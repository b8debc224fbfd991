"""Frechet distance, inception score, precision to coverage, closest record: the mathematics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from sklearn_diffult.metrics import (
    ManifoldScores,
    distance_to_closest_record,
    frechet_distance,
    inception_score,
    manifold_scores,
)


def _rows_with_moments(mean, covariance, n_rows, seed):
    """Rows whose sample mean and unbiased sample covariance are exactly those given."""
    rng = np.random.RandomState(seed)
    white = rng.normal(size=(n_rows, len(mean)))
    white -= white.mean(axis=0)
    q, _ = np.linalg.qr(white)
    return mean + math.sqrt(n_rows - 1) * q @ np.linalg.cholesky(covariance).T


def test_frechet_distance_of_gaussians_whose_axes_agree_is_that_of_their_deviations():
    a = _rows_with_moments(np.array([0.0, 0.0]), np.diag([4.0, 1.0]), 50, seed=0)
    b = _rows_with_moments(np.array([1.0, 2.0]), np.diag([9.0, 16.0]), 70, seed=1)
    assert frechet_distance(a, b) == pytest.approx((1 + 4) + (3 - 2) ** 2 + (4 - 1) ** 2)


def test_frechet_distance_of_a_rotated_gaussian_is_the_closed_form_for_two_by_two_matrices():
    first, second = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0, -1.0], [-1.0, 1.0]])
    a = _rows_with_moments(np.zeros(2), first, 40, seed=0)
    b = _rows_with_moments(np.zeros(2), second, 30, seed=1)
    # tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)) for a 2 x 2 matrix M with eigenvalues >= 0.
    product = first @ second
    trace_of_root = math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
    expected = np.trace(first) + np.trace(second) - 2 * trace_of_root
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_frechet_distance_is_symmetric_and_zero_only_for_equal_moments():
    rng = np.random.RandomState(0)
    a, b = rng.normal(size=(60, 5)), rng.normal(size=(40, 5)) * 2 + 1
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, b) > 1
    assert frechet_distance(a, rng.permutation(a)) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_is_exact_with_fewer_rows_than_features():
    rows = np.zeros((2, 50))
    rows[:, 0] = [-1, 1]
    elsewhere = np.zeros((2, 50))
    elsewhere[:, 1] = [-2, 2]
    # Variances 2 and 8 along different axes: nothing overlaps, so the traces add up.
    assert frechet_distance(rows, elsewhere) == pytest.approx(2 + 8)
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(rows, np.zeros((3, 50))) == pytest.approx(2)


def test_one_row_has_no_covariance():
    with pytest.raises(ValueError, match=r"X_real has shape \(1, 2\); .* at least 2 row"):
        frechet_distance(np.zeros((4, 2)), np.zeros((1, 2)))


@pytest.mark.parametrize("n_splits", [1, 3, 10])
def test_the_inception_score_of_equal_predictions_is_one(n_splits):
    unsure = np.tile([0.25, 0.25, 0.5], (20, 1))
    assert inception_score(unsure, n_splits=n_splits) == pytest.approx((1, 0))


@pytest.mark.parametrize("n_classes", [2, 5, 10])
def test_the_inception_score_of_sure_and_balanced_predictions_is_the_number_of_classes(n_classes):
    sure = np.repeat(np.eye(n_classes), 7, axis=0)
    assert inception_score(sure, n_splits=1) == pytest.approx((n_classes, 0))


def test_the_inception_score_of_sure_predictions_is_the_exponential_of_the_entropy_of_the_classes():
    sure = np.eye(2)[[0, 0, 0, 1]]
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert inception_score(sure, n_splits=1) == pytest.approx((expected, 0))


def test_the_inception_score_of_two_rows_worked_by_hand():
    # p(y) = (0.5, 0.5); both rows have KL = 0.8 log 1.6 + 0.2 log 0.4.
    expected = 1.6**0.8 * 0.4**0.2
    assert inception_score([[0.8, 0.2], [0.2, 0.8]], n_splits=1) == pytest.approx((expected, 0))


def test_the_inception_score_is_the_mean_and_deviation_of_the_parts():
    # One row per part leaves each part alone with its own mean.
    sure = np.eye(4)
    assert inception_score(sure, n_splits=4) == pytest.approx((1, 0))
    # 3 rows are dealt as 1 + 2, and two different rows score 2, two equal ones 1.
    scores = {inception_score(sure[[0, 0, 1]], n_splits=2, random_state=seed) for seed in range(9)}
    assert sorted(scores) == [pytest.approx((1, 0)), pytest.approx((1.5, 0.5))]


def test_rows_that_come_class_by_class_are_dealt_to_all_parts():
    one_class_after_another = np.repeat(np.eye(4), 250, axis=0)
    mean, deviation = inception_score(one_class_after_another)
    assert mean > 3.9
    assert 0 < deviation < 0.1
    assert inception_score(one_class_after_another) == (mean, deviation)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([[0.5, 0.5], [3.0, -1.0]], "Row 1 of X_new .* smallest value is -1 and its sum 2"),
        ([[0.5, 0.5], [1.5, -0.5]], "Row 1 of X_new .* smallest value is -0.5"),
        ([[1.0, 1.0], [0.5, 0.5]], "Row 0 of X_new .* features=classifier.predict_proba"),
    ],
)
def test_what_is_no_distribution_over_classes_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        inception_score(wrong, n_splits=1)


def test_more_parts_than_rows_are_refused():
    with pytest.raises(ValueError, match=r"n_splits=10 is more than the 4 row"):
        inception_score(np.eye(4))


def test_manifold_scores_of_rows_on_a_line_are_those_worked_by_hand():
    real = np.array([[0.0], [1.0], [3.0], [7.0]])  # radii to the nearest other: 1, 1, 2, 4
    new = np.array([[0.5], [2.5], [20.0]])  # radii: 2, 2, 17.5
    # Real balls (-1, 1), (0, 2), (1, 5), (3, 11) hold 0.5 twice, 2.5 once, 20 never.
    # New balls (-1.5, 2.5), (0.5, 4.5), (2.5, 37.5) hold every real row.
    assert manifold_scores(new, real, n_neighbors=1) == ManifoldScores(
        precision=2 / 3, recall=1.0, density=1.0, coverage=3 / 4
    )


def test_a_row_at_exactly_the_radius_is_outside():
    real, at_the_radius = np.array([[0.0], [1.0]]), np.array([[-1.0], [2.0]])
    scores = manifold_scores(at_the_radius, real, n_neighbors=1)
    assert (scores.precision, scores.density, scores.coverage) == (0.0, 0.0, 0.0)
    assert manifold_scores(at_the_radius * 0.999, real, n_neighbors=1).precision > 0


def test_sets_that_lie_apart_score_zero():
    rng = np.random.RandomState(0)
    rows = rng.normal(size=(30, 3))
    assert manifold_scores(rows + 100, rows) == ManifoldScores(0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_exact_copies_score_one(offset):
    rows = np.random.RandomState(0).normal(size=(50, 20)) + offset
    # In the ball of a row: the copy of itself, and of all of its k nearest but the last.
    assert manifold_scores(rows[::-1], rows, n_neighbors=3) == ManifoldScores(1.0, 1.0, 1.0, 1.0)


def test_exact_copies_score_one_in_clusters_far_apart():
    rows = np.random.RandomState(0).normal(size=(50, 8))
    rows[::2] += 1e7
    assert manifold_scores(rows[::-1], rows, n_neighbors=3) == ManifoldScores(1.0, 1.0, 1.0, 1.0)


def test_rounding_does_not_decide_which_of_equal_distances_is_less():
    rng = np.random.RandomState(0)
    new, real = rng.randint(0, 6, size=(200, 3)), rng.randint(0, 5, size=(150, 3))
    # Integers have exact distances; tenths have rounded ones.
    assert manifold_scores(0.1 * new, 0.1 * real) == manifold_scores(new, real)
    assert manifold_scores(new / 7 - 90, real / 7 - 90) == manifold_scores(new, real)


def test_a_row_with_as_many_copies_as_neighbours_has_an_empty_ball():
    rows = np.zeros((4, 2))
    assert manifold_scores(rows, rows, n_neighbors=3) == ManifoldScores(0.0, 0.0, 0.0, 0.0)
    apart = np.append(rows, [[5.0, 0.0]], axis=0)
    assert manifold_scores(apart, apart, n_neighbors=4).coverage == 1.0


def test_precision_and_recall_change_places_with_the_sets():
    rng = np.random.RandomState(0)
    new, real = rng.normal(size=(40, 2)), 1.5 * rng.normal(size=(60, 2))
    there, back = manifold_scores(new, real), manifold_scores(real, new)
    assert (there.precision, there.recall) == (back.recall, back.precision)
    assert there.precision > there.recall


@pytest.mark.parametrize(("n_new", "n_real", "k"), [(30, 30, 2), (15, 40, 3)])
def test_density_and_coverage_of_one_distribution_have_their_expected_values(n_new, n_real, k):
    rng = np.random.RandomState(0)
    drawn = [
        manifold_scores(rng.normal(size=(n_new, 2)), rng.normal(size=(n_real, 2)), n_neighbors=k)
        for _ in range(300)
    ]
    # The k nearest of the n_real - 1 + n_new others are all real with this probability.
    missed = math.prod((n_real - 1 - i) / (n_real - 1 + n_new - i) for i in range(k))
    # Four standard errors of 300 draws, about 0.1 and 0.07 each.
    assert np.mean([scores.density for scores in drawn]) == pytest.approx(1, abs=0.06)
    assert np.mean([scores.coverage for scores in drawn]) == pytest.approx(1 - missed, abs=0.02)


def _by_brute_force(new, real, k):
    """The four scores as prdc computes them, from all differences at once."""
    between = ((real[:, None] - new[None]) ** 2).sum(axis=2)
    real_radii = np.sort(((real[:, None] - real[None]) ** 2).sum(axis=2), axis=1)[:, k]
    new_radii = np.sort(((new[:, None] - new[None]) ** 2).sum(axis=2), axis=1)[:, k]
    return {
        "precision": (between < real_radii[:, None]).any(axis=0).mean(),
        "recall": (between < new_radii[None]).any(axis=1).mean(),
        "density": (between < real_radii[:, None]).sum(axis=0).mean() / k,
        "coverage": (between.min(axis=1) < real_radii).mean(),
    }


FEATURE_SETS = {
    "few features": (90, 110, 2, 5, "normal"),
    "many features": (60, 50, 64, 3, "normal"),
    "one neighbour": (40, 70, 3, 1, "normal"),
    "duplicates and ties": (80, 100, 2, 4, "integers"),
    "columns on other scales": (200, 300, 2, 3, "scales"),
    "many columns on other scales": (150, 100, 20, 3, "scales"),
}


def _feature_set(name):
    n_new, n_real, n_features, k, kind = FEATURE_SETS[name]
    rng = np.random.RandomState(len(name))
    if kind == "integers":
        new = rng.randint(0, 6, size=(n_new, n_features))
        real = rng.randint(0, 5, size=(n_real, n_features))
        return new.astype(float), real.astype(float), k
    if kind == "scales":
        # Days since 1970 in seconds, of which many rows share each, beside rates.
        units = np.r_[86400.0, np.ones(n_features - 1)]
        first = np.r_[19_700, np.zeros(n_features - 1)]
        new, real = (
            np.column_stack([rng.randint(0, 9, size=n), rng.rand(n, n_features - 1)])
            for n in (n_new, n_real)
        )
        return (first + new) * units, (first + real) * units, k
    return rng.normal(size=(n_new, n_features)), 1.2 * rng.normal(size=(n_real, n_features)), k


@pytest.mark.parametrize("name", FEATURE_SETS)
@pytest.mark.parametrize("block_size", [2**21, 64])
def test_manifold_scores_are_those_of_all_pairs_in_any_block_size(monkeypatch, name, block_size):
    monkeypatch.setattr("sklearn_diffult._nearest.BLOCK_SIZE", block_size)
    new, real, k = _feature_set(name)
    scores = vars(manifold_scores(new, real, n_neighbors=k))
    assert scores == pytest.approx(_by_brute_force(new, real, k), rel=1e-12)
    assert 0 < scores["density"] != 1


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_manifold_scores_are_those_of_prdc(name):
    prdc = pytest.importorskip("prdc")
    new, real, k = _feature_set(name)
    theirs = prdc.compute_prdc(real_features=real, fake_features=new, nearest_k=k)
    assert vars(manifold_scores(new, real, n_neighbors=k)) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("name", ["few features", "many features", "one neighbour"])
def test_scores_are_those_of_torch_fidelity(name):
    torch = pytest.importorskip("torch")
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    isc = pytest.importorskip("torch_fidelity.metric_isc")
    new, real, _ = _feature_set(name)
    new_statistics, real_statistics = (
        fid.fid_features_to_statistics(torch.from_numpy(rows)) for rows in (new, real)
    )
    theirs = fid.fid_statistics_to_metric(new_statistics, real_statistics, verbose=False)
    assert frechet_distance(new, real) == pytest.approx(
        theirs["frechet_inception_distance"], rel=1e-5
    )
    logits = torch.from_numpy(new)
    theirs = isc.isc_features_to_metric(logits, splits=7, rng_seed=3)
    ours = inception_score(logits.softmax(dim=1), n_splits=7, random_state=3)
    assert ours == pytest.approx(
        (theirs["inception_score_mean"], theirs["inception_score_std"]), rel=1e-9
    )


@pytest.mark.parametrize("n_neighbors", [4, 5])
def test_too_few_rows_for_the_neighbours_are_refused(n_neighbors):
    message = f"X_new has 4 row.*n_neighbors={n_neighbors}: give at least {n_neighbors + 1}"
    with pytest.raises(ValueError, match=message):
        manifold_scores(np.zeros((4, 2)), np.zeros((9, 2)), n_neighbors=n_neighbors)


def test_counts_below_one_and_of_other_types_are_refused():
    rows = np.eye(4)
    with pytest.raises(ValueError, match="n_neighbors == 0"):
        manifold_scores(rows, rows, n_neighbors=0)
    with pytest.raises(TypeError, match="n_neighbors must be an instance of int"):
        manifold_scores(rows, rows, n_neighbors=2.0)
    with pytest.raises(ValueError, match="n_splits == 0"):
        inception_score(rows, n_splits=0)


def test_distances_to_the_closest_record_are_those_of_all_pairs():
    rng = np.random.RandomState(0)
    new, real = rng.normal(size=(50, 3, 2)), rng.normal(size=(30, 3, 2))
    all_pairs = np.sqrt(((new[:, None] - real[None]) ** 2).sum(axis=(2, 3)))
    np.testing.assert_allclose(distance_to_closest_record(new, real), all_pairs.min(axis=1))


@pytest.mark.parametrize("offset", [1e6, 1e9])
def test_the_closest_record_is_found_far_from_the_origin(offset):
    real = np.random.RandomState(0).normal(size=(100, 8)) + offset
    assert (distance_to_closest_record(real[::-1], real) == 0).all()


def test_distance_sees_a_column_beside_one_on_a_far_larger_scale():
    new, real, _ = _feature_set("columns on other scales")
    assert (distance_to_closest_record(real, real) == 0).all()
    expected = np.sqrt(((new[:, None] - real) ** 2).sum(axis=2)).min(axis=1)
    np.testing.assert_allclose(distance_to_closest_record(new, real), expected, atol=1e-12)


def test_bytes_do_not_wrap_around():
    distances = distance_to_closest_record(np.uint8([[0]]), np.uint8([[255]]))
    assert distances.tolist() == [255.0]


def _score(metric, X_new, X_real, **keywords):
    arguments = (X_new,) if metric is inception_score else (X_new, X_real)
    return metric(*arguments, **keywords)


METRICS = [distance_to_closest_record, frechet_distance, inception_score, manifold_scores]
PAIR_METRICS = [metric for metric in METRICS if metric is not inception_score]


@pytest.mark.parametrize("metric", METRICS)
def test_features_of_any_callable_are_what_is_compared(metric):
    rng = np.random.RandomState(0)
    X = rng.normal(size=(40, 3))
    classifier = LogisticRegression().fit(X, X[:, 0] > 0)
    new, real = rng.normal(size=(30, 3)), rng.normal(size=(20, 3))
    direct = _score(metric, classifier.predict_proba(new), classifier.predict_proba(real))
    through = _score(metric, new, real, features=classifier.predict_proba)
    if metric is distance_to_closest_record:
        direct, through = direct.tolist(), through.tolist()
    assert through == direct


def test_features_take_the_rows_as_they_are():
    words, others = ["a", "bbb", "cc"], ["aaaa", "b"]
    distances = distance_to_closest_record(
        words, others, features=lambda rows: [[len(word)] for word in rows]
    )
    assert distances.tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("metric", METRICS)
def test_features_that_are_no_callable_or_lose_rows_are_refused(metric):
    rows = np.full((12, 2), 0.5)
    with pytest.raises(TypeError, match="features is a LogisticRegression; .* embed"):
        _score(metric, rows, rows, features=LogisticRegression())
    message = r"features\(X_new\) has 11 rows and X_new 12"
    with pytest.raises(ValueError, match=message):
        _score(metric, rows, rows, features=lambda rows: rows[1:])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((0, 2)), r"X_new has shape \(0, 2\)"),
        (np.zeros(4), r"X_new has shape \(4,\); .* reshape\(-1, 1\)"),
        (np.full((4, 2), np.nan), "X_new has NaN or infinite"),
        (np.full((4, 2), 1e155), "largest value of X_new is 1e.155, .* scale"),
        (np.full((4, 2), 1e-170), "largest value of X_new is 1e-170, .* scale"),
        ([["a"], ["b"]], "X_new is no array of numbers .* Encode"),
        (csr_array(np.eye(3)), r"X_new is no array of numbers .* toarray\(\)"),
    ],
)
def test_rows_that_cannot_be_scored_are_named(metric, wrong, message):
    with pytest.raises(ValueError, match=message):
        _score(metric, wrong, np.zeros((4, 2)))


@pytest.mark.parametrize("metric", PAIR_METRICS)
def test_rows_of_another_width_are_refused(metric):
    with pytest.raises(ValueError, match="X_new has 3 features per row and X_real 2"):
        metric(np.zeros((9, 3)), np.zeros((9, 2)))
