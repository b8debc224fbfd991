"""Fits at the same time do not disturb each other, nor anybody's random state."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from own_networks import Dropping
from sklearn.datasets import make_classification

from sklearn_diffult import DiffusionBalancer, WeightedTorchClassifier
from sklearn_diffult._torch import threads_for, undisturbed

X, Y = make_classification(60, n_features=5, weights=[0.8], random_state=0)


def jittering(denoise, x, grid, generator):
    """Draw from torch's global generator while solving."""
    return denoise(x, grid[0]) + torch.randn_like(x)


def rows(seed, **parameters):
    quick = {"n_steps": 30, "batch_size": 8, "n_solver_steps": 3, "d3_max": None}
    return DiffusionBalancer(**quick | parameters, random_state=seed).fit_resample(X, Y)[0]


@pytest.fixture
def optimisers_ready():
    """What torch imports with its first optimiser adds a filter for warnings."""
    importlib.import_module("torch._dynamo")


@pytest.fixture
def state_kept_by_threads(global_state_kept):
    """Let no thread change global state, but for the filters of warnings.

    scikit-learn's checks of arrays swap those for a moment; before Python 3.14 threads that do so
    at the same time may leave them swapped.
    """
    with warnings.catch_warnings():
        yield


@pytest.mark.usefixtures("optimisers_ready", "state_kept_by_threads")
@pytest.mark.parametrize(
    "own",
    [{}, {"d3_max": 0.5}, {"network": Dropping, "solver": jittering}],
    ids=["plain", "with d3", "own parts"],
)
def test_threads_get_what_each_would_get_alone(own):
    alone = [rows(seed, **own) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda seed: rows(seed, **own), range(3)))
    np.testing.assert_array_equal(together, alone)


def dropping(shape, n_classes):
    """A classifier that draws from torch's global generator, when built and when trained."""
    return torch.nn.Sequential(
        torch.nn.Linear(shape[0], 32), torch.nn.Dropout(0.5), torch.nn.Linear(32, n_classes)
    )


@pytest.mark.usefixtures("optimisers_ready", "state_kept_by_threads")
def test_threads_fit_classifiers_as_each_would_alone():
    def probabilities(seed):
        fitted = WeightedTorchClassifier(dropping, n_steps=60, random_state=seed).fit(X, Y)
        return fitted.predict_proba(X)

    alone = [probabilities(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(probabilities, range(4)))
    np.testing.assert_array_equal(together, alone)


def flags():
    cuda = torch.backends.cuda
    fast = (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled())
    return (torch.backends.cudnn.deterministic, *fast)


def test_threads_keep_each_other_repeatable_and_the_last_puts_the_flags_back():
    before, seen = flags(), []
    assert before == (False, True, True, True)
    entered, first_left = threading.Barrier(2, timeout=10), threading.Event()

    def first():
        with undisturbed(torch.device("cuda")):
            entered.wait()
        first_left.set()

    def second():
        with undisturbed(torch.device("cuda")):
            entered.wait()
            assert first_left.wait(10)
            seen.append(flags())

    with ThreadPoolExecutor(2) as pool:
        for running in [pool.submit(first), pool.submit(second)]:
            running.result()
    assert seen == [(True, False, False, False)]
    assert flags() == before


def test_only_small_networks_of_tables_on_a_cpu_are_kept_to_one_thread():
    cpu, small = torch.device("cpu"), torch.nn.Linear(8, 8)
    large = torch.nn.Linear(2_000, 2_000, device="meta")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for module, shape, device, expected in (
            (small, (8,), cpu, 1),
            (large, (2_000,), cpu, 3),
            (small, (1, 8, 8), cpu, 3),
            (small, (8,), torch.device("cuda"), 3),
        ):
            with threads_for(module, shape, device):
                assert torch.get_num_threads() == expected
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_whoever_leaves_the_one_thread_finds_what_was_before_the_first_came():
    small, cpu = torch.nn.Linear(8, 8), torch.device("cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    inside, may_leave = threading.Event(), threading.Event()

    def other():
        with threads_for(small, (8,), cpu):
            inside.set()
            assert may_leave.wait(10)
        return torch.get_num_threads()

    try:
        with ThreadPoolExecutor(1) as pool:
            with threads_for(small, (8,), cpu):
                running = pool.submit(other)
                assert inside.wait(10)
            assert torch.get_num_threads() == 3
            with threads_for(small, (8,), cpu):
                may_leave.set()
                assert running.result() == 3
                assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_threads_may_share_a_memory_and_a_checkpoint_directory(tmp_path):
    kept = {"memory": tmp_path / "memory", "checkpoint": tmp_path / "checkpoint"}
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda seed: rows(seed, **kept), [0, 0, 1]))
    np.testing.assert_array_equal(together, [rows(0), rows(0), rows(1)])
    assert len(list((tmp_path / "memory").rglob("training/*/output.pkl"))) == 2
    assert list((tmp_path / "checkpoint").iterdir()) == []


@pytest.mark.usefixtures("optimisers_ready", "state_kept_by_threads")
@pytest.mark.parametrize("own", [{}, {"network": Dropping, "solver": jittering}])
def test_eight_threads_may_generate_from_one_fitted_balancer(own):
    balancer = DiffusionBalancer(n_steps=20, batch_size=8, random_state=0, **own).fit(X, Y)
    alone = [balancer.generate(5, 1, random_state=seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: balancer.generate(5, 1, random_state=seed), range(8)))
    np.testing.assert_array_equal(together, alone)


def test_forked_and_spawned_processes_get_what_each_would_get_alone():
    script = Path(__file__).with_name("fit_in_processes.py")
    run = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
