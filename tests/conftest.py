from __future__ import annotations

import functools
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch

import sklearn_diffult.evidence
from sklearn_diffult import WeightedTorchClassifier


def _global_state() -> dict[str, object]:
    numpy_state = np.random.get_state()
    return {
        "random": random.getstate(),
        "numpy": (numpy_state[1].tobytes(), *numpy_state[2:]),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "default dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "warnings": list(warnings.filters),
    }


@pytest.fixture(autouse=True)
def on_the_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where results repeat bit for bit on every machine, unless a test is marked `cuda`."""
    if "cuda" in request.keywords:
        return
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # For processes that the test starts.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def global_state_kept() -> Iterator[None]:
    """Fail the test when it leaves a random state, thread count or backend flag changed."""
    before = _global_state()
    yield
    after = _global_state()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"changed global state: {changed}"


@pytest.fixture
def routing() -> Iterator[None]:
    """Run the test with scikit-learn's metadata routing on."""
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture
def short_classifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The filters' classifiers take three steps instead of hundreds."""
    monkeypatch.setattr(
        sklearn_diffult.evidence,
        "WeightedTorchClassifier",
        functools.partial(WeightedTorchClassifier, n_steps=3),
    )


@pytest.fixture
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import the scripts of ``benchmarks/`` by name, and forget them."""
    scripts = Path(__file__).resolve().parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(scripts))
    yield
    for path in scripts.glob("*.py"):
        sys.modules.pop(path.stem, None)
