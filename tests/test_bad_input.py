"""What both estimators do with bad input: say so before any work, leave nothing half-written."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import sklearn_diffult.classifier
import sklearn_diffult.evidence
import sklearn_diffult.stages
from sklearn_diffult import DiffusionBalancer, WeightedTorchClassifier
from sklearn_diffult._torch import resolve_device
from sklearn_diffult.diffusion.denoiser import Denoiser

RANDOM = np.random.RandomState(0)
Y = np.repeat([0, 1], [8, 4])
TABLE = RANDOM.randn(12, 3)
IMAGES = RANDOM.randint(0, 256, (12, 8, 9)).astype(np.uint8)
FLAT = IMAGES.reshape(12, -1)


def balancer(**parameters):
    quick = {"n_steps": 3, "batch_size": 4, "n_solver_steps": 2, "d3_max": None, "max_rounds": 1}
    return DiffusionBalancer(**quick | {"random_state": 0} | parameters)


def classifier(**parameters):
    return WeightedTorchClassifier(**{"n_steps": 3, "random_state": 0} | parameters)


ESTIMATORS = {"balancer": balancer, "classifier": classifier}


def fitted_state(estimator):
    """Attributes that a fit sets; scikit-learn's record of the columns of X comes before it."""
    columns = {"n_features_in_", "feature_names_in_"}
    parameters = set(estimator.get_params())
    return {k: v for k, v in vars(estimator).items() if k not in columns | parameters}


@pytest.fixture
def no_training(monkeypatch):
    def fail(*args, **kwargs):
        pytest.fail("training began")

    monkeypatch.setattr(sklearn_diffult.stages, "train", fail)
    monkeypatch.setattr(sklearn_diffult.classifier.Training, "run", fail)


def assert_refused(estimator, X, y, messages, errors=(ValueError, TypeError)):
    """Every way to fit raises, says all of `messages`, and sets nothing."""
    before = fitted_state(estimator)
    ways = ["fit"] if isinstance(estimator, WeightedTorchClassifier) else ["fit", "fit_resample"]
    for way in ways:
        with pytest.raises(errors) as caught:
            getattr(estimator, way)(X, y)
        for message in messages:
            assert message in str(caught.value)
        after = fitted_state(estimator)
        assert after.keys() == before.keys()
        assert all(after[name] is before[name] for name in before)


def with_value(X, value):
    X = X.astype(float)
    X[5].flat[3 % X[5].size] = value
    return X


def days(n_columns):
    return np.full((12, n_columns), "2020-01-01", dtype="M8[D]")


# X ------------------------------------------------------------------------------------

BAD_X = {
    "infinite table": (with_value(TABLE, np.inf), ["X", "infinity"]),
    "NaN images": (with_value(IMAGES, np.nan), ["X", "NaN", "drop"]),
    "infinite images": (with_value(IMAGES, -np.inf), ["X", "infinity", "drop"]),
    "infinite frame": (pd.DataFrame({"a": with_value(TABLE, np.inf)[:, 0]}), ["'a'", "infinity"]),
    "table of dicts": (np.full((12, 2), {}, dtype=object), ["column 0 of X", "dict", "Encode"]),
    "frame of lists": (pd.DataFrame({"a": [[1]] * 12}), ["column 'a' of X", "list", "spread"]),
    "images of objects": (IMAGES.astype(object), ["X", "dtype object", "integers or floats"]),
    "images of strings": (IMAGES.astype(str), ["X", "dtype <U", "integers or floats"]),
    "complex table": (TABLE * 1j, ["omplex"]),
    "dates": (days(3), ["X", "datetime64", "Encode"]),
    "frame of dates": (
        pd.DataFrame({"day": pd.date_range("2020", periods=12)}),
        ["column 'day' of X", "datetime64", "Encode"],
    ),
    "one axis": (TABLE[:, 0], ["1D", "2D"]),
    "five axes": (np.zeros((12, 2, 8, 8, 3)), ["5"]),
    "small images": (IMAGES[:, :7], ["X", "7 x 9", "at least 8", "Pad or enlarge"]),
    "five channels": (np.zeros((12, 8, 8, 5)), ["X", "(8, 8, 5)", "(1, 3, 4)"]),
    "two channels first": (np.zeros((12, 2, 9, 9)), ["X", "(2, 9, 9)", "(1, 3, 4)"]),
    "values too large": (TABLE * 1e304, ["column 0 of X", "e+304", "rescale"]),
    "pillow images of differing sizes": (
        [Image.new("L", (8, 8))] * 11 + [Image.new("L", (9, 8))],
        ["X[11]", "(9, 8)", "(8, 8)", "resize"],
    ),
    "pillow images of differing modes": (
        [Image.new("L", (8, 8))] * 11 + [Image.new("RGB", (8, 8))],
        ["X[11]", "'RGB'", "'L'", "convert"],
    ),
    "pillow images of a mode that is none of ours": (
        [Image.new("P", (8, 8))] * 12,
        ["X[0]", "'P'", "convert('RGB')"],
    ),
    "pillow images and something else": (
        [Image.new("L", (8, 8))] * 11 + ["cat.png"],
        ["X[11]", "str", "Pillow"],
    ),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("case", BAD_X)
@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_bad_rows_are_refused(make, case):
    X, messages = BAD_X[case]
    if case == "one axis":
        messages = ["1D array", "2D"] if make is classifier else ["X has 1 axes", "2D"]
    assert_refused(make(), X, Y, messages)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("cell", ["2020-01-01", pd.Timestamp("2020-01-01")], ids=["text", "date"])
@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_flat_images_in_a_frame_hold_numbers_only(make, cell):
    X = pd.DataFrame(IMAGES.reshape(len(IMAGES), -1))
    X[3] = cell
    messages = ["X has dtype object; pixels must be numbers"]
    assert_refused(make(image_shape=IMAGES.shape[1:]), X, Y, messages, errors=TypeError)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("X", [TABLE[:0], TABLE[:, :0], IMAGES[:0], pd.DataFrame(TABLE[:0])])
@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_empty_x_is_refused(make, X):
    assert_refused(make(), X, Y[: len(X)], [str(X.shape)])


@pytest.mark.usefixtures("no_training")
def test_an_empty_list_is_refused():
    assert_refused(balancer(), [], [], ["X is empty"])


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([IMAGES[0], IMAGES[1][:, :8]] * 6, "X holds rows of different shapes"),
        ([[1, 2], [3]] * 6, "X holds rows of different shapes"),
        (list(IMAGES), "numpy.stack"),
    ],
)
def test_lists_of_arrays_are_refused_with_the_way_out(X, message):
    assert_refused(balancer(), X, Y, [message])


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_sparse_images_are_refused(make):
    X = sparse.csr_matrix(FLAT)
    assert_refused(make(image_shape=(8, 9)), X, Y, ["parse", "X", "toarray()"], TypeError)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("image_shape", "messages"),
    [
        ((8, 8), ["(8, 8)", "64", "72 columns"]),
        ((9, 9, 3), ["(9, 9, 3)", "243", "72 columns"]),
        ((8,), ["(8,)", "(height, width)"]),
        ((1, 8, 9, 1), ["(1, 8, 9, 1)", "(height, width)"]),
        ((-8, -9), ["(-8, -9)", "positive integers"]),
        ((8.0, 9.0), ["(8.0, 9.0)", "positive integers"]),
        (("8", "9"), ["('8', '9')", "positive integers"]),
        ((12, 6), ["12 x 6", "at least 8"]),
        (72, ["72", "tuple"]),
    ],
)
@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_an_image_shape_that_does_not_fit_is_refused(make, image_shape, messages):
    expected = messages if image_shape == (12, 6) else ["image_shape", *messages]
    assert_refused(make(image_shape=image_shape), FLAT, Y, expected)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_an_image_shape_for_rows_that_are_images_already_is_refused(make):
    expected = ["image_shape=(8, 9)", "X has 3 axes", "image_shape=None"]
    assert_refused(make(image_shape=(8, 9)), IMAGES, Y, expected)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("X", [3, FLAT[0]])
def test_one_flat_image_and_one_number_are_told_the_shape_of_flat_rows(X):
    messages = ["image_shape=(8, 9)", "numpy.reshape(X, (-1, 72))"]
    assert_refused(balancer(image_shape=(8, 9)), X, Y, messages, errors=ValueError)


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        (IMAGES[:, :, :8], ["(8, 8)", "fit saw (8, 9)", "same size"]),
        (IMAGES.swapaxes(1, 2), ["(9, 8)", "fit saw (8, 9)", "same size"]),
        (np.repeat(IMAGES[..., None], 3, axis=-1), ["(8, 9, 3)", "fit saw (8, 9)", "same size"]),
        (with_value(IMAGES, np.nan), ["X", "NaN"]),
        (IMAGES[0], ["X is one image", "X[None]"]),
        (Image.fromarray(IMAGES[0]), ["X is one image", "[X]"]),
    ],
)
def test_images_that_change_between_fit_and_predict_are_refused(X, expected):
    fitted = classifier().fit(IMAGES, Y)
    for method in ("predict", "predict_proba", "embed"):
        with pytest.raises(ValueError, match="X") as caught:
            getattr(fitted, method)(X)
        for message in expected:
            assert message in str(caught.value)


def test_one_colour_image_is_told_to_be_one():
    colours = np.repeat(IMAGES[..., None], 3, axis=-1)
    for images in (colours, colours.transpose(0, 3, 1, 2)):
        with pytest.raises(ValueError, match=r"X is one image.*X\[None\]"):
            classifier().fit(images, Y).predict(images[0])


def test_tables_that_change_between_fit_and_predict_are_refused():
    fitted = classifier().fit(TABLE, Y)
    with pytest.raises(ValueError, match="X has 2 features, but .* 3 features"):
        fitted.predict(TABLE[:, :2])
    with pytest.raises(ValueError, match="X"):
        fitted.predict(IMAGES)
    frame = pd.DataFrame(TABLE).astype({0: str})
    with pytest.raises(ValueError, match=r"X has 1 axes.*iloc\[\[i\]\]"):
        classifier().fit(frame, Y).predict(frame.iloc[0])


@pytest.mark.usefixtures("no_training")
def test_columns_of_text_that_are_listed_nowhere_and_names_of_files_are_refused():
    frame = pd.DataFrame(TABLE).astype({0: str, 1: str})
    message = ["column 1 of X", "str", "name this column in categorical_features too", "'auto'"]
    assert_refused(balancer(categorical_features=[0]), frame, Y, message)
    assert_refused(balancer(), [f"{i}.png" for i in range(12)], Y, ["'0.png'", "Image.open"])


# y ------------------------------------------------------------------------------------


def text_with(label):
    y = Y.astype(str).astype(object)
    y[5] = label
    return y


BAD_Y = {
    "nothing": (None, ["y", "None"]),
    "one class": (np.full(12, 7), ["y", "7", "at least 2 classes"]),
    "one class of strings": (np.full(12, "cat"), ["y", "'cat'", "at least 2 classes"]),
    "fractions": (np.linspace(0, 1, 12), ["continuous"]),
    "NaN": (np.where(Y == 0, np.nan, 1.0), ["y", "NaN"]),
    "None among text": (text_with(None), ["y", "without a label", "row"]),
    "NA among text": (text_with(pd.NA), ["y", "without a label", "row"]),
    "NaN among text": (text_with(np.nan), ["y", "without a label", "row"]),
    "columns of text": (np.repeat(Y.astype(str)[:, None], 2, axis=1), ["one label per row"]),
    "mixed objects": (
        np.array([0, "a"] * 6, dtype=object),
        ["y mixes text and numbers", "'a'", "0"],
    ),
    "multilabel": (np.ones((12, 2), dtype=int), []),
    "two outputs": (
        np.arange(24).reshape(12, 2) % 3,
        ["y should be a 1d array", "(12, 2)"],
    ),
    "too few": (Y[:-1], ["11", "12"]),
    "too many": (np.append(Y, 1), ["13", "12"]),
    "no labels": ([], ["0", "12"]),
    "a number": (3, ["y", "()"]),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("X", [TABLE, IMAGES], ids=["table", "images"])
@pytest.mark.parametrize("case", BAD_Y)
@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_bad_labels_are_refused(make, case, X):
    y, messages = BAD_Y[case]
    assert_refused(make(), X, y, messages)


@pytest.mark.usefixtures("no_training")
def test_the_balancer_says_what_labels_it_takes():
    for y in (np.linspace(0, 1, 12), np.ones((12, 2), dtype=int)):
        assert_refused(balancer(), TABLE, y, ["y must hold one class label per row"])
    assert_refused(balancer(), TABLE, Y.astype(object), ["y.astype(int)"])
    assert_refused(balancer(), TABLE, Y[:-1], ["X has 12 rows", "(11,)", "one label per row"])


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("make", [balancer, classifier])
def test_numbers_in_a_list_of_text_labels_are_refused(make):
    y = ["no", "yes", 7] * 4
    assert_refused(make(), TABLE, y, ["mixes text and numbers", "'no' and 7"])


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("X", [{"a": [1, 2]}, "data.csv"])
def test_what_is_no_set_of_rows_is_refused(X):
    assert_refused(balancer(), X, Y, ["X is no set of rows; give an array, a DataFrame"])


def test_flat_images_after_images_are_refused_with_the_way_back():
    fitted = classifier().fit(IMAGES, Y)
    with pytest.raises(ValueError, match=r"fit saw \(8, 9\): X\.reshape\(-1, \*\(8, 9\)\)"):
        fitted.predict(IMAGES.reshape(len(IMAGES), -1))
    with pytest.raises(ValueError, match="flat rows with image_shape.$"):
        fitted.predict(IMAGES.reshape(len(IMAGES) // 2, -1))


@pytest.mark.usefixtures("no_training")
def test_thresholds_that_no_row_could_pass_are_refused():
    expected = ["d1_max=0.05", "greater than d1_min=0.1"]
    assert_refused(balancer(d1_max=0.05, d1_min=0.1), TABLE, Y, expected)


@pytest.mark.parametrize("X", [TABLE, IMAGES], ids=["table", "images"])
def test_a_class_with_one_row_is_balanced_with_a_warning(X):
    y = np.where(np.arange(12) == 3, "rare", "frequent")
    with pytest.warns(UserWarning, match="'rare' has a single row"):
        X_resampled, y_resampled = balancer(d1_min=0.0).fit_resample(X, y)
    assert (y_resampled == "rare").sum() == (y_resampled == "frequent").sum() == 11
    assert len(X_resampled) == 22


@pytest.mark.usefixtures("short_classifiers")
@pytest.mark.parametrize("name", ["d1_max", "d2_max", "d3_max"])
@pytest.mark.filterwarnings("ignore:After max_rounds")
def test_every_filter_takes_a_class_with_one_row(name):
    y = np.where(np.arange(12) == 3, "rare", "frequent")
    with pytest.warns(UserWarning, match="'rare' has a single row"):
        _, y_resampled = balancer(d1_min=0.0, **{name: 1.0}).fit_resample(TABLE, y)
    assert (y_resampled == "rare").sum() == 11


def test_the_classifier_takes_a_class_with_one_row():
    y = np.where(np.arange(12) == 3, "rare", "frequent")
    assert classifier().fit(TABLE, y).predict(TABLE).shape == (12,)


# Parameters ---------------------------------------------------------------------------

BAD_PARAMETERS = [
    (balancer, "sampling_strategy", "everything"),
    (balancer, "sampling_strategy", 0),
    (balancer, "sampling_strategy", -5),
    (balancer, "sampling_strategy", 1.5),
    (balancer, "sampling_strategy", None),
    (balancer, "omega", -0.1),
    (balancer, "omega", 1.1),
    (balancer, "omega", np.nan),
    (balancer, "omega", "all"),
    (balancer, "omega", True),
    (balancer, "weighting", "column"),
    (balancer, "weight_temper", -0.1),
    (balancer, "weight_temper", 1.5),
    (balancer, "weight_temper", True),
    (balancer, "d1_max", 0.0),
    (balancer, "d2_max", -1.0),
    (balancer, "d3_max", "low"),
    (balancer, "centre_max", 0.0),
    (balancer, "start", "tail"),
    (balancer, "start_noise", 0.0),
    (balancer, "d1_min", -0.1),
    (balancer, "max_rounds", 0),
    (balancer, "on_shortfall", "ignore"),
    (balancer, "network", "transformer"),
    (balancer, "n_steps", 0),
    (balancer, "n_steps", "many"),
    (balancer, "n_steps", 10.5),
    (balancer, "batch_size", 0),
    (balancer, "learning_rate", 0.0),
    (balancer, "class_temper", 1.5),
    (balancer, "sigma_distribution", "uniform"),
    (balancer, "regularizer", "coral2"),
    (balancer, "regularizer_strength", -1.0),
    (balancer, "horizontal_flip", "yes"),
    (balancer, "augmentation", 1.1),
    (balancer, "categorical_features", "all"),
    (balancer, "categorical_features", 3),
    (balancer, "augmentation", "shift"),
    (balancer, "solver", "euler"),
    (balancer, "n_solver_steps", 1),
    (balancer, "guidance_scale", -1.0),
    (balancer, "guidance_scale", "strong"),
    (balancer, "guidance_interval", 3.0),
    (balancer, "guidance_interval", (4.0, 0.4)),
    (balancer, "guidance_interval", (-1.0, 4.0)),
    (balancer, "guidance_interval", (0.4, np.nan)),
    (balancer, "guidance_interval", (1.0, 2.0, 3.0)),
    (balancer, "guidance_interval", ("low", "high")),
    (balancer, "image_shape", "square"),
    (balancer, "memory", 7),
    (balancer, "memory", {"location": "cache"}),
    (balancer, "memory", __file__),
    (balancer, "memory", ""),
    (balancer, "checkpoint", 7),
    (balancer, "checkpoint", ["here"]),
    (balancer, "checkpoint", __file__),
    (balancer, "device", "gpu"),
    (balancer, "device", "cuda:99"),
    (balancer, "device", 0),
    (balancer, "precision", "float8"),
    (balancer, "random_state", "seed"),
    (balancer, "verbose", "loud"),
    (classifier, "module", "transformer"),
    (classifier, "module", 3),
    (classifier, "n_steps", 0),
    (classifier, "batch_size", 0),
    (classifier, "learning_rate", -1.0),
    (classifier, "weight_decay", -1.0),
    (classifier, "weight_mode", "both"),
    (classifier, "class_weight", "equal"),
    (classifier, "logit_adjustment", -1.0),
    (classifier, "augment", "spin"),
    (classifier, "early_stopping", "yes"),
    (classifier, "validation_fraction", 1.0),
    (classifier, "patience", 0),
    (classifier, "image_shape", "square"),
    (classifier, "device", "gpu"),
    (classifier, "device", "cuda:99"),
    (classifier, "precision", "float8"),
    (classifier, "random_state", "seed"),
    (classifier, "verbose", "loud"),
]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(("make", "name", "value"), BAD_PARAMETERS)
def test_bad_parameters_are_named_with_the_value_seen(make, name, value):
    assert_refused(make(**{name: value}), IMAGES, Y, [name, str(value)])


@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
def test_every_parameter_is_tried(make):
    assert set(make().get_params()) == {name for maker, name, _ in BAD_PARAMETERS if maker is make}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("sampling_strategy", "messages"),
    [
        ({7: 10}, ["sampling_strategy={7: 10}", "(0: 8, 1: 4)", "not present"]),
        ({0: 1}, ["sampling_strategy={0: 1}", "8 samples", "1 samples"]),
        (0.1, ["sampling_strategy=0.1", "(0: 8, 1: 4)", "the ratio of small to large"]),
        (True, ["sampling_strategy=True", "number of rows or a ratio"]),
        ("majority", ["'sampling_strategy'", "'not majority'"]),
        (lambda y: 8, ["sampling_strategy=<function", "returned 8", "a dict"]),
        (lambda y: {1: 8.5}, ["sampling_strategy[1]=8.5", "whole number"]),
        ({1: "8"}, ["sampling_strategy[1]='8'", "whole number"]),
        ({1: 8.5}, ["sampling_strategy[1]=8.5", "whole number"]),
    ],
)
def test_a_sampling_strategy_that_the_labels_do_not_allow_is_refused(sampling_strategy, messages):
    assert_refused(balancer(sampling_strategy=sampling_strategy), TABLE, Y, messages)


@pytest.mark.usefixtures("no_training")
def test_what_a_strategy_of_ones_own_raises_is_its_own():
    def broken(y):
        raise ValueError("my own fault")

    with pytest.raises(ValueError, match="^my own fault$"):
        balancer(sampling_strategy=broken).fit(TABLE, Y)


def test_a_random_state_is_left_as_it_was_where_a_call_is_refused():
    state = np.random.RandomState(3)
    before = state.get_state()[1:3]
    parameters = {"weighting": lambda y, mask, omega: np.ones(3), "random_state": state}
    with pytest.raises(ValueError, match="shape"):
        balancer(**parameters).fit_resample(TABLE, Y)
    np.testing.assert_array_equal(state.get_state()[1], before[0])
    assert state.get_state()[2] == before[1]


def test_auto_takes_no_device_that_nobody_tried(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("network", "X", "messages"),
    [
        ("mlp", IMAGES, ["network='mlp'", "(1, 8, 9)", "'unet'"]),
        ("unet", TABLE, ["network='unet'", "(3,)", "'mlp'"]),
    ],
)
def test_a_network_for_other_rows_is_refused(network, X, messages):
    assert_refused(balancer(network=network), X, Y, messages)


class OneNumberARow(torch.nn.Module):
    def __init__(self, shape, n_classes):
        super().__init__()
        self.layer = torch.nn.Linear(shape[0], 1)

    def forward(self, x, noise_level, labels):
        return self.layer(x)


def test_a_network_that_returns_another_shape_is_refused_at_the_first_step():
    with pytest.raises(
        ValueError, match=r"network must return .*, 3\), and returned shape .*, 1\)"
    ):
        balancer(network=OneNumberARow).fit(TABLE, Y)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("parameters", "messages"),
    [
        ({"solver": lambda denoise, x, grid, drawing: denoise(x, grid[0])[:1]}, ["(1, 3)"]),
        ({"solver": lambda denoise, x, grid, drawing: None}, ["solver must return", "None"]),
        ({"weighting": lambda y, mask, omega: np.ones(3)}, ["shape (16,)", "(3,)"]),
        ({"weighting": lambda y, mask, omega: -np.ones(len(y))}, ["weights >= 0", "-1"]),
    ],
)
def test_parts_of_ones_own_that_return_something_else_are_refused(parameters, messages):
    with pytest.raises(ValueError, match="must ") as caught:
        balancer(**parameters).fit_resample(TABLE, Y)
    for message in messages:
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("n", "label", "message"),
    [
        (0, 1, "n must be an integer >= 1, got 0"),
        (2.5, 1, r"n must be an integer >= 1, got 2\.5"),
        (True, 1, "n must be an integer >= 1, got True"),
        (2, 7, r"label must be one of \[0, 1\], one for all rows, got 7"),
        (2, "cat", r"label must be one of \[0, 1\], one for all rows, got 'cat'"),
    ],
)
def test_generate_refuses_what_it_cannot_give(n, label, message):
    with pytest.raises(ValueError, match=message):
        balancer().fit(TABLE, Y).generate(n, label)


def test_before_fit_both_say_that_they_are_not_fitted():
    with pytest.raises(NotFittedError):
        balancer().generate(3, 0)
    with pytest.raises(NotFittedError):
        classifier().predict(TABLE)


# Failures in training -----------------------------------------------------------------


class NaNDenoiser(torch.nn.Module):
    """Takes rows, noise level and label; gives no number."""

    def __init__(self, sample_shape, n_classes):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(float("nan")))

    def forward(self, rows, *conditions):
        return rows * self.factor


class NaNClassifier(torch.nn.Module):
    def __init__(self, sample_shape, n_classes):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.full((n_classes,), float("nan")))

    def forward(self, rows):
        return self.logits.expand(len(rows), -1)


def out_of_memory(*args, **kwargs):
    raise torch.OutOfMemoryError("tried to allocate 40 GiB")


def unfitted(estimator):
    """Tell whether the estimator refuses to be used."""
    try:
        if isinstance(estimator, WeightedTorchClassifier):
            estimator.predict(TABLE)
        else:
            estimator.generate(1, 0)
    except NotFittedError:
        return True
    return False


def failing(kind, monkeypatch):
    """A balancer and a classifier whose training fails in the way asked for."""
    if kind == "loss":
        return [balancer(network=NaNDenoiser), classifier(module=NaNClassifier)]
    monkeypatch.setattr(Denoiser, "forward", out_of_memory)
    monkeypatch.setattr(sklearn_diffult.classifier.Training, "loss", out_of_memory)
    return [balancer(), classifier()]


EXPECTED = {
    "loss": (FloatingPointError, "Lower learning_rate, .*precision='float32'"),
    "memory": (MemoryError, "lower batch_size.*40 GiB"),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_failures_in_training_say_what_to_try_and_leave_the_estimator_unfitted(kind, monkeypatch):
    error, message = EXPECTED[kind]
    for estimator in failing(kind, monkeypatch):
        with pytest.raises(error, match=message):
            estimator.fit(TABLE, Y)
        assert unfitted(estimator)


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_balancer_whose_training_fails_has_no_fitted_attribute(kind, monkeypatch):
    estimator = failing(kind, monkeypatch)[0]
    assert_refused(estimator, IMAGES, Y, [], EXPECTED[kind][0])


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_failed_second_fit_leaves_the_first_or_nothing_but_no_mixture(kind, monkeypatch):
    fitted = [balancer().fit(TABLE, Y), classifier().fit(TABLE, Y)]
    failing_ones = failing(kind, monkeypatch)
    for estimator, other in zip(fitted, failing_ones, strict=True):
        estimator.set_params(**other.get_params())
        with pytest.raises(EXPECTED[kind][0]):
            estimator.fit(TABLE[:, :2] + 100, Y)
    monkeypatch.undo()
    if not unfitted(fitted[0]):
        assert fitted[0].generate(5, 0).shape == (5, 3)
    if not unfitted(fitted[1]):
        np.testing.assert_array_equal(
            fitted[1].predict_proba(TABLE), classifier().fit(TABLE, Y).predict_proba(TABLE)
        )


def test_running_out_of_memory_in_generation_names_batch_size(monkeypatch):
    fitted = balancer().fit(TABLE, Y)
    monkeypatch.setattr(Denoiser, "forward", out_of_memory)
    with pytest.raises(MemoryError, match="lower batch_size"):
        fitted.generate(2, 0)


# No global state, one seed ------------------------------------------------------------


@pytest.mark.usefixtures("global_state_kept", "short_classifiers")
@pytest.mark.filterwarnings("ignore:After max_rounds")
@pytest.mark.parametrize("random_state", [0, None, np.random.RandomState(0)])
@pytest.mark.parametrize("X", [TABLE, IMAGES], ids=["table", "images"])
def test_balancing_leaves_all_global_state_as_it_was(X, random_state):
    filters = {"d1_max": 2.0, "d2_max": 2.0, "d3_max": 2.0}
    estimator = balancer(random_state=random_state, d1_min=0.0, **filters)
    estimator.fit_resample(X, Y)
    estimator.generate(3, 1)
    estimator.generate(3, 1, random_state=random_state)


@pytest.mark.usefixtures("global_state_kept")
@pytest.mark.parametrize("kind", EXPECTED)
def test_failures_leave_all_global_state_as_it_was(kind, monkeypatch):
    for estimator in failing(kind, monkeypatch):
        with pytest.raises(EXPECTED[kind][0]):
            estimator.fit(TABLE, Y)


@pytest.mark.parametrize("X", [TABLE, IMAGES], ids=["table", "images"])
def test_the_same_seed_gives_the_same_rows_whatever_the_global_state(X):
    torch.manual_seed(1)
    first, _ = balancer(d1_min=0.0).fit_resample(X, Y)
    torch.manual_seed(2)
    second, _ = balancer(d1_min=0.0).fit_resample(X, Y)
    np.testing.assert_array_equal(first, second)
    generated = balancer().fit(X, Y)
    np.testing.assert_array_equal(generated.generate(4, 1), generated.generate(4, 1))


@pytest.mark.parametrize("other_seed", [1, None])
@pytest.mark.parametrize("X", [TABLE, IMAGES], ids=["table", "images"])
def test_other_seeds_give_other_rows(X, other_seed):
    first, _ = balancer(d1_min=0.0).fit_resample(X, Y)
    second, _ = balancer(d1_min=0.0, random_state=other_seed).fit_resample(X, Y)
    assert (first[12:] != second[12:]).any()
    fitted = balancer().fit(X, Y)
    assert (fitted.generate(4, 1) != fitted.generate(4, 1, random_state=5)).any()


def test_neither_input_nor_parameters_are_changed():
    X, y = TABLE.copy(), Y.copy()
    estimator = balancer(d1_min=0.0)
    parameters = copy.deepcopy(estimator.get_params())
    estimator.fit_resample(X, y)
    np.testing.assert_array_equal(X, TABLE)
    np.testing.assert_array_equal(y, Y)
    assert estimator.get_params() == parameters
    assert clone(estimator).get_params() == parameters
