"""Fit at the same time in forked and in spawned processes, and compare with a fit alone.

Run as ``python fit_in_processes.py``. The fit alone comes last: forking after torch has computed
is torch's business.
"""

from __future__ import annotations

import multiprocessing
import random

import joblib
import numpy as np
import torch
from sklearn.datasets import make_classification

from sklearn_diffult import DiffusionBalancer


def rows(seed: int) -> str:
    X, y = make_classification(60, n_features=5, weights=[0.8], random_state=0)
    balancer = DiffusionBalancer(n_steps=20, batch_size=8, random_state=seed)
    before = (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())
    found, _ = balancer.fit_resample(X, y)
    after = (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())
    assert before == after, "global random state changed"
    return joblib.hash(found)


if __name__ == "__main__":
    found = {}
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            found[method] = pool.map(rows, [0, 1], chunksize=1)
    alone = [rows(0), rows(1)]
    assert alone[0] != alone[1]
    assert found == {"fork": alone, "spawn": alone}, found
