from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import sklearn_diffult._recording as recording
from sklearn_diffult import DiffusionBalancer, WeightedTorchClassifier, make_long_tailed
from sklearn_diffult._recording import Recorded, is_recordable
from sklearn_diffult.diffusion.batches import Batches
from sklearn_diffult.networks.resnet import ResNet

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HAS_CUDA = torch.cuda.is_available()


def on_cuda(test):
    """Mark a test that computes on a GPU."""
    skipped = pytest.mark.skipif(not HAS_CUDA, reason="there is no CUDA device")
    return pytest.mark.cuda(skipped(test))


class Tape:
    """Stands in for a recording, which only CUDA can make."""

    def __init__(self, function, inputs, device):
        self.result = function(*inputs)

    def replay(self, inputs):
        return "replayed", self.result, *inputs


@pytest.fixture
def taped(monkeypatch):
    monkeypatch.setattr(recording, "_Recording", Tape)


class Input:
    def __init__(self, *shape):
        self.shape = shape


@pytest.mark.usefixtures("taped")
@pytest.mark.parametrize(("device", "allowed"), [(CPU, True), (CUDA, False)])
def test_a_function_is_just_called_on_a_cpu_or_where_it_may_not_be_recorded(device, allowed):
    recorded = Recorded(lambda each: "called", device, allowed)
    assert [recorded(Input(2)) for _ in range(9)] == ["called"] * 9


@pytest.mark.usefixtures("taped")
def test_the_fourth_call_of_a_shape_is_recorded_and_from_then_on_replayed():
    recorded = Recorded(lambda each, other: "called", CUDA, True)
    narrow, wide = Input(2), Input(3)
    assert [recorded(narrow, None) for _ in range(3)] == ["called"] * 3
    assert [recorded(wide, None) for _ in range(3)] == ["called"] * 3
    for each in (narrow, wide, narrow):
        assert recorded(each, None) == ("replayed", "called", each, None)


@pytest.mark.usefixtures("taped")
def test_what_is_forgotten_is_recorded_anew():
    recorded, each = Recorded(lambda each: "called", CUDA, True), Input(2)
    calls = [recorded(each) for _ in range(4)]
    recorded.forget()
    assert [recorded(each) for _ in range(4)] == calls
    assert calls[-1][0] == "replayed"


def test_what_cannot_be_recorded_is_called(monkeypatch):
    def no_memory(function, inputs, device):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(recording, "_Recording", no_memory)
    recorded = Recorded(lambda each: "called", CUDA, True)
    assert [recorded(Input(2)) for _ in range(9)] == ["called"] * 9


def test_a_class_speaks_for_itself_and_not_for_those_made_from_it():
    class Own(ResNet):
        pass

    shape = (1, 8, 8)
    assert is_recordable(ResNet(shape, 2))
    assert not is_recordable(Own(shape, 2))
    assert not is_recordable(torch.nn.Linear(2, 2))


def long_tail(data):
    images, y = load_digits(return_X_y=True)
    X = images.reshape(-1, 8, 8) if data == "images" else images[:, 20:40]
    return make_long_tailed(X, y, 10, random_state=0)


def on_gpu(kind, **parameters):
    return kind(**{"n_steps": 20, "device": "cuda", "random_state": 0} | parameters)


@on_cuda
@pytest.mark.parametrize("data", ["images", "table"])
def test_replays_give_what_calls_give(monkeypatch, data):
    X, y = long_tail(data)

    def results():
        balancer = on_gpu(DiffusionBalancer).fit(X, y)
        classifier = on_gpu(WeightedTorchClassifier).fit(X, y)
        return [
            balancer.loss_curve_,
            balancer.generate(40, balancer.classes_[0]),
            classifier.predict_proba(X),
        ]

    replayed = results()
    monkeypatch.setattr(recording, "_CALLS_BEFORE_RECORDING", 10**9)
    for found, expected in zip(replayed, results(), strict=True):
        np.testing.assert_array_equal(found, expected)


@on_cuda
def test_an_interrupted_recording_goes_on_with_the_same_losses(monkeypatch, tmp_path):
    X, y = long_tail("images")
    expected = on_gpu(DiffusionBalancer).fit(X, y).loss_curve_
    draw, drawn = Batches.draw, []

    def interrupted(batches):
        drawn.append(draw(batches))
        if len(drawn) == 12:
            raise KeyboardInterrupt
        return drawn[-1]

    resumed = on_gpu(DiffusionBalancer, checkpoint=tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Batches, "draw", interrupted)
        with pytest.warns(UserWarning, match="of 20 steps"):
            resumed.fit(X, y)
    np.testing.assert_array_equal(resumed.fit(X, y).loss_curve_, expected)


@on_cuda
def test_threads_record_as_each_would_alone():
    X, y = long_tail("table")

    def losses(seed):
        return on_gpu(DiffusionBalancer, random_state=seed).fit(X, y).loss_curve_

    alone = [losses(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        np.testing.assert_array_equal(list(pool.map(losses, range(3))), alone)
