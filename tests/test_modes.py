"""Modes of torch that the caller has set do not reach into our work."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklearn_diffult import DiffusionBalancer, WeightedTorchClassifier
from sklearn_diffult._torch import undisturbed

RANDOM = np.random.RandomState(0)
TABLE = np.concatenate([RANDOM.normal(size=(60, 3)), RANDOM.normal(size=(20, 3)) + 2])
IMAGES = RANDOM.randint(0, 256, size=(80, 8, 8)).astype(np.uint8)
Y = np.repeat([0, 1], [60, 20])


def balanced(X, precision):
    balancer = DiffusionBalancer(
        n_steps=8, n_solver_steps=3, d2_max=5.0, precision=precision, random_state=0
    )
    return balancer.fit_resample(X, Y)[0]


def probabilities(X, precision):
    classifier = WeightedTorchClassifier(n_steps=8, precision=precision, random_state=0)
    return classifier.fit(X, Y).predict_proba(X)


@pytest.fixture
def default_device():
    """Another default device, on which nothing can be computed."""
    torch.set_default_device("meta")
    yield
    # Any device by name would stay a mode that every later call goes through.
    torch.set_default_device(None)


@pytest.mark.usefixtures("short_classifiers")
@pytest.mark.parametrize("work", [balanced, probabilities])
@pytest.mark.parametrize("X", [TABLE, IMAGES], ids=["table", "images"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_block_of_autocast_changes_nothing(work, X, precision):
    plain = work(X, precision)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = work(X, precision)
        assert torch.is_autocast_enabled("cpu")
    np.testing.assert_array_equal(inside, plain)


def test_what_is_drawn_on_the_cpu_for_a_gpu_is_drawn_as_without_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with undisturbed(torch.device("cuda")):
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.usefixtures("short_classifiers")
@pytest.mark.parametrize("work", [balanced, probabilities])
@pytest.mark.parametrize("X", [TABLE, IMAGES], ids=["table", "images"])
def test_another_default_device_changes_nothing(work, X, request):
    plain = work(X, "float32")
    request.getfixturevalue("default_device")
    np.testing.assert_array_equal(work(X, "float32"), plain)
    assert torch.get_default_device().type == "meta"


@pytest.mark.parametrize("work", [balanced, probabilities])
def test_training_in_inference_mode_is_refused_by_name(work):
    with torch.inference_mode(), pytest.raises(RuntimeError, match="leave that block for fit"):
        work(TABLE, "float32")


def test_generation_and_prediction_in_inference_mode_are_as_outside():
    balancer = DiffusionBalancer(n_steps=8, n_solver_steps=3, random_state=0).fit(TABLE, Y)
    classifier = WeightedTorchClassifier(n_steps=8, random_state=0).fit(TABLE, Y)
    plain = balancer.generate(5, label=1), classifier.predict_proba(TABLE)
    with torch.inference_mode():
        inside = balancer.generate(5, label=1), classifier.predict_proba(TABLE)
    for one, other in zip(inside, plain, strict=True):
        np.testing.assert_array_equal(one, other)
