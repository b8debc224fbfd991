"""Displays show the rows they are given, where the caption says."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

from sklearn_diffult import DiffusionBalancer, Pipeline
from sklearn_diffult.codecs import ImageCodec, TableCodec
from sklearn_diffult.metrics import make_shot_scorers
from sklearn_diffult.plotting import FilterDisplay, SearchDisplay, SyntheticDisplay

mpl.use("agg")
RANDOM_STATE = np.random.RandomState(0)
# Six real rows, then four synthetic ones of class 1.
X = RANDOM_STATE.randint(0, 256, size=(10, 8, 9)).astype(np.uint8)
Y = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
SYNTHETIC = np.arange(10) >= 6


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def shown(ax):
    return [np.asarray(image.get_array()) for image in ax.get_images()]


def test_real_rows_are_drawn_left_of_synthetic_rows():
    display = SyntheticDisplay.from_resampled(X, Y, SYNTHETIC).plot()
    assert list(display.real) == [1]
    axes = display.figure_.axes
    columns = [index for index, ax in enumerate(axes) if ax.get_images()]
    assert columns == [0, 1, 5, 6, 7, 8]
    assert np.allclose(shown(axes[0])[0], X[4] / 255, atol=1e-6)
    assert np.allclose(shown(axes[5])[0], X[6] / 255, atol=1e-6)


def test_flat_rows_and_colour_images_can_be_drawn():
    flat = SyntheticDisplay.from_resampled(
        X.reshape(10, -1), Y, SYNTHETIC, image_shape=(8, 9), n_columns=2, labels=[0, 1]
    )
    assert {label: len(rows) for label, rows in flat.real.items()} == {0: 2, 1: 2}
    assert len(flat.plot().figure_.axes) == 2 * 5
    colour = np.repeat(X[..., None], 3, axis=-1)
    display = SyntheticDisplay.from_resampled(colour, Y, SYNTHETIC).plot()
    assert shown(display.figure_.axes[0])[0].shape == (8, 9, 3)


def balancer_that_rejected(examples, kept=4):
    balancer = DiffusionBalancer()
    balancer.codec_ = ImageCodec().fit(X)
    balancer.synthetic_mask_ = SYNTHETIC
    balancer.filter_report_ = {1: {"generated": 5, "kept": kept}}
    balancer.rejected_examples_ = examples
    return balancer


def test_rejected_rows_carry_their_reasons():
    balancer = balancer_that_rejected({1: (X[:2], ["d2", "d1 near_copy"])})
    display = FilterDisplay.from_balancer(balancer, X, Y).plot()
    titles = [ax.get_title() for ax in display.figure_.axes if ax.get_title()]
    assert titles == ["d2", "d1 near_copy"]


def test_rejected_rows_that_fill_a_class_up_are_not_shown_as_kept():
    display = FilterDisplay.from_balancer(balancer_that_rejected({}, kept=1), X, Y)
    assert {label: len(images) for label, images in display.kept.items()} == {1: 1}


def test_a_balancer_that_rejected_nothing_shows_what_it_kept_and_says_none():
    figure = FilterDisplay.from_balancer(balancer_that_rejected({}), X, Y).plot().figure_
    assert [index for index, ax in enumerate(figure.axes) if ax.get_images()] == [0, 1, 2, 3]
    assert any(text.get_text().startswith("none\n") for text in figure.texts)


def test_an_unfitted_balancer_is_refused():
    with pytest.raises(NotFittedError, match="fit_resample"):
        FilterDisplay.from_balancer(DiffusionBalancer(), X, Y)


def test_a_balancer_of_tables_is_refused():
    balancer = balancer_that_rejected({})
    balancer.codec_ = TableCodec().fit(X.reshape(10, -1))
    with pytest.raises(ValueError, match="filter_report_"):
        FilterDisplay.from_balancer(balancer, X.reshape(10, -1), Y)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": Y[:-1]}, r"y has shape \(9,\), but X has 10 images"),
        ({"y": np.eye(2)[Y]}, r"y has shape \(10, 2\)"),
        ({"synthetic_mask": SYNTHETIC[1:]}, r"synthetic_mask .* shape \(9,\), but X has 10 images"),
        ({"synthetic_mask": SYNTHETIC.astype(int)}, "synthetic_mask is of int64"),
        ({"synthetic_mask": np.flatnonzero(SYNTHETIC)}, "synthetic_mask is of int64"),
        ({"synthetic_mask": np.zeros(10, dtype=bool)}, "synthetic_mask marks no row"),
        ({"labels": [1, 7]}, r"labels=\[1, 7\] has \[7\], which y has not; it has \[0, 1\]"),
    ],
)
def test_rows_labels_and_mask_that_do_not_belong_together_are_refused_by_name(changes, message):
    given = {"X": X, "y": Y, "synthetic_mask": SYNTHETIC} | changes
    with pytest.raises(ValueError, match=message):
        SyntheticDisplay.from_resampled(**given)


@pytest.mark.parametrize("rows", [(X[:9], Y), (X, Y[:9]), (X[:9], Y[:9]), (X, Y[:, None])])
def test_rows_of_another_resampling_than_the_balancers_last_are_refused(rows):
    with pytest.raises(ValueError, match="X has .* y .* fit_resample returned 10"):
        FilterDisplay.from_balancer(balancer_that_rejected({}), *rows)


def test_lists_serve_as_labels_and_mask():
    display = SyntheticDisplay.from_resampled(list(X), Y.tolist(), SYNTHETIC.tolist())
    assert len(display.synthetic[1]) == 4


# Searches -----------------------------------------------------------------------------


def searched(params, refit=True, **scores):
    """A search that found the scores that the test says, by candidate and fold."""
    search = GridSearchCV(LogisticRegression(), {}, refit=refit)
    search.cv_results_ = {"params": params}
    for name, folds in scores.items():
        search.cv_results_[f"mean_test_{name}"] = np.mean(folds, axis=1)
        search.cv_results_[f"std_test_{name}"] = np.std(folds, axis=1)
    return search


CANDIDATES = [{"omega": omega, "depth": depth} for omega in (1, 0.5, 0) for depth in (2, None)]
# Of each omega the candidate with depth None is better in "a", the other one in "b".
A = [[0.1, 0.3], [0.6, 0.8], [0.2, 0.2], [0.5, 0.9], [0.3, 0.3], [0.4, 0.6]]
B = [[0.9, 0.9], [0.1, 0.1], [0.8, 0.8], [0.2, 0.2], [0.7, 0.7], [0.3, 0.3]]


def test_lines_go_through_the_candidate_that_is_best_by_the_first_score():
    search = searched(CANDIDATES, a=A, b=B)
    display = SearchDisplay.from_search(search, param="omega")
    assert display.values.tolist() == [0, 0.5, 1]
    np.testing.assert_allclose(display.means["a"], [0.5, 0.7, 0.7])
    np.testing.assert_allclose(display.deviations["a"], [0.1, 0.2, 0.1])
    np.testing.assert_allclose(display.means["b"], [0.3, 0.2, 0.1])
    other = SearchDisplay.from_search(search, param="omega", scores=["b", "a"])
    assert list(other.means) == ["b", "a"]
    np.testing.assert_allclose(other.means["a"], [0.3, 0.2, 0.2])
    by_refit = SearchDisplay.from_search(searched(CANDIDATES, "b", a=A, b=B), param="omega")
    assert list(by_refit.means) == ["b", "a"]


def test_the_only_score_goes_by_the_name_of_scoring_and_needs_no_legend():
    search = searched(CANDIDATES, score=A)
    search.scoring = "balanced_accuracy"
    display = SearchDisplay.from_search(search, param="omega").plot()
    assert list(display.means) == ["balanced_accuracy"]
    SearchDisplay.from_search(search, param="omega", scores=["balanced_accuracy"])
    assert display.ax_.get_ylabel() == "balanced_accuracy in the test folds"
    assert display.ax_.get_legend() is None


def test_values_that_are_no_numbers_are_text():
    display = SearchDisplay.from_search(searched(CANDIDATES, score=A), param="depth").plot()
    assert display.values.tolist() == ["2", "None"]
    np.testing.assert_allclose(display.means["score"], [0.3, 0.7])
    assert [each.get_text() for each in display.ax_.get_xticklabels()] == ["2", "None"]


def test_a_candidate_that_failed_is_not_the_best_and_one_without_the_parameter_does_not_count():
    candidates = [{"omega": 0}, {"omega": 0}, {"omega": 1}, {"depth": 3}]
    scores = [[np.nan, 0.9], [0.1, 0.2], [np.nan, np.nan], [1, 1]]
    display = SearchDisplay.from_search(searched(candidates, score=scores), param="omega")
    np.testing.assert_allclose(display.means["score"], [0.15, np.nan])


def test_each_score_is_a_line_within_a_band_of_its_deviation():
    display = SearchDisplay.from_search(searched(CANDIDATES, a=A, b=B), param="omega").plot()
    ax = display.ax_
    assert display.figure_ is ax.figure
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0.5], [0.5, 0.7], [1, 0.7]])
    (band,) = ax.collections[0].get_paths()
    heights = {x: np.ptp(band.vertices[band.vertices[:, 0] == x, 1]) for x in (0, 0.5, 1)}
    assert heights == pytest.approx({0: 0.2, 0.5: 0.4, 1: 0.2})
    assert ax.get_xlabel() == "omega"
    _, own = plt.subplots()
    assert display.plot(ax=own).ax_ is own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"param": "omga"}, r"param='omga' is not among .*\['depth', 'omega'\]"),
        ({"scores": ["a", "few"]}, r"scores=\['a', 'few'\] must be .*\['a', 'b'\]"),
        ({"scores": "a"}, "must be a list"),
        ({"scores": []}, "must be a list"),
    ],
)
def test_what_the_search_has_not_is_refused_by_name(changes, message):
    search = searched(CANDIDATES, a=A, b=B)
    with pytest.raises(ValueError, match=message):
        SearchDisplay.from_search(search, **{"param": "omega"} | changes)


@pytest.mark.parametrize("kind", [GridSearchCV, RandomizedSearchCV])
@pytest.mark.parametrize("scoring", ["several", "one"])
def test_searches_of_scikit_learn_can_be_shown(kind, scoring):
    X, y = make_classification(
        120, n_informative=4, n_classes=3, weights=[0.7, 0.2], random_state=0
    )
    scorers = make_shot_scorers(y, many_more_than=60, few_less_than=20)
    pipeline = Pipeline(
        [
            ("balance", DiffusionBalancer(n_steps=2, n_solver_steps=2, d3_max=None)),
            ("clf", LogisticRegression()),
        ]
    )
    search = kind(
        pipeline,
        {"balance__omega": [0.1, 0.9]},
        scoring=scorers if scoring == "several" else None,
        refit=False,
        cv=2,
        **({"n_iter": 2, "random_state": 0} if kind is RandomizedSearchCV else {}),
    )
    with pytest.raises(NotFittedError):
        SearchDisplay.from_search(search)
    display = SearchDisplay.from_search(search.fit(X, y)).plot()
    assert display.values.tolist() == [0.1, 0.9]
    assert list(display.means) == (list(scorers) if scoring == "several" else ["score"])
    assert len(display.ax_.lines) == len(display.means)


def test_a_display_prints_as_one_line():
    assert len(repr(SyntheticDisplay.from_resampled(X, Y, SYNTHETIC))) < 100
    assert len(repr(SearchDisplay.from_search(searched(CANDIDATES, a=A), param="omega"))) < 100
