"""What comes from outside does no harm: see the table in docs/faults.md."""

from __future__ import annotations

import ast
import gc
import os
import re
from pathlib import Path

import numpy as np
import pytest
from joblib import numpy_pickle
from scripts import output_of
from sklearn.datasets import make_classification

from sklearn_diffult import DiffusionBalancer

ROOT = Path(__file__).parent.parent
X, Y = make_classification(60, n_features=5, weights=[0.8], random_state=0)


def balancer(**parameters):
    quick = {"n_steps": 5, "n_solver_steps": 2, "max_rounds": 1, "d3_max": None}
    return DiffusionBalancer(**quick | {"random_state": 0} | parameters)


# The cache ----------------------------------------------------------------------------


@pytest.mark.parametrize("n_kills", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_a_fit_killed_while_it_writes_leaves_a_cache_that_serves(n_kills, tmp_path):
    assert f"{n_kills} killed" in output_of("kill_in_cache.py", n_kills, tmp_path)


def test_a_full_disk_leaves_no_entry_and_the_fit_goes_on(tmp_path, monkeypatch):
    expected, _ = balancer().fit_resample(X, Y)
    dump = numpy_pickle.dump

    def half(value, file, **parameters):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numpy_pickle, "dump", half)
    with pytest.warns(Warning, match="No space left on device"):
        found, _ = balancer(memory=tmp_path).fit_resample(X, Y)
    np.testing.assert_array_equal(found, expected)
    assert not list(tmp_path.rglob("output.pkl"))
    monkeypatch.setattr(numpy_pickle, "dump", dump)
    found, _ = balancer(memory=tmp_path).fit_resample(X, Y)
    np.testing.assert_array_equal(found, expected)
    assert list(tmp_path.rglob("output.pkl"))


# Load ---------------------------------------------------------------------------------


def resident_bytes():
    """Memory of this process that is in use now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# A model has 3.6 MB, so one that is kept in each cycle would take 180 MB in 50.
MAX_GROWTH = 2**25


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("n_cycles", [50, pytest.param(1_000, marks=pytest.mark.slow)])
def test_memory_stays_flat_over_many_fits(n_cycles):
    def cycle(seed):
        balancer(n_steps=1, random_state=seed).fit(X, Y).generate(3, 1)

    for seed in range(10):
        cycle(seed)
    before = resident_bytes()
    for seed in range(n_cycles):
        cycle(seed)
    growth = resident_bytes() - before
    assert growth < MAX_GROWTH


# The table ----------------------------------------------------------------------------


def named_tests():
    text = (ROOT / "docs" / "faults.md").read_text()
    return re.findall(r"`(tests/\w+\.py)::(\w+)`", text)


def test_every_row_of_the_table_is_a_test():
    rows = [line for line in (ROOT / "docs" / "faults.md").read_text().splitlines() if "::" in line]
    assert len(rows) > 20
    assert all(line.startswith("| ") and "`tests/" in line for line in rows)
    for file, name in named_tests():
        functions = ast.walk(ast.parse((ROOT / file).read_text()))
        names = {each.name for each in functions if isinstance(each, ast.FunctionDef)}
        assert name in names, f"{file}::{name}"
