"""DiffusionBalancer: the drop-in contract on images and tables."""

from __future__ import annotations

import copy
import pickle
import types
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.utils.estimator_checks import parametrize_with_checks
from own_networks import Dropping
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits, make_classification

from sklearn_diffult import DiffusionBalancer, WeightedTorchClassifier
from sklearn_diffult.diffusion.solvers import SOLVERS
from sklearn_diffult.networks.denoisers import DENOISER_NETWORKS, IMAGE_NETWORKS
from sklearn_diffult.plans import generation_plan

pytestmark = pytest.mark.filterwarnings("ignore:Class . has 2 rows")
QUICK = {
    "n_steps": 3,
    "batch_size": 8,
    "n_solver_steps": 3,
    "d3_max": None,
    "d1_min": 0.0,
    "random_state": 0,
}


@parametrize_with_checks([DiffusionBalancer(**QUICK)])
def test_the_common_checks_of_imbalanced_learn_pass(estimator, check):
    check(estimator)


def few_images(shape=(9, 11), dtype="uint8", counts=(7, 3)):
    random_state = np.random.RandomState(0)
    X = random_state.uniform(0, 255, size=(sum(counts), *shape)).astype(dtype)
    y = np.repeat(np.arange(len(counts)), counts)
    order = random_state.permutation(len(y))
    return X[order], y[order]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((8, 8), "uint8"),
        ((9, 11), "float32"),
        ((13, 8, 1), "float64"),
        ((9, 11, 3), "uint8"),
        ((3, 9, 11), "uint8"),
        ((4, 10, 17), "float32"),
    ],
)
def test_images_keep_layout_dtype_and_real_rows(shape, dtype):
    X, y = few_images(shape, dtype)
    X_resampled, y_resampled = DiffusionBalancer(**QUICK).fit_resample(X, y)
    assert X_resampled.shape == (14, *shape)
    assert X_resampled.dtype == X.dtype
    assert np.array_equal(X_resampled[: len(X)], X)
    assert np.array_equal(y_resampled[: len(y)], y)
    assert Counter(y_resampled.tolist()) == {0: 7, 1: 7}


def test_flat_rows_with_image_shape_come_back_flat():
    X, y = few_images((8, 8), "float64")
    balancer = DiffusionBalancer(**QUICK, image_shape=(8, 8))
    X_resampled, _ = balancer.fit_resample(X.reshape(len(X), -1), y)
    assert X_resampled.shape == (14, 64)
    assert balancer.image_shape_ == (1, 8, 8)
    assert balancer.n_features_in_ == 64


def test_pillow_images_come_back_as_pillow_images():
    X, y = few_images((9, 11, 3))
    images = [Image.fromarray(image) for image in X]
    X_resampled, y_resampled = DiffusionBalancer(**QUICK).fit_resample(images, y.tolist())
    assert X_resampled[: len(images)] == images
    assert {(image.mode, image.size) for image in X_resampled} == {("RGB", (11, 9))}
    assert isinstance(y_resampled, list)
    assert len(X_resampled) == len(y_resampled) == 14


@pytest.mark.parametrize(
    "labels", [np.array(["cat", "dog"]), np.array([10, 20]), np.array(["a", 3], dtype=object)[:1]]
)
def test_labels_of_any_kind_are_kept(labels):
    X, y = few_images()
    labels = labels if len(labels) == 2 else np.array(["x", "y"], dtype=object)
    _, y_resampled = DiffusionBalancer(**QUICK).fit_resample(X, labels[y])
    assert y_resampled.dtype == labels.dtype
    assert Counter(y_resampled.tolist()) == dict.fromkeys(labels.tolist(), 7)


def test_tables_keep_columns_dtypes_and_whole_numbers():
    frame = pd.DataFrame(
        {
            "weight": np.linspace(1, 2, 20).astype("float32"),
            "legs": np.tile([2, 4], 10),
            "tame": np.tile([True, True, False, False], 5),
            "planet": "3.0",
        },
        index=np.arange(100, 120),
    ).astype({"planet": "float64"})
    y = pd.Series(np.repeat(["a", "b"], [15, 5]), name="kind", index=frame.index)
    X_resampled, y_resampled = DiffusionBalancer(**QUICK).fit_resample(frame, y)
    assert (X_resampled.dtypes == frame.dtypes).all()
    pd.testing.assert_frame_equal(X_resampled[:20], frame.reset_index(drop=True))
    assert set(X_resampled["legs"]) <= {2, 3, 4}
    assert set(X_resampled["planet"]) == {3.0}
    assert y_resampled.name == "kind"
    assert Counter(y_resampled) == {"a": 15, "b": 15}


def test_an_int_strategy_brings_small_classes_up_and_cuts_none():
    X, y = few_images(counts=(9, 4, 2))
    balancer = DiffusionBalancer(**QUICK, sampling_strategy=6)
    _, y_resampled = balancer.fit_resample(X, y)
    assert Counter(y_resampled.tolist()) == {0: 9, 1: 6, 2: 6}
    assert balancer.sampling_strategy_ == {1: 2, 2: 4}


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("auto", {0: 9, 1: 9, 2: 9}),
        ("minority", {0: 9, 1: 4, 2: 9}),
        ({1: 5, 2: 3}, {0: 9, 1: 5, 2: 3}),
        (lambda y: {2: 8}, {0: 9, 1: 4, 2: 8}),
    ],
)
def test_strategies_mean_what_they_mean_in_imbalanced_learn(strategy, expected):
    X, y = few_images(counts=(9, 4, 2))
    _, y_resampled = DiffusionBalancer(**QUICK, sampling_strategy=strategy).fit_resample(X, y)
    assert Counter(y_resampled.tolist()) == expected


def test_balanced_data_come_back_as_they_are():
    X, y = few_images(counts=(4, 4))
    balancer = DiffusionBalancer(**QUICK)
    X_resampled, y_resampled, weights = balancer.fit_resample_weighted(X, y)
    assert np.array_equal(X_resampled, X)
    assert np.array_equal(y_resampled, y)
    assert np.array_equal(weights, np.ones(8))
    assert balancer.filter_report_ == {}


def test_what_fit_resample_sets_is_said_to_come_from_there():
    balancer = DiffusionBalancer(**QUICK).fit(*few_images(counts=(4, 2)))
    for name in ("filter_report_", "privacy_report_", "sample_weight_"):
        assert not hasattr(balancer, name)
        with pytest.raises(AttributeError, match=f"no attribute '{name}': fit_resample sets it"):
            getattr(balancer, name)
    with pytest.raises(AttributeError, match="no attribute 'filter_reports_'$"):
        _ = balancer.filter_reports_


def test_weights_mask_and_report_describe_the_returned_rows():
    X, y = few_images(counts=(8, 2))
    balancer = DiffusionBalancer(**QUICK, omega=0.25)
    _, y_resampled, weights = balancer.fit_resample_weighted(X, y)
    assert balancer.synthetic_mask_.tolist() == [False] * 10 + [True] * 6
    assert np.array_equal(weights, balancer.sample_weight_)
    assert weights.sum() == pytest.approx(10)
    rare = y_resampled == 1
    assert weights[rare].sum() == pytest.approx(weights[~rare].sum())
    assert weights[balancer.synthetic_mask_].sum() == pytest.approx(0.25 * weights[rare].sum())
    assert balancer.filter_report_[1]["kept"] == 6
    assert balancer.filter_report_[1]["shortfall"] == 0


@pytest.mark.parametrize(
    ("chosen", "temper", "omega"),
    [({}, 0.1, 0.1), ({"weight_temper": 0.6, "omega": 0.4}, 0.6, 0.4)],
    ids=["default", "own"],
)
def test_classes_of_tables_weigh_by_a_power_of_their_rows(chosen, temper, omega):
    X = np.random.RandomState(0).normal(size=(40, 2))
    y = np.repeat([0, 1], [32, 8])
    balancer = DiffusionBalancer(**QUICK, **chosen)
    _, y_resampled, weights = balancer.fit_resample_weighted(X, y)
    common, rare = (weights[y_resampled == label].sum() for label in (0, 1))
    assert common / rare == pytest.approx(4**temper)
    assert common + rare == pytest.approx(40)
    assert weights[balancer.synthetic_mask_].sum() == pytest.approx(omega * rare)


def test_generate_gives_rows_of_a_class_in_the_container_of_fit():
    X, y = few_images((9, 11, 3))
    balancer = DiffusionBalancer(**QUICK).fit(X, np.array(["a", "b"])[y])
    rows = balancer.generate(5, "b")
    assert rows.shape == (5, 9, 11, 3)
    assert rows.dtype == np.uint8
    assert np.array_equal(rows, balancer.generate(5, "b"))
    assert not np.array_equal(rows, balancer.generate(5, "b", random_state=1))
    with pytest.raises(ValueError, match="one of"):
        balancer.generate(5, "c")
    with pytest.raises(ValueError, match="n must be"):
        balancer.generate(0, "b")


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("regularizer", [None, "cbdm"])
def test_every_solver_and_regularizer_serves(solver, regularizer):
    X, y = few_images()
    changes = {"solver": solver, "regularizer": regularizer, "guidance_scale": 2.0}
    X_resampled, _ = DiffusionBalancer(
        **{**QUICK, **changes}, horizontal_flip=True, guidance_interval=(0, 100)
    ).fit_resample(X, y)
    assert len(X_resampled) == 14


@pytest.mark.parametrize("network", sorted(DENOISER_NETWORKS))
def test_every_named_network_serves(network):
    of_images = network in IMAGE_NETWORKS
    X, y = few_images((21, 24)) if of_images else make_classification(20, random_state=0)
    parameters = {**QUICK, "n_steps": 1, "n_solver_steps": 2}
    balancer = DiffusionBalancer(**parameters, network=network, sampling_strategy=11)
    X_resampled, _ = balancer.fit_resample(X, y)
    assert X_resampled.shape[1:] == X.shape[1:]


def test_callables_stand_in_for_names():
    class Zero(torch.nn.Module):
        def __init__(self, shape, n_classes):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, noise_level, labels):
            return self.scale * x

    def jump(denoise, x, grid, generator):
        return denoise(x, grid[0])

    X, y = few_images()
    balancer = DiffusionBalancer(
        **QUICK,
        network=Zero,
        solver=jump,
        regularizer=lambda batch: 0 * batch.sigma,
        weighting=lambda y, synthetic, omega: np.where(synthetic, 2.0, 1.0),
    )
    _, _, weights = balancer.fit_resample_weighted(X, y)
    assert weights[-1] == pytest.approx(2 * weights[0])


@pytest.mark.parametrize("copied", [clone, copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_copies_behave_alike(copied):
    X, y = few_images()
    balancer = DiffusionBalancer(**QUICK).fit(X, y)
    other = copied(balancer)
    if copied is clone:
        assert not hasattr(other, "denoiser_")
        other.fit(X, y)
    assert np.array_equal(balancer.generate(2, 1), other.generate(2, 1))


def test_pickles_hold_no_training_row():
    X, y = few_images((16, 16))
    balancer = DiffusionBalancer(**QUICK).fit(X, y)
    assert X[0].tobytes() not in pickle.dumps(balancer)


def test_filters_reject_rows_of_an_untrained_model_and_the_shortfall_policy_decides():
    X, y = load_digits(return_X_y=True)
    X, y = X[y < 2][:60].reshape(-1, 8, 8), y[y < 2][:60]
    keep = (y == 0) | (np.cumsum(y) <= 12)
    X, y = X[keep], y[keep]
    parameters = {**QUICK, "d1_max": 0.5, "max_rounds": 2}
    short = Counter(y.tolist())
    filled = DiffusionBalancer(**parameters)
    with pytest.warns(UserWarning, match="max_rounds=2"):
        filled.fit_resample(X, y)
    assert filled.filter_report_[1]["filled"] > 0
    assert filled.filter_report_[1]["rejected_d1"] > 0
    with pytest.warns(UserWarning, match="missing"):
        _, y_short = DiffusionBalancer(**parameters, on_shortfall="warn").fit_resample(X, y)
    assert Counter(y_short.tolist())[1] == short[1]
    with pytest.raises(RuntimeError, match="d1_max"):
        DiffusionBalancer(**parameters, on_shortfall="raise").fit_resample(X, y)


@pytest.mark.filterwarnings("ignore:After max_rounds")
def test_each_metric_judges_with_what_it_needs():
    X, y = make_classification(80, weights=[0.75], class_sep=2, random_state=0)
    balancer = DiffusionBalancer(
        n_steps=150, d1_max=3.0, d2_max=5.0, d3_max=50.0, random_state=0, max_rounds=2
    )
    balancer.fit_resample(X, y)
    report = balancer.filter_report_[1]
    assert {"rejected_d1", "rejected_d2", "rejected_d3", "rejected_near_copy"} <= set(report)


def test_progress_is_shown_on_request_only(capsys):
    X, y = few_images()
    DiffusionBalancer(**QUICK).fit_resample(X, y)
    assert capsys.readouterr() == ("", "")
    DiffusionBalancer(**QUICK, verbose=1).fit_resample(X, y)
    shown = capsys.readouterr().err
    assert "loss=" in shown
    assert "rows/s=" in shown


def test_generated_rows_are_further_rows():
    X, y = few_images((9, 11), "float32")
    balancer = DiffusionBalancer(**QUICK)
    X_resampled, _ = balancer.fit_resample(X, y)
    assert not np.array_equal(X_resampled[10:], balancer.generate(4, 1))


@pytest.mark.usefixtures("global_state_kept")
def test_a_network_of_ones_own_may_use_dropout_and_is_repeatable():
    class Dropping(torch.nn.Module):
        def __init__(self, shape, n_classes):
            super().__init__()
            self.layer = torch.nn.Linear(shape[0], shape[0])

        def forward(self, x, noise_level, labels):
            return torch.nn.functional.dropout(self.layer(x), 0.5)

    X, y = make_classification(40, weights=[0.8], random_state=0)
    first, second = (
        DiffusionBalancer(**QUICK, network=Dropping).fit_resample(X, y)[0] for _ in range(2)
    )
    assert np.array_equal(first, second)


def test_what_a_regularizer_draws_is_not_the_noise_of_its_batch():
    correlations = []

    def drawing(batch):
        pair = torch.stack([batch.sigma.log(), torch.randn(len(batch.sigma))])
        correlations.append(float(torch.corrcoef(pair)[0, 1]))
        return batch.sigma * 0

    X, y = make_classification(200, weights=[0.8], random_state=0)
    DiffusionBalancer(**QUICK, regularizer=drawing).fit(X, y)
    assert max(map(abs, correlations)) < 0.9


def test_a_sampling_strategy_may_be_any_mapping():
    X, y = make_classification(40, weights=[0.8], random_state=0)
    wanted = types.MappingProxyType({1: 20})
    _, y_resampled = DiffusionBalancer(**QUICK, sampling_strategy=wanted).fit_resample(X, y)
    assert np.bincount(y_resampled)[1] == 20


def test_a_module_instead_of_a_function_is_refused():
    X, y = make_classification(40, weights=[0.8], random_state=0)
    with pytest.raises(TypeError, match="lambda shape"):
        DiffusionBalancer(**QUICK, network=torch.nn.Linear(20, 20)).fit(X, y)


def test_a_switch_from_a_table_to_images_leaves_nothing_of_the_table():
    balancer = DiffusionBalancer(**QUICK).fit(*make_classification(40, random_state=0))
    assert balancer.n_features_in_ == 20
    balancer.fit(*few_images())
    assert not hasattr(balancer, "n_features_in_")
    assert balancer.image_shape_ == (1, 9, 11)


def test_rows_that_are_not_finite_are_no_fault_of_X():
    X, y = make_classification(40, weights=[0.8], random_state=0)
    with pytest.raises(FloatingPointError, match="solver"):
        DiffusionBalancer(
            **{**QUICK, "solver": lambda denoise, x, grid, generator: x * np.nan}
        ).fit_resample(X, y)


def test_a_network_that_a_function_keeps_is_copied_for_each_fit():
    kept = Dropping((4,), 2)
    before = copy.deepcopy(kept.state_dict())
    X, y = make_classification(40, 4, n_informative=3, n_redundant=0, weights=[0.7], random_state=0)
    losses = []
    for _ in range(2):
        balancer = DiffusionBalancer(**QUICK, network=lambda shape, n_classes: kept)
        losses.append(balancer.fit_resample(X, y) and balancer.loss_curve_)
    np.testing.assert_array_equal(*losses)
    assert all(torch.equal(before[name], value) for name, value in kept.state_dict().items())


def test_mirroring_leaves_tables_alone():
    X = np.arange(40.0).reshape(20, 2) ** 2
    plain, mirrored = (
        DiffusionBalancer(**QUICK, horizontal_flip=flip).fit_resample(X, [0] * 15 + [1] * 5)[0]
        for flip in (False, True)
    )
    np.testing.assert_array_equal(plain, mirrored)


def test_classes_of_one_row_each_are_balanced_with_the_filters_that_are_on():
    balancer = DiffusionBalancer(n_steps=5, sampling_strategy=4, random_state=0)
    with pytest.warns(UserWarning, match="single row"):
        _, y = balancer.fit_resample(np.random.RandomState(0).rand(3, 3), [0, 1, 2])
    assert Counter(y) == {0: 4, 1: 4, 2: 4}


def test_generate_checks_parameters_that_were_set_after_fit():
    balancer = DiffusionBalancer(**QUICK).fit(*few_images())
    with pytest.raises(ValueError, match="'solver' parameter"):
        balancer.set_params(solver="none").generate(1, 0)


def test_a_row_of_one_hot_labels_that_marks_nothing_is_refused():
    X, y = few_images()
    one_hot = np.eye(2, dtype=int)[y]
    one_hot[3] = 0
    with pytest.raises(ValueError, match="row 3 is"):
        DiffusionBalancer(**QUICK).fit_resample(X, one_hot)


@pytest.mark.parametrize(
    "estimator", [DiffusionBalancer(**QUICK), WeightedTorchClassifier(n_steps=3)]
)
@pytest.mark.parametrize("data", ["table", "images"])
def test_torch_s_default_dtype_and_gradient_mode_play_no_part(estimator, data):
    X, y = few_images()
    X = X if data == "images" else X.reshape(len(X), -1)[:, :5].astype(float)
    expected = clone(estimator).set_params(random_state=0).fit(X, y).loss_curve_
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            found = clone(estimator).set_params(random_state=0).fit(X, y).loss_curve_
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(found, expected)


def test_generate_takes_one_label():
    balancer = DiffusionBalancer(**QUICK).fit(*few_images(counts=(5, 3, 2)))
    for label in ([1, 2], [1], np.array([0, 1])):
        with pytest.raises(ValueError, match=r"label must be one of \[0, 1, 2\]"):
            balancer.generate(1, label)


@pytest.mark.parametrize(("batch_size", "at_a_time"), [(8, 64), (128, 1024), (20_000, 1024)])
def test_a_large_batch_size_does_not_make_one_generated_row_dear(batch_size, at_a_time):
    parameters = DiffusionBalancer(batch_size=batch_size)
    plan = generation_plan(parameters, is_image=False, device=torch.device("cpu"))
    assert plan.batch_size == at_a_time


@pytest.mark.parametrize(
    ("guidance_scale", "is_image", "expected"),
    [("auto", True, 1.0), ("auto", False, 1.5), (3.0, True, 3.0), (0, False, 0)],
)
def test_images_are_generated_without_guidance_unless_asked_for(guidance_scale, is_image, expected):
    parameters = DiffusionBalancer(guidance_scale=guidance_scale)
    plan = generation_plan(parameters, is_image=is_image, device=torch.device("cpu"))
    assert plan.guidance_scale == expected
