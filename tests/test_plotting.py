"""Displays show the rows they are given, where the caption says."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from sklearn_diffult import DiffusionBalancer
from sklearn_diffult.codecs import ImageCodec, TableCodec
from sklearn_diffult.plotting import FilterDisplay, SyntheticDisplay

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
    assert "none" in [text.get_text() for text in figure.texts]


def test_an_unfitted_balancer_is_refused():
    with pytest.raises(NotFittedError, match="fit_resample"):
        FilterDisplay.from_balancer(DiffusionBalancer(), X, Y)


def test_a_balancer_of_tables_is_refused():
    balancer = balancer_that_rejected({})
    balancer.codec_ = TableCodec().fit(X.reshape(10, -1))
    with pytest.raises(ValueError, match="filter_report_"):
        FilterDisplay.from_balancer(balancer, X.reshape(10, -1), Y)


def test_a_display_prints_as_one_line():
    assert len(repr(SyntheticDisplay.from_resampled(X, Y, SYNTHETIC))) < 100
