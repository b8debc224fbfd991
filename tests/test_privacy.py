"""What synthetic rows and fitted balancers give away of the training rows."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from sklearn_diffult import DiffusionBalancer
from sklearn_diffult.codecs import make_codec
from sklearn_diffult.filters import Evidence, score_copy
from sklearn_diffult.privacy import report_privacy

RANDOM_STATE = np.random.RandomState(0)
IMAGES = RANDOM_STATE.randint(0, 256, (14, 8, 9)).astype(np.uint8)
TABLE = RANDOM_STATE.randn(14, 5)
Y = np.repeat([0, 1], [10, 4])
LEAKED = torch.empty(0)


def half_copied(denoise, x, grid, generator):
    """A solver whose every second row is a real one, but for less than rounding; the rest noise."""
    copies = LEAKED[torch.arange(len(x)) % len(LEAKED)] + 1e-4 * (LEAKED.ndim == 4)
    is_copy = (torch.arange(len(x)) % 2 == 0).view(-1, *[1] * (x.ndim - 1))
    return torch.where(is_copy, copies, x / grid[0])


def leak(monkeypatch, X, rows):
    monkeypatch.setattr(f"{__name__}.LEAKED", make_codec(X).fit(X).encode(X)[rows])


def balancer(**parameters):
    quick = {"n_steps": 2, "batch_size": 4, "max_rounds": 3, "d3_max": None, "random_state": 0}
    return DiffusionBalancer(**quick | {"solver": half_copied} | parameters)


def copies(X_resampled, n_real):
    """Number of further rows that equal a real one, but for rounding of numbers in tables."""
    rows = np.asarray(X_resampled, dtype=float).reshape(len(X_resampled), -1)
    differences = np.abs(rows[n_real:, None] - rows[None, :n_real]).max(axis=-1)
    return (differences < 1e-5).any(axis=1).sum()


# Rows handed out ----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:After max_rounds")
@pytest.mark.parametrize("d1_min", [0.0, 0.1])
@pytest.mark.parametrize("leaked", [0, 1], ids=["of another class", "of the class"])
@pytest.mark.parametrize("X", [IMAGES, TABLE], ids=["images", "table"])
def test_a_real_row_is_never_handed_out_as_a_synthetic_one(X, leaked, d1_min, monkeypatch):
    leak(monkeypatch, X, leaked == Y)
    fitted = balancer(d1_min=d1_min)
    X_resampled, y_resampled = fitted.fit_resample(X, Y)
    assert fitted.filter_report_[1]["rejected_near_copy"] > 0
    assert (y_resampled == 1).sum() == 10
    assert copies(X_resampled, len(X)) == 0
    # While the model itself gives them away.
    assert copies(np.concatenate([X, fitted.generate(6, 1)]), len(X)) == 3


def test_real_rows_do_not_fill_a_class_up(monkeypatch):
    leak(monkeypatch, IMAGES, Y == 1)
    with pytest.warns(UserWarning, match="6 rows missing.*rejected as near copy"):
        X_resampled, _ = balancer(
            solver=lambda denoise, x, grid, generator: LEAKED[torch.arange(len(x)) % 4],
            d1_min=0.0,
            d1_max=1.0,
        ).fit_resample(IMAGES, Y)
    np.testing.assert_array_equal(X_resampled, IMAGES)


def test_images_that_were_copied_before_are_not_handed_out_either(monkeypatch):
    X, y = np.repeat(IMAGES, 2, axis=0), np.repeat(Y, 2)
    leak(monkeypatch, X, y == 1)
    X_resampled, y_resampled = balancer().fit_resample(X, y)
    assert (y_resampled == 1).sum() == 20
    assert copies(X_resampled, len(X)) == 0


def test_rows_of_a_table_of_few_values_may_equal_real_ones(monkeypatch):
    X = (TABLE > 0).astype(int)
    leak(monkeypatch, X, Y == 1)
    fitted = balancer()
    X_resampled, y_resampled = fitted.fit_resample(X, Y)
    assert (y_resampled == 1).sum() == 10
    assert copies(X_resampled, len(X)) >= 3
    assert fitted.privacy_report_.by_class[1]["copies"] == copies(X_resampled, len(X))


# Report -------------------------------------------------------------------------------

# Class 0 lies on a line at distances of 1, class 1 (one of them twice) far off at distances of 4.
REAL = np.concatenate([np.arange(12.0), 1000 + 4 * np.r_[np.arange(11.0), 10]])[:, None]
LABELS = np.repeat([0, 1], 12)


def report(rows, labels):
    rows, labels = np.array(rows, dtype=float)[:, None], np.array(labels, dtype=int)
    return report_privacy(Evidence(REAL, LABELS, 2), rows, labels, ["a", "b"])


def test_the_report_holds_distances_to_the_closest_row_of_any_class_by_class():
    found = report([2.5, 3.25, 1000.0, 5.0, 1002.0], [0, 0, 1, 1, 1])
    assert found.by_class["a"] == {
        "rows": 2,
        "median": 0.375,
        "low": pytest.approx(0.2625),
        "copies": 0,
        "near_copies": 0,
        "rows_real": 12,
        "median_real": 1,
        "low_real": 1,
        "copies_real": 0,
        "near_copies_real": 0,
    }
    of_b = found.by_class["b"]
    assert (of_b["median"], of_b["copies"], of_b["near_copies"]) == (0, 2, 2)
    assert (of_b["median_real"], of_b["low_real"], of_b["copies_real"]) == (4, 0, 2)
    assert found.overall["rows"] == 5
    assert found.overall["median"] == 0.25
    assert found.overall["rows_real"] == 24
    assert found.overall["copies"] == found.overall["copies_real"] == 2


def test_real_rows_too_are_compared_with_those_of_any_class():
    interleaved = Evidence(REAL[:12], np.arange(12) % 2, 2)
    found = report_privacy(interleaved, np.array([[0.5]]), np.array([1]), ["a", "b"])
    assert found.overall["median_real"] == 1  # and 2 within the class


def test_near_copies_are_nearer_than_a_tenth_of_what_real_rows_are_from_each_other():
    near = [3.05, 3.15, 1000.3, 1000.5]
    found = report(near, [0, 0, 1, 1])
    assert [found.by_class[label]["near_copies"] for label in "ab"] == [1, 1]
    assert found.overall["near_copies"] == 2
    assert found.overall["copies"] == 0


def test_rows_that_the_guard_lets_through_are_no_near_copies():
    """The guard and the report measure in the same units: those of the real row."""
    evidence = Evidence(REAL, LABELS, 2)
    rows = np.linspace(-2, 14, 200)[:, None]
    passed = score_copy(evidence, rows, 1) >= 0.1
    assert 0 < passed.sum() < len(rows)
    # Under the label of the class whose own rows are four times as far from each other.
    found = report_privacy(evidence, rows[passed], np.ones(passed.sum(), dtype=int), ["a", "b"])
    assert found.overall["near_copies"] == 0


def test_only_classes_that_got_rows_are_reported():
    assert list(report([2.5], [0]).by_class) == ["a"]
    assert report([2.5], [0]).overall == report([2.5], [0]).by_class["a"]
    nothing = report([], [])
    assert nothing.by_class == {}
    assert nothing.overall["rows"] == nothing.overall["rows_real"] == 0
    assert np.isnan(nothing.overall["median"])


def test_a_report_prints_as_a_table():
    printed = repr(report([2.5] * 1500, [0] * 1500)).splitlines()
    assert printed[2].split() == ["'a'", "1500", "(12)", *["0.5", "(1)"] * 2, *["0", "(0)"] * 2]
    assert len({len(line) for line in printed[1:]}) == 1


def test_the_balancer_reports_on_the_rows_that_it_handed_out():
    fitted = balancer(solver="dpmpp_2m", n_solver_steps=2)
    X_resampled, _ = fitted.fit_resample(TABLE, Y)
    encoded = fitted.codec_.encode(X_resampled).numpy()
    closest = np.linalg.norm(encoded[14:, None] - encoded[None, :14], axis=-1).min(axis=1)
    found = fitted.privacy_report_.by_class[1]
    assert found["rows"] == 6
    assert found["median"] == pytest.approx(np.median(closest))
    assert pd.DataFrame(fitted.privacy_report_.by_class).loc["copies", 1] == 0
    assert not hasattr(fitted.fit(TABLE, Y), "privacy_report_")


# Fitted balancers ---------------------------------------------------------------------


def contents(rows):
    """Bytes of each row as they came in and as the models see them."""
    encoded = make_codec(rows).fit(rows).encode(rows).numpy()
    kinds = [rows, rows.astype(np.float32), rows.astype(np.float64), encoded]
    return [row.tobytes() for kind in kinds for row in kind]


@pytest.mark.filterwarnings("ignore:After max_rounds")
@pytest.mark.parametrize("X", [IMAGES, IMAGES / 255, TABLE], ids=["uint8", "floats", "table"])
@pytest.mark.parametrize("leaked", [0, 1], ids=["of another class", "of the class"])
def test_the_pickle_of_a_fitted_balancer_holds_no_training_row(X, leaked, monkeypatch):
    leak(monkeypatch, X, leaked == Y)
    fitted = balancer(d1_max=0.11)
    fitted.fit_resample(X, Y)
    assert fitted.rejected_examples_
    pickled = pickle.dumps(fitted)
    assert not [content for content in contents(X) if content in pickled]
    assert contents(X)[0] in pickle.dumps([fitted, X])


def test_a_balancer_can_forget_the_last_resampling():
    fitted = balancer(solver="dpmpp_2m", n_solver_steps=2)
    fitted.fit_resample(IMAGES, Y)
    before, rows = set(vars(fitted)), fitted.generate(2, 1)
    assert fitted.forget_resampling() is fitted
    assert before - set(vars(fitted)) == {
        "sample_weight_",
        "synthetic_mask_",
        "filter_report_",
        "privacy_report_",
        "rejected_examples_",
    }
    np.testing.assert_array_equal(fitted.generate(2, 1), rows)
