"""WeightedTorchClassifier: weights with a known answer, contracts, containers, errors."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sklearn_diffult._fitting import (
    EarlyStopping,
    Rows,
    auto_n_steps,
    hold_out,
    weighted_batches,
)
from sklearn_diffult._torch import build, new_generator, progress
from sklearn_diffult.augmentations import AUGMENTATIONS
from sklearn_diffult.classifier import WeightedTorchClassifier
from sklearn_diffult.codecs import TableCodec
from sklearn_diffult.networks.resnet import ResNet

CPU = {"device": "cpu", "precision": "float32", "random_state": 0}


def quick(**parameters):
    return WeightedTorchClassifier(**{**CPU, "n_steps": 20, **parameters})


def linear(sample_shape, n_classes):
    return nn.Linear(sample_shape[0], n_classes)


def with_dropout(sample_shape, n_classes):
    return nn.Sequential(nn.Linear(sample_shape[0], 8), nn.Dropout(0.5), nn.Linear(8, n_classes))


@pytest.fixture(scope="module")
def overlapping():
    """Two classes that no line separates, with weights."""
    random = np.random.RandomState(0)
    X = random.normal(size=(300, 2))
    y = (X[:, 0] - 0.5 * X[:, 1] + random.logistic(size=300) > 0.8).astype(int)
    return X, y, random.exponential(size=300)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X.reshape(-1, 8, 8).astype(np.uint8) * 15, y


def images(n=12, shape=(8, 8), dtype=np.uint8):
    X = np.random.RandomState(0).randint(0, 255, size=(n, *shape)).astype(dtype)
    return X, np.arange(n) % 3


EXPECTED_FAILURES = dict.fromkeys(
    [
        "check_sample_weight_equivalence_on_dense_data",
        "check_sample_weight_equivalence_on_sparse_data",
    ],
    "rows are drawn into mini-batches at random, so that weighting and repeating rows agree "
    "in expectation, as for scikit-learn's SGDClassifier and MLPClassifier",
)


@parametrize_with_checks(
    [WeightedTorchClassifier(n_steps=60, device="cpu")],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)


# Weights


@pytest.mark.parametrize("weight_mode", ["sample", "loss"])
def test_a_weighted_linear_module_finds_the_coefficients_of_logistic_regression(
    overlapping, weight_mode
):
    X, y, weights = overlapping
    # Numbers that are normal scores already stay as they are.
    X = TableCodec().fit(X, weights).encode(X).numpy()
    ours = quick(
        module=linear,
        n_steps=1200,
        batch_size=300,
        learning_rate=0.05,
        weight_decay=0.0,
        weight_mode=weight_mode,
    ).fit(X, y, weights)
    theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(X, y, weights)
    unweighted = LogisticRegression(C=np.inf, tol=1e-8).fit(X, y)
    ours_at, theirs_at = (model.decision_function(X) for model in (ours, theirs))
    np.testing.assert_allclose(ours_at, theirs_at, atol=0.12)
    # Without the weights the answer would be another one, by far more than the tolerance.
    assert np.abs(unweighted.decision_function(X) - theirs_at).max() > 0.3


def test_both_weight_modes_have_the_same_expected_gradient(overlapping):
    X, y, weights = overlapping
    gradients = {}
    for mode in ("sample", "loss"):
        gradients[mode] = []

        class Recorder(nn.Linear):
            def __init__(self, record):
                super().__init__(2, 2)
                nn.init.zeros_(self.weight)
                nn.init.zeros_(self.bias)
                self.weight.register_hook(lambda g, record=record: record.append(g.clone()))

            def __deepcopy__(self, memo):
                # A copy of a parameter has no hooks.
                return self

        recorder = Recorder(gradients[mode])
        quick(
            module=lambda shape, n, recorder=recorder: recorder,
            n_steps=2000,
            batch_size=30,
            learning_rate=1e-12,
            weight_mode=mode,
        ).fit(X, y, weights)
    sample, loss = (torch.stack(gradients[mode]).numpy() for mode in ("sample", "loss"))
    error = np.sqrt(sample.var(axis=0) / len(sample) + loss.var(axis=0) / len(loss))
    assert np.all(np.abs(sample.mean(axis=0) - loss.mean(axis=0)) < 4 * error)
    assert np.all(error < 0.03 * np.abs(loss.mean(axis=0)).max())


def test_an_epoch_of_batches_counts_every_row_by_its_weight():
    weights = torch.tensor([0.5, 1.0, 2.5, 0.0, 1.0], dtype=torch.float64)
    batches = weighted_batches(weights, 5, new_generator(0))
    epochs = np.stack([np.bincount(next(batches), minlength=5) for _ in range(400)])
    assert np.all(np.abs(epochs - weights.numpy()) < 1)
    np.testing.assert_allclose(epochs.mean(axis=0), weights, atol=0.08)


def test_batches_of_equal_weights_are_plain_epochs_across_batch_ends():
    batches = weighted_batches(torch.ones(10, dtype=torch.float64), 4, new_generator(0))
    rows = torch.cat([next(batches) for _ in range(5)])
    assert sorted(rows[:10].tolist()) == sorted(rows[10:].tolist()) == list(range(10))


@pytest.mark.parametrize("weight_mode", ["sample", "loss"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_zero_weight_row_changes_nothing(overlapping, weight_mode, early_stopping):
    X, y, weights = overlapping
    model = quick(weight_mode=weight_mode, early_stopping=early_stopping)
    without = clone(model).fit(X, y, weights)
    X_more, y_more = np.r_[[[1e6, -1e6]], X, [[-9.0, 0.0]]], np.r_[2, y, 0]
    with pytest.warns(UserWarning, match="weigh 0, so nothing is learnt of them: 2"):
        with_zeros = clone(model).fit(X_more, y_more, np.r_[0, weights, 0])
    np.testing.assert_array_equal(with_zeros.classes_, without.classes_)
    np.testing.assert_array_equal(with_zeros.predict_proba(X), without.predict_proba(X))


def test_a_call_of_partial_fit_may_leave_a_class_without_weight(overlapping):
    X, y, weights = overlapping
    model = quick().partial_fit(X, y, classes=[0, 1])
    model.partial_fit(X, y, sample_weight=weights * (y == 0))


@pytest.mark.parametrize("weight_mode", ["sample", "loss"])
def test_the_scale_of_the_weights_changes_nothing(overlapping, weight_mode):
    X, y, weights = overlapping
    model = quick(weight_mode=weight_mode)
    once = clone(model).fit(X, y, weights).predict_proba(X)
    np.testing.assert_array_equal(clone(model).fit(X, y, 1024 * weights).predict_proba(X), once)


@pytest.mark.parametrize("weight_mode", ["sample", "loss"])
def test_class_weight_multiplies_the_weights(overlapping, weight_mode):
    X, y, weights = overlapping
    model = quick(weight_mode=weight_mode)
    by_class = clone(model).set_params(class_weight={0: 1, 1: 4}).fit(X, y, weights)
    by_row = clone(model).fit(X, y, weights * np.where(y == 1, 4, 1))
    np.testing.assert_array_equal(by_class.predict_proba(X), by_row.predict_proba(X))


def test_balanced_counts_rows_by_weight(overlapping):
    X, y, weights = overlapping
    mass = np.bincount(y, weights)
    balanced = quick(class_weight="balanced").fit(X, y, weights)
    by_row = quick().fit(X, y, weights / mass[y])
    np.testing.assert_allclose(balanced.predict_proba(X), by_row.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("weight_mode", ["sample", "loss"])
def test_balanced_softmax_recovers_the_posterior_of_equal_priors(weight_mode):
    # One column with two values: the posterior at each value is a share of rows, in closed form.
    # Class 1 holds a tenth of the rows; a row at 1 is three times likelier in it.
    X = np.r_[np.zeros(540), np.ones(180), np.zeros(20), np.ones(60)][:, None]
    y = np.r_[np.zeros(720), np.ones(80)].astype(int)
    fit = {"module": linear, "n_steps": 600, "batch_size": 800, "learning_rate": 0.05}
    fit |= {"weight_decay": 0.0, "weight_mode": weight_mode}
    at = np.array([[0.0], [1.0]])
    plain = quick(**fit).fit(X, y).predict_proba(at)[:, 1]
    np.testing.assert_allclose(plain, [20 / 560, 60 / 240], atol=0.01)
    adjusted = quick(**fit, logit_adjustment=1.0).fit(X, y).predict_proba(at)[:, 1]
    np.testing.assert_allclose(adjusted, [0.25, 0.75], atol=0.02)


def test_the_prior_of_logit_adjustment_is_the_share_of_weight(overlapping):
    X, y, _ = overlapping
    equal_shares = 1 / np.bincount(y)[y]
    plain = quick().fit(X, y, equal_shares)
    adjusted = quick(logit_adjustment=1.0).fit(X, y, equal_shares)
    np.testing.assert_allclose(adjusted.predict_proba(X), plain.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 1, -1, 1], "Negative values"),
        ([1, 1, np.nan, 1], "NaN"),
        ([1, 1, 1], "shape"),
        ([0, 0, 0, 0], "non-zero|positive weight"),
        ("balanced", "sample_weight='balanced' must be one number per row; it is class_weight"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        quick().fit([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1], weights)


@pytest.mark.parametrize("class_weight", [{0: -1, 1: 1}, {0: np.inf, 1: 1}, {0: 0, 1: 0}])
def test_class_weights_that_mean_nothing_are_refused(class_weight):
    with pytest.raises(ValueError, match="class_weight"):
        quick(class_weight=class_weight).fit([[0.0], [1.0]], [0, 1])


# Images


def test_digits_are_learnt(digits):
    X, y = digits
    model = quick(n_steps=150).fit(X[:1000], y[:1000])
    assert model.score(X[1000:], y[1000:]) > 0.9
    assert model.image_shape_ == (1, 8, 8)
    assert not hasattr(model, "n_features_in_")


@pytest.mark.parametrize("shape", [(8, 8), (9, 13), (8, 8, 3), (3, 8, 11), (8, 8, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_images_of_every_layout_and_dtype_are_taken(shape, dtype):
    X, y = images(shape=shape, dtype=dtype)
    model = quick(n_steps=2).fit(X, y)
    assert model.predict_proba(X).shape == (12, 3)
    with pytest.raises(ValueError, match="fit saw"):
        model.predict(np.concatenate([X, X], axis=2))


def test_pillow_images_and_flat_rows_give_what_the_array_gives():
    X, y = images()
    expected = quick(n_steps=5).fit(X, y).predict_proba(X)
    pillow = [Image.fromarray(image) for image in X]
    weights = np.ones(12)
    from_pillow = quick(n_steps=5).fit(pillow, y, weights)
    np.testing.assert_array_equal(from_pillow.predict_proba(pillow), expected)
    flat = X.reshape(12, -1)
    from_flat = quick(n_steps=5, image_shape=(8, 8)).fit(flat, y)
    np.testing.assert_array_equal(from_flat.predict_proba(flat), expected)
    assert from_flat.n_features_in_ == 64


def test_zero_weight_pillow_images_are_dropped():
    X, y = images()
    pillow = [Image.fromarray(image) for image in X]
    weights = np.r_[np.ones(9), np.zeros(3)]
    with_zeros = quick(n_steps=5).fit(pillow, y, weights).predict_proba(X)
    np.testing.assert_array_equal(with_zeros, quick(n_steps=5).fit(X[:9], y[:9]).predict_proba(X))


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_an_augmentation_keeps_shape_and_range_and_follows_its_generator(name):
    batch = 2 * torch.rand(16, 3, 9, 12, generator=new_generator(0)) - 1
    changed, again, other = (AUGMENTATIONS[name](batch, new_generator(s)) for s in (1, 1, 2))
    assert changed.shape == batch.shape
    assert torch.equal(changed, again)
    assert not torch.equal(changed, other)
    assert changed.dtype == batch.dtype
    assert changed.abs().max() <= 1
    if name in ("shift", "flip"):
        # Pixels move, and none gets a new value.
        assert set(changed.flatten().tolist()) <= set(batch.flatten().tolist())


def test_shift_moves_by_an_eighth_at_most_and_flip_mirrors():
    ramp = torch.arange(16.0).expand(64, 1, 16, 16)
    offset = AUGMENTATIONS["shift"](ramp, new_generator(0))[:, 0, 8, 8] - 8
    assert set(offset.tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    mirrored = AUGMENTATIONS["flip"](ramp, new_generator(0))[:, 0, 0, 0]
    assert set(mirrored.tolist()) == {0.0, 15.0}


def test_augmentation_changes_training_only():
    X, y = images()
    model = quick(augment=("shift", "flip")).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X))
    assert model.loss_curve_ != quick().fit(X, y).loss_curve_


def test_a_callable_augments_tables():
    seen = []

    def noise(batch, generator):
        seen.append(tuple(batch.shape))
        return batch + torch.randn(batch.shape, generator=generator)

    X, y = np.arange(8.0)[:, None], np.arange(8) % 2
    quick(augment=noise, n_steps=3, batch_size=4).fit(X, y)
    assert seen == [(4, 1)] * 3


@pytest.mark.parametrize("returned", [None, np.zeros((4, 1), np.float32), torch.zeros(3, 1)])
def test_a_callable_that_returns_no_such_batch_is_named(returned):
    with pytest.raises(TypeError, match=r"augment must return a torch.Tensor of shape \(4, 1\)"):
        quick(augment=lambda batch, generator: returned).fit(np.arange(4.0)[:, None], [0, 1, 0, 1])


def test_a_list_of_augmentations_is_as_good_as_a_tuple():
    X, y = images()
    a_list, a_tuple = (quick(augment=names).fit(X, y) for names in (["shift"], ("shift",)))
    assert a_list.loss_curve_ == a_tuple.loss_curve_


@pytest.mark.parametrize("augment", ["flip", ("spin",), ("flip", "spin")])
def test_augmentations_that_do_not_fit_are_refused(augment):
    with pytest.raises(ValueError, match="augment="):
        quick(augment=augment).fit([[0.0], [1.0]], [0, 1])


# Modules


def test_a_module_given_is_never_changed(overlapping):
    X, y, _ = overlapping
    module = nn.Linear(2, 2)
    before = copy.deepcopy(module.state_dict())
    model = quick(module=module, learning_rate=0.1).fit(X, y)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
        assert not torch.equal(value, model.module_.state_dict()[name])


def test_embed_gives_what_the_head_reads():
    X, y = images()
    model = quick().fit(X, y)
    features = model.embed(X)
    assert features.dtype == np.float32
    head = model.module_.head
    logits = features @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(logits, model.decision_function(X), atol=1e-5)


def test_embed_says_what_a_module_without_features_lacks(overlapping):
    X, y, _ = overlapping
    with pytest.raises(ValueError, match=r"Linear has no method features"):
        quick(module=linear).fit(X, y).embed(X)
    with pytest.raises(NotFittedError):
        quick(module=linear).embed(X)


@pytest.mark.parametrize("module", ["auto", with_dropout])
@pytest.mark.parametrize("random_state", [0, None])
def test_no_global_state_is_touched(overlapping, module, random_state, global_state_kept):
    X, y, weights = overlapping
    model = quick(module=module, random_state=random_state, early_stopping=True)
    model.fit(X, y, weights).partial_fit(X, y).predict_proba(X)


@pytest.mark.parametrize("module", ["auto", with_dropout])
def test_the_seed_decides_everything(overlapping, module):
    X, y, weights = overlapping
    first, again, other = (
        quick(module=module, random_state=seed, early_stopping=True)
        .fit(X, y, weights)
        .predict_proba(X)
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


# Steps, partial_fit, early stopping


def test_steps_and_losses_are_counted(overlapping):
    X, y, _ = overlapping
    model = quick(n_steps=30).fit(X, y)
    assert model.n_steps_ == len(model.loss_curve_) == 30
    model.partial_fit(X, y)
    assert model.n_steps_ == len(model.loss_curve_) == 30 + 5


@pytest.mark.parametrize(("n_rows", "of_tables"), [(40, 150), (400, 300)])
def test_steps_grow_as_the_root_of_the_rows_and_images_take_four_times_as_many(n_rows, of_tables):
    assert auto_n_steps(n_rows, is_image=True) == 4 * of_tables
    assert auto_n_steps(n_rows, is_image=False) == of_tables
    X, y = np.arange(n_rows)[:, None] / n_rows, np.arange(n_rows) % 2
    assert quick(n_steps="auto").fit(X, y).n_steps_ == of_tables


def test_ours_with_dropout_of_one_s_own_is_as_private_and_repeatable(global_state_kept):
    X = np.random.RandomState(0).randint(256, size=(20, 8, 8)).astype(np.uint8)
    network = build(lambda: ResNet((1, 8, 8), 2), new_generator(0))
    network.head = nn.Sequential(nn.Dropout(0.5), network.head)
    first, again = (
        WeightedTorchClassifier(network, n_steps=3, augment=None, device="cpu", random_state=0)
        .fit(X, np.arange(20) % 2)
        .predict_proba(X)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)


def test_partial_fit_learns_batch_by_batch_and_keeps_the_optimiser(overlapping):
    X, y, _ = overlapping
    model = quick(module=linear, learning_rate=0.02)
    for _ in range(40):
        model.partial_fit(X[:150], y[:150], classes=[0, 1])
        model.partial_fit(X[150:], y[150:])
    expected = LogisticRegression(C=np.inf).fit(X, y).score(X, y)
    assert model.score(X, y) > expected - 0.03
    steps = [state["step"].item() for state in model._optimizer_state["state"].values()]
    assert steps == [model.n_steps_] * 2 == [240] * 2


def test_partial_fit_wants_the_classes_first_and_no_others_later(overlapping):
    X, y, _ = overlapping
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        quick().partial_fit(X, y)
    with pytest.raises(ValueError, match=r"y holds \[1\]"):
        quick().partial_fit(X, y, classes=[0, 2])
    model = quick().partial_fit(X, y, classes=[0, 1, 2])
    assert model.predict_proba(X).shape == (300, 3)
    with pytest.raises(ValueError, match="differ from those seen before"):
        model.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="class_weight='balanced' needs all rows"):
        quick(class_weight="balanced").partial_fit(X, y, classes=[0, 1])


def test_the_hold_out_is_stratified_and_spares_single_rows():
    targets = torch.tensor([0] * 40 + [1] * 4 + [2])
    inputs = torch.arange(45.0)
    rows = Rows(inputs, targets, torch.ones(45, dtype=torch.float64))
    kept, held_out = hold_out(rows, 0.2, np.random.RandomState(0))
    assert np.bincount(held_out.targets).tolist() == [8, 1]
    assert np.bincount(kept.targets).tolist() == [32, 3, 1]
    assert sorted([*kept.inputs.tolist(), *held_out.inputs.tolist()]) == inputs.tolist()


def test_early_stopping_stops_and_keeps_the_best_parameters(overlapping):
    X, y, _ = overlapping
    model = quick(n_steps=4000, early_stopping=True, patience=2, learning_rate=0.01).fit(X, y)
    scores = model.validation_scores_
    assert model.n_steps_ == 100 * len(scores) < 4000
    assert max(scores[:-2]) >= max(scores[-2:])
    assert not hasattr(quick().fit(X, y), "validation_scores_")


def test_the_best_parameters_are_put_back():
    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(2))

        def forward(self, rows):
            return self.bias.expand(len(rows), 2)

    class Stub:
        module, device, dtype = Bias(), torch.device("cpu"), torch.float32

    held_out = Rows(torch.zeros(2, 1), torch.tensor([0, 0]), torch.ones(2, dtype=torch.float64))
    stopping = EarlyStopping(held_out, every=1, patience=2)
    stopped = []
    for step, bias in enumerate([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0], [0.0, 3.0]], start=1):
        Stub.module.bias.data = torch.tensor(bias)
        stopped.append(stopping.look(step, 9, Stub))
    assert stopping.scores == [0.0, 1.0, 0.0, 0.0]
    assert stopped == [False, False, False, True]
    stopping.restore(Stub.module)
    assert Stub.module.bias.tolist() == [1.0, 0.0]


def test_early_stopping_needs_a_row_to_hold_out():
    with pytest.raises(ValueError, match="early_stopping=True needs"):
        quick(early_stopping=True).fit([[0.0], [1.0]], [0, 1])


# Predictions


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["a", "b", "c"]),
        np.array(["a", "b", "c"], dtype=object),
        np.array([-1, 5, 7]),
        np.array([0.0, 1.0, 2.0]),
    ],
    ids=["str", "object", "int", "float"],
)
def test_labels_come_back_as_they_were(labels):
    X, index = images()
    y = labels[index]
    model = quick(n_steps=60).fit(X, y)
    assert model.classes_.dtype == labels.dtype
    np.testing.assert_array_equal(model.predict(X), y)


def test_boolean_labels_and_the_binary_decision(overlapping):
    X, y, _ = overlapping
    model = quick().fit(X, y.astype(bool))
    decision, probability = model.decision_function(X), model.predict_proba(X)
    assert decision.shape == (300,)
    np.testing.assert_array_equal(model.predict(X), decision > 0)
    np.testing.assert_allclose(probability[:, 1], 1 / (1 + np.exp(-decision)))
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.log(probability), model.predict_log_proba(X))


def test_score_is_weighted_accuracy(overlapping):
    X, y, weights = overlapping
    model = quick().fit(X, y)
    expected = np.average(model.predict(X) == y, weights=weights)
    assert model.score(X, y, weights) == pytest.approx(expected)


def test_dataframes_keep_their_column_names(overlapping):
    X, y, _ = overlapping
    frame = pd.DataFrame(X, columns=["height", "width"])
    model = quick().fit(frame, pd.Series(y, index=range(7, 307)))
    assert model.feature_names_in_.tolist() == ["height", "width"]
    np.testing.assert_array_equal(model.predict_proba(frame), quick().fit(X, y).predict_proba(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["width", "height"]])


def test_a_fit_to_images_forgets_the_table_before_it(overlapping):
    model = quick(n_steps=2, early_stopping=True).fit(overlapping[0], overlapping[1])
    X, y = images()
    model.set_params(early_stopping=False).fit(X, y)
    assert not hasattr(model, "n_features_in_")
    assert not hasattr(model, "validation_scores_")
    model.fit(overlapping[0], overlapping[1])
    assert not hasattr(model, "image_shape_")


def _through_joblib(model):
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    buffer.seek(0)
    return joblib.load(buffer)


@pytest.mark.parametrize(
    "copied",
    [lambda model: pickle.loads(pickle.dumps(model)), _through_joblib, copy.deepcopy],
    ids=["pickle", "joblib", "deepcopy"],
)
def test_a_copy_predicts_alike_and_trains_on_alike(overlapping, copied):
    X, y, _ = overlapping
    model = quick(module=nn.Linear(2, 2)).fit(X, y)
    twin = copied(model)
    np.testing.assert_array_equal(twin.predict_proba(X), model.predict_proba(X))
    model.partial_fit(X, y)
    assert np.abs(twin.predict_proba(X) - model.predict_proba(X)).max() > 0
    np.testing.assert_array_equal(twin.partial_fit(X, y).predict_proba(X), model.predict_proba(X))


def test_every_tensor_of_a_pickle_lies_on_the_cpu(overlapping, monkeypatch):
    # Without a GPU at hand, count on which tensors the state is made of: all pass through .cpu().
    X, y, _ = overlapping
    model = quick().fit(X, y)
    moved = []
    original = torch.Tensor.cpu
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda self: moved.append(self.data_ptr()) or original(self)
    )
    model.__getstate__()
    held = [t for s in model._optimizer_state["state"].values() for t in s.values()]
    assert held
    assert {tensor.data_ptr() for tensor in held} <= set(moved)


# Errors


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"module": "vgg"}, "'module' parameter"),
        ({"n_steps": 0}, "'n_steps' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"learning_rate": 0.0}, "'learning_rate' parameter"),
        ({"weight_mode": "both"}, "'weight_mode' parameter"),
        ({"logit_adjustment": -1.0}, "'logit_adjustment' parameter"),
        ({"validation_fraction": 1.0}, "'validation_fraction' parameter"),
        ({"device": "abacus"}, "device='abacus'"),
        ({"module": "resnet"}, "module='mlp'"),
    ],
)
def test_bad_parameters_are_named_before_anything_is_fitted(parameters, message):
    model = quick(**parameters)
    with pytest.raises(ValueError, match=message):
        model.fit([[0.0], [1.0]], [0, 1])
    assert not hasattr(model, "module_")


def test_one_class_is_refused():
    with pytest.raises(ValueError, match=r"y holds 1 class \(\[1\]\)"):
        quick().fit([[0.0], [1.0]], [1, 1])


def test_lengths_that_differ_are_refused():
    X, y = images()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick().fit(X, y[:-1])


def test_a_loss_that_is_not_finite_stops_and_leaves_nothing_to_predict_with(overlapping):
    X, y, _ = overlapping
    model = quick(module=linear, learning_rate=1e38, n_steps=200)
    with pytest.raises(FloatingPointError, match="Lower learning_rate"):
        model.fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_running_out_of_memory_names_batch_size(overlapping):
    class Hungry(nn.Linear):
        def forward(self, rows):
            if self.training:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(rows)

    with pytest.raises(MemoryError, match="lower batch_size"):
        quick(module=Hungry(2, 2)).fit(overlapping[0], overlapping[1])


def test_silence_unless_asked_and_progress_when_asked(overlapping, capsys):
    X, y, _ = overlapping
    quick().fit(X, y)
    assert capsys.readouterr().err == ""
    quick(verbose=1).fit(X, y)
    printed = capsys.readouterr().err
    assert "loss=" in printed
    assert "rows/s=" in printed


@pytest.mark.parametrize("stream", [None, object()], ids=["none", "no file"])
def test_nobody_need_have_a_terminal(overlapping, monkeypatch, stream):
    X, y, _ = overlapping
    monkeypatch.setattr("sys.stderr", stream)
    quick().fit(X, y)


@pytest.mark.parametrize(("is_terminal", "seconds"), [(True, 0.1), (False, 10)])
def test_a_file_gets_fewer_lines_than_a_terminal(monkeypatch, is_terminal, seconds):
    screen = io.StringIO()
    screen.isatty = lambda: is_terminal
    monkeypatch.setattr("sys.stderr", screen)
    with progress(1, "training", verbose=1) as bar:
        assert bar.mininterval == seconds


def test_a_module_that_a_function_keeps_is_copied_for_each_fit(overlapping):
    X, y, _ = overlapping
    kept = nn.Linear(2, 2)
    first = quick(module=lambda shape, n_classes: kept).fit(X, y)
    before = first.predict_proba(X)
    quick(module=lambda shape, n_classes: kept).fit(X, 1 - y)
    np.testing.assert_array_equal(first.predict_proba(X), before)


@pytest.mark.parametrize("gap", [None, pd.NA, np.nan])
def test_a_column_of_numbers_may_be_missing_altogether_in_new_rows(gap, overlapping):
    X, y, _ = overlapping
    model = quick().fit(pd.DataFrame(X, columns=["a", "b"]), y)
    new = pd.DataFrame({"a": pd.Series([gap], dtype=object), "b": [1.0]})
    expected = model.predict_proba(pd.DataFrame({"a": [np.nan], "b": [1.0]}))
    np.testing.assert_array_equal(model.predict_proba(new), expected)


def test_an_interrupted_fit_leaves_nothing_that_predicts(overlapping):
    X, y, _ = overlapping
    model = quick().fit(X, y)

    def interrupt(images, generator):
        raise KeyboardInterrupt

    X_images, y_images = images()
    model.set_params(augment=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X_images, y_images)
    with pytest.raises(NotFittedError):
        check_is_fitted(model)


@pytest.mark.parametrize(("method", "more"), [("fit", {}), ("partial_fit", {"classes": [0, 1]})])
def test_an_interruption_before_the_first_step_leaves_nothing_that_predicts(
    method, more, overlapping, monkeypatch
):
    X, y, _ = overlapping

    def interrupt(codec, rows):
        raise KeyboardInterrupt

    model = quick()
    monkeypatch.setattr(TableCodec, "encode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        getattr(model, method)(X, y, **more)
    with pytest.raises(NotFittedError):
        check_is_fitted(model)


def test_classes_of_weight_zero_are_not_held_out():
    y = np.r_[np.zeros(40, int), 1, 2]
    model = quick(early_stopping=True, class_weight={0: 0, 1: 1, 2: 1})
    with pytest.raises(ValueError, match="a class of 2 rows or more to hold out"):
        model.fit(np.random.RandomState(0).normal(size=(42, 2)), y)


def test_a_later_partial_fit_that_is_refused_leaves_the_model(overlapping):
    X, y, _ = overlapping
    model = quick().fit(X, y)
    expected = model.predict_proba(X)
    with pytest.raises(ValueError, match="augment"):
        model.set_params(augment="flip").partial_fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), expected)


def test_weight_decay_can_be_changed_between_partial_fits(overlapping):
    X, y, _ = overlapping
    shrunk = quick(learning_rate=0.01).partial_fit(X, y, classes=[0, 1])
    other = copy.deepcopy(shrunk)
    for _ in range(10):
        other.partial_fit(X, y)
        shrunk.set_params(weight_decay=20.0).partial_fit(X, y)
    sizes = [
        sum(float(p.detach().square().sum()) for p in m.module_.parameters() if p.ndim > 1)
        for m in (shrunk, other)
    ]
    assert sizes[0] < 0.5 * sizes[1]


@pytest.mark.parametrize(
    ("X", "y", "parameters"),
    [
        (np.zeros((4, 3)), [0, None, 1, 1], {}),
        (np.zeros((4, 3)), [0, 0, 0, 0], {}),
        (np.zeros((2, 3)), [0, 1], {"early_stopping": True}),
        (pd.DataFrame({"day": pd.to_datetime(["2020-01-01"] * 4)}), [0, 0, 1, 1], {}),
    ],
)
def test_a_fit_that_is_refused_leaves_the_one_before(X, y, parameters, overlapping):
    known, labels, _ = overlapping
    model = quick().fit(known, labels)
    expected = model.predict_proba(known)
    with pytest.raises((ValueError, TypeError)):
        model.set_params(**parameters).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(known), expected)
    assert model.n_features_in_ == 2


def test_classes_that_partial_fit_has_not_seen_yet_are_not_predicted():
    random = np.random.RandomState(0)
    X, y = random.normal(size=(200, 2)), random.randint(2, size=200)
    model = quick(logit_adjustment=1.0)
    for _ in range(6):
        model.partial_fit(X, y, classes=[0, 1, 2])
    plain = quick()
    for _ in range(6):
        plain.partial_fit(X, y, classes=[0, 1, 2])
    unseen, without_adjustment = (each.predict_proba(X)[:, 2].mean() for each in (model, plain))
    assert unseen < 2 * without_adjustment < 0.3


@pytest.mark.parametrize("names", [["a", "a"], ["a", 1]])
def test_columns_whose_names_scikit_learn_refuses_are_taken_as_the_balancer_takes_them(
    names, overlapping
):
    X, y, _ = overlapping
    model = quick().fit(pd.DataFrame(X, columns=names), y)
    expected = quick().fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(pd.DataFrame(X, columns=names)), expected)
    with pytest.raises(ValueError, match="1 features"):
        model.predict(pd.DataFrame(X[:, :1]))


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.coo_array])
def test_sparse_tables_are_taken_like_dense_ones(kind, overlapping):
    X, y, weights = overlapping
    weights = weights * (weights > 0.1)
    model = quick().fit(kind(X), y, weights)
    expected = quick().fit(X, y, weights).predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(kind(X)), expected)


@pytest.mark.parametrize(
    ("factor", "warns"), [(1 / 255, True), (1 / 16, True), (0.3, False), (16, True)]
)
def test_images_on_another_scale_than_in_fit_are_told(factor, warns):
    X, y = images(dtype=np.float64)
    model = quick(n_steps=2).fit(X, y)
    with pytest.warns(UserWarning, match="same scale") if warns else contextlib.nullcontext():
        model.predict(factor * X)
    model.predict(np.zeros((1, 8, 8)))


def test_one_hot_labels_are_refused_with_the_way_out():
    X, y = images()
    with pytest.raises(ValueError, match=r"y.argmax\(axis=1\) in the place of one-hot columns"):
        quick().fit(X, np.eye(y.max() + 1)[y])


def test_a_few_images_are_on_another_scale_if_they_have_fractions_that_fit_did_not_see():
    X, y = images(dtype=np.float64)
    whole = np.round(16 * (X - X.min()) / np.ptp(X))
    model = quick(n_steps=2).fit(whole, y)
    model.predict(whole[:2].clip(max=1))
    with pytest.warns(UserWarning, match="same scale"):
        model.predict(whole[:2] / 16)
    quick(n_steps=2).fit(whole / 16, y).predict(whole[:2] / 256)
