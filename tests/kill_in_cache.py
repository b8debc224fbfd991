"""Kill fits in the middle of writing to their cache, and see whether it still serves.

Run as ``python kill_in_cache.py n_kills directory``. Fits run in forked children, so that the
libraries are imported once and this process never computes.
"""

from __future__ import annotations

import importlib
import io
import os
import random
import signal
import sys
from pathlib import Path

import joblib
from joblib import numpy_pickle
from sklearn.datasets import make_classification

import sklearn_diffult.stages as stages
from sklearn_diffult import DiffusionBalancer

X, Y = make_classification(60, n_features=5, weights=[0.8], random_state=0)
# Training, candidates, and scores of d1.
N_WRITES = 3


def die_in_write(number: int, share: float) -> None:
    """Let the write with this number end the process when a share of its bytes is on disk."""
    writes = []
    dump = numpy_pickle.dump

    def dump_in_part(value, file, **parameters):
        writes.append(value)
        if len(writes) <= number:
            return dump(value, file, **parameters)
        content = io.BytesIO()
        dump(value, content)
        file.write(content.getvalue()[: round(share * content.tell())])
        file.flush()
        return os.kill(os.getpid(), signal.SIGKILL)

    numpy_pickle.dump = dump_in_part


def compute_nothing() -> None:
    def fail(*args, **kwargs):
        raise AssertionError("it was not kept")

    stages.train = stages.generate = fail


def fit(memory: Path | None, report: Path) -> None:
    quick = {"n_steps": 5, "n_solver_steps": 2, "max_rounds": 1, "d3_max": None, "d1_max": 9.0}
    found = DiffusionBalancer(**quick, memory=memory, random_state=0).fit_resample(X, Y)
    report.write_text(joblib.hash(found))


def run(prepare, *arguments) -> int:
    """Exit status of a fit in a child; negative where a signal ended it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            prepare()
            fit(*arguments)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(n_kills: int, directory: Path) -> None:
    importlib.import_module("torch._dynamo")  # otherwise every child's first optimiser does
    assert run(lambda: None, None, directory / "expected") == 0
    expected, report = (directory / "expected").read_text(), directory / "found"
    rng = random.Random(0)
    for kill in range(n_kills):
        # The first ones in each write in turn, right before its end.
        number, share = kill % N_WRITES, 1.0 if kill < N_WRITES else rng.random()
        memory = directory / f"cache {kill}"
        status = run(lambda at=number, part=share: die_in_write(at, part), memory, report)
        assert status == -signal.SIGKILL, status
        assert not report.exists()
        for prepare in (lambda: None, compute_nothing):
            assert run(prepare, memory, report) == 0, (number, share)
            assert report.read_text() == expected, "other rows"
            report.unlink()
    print(f"{n_kills} killed")  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
