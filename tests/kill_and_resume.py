"""Kill trainings at random moments until so many were killed, and compare what comes of them.

Run as ``python kill_and_resume.py n_kills directory``. Trainings run in forked children, so that
the libraries are imported once and this process never computes.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import make_classification

import sklearn_diffult.diffusion.checkpoint as checkpoint
from sklearn_diffult import DiffusionBalancer

X, Y = make_classification(120, n_features=6, weights=[0.8], random_state=0)


def train(directory: Path | None, report: Path) -> None:
    balancer = DiffusionBalancer(n_steps=150, batch_size=8, random_state=0, checkpoint=directory)
    balancer.fit(X, Y)
    weights = [parameter.numpy() for parameter in balancer.denoiser_.parameters()]
    report.write_text(joblib.hash([weights, balancer.loss_curve_]))


def start(*arguments: object) -> int:
    child = os.fork()
    if child == 0:
        train(*arguments)
        os._exit(0)
    return child


def main(n_kills: int, directory: Path) -> None:
    # Optimisers import it when they are first used, which would take every child seconds.
    importlib.import_module("torch._dynamo")
    checkpoint.CHECKPOINT_SECONDS, checkpoint.WRITING_SHARE = 0.05, 1.0
    started = time.monotonic()
    assert os.waitpid(start(None, directory / "expected"), 0)[1] == 0
    expected, seconds = (directory / "expected").read_text(), time.monotonic() - started
    killed = resumed = finished = 0
    (directory / "state").mkdir()
    while killed < n_kills or finished == 0 or any((directory / "state").iterdir()):
        assert time.monotonic() - started < 20 + 10 * n_kills, "trainings do not come to an end"
        child = start(directory / "state", directory / "found")
        if killed < n_kills:
            time.sleep(random.uniform(0, seconds))
            # SIGTERM too, which writes the state before it ends the process.
            os.kill(child, random.choice([signal.SIGKILL] * 4 + [signal.SIGTERM]))
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            killed += 1
            resumed += any((directory / "state").glob("*.checkpoint"))
        else:
            assert status == 0
            assert (directory / "found").read_text() == expected, "another model"
            finished += 1
    print(f"{killed} killed, {resumed} of them had a checkpoint, {finished} finished")  # noqa: T201
    assert resumed > 0 < finished


if __name__ == "__main__":
    np.seterr(all="raise")
    random.seed()
    main(int(sys.argv[1]), Path(sys.argv[2]))
