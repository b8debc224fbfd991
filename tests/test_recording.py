from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

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


@pytest.fixture
def double_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Input:
    def __init__(self, *shape, requires_grad=False):
        self.shape, self.requires_grad = shape, requires_grad


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


@pytest.mark.usefixtures("taped")
def test_what_gradients_are_wanted_of_is_called():
    recorded, wanted = Recorded(lambda each: "called", CUDA, True), Input(2, requires_grad=True)
    assert [recorded(Input(2)) for _ in range(5)][-1] != "called"
    assert recorded(wanted) == "called"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
@pytest.mark.usefixtures("taped")
def test_once_a_recording_failed_everything_is_called(monkeypatch, error):
    recorded, narrow, wide = Recorded(lambda each: "called", CUDA, True), Input(2), Input(3)
    assert [recorded(narrow) for _ in range(4)][-1] != "called"
    monkeypatch.setattr(recording, "_Recording", Mock(side_effect=error))
    assert [recorded(wide) for _ in range(9)] == ["called"] * 9
    assert recorded(narrow) == "called"


@pytest.mark.usefixtures("taped")
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_nothing_is_recorded_where_anomalies_are_looked_for():
    with torch.autograd.detect_anomaly():
        recorded = Recorded(lambda each: "called", CUDA, True)
    assert [recorded(Input(2)) for _ in range(9)] == ["called"] * 9


def test_a_class_speaks_for_itself_and_not_for_what_was_made_of_it():
    class Own(ResNet):
        pass

    shape = (1, 8, 8)
    assert is_recordable(ResNet(shape, 2))
    assert not is_recordable(Own(shape, 2))
    assert not is_recordable(torch.nn.Linear(2, 2))
    hooked, dropping = ResNet(shape, 2), ResNet(shape, 2)
    hooked.head.register_forward_hook(lambda *args: None)
    dropping.head = torch.nn.Sequential(torch.nn.Dropout(), dropping.head)
    assert not is_recordable(hooked)
    assert not is_recordable(dropping)


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
    replay, replayed_by = recording._Recording.replay, []

    def counted(tape, inputs):
        replayed_by.append(tape)
        return replay(tape, inputs)

    monkeypatch.setattr(recording._Recording, "replay", counted)

    def results():
        balancer = on_gpu(DiffusionBalancer).fit(X, y)
        classifier = on_gpu(WeightedTorchClassifier).fit(X, y)
        return [
            balancer.loss_curve_,
            balancer.generate(40, balancer.classes_[0]),
            classifier.predict_proba(X),
        ]

    replayed = results()
    # Training and generation, and of images the classifier, whose network for tables draws.
    assert len(set(replayed_by)) >= (3 if data == "images" else 2)
    replayed_by.clear()
    monkeypatch.setattr(recording, "_CALLS_BEFORE_RECORDING", 10**9)
    for found, expected in zip(replayed, results(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not replayed_by


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


@on_cuda
@pytest.mark.usefixtures("double_by_default")
def test_torch_s_default_dtype_changes_no_recording():
    X, y = long_tail("images")
    losses = on_gpu(DiffusionBalancer).fit(X, y).loss_curve_
    torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(losses, on_gpu(DiffusionBalancer).fit(X, y).loss_curve_)
