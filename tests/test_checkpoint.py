"""Long work survives: kills, signals, full disks, diverging losses, too little memory."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading

import numpy as np
import pytest
import torch
from own_networks import Dropping
from scripts import output_of
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from sklearn_diffult import DiffusionBalancer
from sklearn_diffult.diffusion import checkpoint as checkpoint_module
from sklearn_diffult.diffusion import trainer
from sklearn_diffult.diffusion.batches import Batches
from sklearn_diffult.diffusion.checkpoint import Checkpoint, DeferredSignals
from sklearn_diffult.diffusion.generation import generate
from sklearn_diffult.networks.mlp import MLP

X, Y = make_classification(60, n_features=6, weights=[0.8], random_state=0)
N_STEPS = 40


def balancer(**parameters):
    quick = {"n_steps": N_STEPS, "batch_size": 8, "n_solver_steps": 2, "d3_max": None}
    return DiffusionBalancer(**quick | {"random_state": 0, "max_rounds": 1} | parameters)


def weights_of(fitted):
    return torch.cat([parameter.flatten() for parameter in fitted.denoiser_.parameters()])


def assert_same_model(fitted, other):
    assert torch.equal(weights_of(fitted), weights_of(other))
    np.testing.assert_array_equal(fitted.loss_curve_, other.loss_curve_)


@pytest.fixture(autouse=True)
def _interrupts_are_heard():
    """A shell that runs the tests in the background has them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def at_step(monkeypatch):
    """Do something before the batch of a step is drawn; the steps drawn are listed."""
    actions, drawn = {}, []
    draw = Batches.draw

    def watched(batches):
        drawn.append(len(drawn))
        actions.pop(drawn[-1], lambda: None)()
        return draw(batches)

    monkeypatch.setattr(Batches, "draw", watched)

    def plan(step=None, action=None):
        drawn.clear()
        actions.clear()
        if action is not None:
            actions[step] = action
        return drawn

    return plan


def send(signum):
    return lambda: os.kill(os.getpid(), signum)


def interrupt():
    raise KeyboardInterrupt


# Kills --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_training_killed_at_random_moments_ends_with_the_same_model(n_kills, tmp_path):
    assert f"{n_kills} killed" in output_of("kill_and_resume.py", n_kills, tmp_path)


# Signals ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["fit", "fit_resample"])
def test_an_interrupted_call_goes_on_where_it_was(way, tmp_path, at_step):
    expected = balancer().fit(X, Y)
    resumed = balancer(checkpoint=tmp_path)
    at_step(25, send(signal.SIGINT))
    if way == "fit":
        with pytest.warns(UserWarning, match="after 26 of 40 steps.*the same call goes on"):
            resumed.fit(X, Y)
        assert len(resumed.loss_curve_) == 26
    else:
        with pytest.raises(KeyboardInterrupt) as caught:
            resumed.fit_resample(X, Y)
        assert "the same call goes on" in caught.value.__notes__[0]
        with pytest.raises(NotFittedError):
            check_is_fitted(resumed)
    assert len(list(tmp_path.glob("*.checkpoint"))) == 1
    drawn = at_step()
    getattr(resumed, way)(X, Y)
    assert len(drawn) == N_STEPS - 26
    assert_same_model(resumed, expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", ["fit", "fit_resample"])
def test_an_interrupted_call_leaves_a_random_state_where_it_was(way, tmp_path, at_step):
    resumed = balancer(checkpoint=tmp_path, random_state=np.random.RandomState(3))
    at_step(25, send(signal.SIGINT))
    told = pytest.warns(UserWarning, match="the same call goes on")
    with told if way == "fit" else pytest.raises(KeyboardInterrupt):
        getattr(resumed, way)(X, Y)
    drawn = at_step()
    resumed.fit(X, Y)
    assert len(drawn) == N_STEPS - 26
    assert_same_model(resumed, balancer(random_state=np.random.RandomState(3)).fit(X, Y))


def test_a_call_that_failed_after_training_goes_on_from_it_with_a_random_state(tmp_path, at_step):
    failing = balancer(
        checkpoint=tmp_path,
        random_state=np.random.RandomState(3),
        d1_max=0.11,
        on_shortfall="raise",
    )
    for n_drawn in (N_STEPS, 0):
        drawn = at_step()
        with pytest.raises(RuntimeError, match="on_shortfall"):
            failing.fit_resample(X, Y)
        assert len(drawn) == n_drawn
        assert len(list(tmp_path.glob("*.checkpoint"))) == 1


def test_what_user_callables_draw_from_torchs_global_generator_goes_on_too(tmp_path, at_step):
    parameters = {"network": Dropping, "regularizer": noisy_regularizer}
    expected = balancer(**parameters).fit(X, Y)
    at_step(17, send(signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, lambda signum, frame: interrupt())
    try:
        with pytest.warns(UserWarning, match="interrupted after 18"):
            balancer(**parameters, checkpoint=tmp_path).fit(X, Y)
    finally:
        signal.signal(signal.SIGTERM, before)
    resumed = balancer(**parameters, checkpoint=tmp_path).fit(X, Y)
    assert_same_model(resumed, expected)


def noisy_regularizer(batch):
    return torch.rand(len(batch.sigma)) * batch.denoised.square().mean(1)


def test_an_interruption_after_training_keeps_the_training(tmp_path, at_step, monkeypatch):
    monkeypatch.setattr("sklearn_diffult.stages.generate", lambda *args, **kwargs: interrupt())
    with pytest.raises(KeyboardInterrupt) as caught:
        balancer(checkpoint=tmp_path).fit_resample(X, Y)
    assert str(tmp_path) in caught.value.__notes__[0]
    monkeypatch.setattr("sklearn_diffult.stages.generate", generate)
    drawn = at_step()
    balancer(checkpoint=tmp_path, d1_min=0.0).fit_resample(X, Y)
    assert drawn == []
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_of_fit_leaves_the_model_so_far(at_step):
    at_step(25, interrupt)
    fitted = balancer()
    with pytest.warns(UserWarning, match="interrupted after 25 of 40 steps"):
        fitted.fit(X, Y)
    assert fitted.loss_curve_.shape == (25,)
    assert fitted.generate(3, 1).shape == (3, 6)


def test_an_interruption_before_the_first_step_leaves_nothing(at_step):
    at_step(0, interrupt)
    unfitted = balancer()
    with pytest.raises(KeyboardInterrupt):
        unfitted.fit(X, Y)
    assert set(vars(unfitted)) == set(unfitted.get_params())


def test_an_interruption_of_fit_resample_leaves_an_earlier_fit_as_it_was(at_step):
    fitted = balancer().fit(X[:, :3], Y)
    before = dict(vars(fitted))
    at_step(25, interrupt)
    with pytest.raises(KeyboardInterrupt):
        fitted.fit_resample(X, Y)
    assert vars(fitted) == before


def test_an_interruption_of_the_reports_leaves_an_earlier_fit_resample_as_it_was(monkeypatch):
    fitted = balancer()
    fitted.fit_resample(X[:, :3], Y)
    before = dict(vars(fitted))

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("sklearn_diffult.results.report_privacy", stop)
    with pytest.raises(KeyboardInterrupt):
        fitted.fit_resample(X, Y)
    assert vars(fitted) == before


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_handlers_are_put_back(signum, tmp_path, at_step):
    seen = []
    before = signal.signal(signum, lambda number, frame: seen.append(number))
    try:
        mine = signal.getsignal(signum)
        at_step(3, send(signum))
        balancer(checkpoint=tmp_path).fit(X, Y)
        # The handler chose to go on, so training went on.
        assert seen == [signum]
        assert signal.getsignal(signum) is mine
    finally:
        signal.signal(signum, before)


def test_a_second_signal_is_not_held_back():
    reached = []

    def hold_two():
        with DeferredSignals(wanted=True):
            for number in range(3):
                reached.append(number)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        hold_two()
    assert reached == [0, 1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_thread_writes_checkpoints_and_leaves_signals_alone(tmp_path):
    before, found = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(target=lambda: found.append(balancer(checkpoint=tmp_path).fit(X, Y)))
    thread.start()
    thread.join()
    assert_same_model(found[0], balancer().fit(X, Y))
    assert signal.getsignal(signal.SIGINT) is before


# Files --------------------------------------------------------------------------------


def leave_checkpoint(directory, at_step, **parameters):
    """Interrupt a training, and return the file that it leaves."""
    before = set(directory.iterdir())
    at_step(20, send(signal.SIGINT))
    with pytest.warns(UserWarning, match="interrupted"):
        balancer(checkpoint=directory, **parameters).fit(X, Y)
    (left,) = set(directory.iterdir()) - before
    return left


@pytest.mark.parametrize("content", [b"", b"nonsense", "truncated", "pickle", "other", "shapes"])
def test_a_bad_checkpoint_is_ignored_with_a_warning(content, tmp_path, at_step):
    left = leave_checkpoint(tmp_path, at_step)
    if content == "truncated":
        left.write_bytes(left.read_bytes()[:-100])
    elif content == "pickle":
        torch.save(Dropping((6,), 2), left)
    elif content == "other":
        torch.save({"key": "of another fit", "state": {}}, left)
    elif content == "shapes":
        saved = torch.load(left, weights_only=True)
        name = next(iter(saved["state"]["average"]["module"]))
        saved["state"]["average"]["module"][name] = torch.zeros(1)
        torch.save(saved, left)
    else:
        left.write_bytes(content)
    drawn = at_step()
    with pytest.warns(UserWarning, match="(?s)cannot be used .*training starts anew"):
        found = balancer(checkpoint=tmp_path).fit(X, Y)
    assert len(drawn) == N_STEPS
    assert_same_model(found, balancer().fit(X, Y))


def test_another_fit_does_not_touch_a_checkpoint(tmp_path, at_step):
    left = leave_checkpoint(tmp_path, at_step)
    content = left.read_bytes()
    for changes in [{"learning_rate": 1e-4}, {"random_state": 1}, {"class_temper": 0.4}]:
        drawn = at_step()
        balancer(checkpoint=tmp_path, **changes).fit(X, Y)
        assert len(drawn) == N_STEPS
    balancer(checkpoint=tmp_path).fit(X[:, ::-1], Y)
    assert left.read_bytes() == content


def test_without_a_seed_the_same_call_goes_on_too(tmp_path, at_step):
    leave_checkpoint(tmp_path, at_step, random_state=None)
    drawn = at_step()
    balancer(checkpoint=tmp_path, random_state=None).fit(X, Y)
    assert len(drawn) == N_STEPS - 21


@pytest.fixture(params=["tmpfs", "limit"])
def small_disk(request, tmp_path):
    """A directory and what fills it up: a real small disk where one may be mounted, or a limit."""
    if request.param == "limit":
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        yield (
            tmp_path,
            lambda content: resource.setrlimit(
                resource.RLIMIT_FSIZE, (len(content) // 2, limits[1])
            ),
        )
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        return
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", tmp_path], capture_output=True
    )
    if mount.returncode:
        pytest.skip("no right to mount a disk")

    def fill(content):
        disk = os.statvfs(tmp_path)
        room = disk.f_bavail * disk.f_frsize - len(content) // 2
        (tmp_path / "rest").write_bytes(bytes(room))

    yield tmp_path, fill
    subprocess.run(["umount", tmp_path], check=True)


def test_a_full_disk_leaves_the_former_checkpoint_and_training_goes_on(
    small_disk, at_step, monkeypatch
):
    directory, fill = small_disk
    left = leave_checkpoint(directory, at_step)
    content = left.read_bytes()
    monkeypatch.setattr(checkpoint_module, "CHECKPOINT_SECONDS", 0.0)
    fill(content)
    before = set(directory.iterdir())
    with pytest.warns(UserWarning, match="could not be written .*the one before it is kept"):
        Checkpoint(left).write({"weights": torch.zeros(len(content))})
    assert left.read_bytes() == content
    assert set(directory.iterdir()) == before
    with pytest.warns(UserWarning, match="training goes on"):
        found = balancer(checkpoint=directory).fit(X, Y)
    assert_same_model(found, balancer().fit(X, Y))


def test_writing_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    now = [0.0]

    def fsync(file):
        now[0] += 10.0

    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint_module.os, "fsync", fsync)
    checkpoint = Checkpoint(tmp_path / "a.checkpoint")
    now[0] = 30.0
    assert checkpoint.is_due
    checkpoint.write({})
    now[0] = 40.0 + 199
    assert not checkpoint.is_due
    now[0] = 40.0 + 200
    assert checkpoint.is_due


# Divergence and memory ----------------------------------------------------------------


class Bounded(MLP):
    """A network that fails in a way of its own above some number of rows."""

    limit = 3

    def __init__(self, shape, n_classes):
        super().__init__(shape[0], n_classes, width=8, n_blocks=1)

    def forward(self, x, noise_level, labels):
        if self.training and len(x) > self.limit:
            raise torch.OutOfMemoryError(f"{len(x)} rows are too many")
        return super().forward(x, noise_level, labels)


class Unbounded(Bounded):
    limit = 10**9


class Full(Bounded):
    limit = 0


def test_too_little_memory_halves_the_rows_at_a_time_with_the_same_result():
    with pytest.warns(UserWarning, match="8 rows at a time .* training goes on with 2"):
        small = balancer(network=Bounded).fit(X, Y)
    whole = balancer(network=Unbounded).fit(X, Y)
    np.testing.assert_allclose(small.loss_curve_, whole.loss_curve_, rtol=1e-4)
    torch.testing.assert_close(weights_of(small), weights_of(whole), rtol=1e-3, atol=1e-4)


def test_rows_at_a_time_count_each_row_alike_where_they_do_not_divide_the_batch():
    with pytest.warns(UserWarning, match="training goes on with 3"):
        small = balancer(network=Bounded, batch_size=10, regularizer="cbdm").fit(X, Y)
    whole = balancer(network=Unbounded, batch_size=10, regularizer="cbdm").fit(X, Y)
    np.testing.assert_allclose(small.loss_curve_, whole.loss_curve_, rtol=1e-4)


def test_without_memory_for_one_row_training_stops():
    with pytest.raises(MemoryError, match="lower batch_size.*1 rows are too many"):
        balancer(network=Full).fit(X, Y)


def test_a_loss_that_stops_being_finite_sends_training_back_once(monkeypatch, at_step):
    monkeypatch.setattr(trainer, "CHECK_EVERY", 5)
    monkeypatch.setattr(trainer, "KEEP_EVERY", 10)
    spoil = trainer.AdamW.step
    steps = []

    def step(optimizer, *args, **kwargs):
        steps.append(optimizer.param_groups[0]["lr"])
        spoil(optimizer, *args, **kwargs)
        if len(steps) == 23:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].fill_(torch.nan)

    monkeypatch.setattr(trainer.AdamW, "step", step)
    drawn = at_step()
    with pytest.warns(UserWarning, match="nan at step 24; training goes on from step 20 with half"):
        found = balancer().fit(X, Y)
    # Steps 21 to 25 were taken twice, the second time with half the rate.
    assert len(drawn) == N_STEPS + 5
    np.testing.assert_allclose(steps[25:30], np.array(steps[20:25]) / 2)
    assert found.loss_curve_.shape == (N_STEPS,)
    assert np.isfinite(found.loss_curve_).all()
    monkeypatch.undo()
    np.testing.assert_array_equal(found.loss_curve_[:20], balancer().fit(X, Y).loss_curve_[:20])
