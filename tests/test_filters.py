"""Filters: scores on hand-made rows whose distances are known, and the decisions they lead to."""

from __future__ import annotations

import numpy as np
import pytest

from sklearn_diffult._nearest import nearest_in_units
from sklearn_diffult.filters import (
    METRICS,
    MIN_ROWS_FOR_OWN_SCALE,
    Evidence,
    FilterPlan,
    Witness,
    bands,
    class_scales,
    judge,
    leave_one_out_distances,
    nearest_distances,
    score_centre,
    score_copy,
    score_d1,
    score_d2,
    score_d3,
)

# Classes 0 and 1 lie on lines, 1 and 4 apart; class 2 has one row. All far from each other.
LINE = np.column_stack([np.arange(12.0), np.zeros(12)])
ROWS = np.concatenate([LINE, 4 * LINE + [0, 1000], [[0.0, -1000.0]]])
LABELS = np.repeat([0, 1, 2], [12, 12, 1])


def evidence(rows=ROWS, labels=LABELS, **opinions):
    return Evidence(rows, labels, int(labels.max()) + 1, **opinions)


def halves(rows, labels):
    """Every other row of a class by size of its values, and the others; single rows in both."""
    first = np.zeros(len(rows), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        first[members[np.argsort(rows[members].sum(axis=1))[::2]]] = True
    alone = np.bincount(labels)[labels] == 1
    return first | alone, ~first | alone


def opinionated(rows=ROWS, labels=LABELS):
    """Evidence for every metric, from opinions that are plain functions of the row."""

    def embed(rows):
        return np.tanh(rows / 100)

    return evidence(
        rows,
        labels,
        embed=embed,
        witnesses=tuple(Witness(embed, unseen) for unseen in halves(rows, labels)),
        surprise=lambda rows, label: np.abs(rows).sum(axis=1) / 100 + label,
        held_out_surprise=lambda: np.abs(rows).sum(axis=1) / 50 + 0.1,
    )


def judged(looked_at, rows, label, plan):
    """Score rows and decide: the scores, and the verdict on them."""
    scores = {name: METRICS[name](looked_at, rows, label) for name in plan.metrics}
    return scores, judge(scores, len(rows), plan)


# Distances and scales -----------------------------------------------------------------


def test_nearest_distances_are_euclidean():
    rows = np.array([[3.0, 4.0], [9.0, 0.0]])
    np.testing.assert_allclose(nearest_distances(rows, np.array([[0.0, 0.0], [9.0, 2.0]])), [5, 2])


def test_equal_rows_are_at_distance_zero_in_many_dimensions():
    rows = np.random.RandomState(0).randn(20, 300).astype(np.float32)
    twins = np.repeat(rows, 2, axis=0)
    assert (nearest_distances(rows, rows) == 0).all()
    assert (leave_one_out_distances(twins, np.zeros(40, dtype=int)) == 0).all()


def test_leaving_one_out_looks_only_at_the_own_class():
    rows = np.array([[0.0], [0.1], [5.0], [5.1], [9.0]])
    distances = leave_one_out_distances(rows, np.array([0, 1, 0, 1, 2]))
    np.testing.assert_allclose(distances[:4], 5)
    assert np.isnan(distances[4])


def test_each_class_with_enough_rows_has_the_median_of_its_own():
    values = np.array([1.0] * 9 + [99.0] + [3.0] * 10)
    np.testing.assert_array_equal(class_scales(values, np.repeat([0, 1], 10), 2), [1, 3])


def test_classes_with_few_rows_share_the_pooled_scale():
    few = MIN_ROWS_FOR_OWN_SCALE - 1
    values = np.concatenate([np.full(30, 2.0), np.full(few, 7.0), [np.nan]])
    labels = np.repeat([0, 1, 2], [30, few, 1])
    np.testing.assert_array_equal(class_scales(values, labels, 3), 2)


def test_a_scale_is_never_zero():
    labels = np.repeat([0, 1], [20, 20])
    # The median is 0 in class 0 and over both; two positive values remain.
    values = np.array([0.0] * 20 + [0.0] * 18 + [2.0, 4.0])
    np.testing.assert_array_equal(class_scales(values, labels, 2), 3)
    np.testing.assert_array_equal(class_scales(np.zeros(40), labels, 2), 1)
    np.testing.assert_array_equal(class_scales(np.full(40, np.nan), labels, 2), 1)


# Scores -------------------------------------------------------------------------------


def test_d1_of_rows_beside_a_line_is_their_distance_in_units_of_its_spacing():
    rows = np.array([[3.0, 0.0], [3.5, 0.0], [4.0, 2.0], [15.0, 4.0], [0.0, 1000.0]])
    np.testing.assert_allclose(score_d1(evidence(), rows, 0), [0, 0.5, 2, np.hypot(4, 4), 1000])
    beside_the_wider_line = rows + [0, 1000]
    np.testing.assert_allclose(
        score_d1(evidence(), beside_the_wider_line, 1)[:4],
        np.array([1, 0.5, 2, np.hypot(1, 4)]) / 4,
    )


def test_d1_of_a_class_with_one_row_uses_the_scale_of_all_classes():
    # Spacings of the 24 rows on lines are 1 and 4, half each: median 2.5.
    np.testing.assert_allclose(score_d1(evidence(), np.array([[0.0, -995.0]]), 2), 5 / 2.5)


def test_d1_needs_no_two_rows_in_any_class():
    rows = np.array([[0.0], [10.0]])
    np.testing.assert_array_equal(score_d1(evidence(rows, np.array([0, 1])), rows, 1), [10, 0])


def test_d2_is_d1_among_features_of_unseen_rows_in_the_mean_over_witnesses():
    # The last two rows of either line; the median neighbours of both are ten times farther.
    known = np.isin(np.arange(len(ROWS)), [10, 11, 22, 23])
    looked_at = evidence(
        witnesses=(
            Witness(lambda rows: rows, np.ones(len(ROWS), dtype=bool)),
            Witness(lambda rows: 10 * rows, ~known),
        )
    )
    rows = np.array([[3.0, 0.0], [-5.0, 0.0], [11.0, 0.0]])
    expected = (np.array([0, 5, 0]) + np.array([0, 50, 20]) / 10) / 2
    np.testing.assert_allclose(score_d2(looked_at, rows, 0), expected)
    np.testing.assert_allclose(score_d2(looked_at, rows + [0, 1000], 1), [1 / 4, 5 / 4, 1 / 4])


def test_a_witness_that_draws_the_rows_it_knows_together_finds_unseen_rows_no_farther():
    random_state = np.random.RandomState(0)
    rows, labels = random_state.randn(400, 5), np.zeros(400, dtype=int)
    unseen = np.arange(400) % 2 == 0
    known = {row.tobytes() for row in rows[~unseen]}

    def embed(rows):
        return np.array([0 * row if row.tobytes() in known else row for row in rows])

    scores = score_d2(
        evidence(rows, labels, witnesses=(Witness(embed, unseen),)), random_state.randn(400, 5), 0
    )
    assert np.median(scores) == pytest.approx(1, abs=0.1)


def test_d2_has_a_scale_of_its_own_for_a_class_of_which_each_witness_lacks_a_few_rows():
    random_state = np.random.RandomState(0)
    labels = np.repeat([0, 1], [400, 12])
    spread = np.where(labels == 0, 1.0, 0.1)[:, None]
    looked_at = opinionated(random_state.randn(412, 5) * spread, labels)
    scores = score_d2(looked_at, 0.1 * random_state.randn(400, 5), 1)
    assert np.median(scores) == pytest.approx(1, abs=0.3)


def test_centre_is_the_distance_to_the_class_s_mean_in_units_of_its_diameter():
    looked_at = evidence(embed=lambda rows: rows)
    # Both lines have their mean half-way; the first is 11 long, the second 44.
    rows = np.array([[5.5, 0.0], [16.5, 0.0], [5.5, 22.0]])
    np.testing.assert_allclose(score_centre(looked_at, rows, 0), [0, 1, 2])
    np.testing.assert_allclose(score_centre(looked_at, [[22.0, 1044.0]], 1), 1)
    # A class of one row has no diameter: the largest of the others stands in.
    np.testing.assert_allclose(score_centre(looked_at, [[0.0, -956.0]], 2), 1)


def test_bands_are_closed_above():
    assert bands([0, 1, 1.01, 2, 2.01]).tolist() == ["ID", "ID", "AID", "AID", "OOD"]


def test_d3_is_surprise_in_units_of_the_mean_surprise_of_unseen_real_rows():
    held_out = np.concatenate([np.arange(12.0), np.full(12, 0.25), [np.nan]])
    looked_at = evidence(
        surprise=lambda rows, label: rows[:, 0] + label, held_out_surprise=lambda: held_out
    )
    rows = np.array([[11.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(score_d3(looked_at, rows, 0), [2, 0])
    np.testing.assert_allclose(score_d3(looked_at, rows, 1), [12 / 0.25, 1 / 0.25])
    # One row, and the classifier saw it: the mean over all classes.
    pooled = (66 + 3) / 24
    np.testing.assert_allclose(score_d3(looked_at, rows, 2), [13 / pooled, 2 / pooled])


def test_in_a_class_that_surprises_nobody_d3_rejects_only_what_is_surprising():
    looked_at = evidence(
        surprise=lambda rows, label: rows[:, 0], held_out_surprise=lambda: np.full(25, 1e-5)
    )
    rows = np.array([[2e-5, 0.0], [0.009, 0.0], [0.5, 0.0]])
    np.testing.assert_allclose(score_d3(looked_at, rows, 0), [2e-3, 0.9, 50])


@pytest.mark.parametrize("name", [name for name in METRICS if name not in ("d1", "copy")])
def test_a_metric_without_its_classifier_says_so(name):
    with pytest.raises(ValueError, match=f"{name} needs (a )?classifier"):
        METRICS[name](evidence(), ROWS[:2], 0)


# Every metric of the table ------------------------------------------------------------


def gaussian_evidence(n_values=20):
    random_state = np.random.RandomState(0)
    labels = np.repeat([0, 1, 2], [40, 12, 3])
    return opinionated(random_state.randn(55, n_values), labels), random_state.randn(30, n_values)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("label", [0, 1, 2])
def test_scores_are_finite_and_non_negative_one_per_row(name, label):
    looked_at, rows = gaussian_evidence()
    scores = METRICS[name](looked_at, rows, label)
    assert scores.shape == (30,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()


@pytest.mark.parametrize("name", METRICS)
def test_permuting_rows_permutes_scores(name):
    looked_at, rows = gaussian_evidence()
    order = np.random.RandomState(1).permutation(30)
    scores = METRICS[name](looked_at, rows, 1)
    np.testing.assert_array_equal(METRICS[name](looked_at, rows[order], 1), scores[order])


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_real_rows_does_not_matter(name):
    looked_at, rows = gaussian_evidence()
    order = np.random.RandomState(1).permutation(55)
    shuffled = opinionated(looked_at.rows[order], looked_at.labels[order])
    for label in range(3):
        np.testing.assert_allclose(
            METRICS[name](shuffled, rows, label),
            METRICS[name](looked_at, rows, label),
            rtol=1e-12,
        )


@pytest.mark.parametrize("name", METRICS)
def test_a_score_does_not_depend_on_the_rows_beside_it(name):
    looked_at, rows = gaussian_evidence()
    alone = [METRICS[name](looked_at, rows[i : i + 1], 0)[0] for i in range(30)]
    np.testing.assert_allclose(METRICS[name](looked_at, rows, 0), alone, rtol=1e-12)


@pytest.mark.parametrize(
    ("maxima", "d1_min", "metrics"),
    [({}, 0.0, ["copy"]), ({}, 0.1, ["copy"]), ({"d3": 1.0, "d2": 1.0}, 0.1, ["copy", "d2", "d3"])],
)
def test_a_plan_asks_for_the_scores_that_decide(maxima, d1_min, metrics):
    assert FilterPlan(maxima, d1_min).metrics == metrics
    assert FilterPlan(maxima, d1_min, copies_allowed=True).metrics == sorted(maxima)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_unit_of_the_data_does_not_change_d1(factor):
    looked_at, rows = gaussian_evidence()
    scaled = evidence(factor * looked_at.rows, looked_at.labels)
    for label in range(3):
        np.testing.assert_allclose(
            score_d1(scaled, factor * rows, label), score_d1(looked_at, rows, label)
        )


def test_real_rows_have_a_d1_of_zero():
    looked_at, _ = gaussian_evidence(n_values=200)
    own = looked_at.rows[looked_at.labels == 1]
    np.testing.assert_allclose(score_d1(looked_at, own, 1), 0, atol=1e-12)


@pytest.mark.parametrize("name", ["d1", "d2"])
def test_unseen_real_rows_score_about_one(name):
    random_state = np.random.RandomState(0)
    looked_at = opinionated(random_state.randn(400, 10), np.zeros(400, dtype=int))
    scores = METRICS[name](looked_at, random_state.randn(400, 10), 0)
    assert np.median(scores) == pytest.approx(1, abs=0.05)


# Decisions ----------------------------------------------------------------------------

# d1 scores 0, 0.05, 0.5, 1, 2 and 4.
BESIDE_THE_LINE = np.array([[3.0, 0], [3.0, 0.05], [3.5, 0], [3.0, 1], [3.0, 2], [3.0, 4]])


def test_rows_up_to_the_maximum_are_kept_and_badness_is_score_over_maximum():
    scores, verdict = judged(evidence(), BESIDE_THE_LINE, 0, FilterPlan({"d1": 2.0}, d1_min=0))
    np.testing.assert_allclose(scores["d1"], [0, 0.05, 0.5, 1, 2, 4])
    np.testing.assert_allclose(verdict.badness, [np.inf, 0.025, 0.25, 0.5, 1, 2])
    assert verdict.failed["d1"].tolist() == [False] * 5 + [True]
    assert verdict.kept.tolist() == [False] + [True] * 4 + [False]
    assert set(verdict.failed) == {"d1", "near_copy"}


@pytest.mark.parametrize("maxima", [{}, {"d1": 2.0}])
def test_near_copies_are_refused_for_good_whether_d1_is_on_or_off(maxima):
    _, verdict = judged(evidence(), BESIDE_THE_LINE, 0, FilterPlan(maxima, d1_min=0.1))
    assert verdict.failed["near_copy"].tolist() == [True, True, False, False, False, False]
    assert (verdict.badness[:2] == np.inf).all()
    assert np.isfinite(verdict.badness[2:]).all()
    assert verdict.kept.tolist() == [False, False, True, True, True, not maxima]


@pytest.mark.parametrize("d1_min", [0.0, 0.1])
def test_near_copies_of_another_classes_rows_are_refused_too(d1_min):
    _, verdict = judged(evidence(), BESIDE_THE_LINE, 1, FilterPlan({}, d1_min=d1_min))
    assert verdict.failed["near_copy"].tolist() == [True, d1_min > 0] + [False] * 4


def test_how_near_is_too_near_is_in_units_of_the_class_of_the_real_row():
    # Beside class 1, whose rows are 4 apart: 0.3 is near there, and would not be beside class 0.
    rows = np.array([[4.0, 1000.3], [3.0, 0.3]])
    np.testing.assert_allclose(score_copy(evidence(), rows, 0), [0.3 / 4, 0.3])


def test_with_everything_off_every_row_is_kept():
    plan = FilterPlan({}, d1_min=0, copies_allowed=True)
    scores, verdict = judged(evidence(), BESIDE_THE_LINE, 0, plan)
    assert verdict.kept.all()
    assert scores == {}
    assert verdict.failed == {}


def test_copies_are_let_through_where_the_real_row_has_a_twin():
    few_twins = np.concatenate([LINE, LINE[:2], 4 * LINE + [0, 1000]])
    looked_at = evidence(few_twins, np.repeat([0, 1], [14, 12]))
    kept = judged(looked_at, LINE, 0, FilterPlan({}, d1_min=0.1))[1].kept
    assert kept.tolist() == [True] * 2 + [False] * 10
    assert not judged(looked_at, 4 * LINE + [0, 1000], 1, FilterPlan({}, d1_min=0.1))[1].kept.any()


def test_a_twin_of_another_class_is_one_too():
    shared = evidence(np.concatenate([LINE, LINE[:3]]), np.repeat([0, 1], [12, 3]))
    assert judged(shared, LINE, 0, FilterPlan({}, d1_min=0.1))[1].kept.sum() == 3


@pytest.mark.parametrize("d1_min", [0.0, 0.1])
def test_copies_of_images_are_refused_even_where_most_have_a_twin(d1_min):
    rows = np.repeat(np.random.RandomState(0).rand(10, 784).astype(np.float32), 2, axis=0)
    plan = FilterPlan({}, d1_min)
    in_a_table = evidence(rows, np.zeros(20, dtype=int))
    assert judged(in_a_table, rows, 0, plan)[1].kept.all()
    images = evidence(rows, np.zeros(20, dtype=int), twins_are_harmless=False)
    assert not judged(images, rows, 0, plan)[1].kept.any()


def test_the_worst_metric_decides():
    looked_at = opinionated()
    plan = FilterPlan({"d1": 1.0, "d3": 0.02}, d1_min=0, copies_allowed=True)
    scores, verdict = judged(looked_at, BESIDE_THE_LINE, 0, plan)
    expected = np.maximum(scores["d1"], scores["d3"] / 0.02)
    np.testing.assert_allclose(verdict.badness, expected)
    np.testing.assert_array_equal(verdict.kept, ~(verdict.failed["d1"] | verdict.failed["d3"]))
    # Neither metric alone leads to this verdict.
    assert (verdict.failed["d1"] != verdict.failed["d3"]).any()


def test_a_copy_of_the_only_row_of_a_class_is_a_near_copy():
    rows = ROWS[-1:] + [[0.0, 0.0], [0.0, 0.2], [0.0, 3.0]]
    _, verdict = judged(evidence(), rows, 2, FilterPlan({"d1": 2.0}, d1_min=0.1))
    assert verdict.kept.tolist() == [False, False, True]


def test_features_of_real_rows_are_computed_once():
    calls = []

    def embed(rows):
        calls.append(len(rows))
        return rows

    looked_at = evidence(embed=embed)
    for _ in range(3):
        score_centre(looked_at, LINE[:2], 0)
    assert calls.count(len(ROWS)) == 1


def test_the_nearest_in_units_is_the_same_by_search_and_by_all_pairs(monkeypatch):
    random = np.random.RandomState(0)
    rows, references = random.normal(size=(50, 3)), random.normal(size=(400, 3))
    rows[7], units = references[11], random.randint(1, 5, size=400).astype(float)
    found = []
    for products in (0, np.inf):
        monkeypatch.setattr("sklearn_diffult._nearest.SEARCH", products)
        found.append(nearest_in_units(rows, references, units))
    expected = (np.linalg.norm(rows[:, None] - references, axis=2) / units).min(axis=1)
    np.testing.assert_allclose(found, [expected, expected], atol=1e-12)
    assert found[0][7] == found[1][7] == 0
