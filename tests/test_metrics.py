from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from sklearn_diffult import metrics
from sklearn_diffult.metrics import (
    distance_to_closest_record,
    frechet_distance,
    shot_groups,
    shot_scores,
)


def test_the_thresholds_themselves_are_medium():
    y_train = np.repeat(["a", "b", "c", "d"], [101, 100, 20, 19])
    groups = {name: labels.tolist() for name, labels in shot_groups(y_train).items()}
    assert groups == {"many": ["a"], "medium": ["b", "c"], "few": ["d"]}


def test_thresholds_that_overlap_are_refused_and_those_that_touch_are_not():
    y_train = [0] * 10 + [1] * 5
    groups = shot_groups(y_train, many_more_than=5, few_less_than=6)
    assert groups["medium"].size == 0
    with pytest.raises(ValueError, match="few_less_than=7 and many_more_than=5 overlap"):
        shot_groups(y_train, many_more_than=5, few_less_than=7)


def test_shot_scores_are_mean_recalls_of_the_groups():
    y_train = np.repeat([0, 1, 2, 3], [200, 150, 50, 5])
    y_true = np.repeat([0, 1, 2, 3], [2, 4, 5, 8])
    y_pred = np.array([0, 9] + [1, 9, 9, 9] + [2, 2, 9, 9, 9] + [3] * 8)
    scores = shot_scores(y_true, y_pred, y_train)
    assert scores.many == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert scores.medium == pytest.approx(2 / 5)
    assert scores.few == 1.0
    assert scores.balanced_accuracy == pytest.approx((1 / 2 + 1 / 4 + 2 / 5 + 1) / 4)


def test_balanced_accuracy_is_that_of_scikit_learn():
    rng = np.random.RandomState(0)
    y_true = np.append(np.arange(5), rng.randint(0, 5, 40))
    y_pred = rng.randint(0, 5, 45)
    scores = shot_scores(y_true, y_pred, y_train=y_true)
    assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(y_true, y_pred))


def test_an_empty_group_scores_nan():
    scores = shot_scores([0, 1], [0, 1], [0, 1])
    assert math.isnan(scores.many)
    assert math.isnan(scores.medium)
    assert scores.few == 1.0


def test_a_class_without_training_rows_is_few_shot():
    assert shot_scores(["a", "new"], ["a", "a"], ["a"] * 101).few == 0.0


@pytest.mark.parametrize(
    ("y_true", "y_pred", "y_train", "message"),
    [
        ([0, 1], [0], [0, 1], "y_true has 2 rows and y_pred 1"),
        ([[0, 1]], [0], [0, 1], r"y_true has shape \(1, 2\)"),
        ([0, 1], [0, 1], [], r"y_train has shape \(0,\)"),
    ],
)
def test_labels_of_a_wrong_shape_are_named(y_true, y_pred, y_train, message):
    with pytest.raises(ValueError, match=message):
        shot_scores(y_true, y_pred, y_train)


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


def test_distances_to_the_closest_record_are_those_of_all_pairs(monkeypatch):
    monkeypatch.setattr(metrics, "_CHUNK_SIZE", 64)
    rng = np.random.RandomState(0)
    new, real = rng.normal(size=(50, 3, 2)), rng.normal(size=(30, 3, 2))
    all_pairs = np.sqrt(((new[:, None] - real[None]) ** 2).sum(axis=(2, 3)))
    np.testing.assert_allclose(distance_to_closest_record(new, real), all_pairs.min(axis=1))


def test_a_copy_far_from_the_origin_is_at_distance_zero():
    real = np.random.RandomState(0).normal(size=(100, 8)) + 1e6
    assert (distance_to_closest_record(real[::-1], real) == 0).all()


def test_bytes_do_not_wrap_around():
    distances = distance_to_closest_record(np.uint8([[0]]), np.uint8([[255]]))
    assert distances.tolist() == [255.0]


@pytest.mark.parametrize("metric", [frechet_distance, distance_to_closest_record])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((0, 2)), "has shape"),
        (np.zeros(4), r"reshape\(-1, 1\)"),
        (np.full((4, 2), np.nan), "NaN or infinite"),
        (np.zeros((4, 3)), "3 features per row"),
    ],
)
def test_rows_that_cannot_be_compared_are_named(metric, wrong, message):
    with pytest.raises(ValueError, match=message):
        metric(wrong, np.zeros((4, 2)))


def test_one_row_has_no_covariance():
    with pytest.raises(ValueError, match=r"features_b has shape \(1, 2\); .* at least 2 row"):
        frechet_distance(np.zeros((4, 2)), np.zeros((1, 2)))
