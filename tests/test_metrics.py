from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_validate

from sklearn_diffult.metrics import make_shot_scorers, shot_groups, shot_scores


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


@pytest.fixture
def long_tailed_rows():
    rng = np.random.RandomState(0)
    y = np.repeat([0, 1, 2], [60, 24, 9])
    return rng.normal(size=(len(y), 2)) + y[:, None], y


def test_shot_scorers_score_each_fold_as_shot_scores_does(long_tailed_rows):
    X, y = long_tailed_rows
    fold = np.arange(len(y)) % 3
    scores = cross_validate(
        LogisticRegression(),
        X,
        y,
        cv=PredefinedSplit(fold),
        scoring=make_shot_scorers(y, many_more_than=50, few_less_than=10),
    )
    for number in range(3):
        train, test = fold != number, fold == number
        y_pred = LogisticRegression().fit(X[train], y[train]).predict(X[test])
        expected = shot_scores(y[test], y_pred, y, many_more_than=50, few_less_than=10)
        for name, value in vars(expected).items():
            assert scores[f"test_{name}"][number] == pytest.approx(value)


def test_a_group_without_a_class_gets_no_scorer():
    assert sorted(make_shot_scorers([0] * 5 + [1] * 3)) == ["balanced_accuracy", "few"]


def test_a_fold_without_the_classes_of_a_group_scores_nan():
    scorers = make_shot_scorers(["a"] * 200 + ["b"] * 3)
    dummy = DummyClassifier().fit([[0], [0], [0]], ["a", "a", "b"])
    assert scorers["many"](dummy, [[0]], ["a"]) == 1.0
    assert math.isnan(scorers["few"](dummy, [[0]], ["a"]))


def test_shot_scorers_survive_pickling_and_lead_a_search(long_tailed_rows):
    X, y = long_tailed_rows
    scorers = pickle.loads(pickle.dumps(make_shot_scorers(y, 50, 10)))
    search = GridSearchCV(
        LogisticRegression(), {"class_weight": [None, "balanced"]}, scoring=scorers, refit="few"
    ).fit(X, y)
    assert search.best_params_ == {"class_weight": "balanced"}


def test_shot_scorers_refuse_thresholds_that_overlap():
    with pytest.raises(ValueError, match="few_less_than=20 and many_more_than=5 overlap"):
        make_shot_scorers([0, 1], many_more_than=5)
