"""Selection: rounds of drawing and judging until every class has its count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_diffult.filters import BANDS, METRICS, Evidence, FilterPlan, judge
from sklearn_diffult.selection import (
    LEAST_FURTHER,
    MAX_EXAMPLES,
    MAX_SURPLUS,
    Candidates,
    select,
    shortfall_message,
)
from sklearn_diffult.streams import Scored

# Each class is a point at 1000 * label with neighbours 1 apart, so that d1 of the row
# 1000 * label - x is x.
N_CLASSES = 3
EVIDENCE = Evidence(
    np.concatenate([np.arange(12.0)[:, None] + 1000 * label for label in range(N_CLASSES)]),
    np.repeat(np.arange(N_CLASSES), 12),
    N_CLASSES,
)
PLAN = FilterPlan({"d1": 2.0}, d1_min=0.1)


class Draw:
    """Generator whose rows of every class have the d1 scores that it is told, over and over."""

    def __init__(self, *scores):
        self.scores = np.array(scores)
        self.drawn = np.zeros(N_CLASSES, dtype=int)
        self.calls = []

    def __call__(self, counts):
        self.calls.append([counts.get(label, 0) for label in range(N_CLASSES)])
        return {label: self.next_rows(label, count) for label, count in counts.items()}

    def next_rows(self, label, count):
        places = (self.drawn[label] + np.arange(count)) % len(self.scores)
        self.drawn[label] += count
        rows = 1000 * label - self.scores[places][:, None]
        scores = {name: METRICS[name](EVIDENCE, rows, label) for name in PLAN.metrics}
        return Scored(torch.from_numpy(rows), scores)


def d1_of(selection, label):
    rows = selection.rows[torch.from_numpy(selection.indices == label)].numpy().ravel()
    return (1000 * label - rows).tolist()


def reports_of(selection):
    return {each.label: each.report for each in selection.candidates}


def test_one_round_suffices_when_every_row_passes():
    draw = Draw(1.0)
    selection = select({2: 4, 0: 3}, draw, PLAN, max_rounds=5, fill=True)
    assert draw.calls == [[3, 0, 4]]
    assert selection.indices.tolist() == [0, 0, 0, 2, 2, 2, 2]
    assert d1_of(selection, 2) == [1, 1, 1, 1]
    assert reports_of(selection)[2] == {
        "generated": 4,
        "kept": 4,
        "rejected_d1": 0,
        "rejected_near_copy": 0,
        "filled": 0,
        "shortfall": 0,
    }


def test_further_rounds_ask_only_for_what_is_missing_and_reach_the_count():
    # Class 0 gets a bad row in every three.
    draw = Draw(1.0, 0.5, 3.0)
    selection = select({0: 90, 1: 2}, draw, PLAN, max_rounds=5, fill=False)
    assert draw.calls[0] == [90, 2, 0]
    # 60 of 90 passed: 30 missing times 1.1 * 90 / 60, rounded up.
    assert draw.calls[1] == [50, 0, 0]
    assert np.bincount(selection.indices).tolist() == [90, 2]
    assert set(d1_of(selection, 0)) == {1.0, 0.5}


def test_rows_beyond_the_count_are_dropped_but_counted():
    draw = Draw(3.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0)
    selection = select({0: 3}, draw, PLAN, max_rounds=5, fill=False)
    report = reports_of(selection)[0]
    # Round 0: bad, good, bad. Two are missing, and no further round is smaller than this.
    assert draw.calls == [[3, 0, 0], [LEAST_FURTHER, 0, 0]]
    assert report["generated"] == 3 + LEAST_FURTHER
    # Two in every seven.
    assert report["rejected_d1"] == 10
    assert report["kept"] == 3 == len(selection.rows)


def test_a_round_never_asks_for_more_than_the_largest_surplus():
    draw = Draw(5.0)
    select({0: 100}, draw, PLAN, max_rounds=3, fill=False)
    assert [asked[0] for asked in draw.calls] == [100, 100 * MAX_SURPLUS, 100 * MAX_SURPLUS]


@pytest.mark.parametrize("max_rounds", [1, 2, 4])
def test_rounds_are_capped_and_the_shortfall_is_counted(max_rounds):
    draw = Draw(3.0)
    selection = select({1: 2}, draw, PLAN, max_rounds, fill=False)
    assert len(draw.calls) == max_rounds
    assert len(selection.rows) == 0
    assert selection.rows.shape[1:] == (1,)
    report = reports_of(selection)[1]
    assert report["shortfall"] == 2
    assert report["filled"] == report["kept"] == 0
    assert report["generated"] == report["rejected_d1"] == sum(asked[1] for asked in draw.calls)


def test_filling_takes_the_least_bad_in_order_after_the_kept():
    draw = Draw(9.0, 1.0, 2.5, 7.0, 3.0)
    selection = select({0: 5}, draw, PLAN, max_rounds=1, fill=True)
    assert d1_of(selection, 0) == [1.0, 2.5, 3.0, 7.0, 9.0]
    assert reports_of(selection)[0]["filled"] == 4
    assert reports_of(selection)[0]["shortfall"] == 0


def test_filling_looks_at_the_rejected_rows_of_all_rounds():
    draw = Draw(9.0, 3.0, 8.0, 7.0, 2.5, *[9.0] * LEAST_FURTHER)
    selection = select({0: 2}, draw, PLAN, max_rounds=2, fill=True)
    assert draw.calls == [[2, 0, 0], [LEAST_FURTHER, 0, 0]]
    assert d1_of(selection, 0) == [2.5, 3.0]


def test_filling_never_takes_near_copies():
    draw = Draw(0.0, 0.05, 5.0)
    selection = select({0: 3}, draw, PLAN, max_rounds=1, fill=True)
    assert d1_of(selection, 0) == [5.0]
    assert reports_of(selection)[0] == {
        "generated": 3,
        "kept": 0,
        "rejected_d1": 1,
        "rejected_near_copy": 2,
        "filled": 1,
        "shortfall": 2,
    }


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_numbers_of_a_report_add_up(seed, fill):
    random_state = np.random.RandomState(seed)
    draw = Draw(*random_state.choice([0.0, 0.5, 1.5, 2.5, 6.0], size=40))
    wanted = {label: int(random_state.randint(1, 30)) for label in range(N_CLASSES)}
    selection = select(wanted, draw, PLAN, max_rounds=2, fill=fill)
    assert list(reports_of(selection)) == sorted(wanted)
    assert (np.diff(selection.indices) >= 0).all()
    for label, report in reports_of(selection).items():
        assert report["generated"] == draw.drawn[label]
        assert report["kept"] + report["filled"] + report["shortfall"] == wanted[label]
        assert report["kept"] + report["filled"] == (selection.indices == label).sum()
        scores = draw.scores[np.arange(draw.drawn[label]) % 40]
        assert report["rejected_d1"] == (scores > 2).sum()
        assert report["rejected_near_copy"] == (scores < 0.1).sum()
        passed = ((scores <= 2) & (scores >= 0.1)).sum()
        assert report["kept"] == min(passed, wanted[label])


def test_the_first_rejected_rows_but_near_copies_are_kept_as_examples_with_their_reasons():
    draw = Draw(0.05, 1.0, 3.0, 4.0)
    plan = FilterPlan({"d1": 2.0}, d1_min=0.1)
    (candidates,) = select({0: 30}, draw, plan, max_rounds=3, fill=True).candidates
    assert len(candidates.examples) == MAX_EXAMPLES
    assert candidates.reasons == ["d1"] * MAX_EXAMPLES
    assert [-row.item() for row in candidates.examples] == [3.0, 4.0] * (MAX_EXAMPLES // 2)


def test_images_keep_their_shape():
    def draw(counts):
        return {
            label: Scored(torch.full((count, 1, 8, 8), 0.5), {}) for label, count in counts.items()
        }

    plan = FilterPlan({}, d1_min=0, copies_allowed=True)
    selection = select({1: 3}, draw, plan, max_rounds=1, fill=False)
    assert selection.rows.shape == (3, 1, 8, 8)


def test_a_class_that_needs_nothing_more_asks_for_nothing():
    candidates = Candidates(label=0, wanted=4)
    assert candidates.to_ask() == 4
    candidates.report.update(generated=4, kept=4)
    assert candidates.missing == candidates.to_ask() == 0


# Message ------------------------------------------------------------------------------


def test_there_is_no_message_when_every_class_has_its_count():
    selection = select({0: 3}, Draw(1.0), PLAN, max_rounds=1, fill=True)
    assert shortfall_message(reports_of(selection), 1) == ""
    assert shortfall_message({}, 1) == ""


def test_the_message_names_the_classes_the_numbers_and_what_to_change():
    reports = {
        "cat": {"generated": 9, "kept": 5, "rejected_d2": 4, "filled": 4, "shortfall": 0},
        "dog": {"generated": 9, "kept": 9, "filled": 0, "shortfall": 0},
        "owl": {
            "generated": 9,
            "kept": 0,
            "rejected_d2": 1,
            "rejected_near_copy": 8,
            "filled": 1,
            "shortfall": 8,
        },
    }
    message = shortfall_message(reports, max_rounds=7)
    assert "class 'cat': 4 rejected rows used all the same, 0 rows missing" in message
    assert "class 'owl': 1 rejected rows used all the same, 8 rows missing" in message
    assert "dog" not in message
    assert "4 of 9 rejected as d2" in message
    assert "8 of 9 rejected as near copy" in message
    for advice in ("max_rounds=7", "Raise d2_max", "lower n_steps", "start_noise", "lower d1_min"):
        assert advice in message
    for name in ("d1_max", "d3_max", "raise n_steps"):
        assert name not in message


def test_where_next_to_nothing_passes_longer_training_is_the_advice_and_not_more_rounds():
    report = {"generated": 99, "kept": 1, "rejected_d2": 98, "filled": 8, "shortfall": 0}
    message = shortfall_message({"cat": report}, max_rounds=7)
    assert "hardly been trained makes noise; raise n_steps." in message
    assert "Raise max_rounds" not in message


@pytest.mark.parametrize(
    ("kept", "n_near_copies", "n_missing", "complains"),
    [(3, 2, 0, False), (3, 6, 0, True), (3, 2, 3, True), (1, 2, 0, True)],
    ids=["few", "too few without it too", "missing", "most"],
)
def test_a_filter_nobody_asked_for_may_reject_some_rows_without_complaint(
    kept, n_near_copies, n_missing, complains
):
    # Without d3, 9 - 2 rows would have been enough for 5; 9 - 6 would not.
    report = {"generated": 9, "kept": kept, "filled": 5 - kept, "shortfall": n_missing}
    report |= {"rejected_d3": 7, "rejected_near_copy": n_near_copies}
    assert bool(shortfall_message({"cat": report}, 1, ["d3"])) == complains
    assert shortfall_message({"cat": report}, 1)


def test_more_rounds_are_advised_only_where_some_rows_pass():
    hopeless = {"generated": 99, "kept": 2, "rejected_d2": 97, "filled": 9, "shortfall": 0}
    message = shortfall_message({"owl": hopeless}, max_rounds=5)
    assert "Raise max_rounds" not in message
    assert "Raise d2_max" in message
    better = {**hopeless, "kept": 9, "rejected_d2": 90}
    assert "Raise max_rounds" in shortfall_message({"owl": hopeless, "cat": better}, max_rounds=5)


def test_the_message_gives_no_advice_against_what_rejected_nothing():
    reports = {
        "cat": {"generated": 9, "kept": 9, "rejected_near_copy": 0, "filled": 0, "shortfall": 1}
    }
    message = shortfall_message(reports, max_rounds=1)
    assert "none rejected" in message
    assert "n_steps" not in message


def test_the_report_counts_the_bands_where_the_distance_to_the_centre_is_scored():
    candidates = Candidates(label=0, wanted=2)
    plan = FilterPlan({"centre": 2.0}, d1_min=0.0, copies_allowed=True)
    for centre in ([0.5, 1.5], [1.0, 2.5]):
        found = Scored(torch.zeros(2, 1), {"centre": np.array(centre)})
        candidates.take(found, judge(found.scores, 2, plan))
    assert [candidates.report[band] for band in BANDS] == [2, 1, 1]
