"""The stage cache: what is computed once, what is computed anew, and what a bad entry does."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import importlib
import linecache
import shutil
import subprocess
import sys
import textwrap

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from joblib import Memory
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from sklearn_diffult import DiffusionBalancer, Pipeline, WeightedTorchClassifier
from sklearn_diffult import _stage_cache as cache_module
from sklearn_diffult._stage_cache import StageCache, key_of
from sklearn_diffult.networks.denoisers import DENOISER_NETWORKS
from sklearn_diffult.streams import CandidateStream

X, Y = make_classification(90, n_features=5, weights=[0.75], class_sep=2, random_state=0)
pytestmark = pytest.mark.filterwarnings("ignore:After max_rounds")


def balancer(**parameters):
    quick = {"n_steps": 30, "batch_size": 16, "n_solver_steps": 3, "d3_max": None}
    return DiffusionBalancer(**quick | {"random_state": 0, "max_rounds": 2} | parameters)


def entries(memory):
    """Number of entries by stage."""
    found = collections.Counter(path.parts[-3] for path in memory.rglob("output.pkl"))
    return collections.defaultdict(int, found)


@pytest.fixture
def computed(monkeypatch):
    """Count what is computed rather than read."""
    counts = collections.Counter()

    def count(target, name):
        function = getattr(importlib.import_module(target), name)

        def counted(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(f"{target}.{name}", counted)

    count("sklearn_diffult.stages", "train")
    count("sklearn_diffult.stages", "generate")
    return counts


# What a later fit computes ------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"omega": 0.9}, {}),
        ({"weighting": "row"}, {}),
        ({"weight_temper": 0.5}, {}),
        ({"on_shortfall": "warn"}, {}),
        ({"sampling_strategy": 50}, {}),
        ({"sampling_strategy": {1: 40}}, {}),
        ({"verbose": 1}, {}),
        ({"device": "cpu"}, {}),
        ({"d1_min": 0.0}, {}),
        ({"d1_max": 100.0}, {}),
        ({"sampling_strategy": 90}, {"generate": 1}),
        ({"guidance_scale": 2.0}, {"generate": 1}),
        ({"guidance_interval": (0.4, 5.0)}, {"generate": 1}),
        ({"solver": "heun"}, {"generate": 1}),
        ({"n_solver_steps": 4}, {"generate": 1}),
        ({"n_steps": 31}, {"train": 1, "generate": 1}),
        ({"batch_size": 17}, {"train": 1, "generate": 1}),
        ({"learning_rate": 2e-3}, {"train": 1, "generate": 1}),
        ({"class_temper": 0.4}, {"train": 1, "generate": 1}),
        ({"regularizer": "cbdm"}, {"train": 1, "generate": 1}),
        ({"regularizer_strength": 2.0}, {"train": 1, "generate": 1}),
        ({"precision": "bfloat16"}, {"train": 1, "generate": 1}),
        ({"random_state": 1}, {"train": 1, "generate": 1}),
    ],
)
def test_a_later_fit_computes_only_what_depends_on_the_change(
    changes, expected, tmp_path, computed
):
    balancer(memory=tmp_path, d1_min=0.01).fit_resample(X, Y)
    assert computed == {"train": 1, "generate": 1}
    computed.clear()
    changed = {"d1_min": 0.01} | changes
    found = balancer(memory=tmp_path, **changed).fit_resample_weighted(X, Y)
    assert computed == expected
    # And what is read is what would have been computed.
    for one, other in zip(found, balancer(**changed).fit_resample_weighted(X, Y), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "container",
    [
        lambda X: X.tolist(),
        np.asfortranarray,
        pd.DataFrame,
        sparse.csr_matrix,
        lambda X: np.repeat(X, 2, axis=0)[::2],
    ],
)
def test_containers_of_the_same_values_share_what_is_computed(container, tmp_path, computed):
    balancer(memory=tmp_path).fit_resample(X, Y)
    computed.clear()
    balancer(memory=tmp_path).fit_resample(container(X), np.array(["a", "b"])[Y])
    assert not computed
    balancer(memory=tmp_path).fit_resample(container(X[::-1]), Y)
    assert computed == {"train": 1, "generate": 1}


def test_a_copy_of_torch_or_of_this_library_in_another_version_computes_anew(
    tmp_path, computed, monkeypatch
):
    balancer(memory=tmp_path).fit(X, Y)
    monkeypatch.setattr(torch, "__version__", "3.0")
    balancer(memory=tmp_path).fit(X, Y)
    assert computed == {"train": 2}
    monkeypatch.setattr(cache_module, "_own_sources", lambda: "edited")
    balancer(memory=tmp_path).fit(X, Y)
    assert computed == {"train": 3}


def test_without_a_seed_fits_on_the_same_rows_share_what_is_computed(tmp_path, computed):
    parameters = {"random_state": None, "memory": tmp_path}
    first, _ = balancer(**parameters).fit_resample(X, Y)
    second, _ = balancer(**parameters, omega=0.7).fit_resample(X, Y)
    np.testing.assert_array_equal(first, second)
    assert computed == {"train": 1, "generate": 1}
    balancer(**parameters).fit(X[1:], Y[1:])
    assert computed["train"] == 2
    # An instance is another random state every time.
    random_state = np.random.RandomState(0)
    for _ in range(2):
        balancer(memory=tmp_path, random_state=random_state).fit(X, Y)
    assert computed["train"] == 4


@pytest.mark.usefixtures("short_classifiers")
def test_classifiers_and_scores_are_kept_too(tmp_path, monkeypatch):
    parameters = {"memory": tmp_path, "d2_max": 5.0, "d3_max": 50.0}
    first, _ = balancer(**parameters).fit_resample(X, Y)
    # d2 and d3 ask the same ones.
    assert entries(tmp_path)["classifier-of-half-0"] == 1
    assert entries(tmp_path)["classifier-of-half-1"] == 1
    assert entries(tmp_path)["scores-d2"] == entries(tmp_path)["scores-d3"] > 0
    monkeypatch.setattr(WeightedTorchClassifier, "fit", lambda *args: pytest.fail("trained again"))
    np.testing.assert_array_equal(balancer(**parameters).fit_resample(X, Y)[0], first)
    # Another threshold asks for other rows, which the kept classifier scores.
    balancer(**parameters | {"d2_max": 1.0}).fit_resample(X, Y)


@pytest.mark.usefixtures("short_classifiers")
def test_no_classifier_is_trained_before_it_is_asked(monkeypatch):
    monkeypatch.setattr(WeightedTorchClassifier, "fit", lambda *args: pytest.fail("trained"))
    balancer(d1_max=3.0).fit_resample(X, Y)
    balancer(d2_max=3.0).fit(X, Y)


# Searches -----------------------------------------------------------------------------


def search(memory, grid, n_jobs=None):
    pipeline = Pipeline(
        [("balance", balancer(memory=memory)), ("clf", LogisticRegression(max_iter=200))]
    )
    return GridSearchCV(pipeline, grid, cv=3, n_jobs=n_jobs, error_score="raise").fit(X, Y)


@pytest.mark.usefixtures("short_classifiers")
def test_a_search_trains_one_generator_per_fold_and_one_for_the_refit(tmp_path, computed):
    grid = {
        "balance__omega": [0.0, 0.1, 0.3, 0.5, 0.7, 1.0],
        "balance__weighting": ["class", "row"],
        "balance__d2_max": [2.0, 4.0, 6.0],
    }
    fitted = search(tmp_path, grid)
    assert len(fitted.cv_results_["params"]) == 36
    assert computed["train"] == 4
    assert entries(tmp_path)["training"] == 4
    assert entries(tmp_path)["classifier-of-half-0"] == 4
    assert entries(tmp_path)["classifier-of-half-1"] == 4
    # No row was generated twice: every generation left an entry of its own.
    assert computed["generate"] == entries(tmp_path)["candidates"]
    assert entries(tmp_path)["candidates"] == entries(tmp_path)["scores-d2"]


def test_two_processes_of_a_search_do_not_train_the_same_twice(tmp_path):
    alone = search(tmp_path / "alone", {"balance__omega": [0.1, 0.3, 0.5, 0.7]})
    together = search(tmp_path / "two", {"balance__omega": [0.1, 0.3, 0.5, 0.7]}, n_jobs=2)
    assert entries(tmp_path / "two") == entries(tmp_path / "alone")
    assert entries(tmp_path / "two")["training"] == 4
    np.testing.assert_array_equal(
        together.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )


@contextlib.contextmanager
def dask_workers():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None),
        joblib.parallel_config("dask"),
    ):
        yield


@contextlib.contextmanager
def ray_workers():
    ray = pytest.importorskip("ray")
    ray_joblib = pytest.importorskip("ray.util.joblib")
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20)
    ray_joblib.register_ray()
    try:
        with joblib.parallel_config("ray"):
            yield
    finally:
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # what Dask and Ray warn of is theirs
@pytest.mark.parametrize("workers", [dask_workers, ray_workers])
def test_workers_of_a_cluster_do_not_train_the_same_twice(workers, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # which would write to the home directory
    grid = {"balance__omega": [0.1, 0.3, 0.5, 0.7]}
    alone = search(tmp_path / "alone", grid)
    with workers():
        together = search(tmp_path / "cluster", grid, n_jobs=2)
    assert entries(tmp_path / "cluster")["training"] == entries(tmp_path / "alone")["training"] == 4
    assert together.best_score_ == alone.best_score_
    np.testing.assert_array_equal(
        together.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )


def test_where_no_lock_can_be_written_nobody_waits_for_one(tmp_path, monkeypatch):
    def refuse(lock):
        raise PermissionError("read-only")

    monkeypatch.setattr(cache_module.FileLock, "acquire", refuse)
    assert StageCache(tmp_path).recall("stage", lambda: key_of(1), lambda: np.ones(2)).sum() == 2


def test_who_holds_a_lock_waits_for_no_other_worker(tmp_path):
    cache = StageCache(tmp_path)
    with joblib.parallel_config("threading", n_jobs=2):
        assert joblib.effective_n_jobs(None) == 2
        assert cache.recall("stage", lambda: "0" * 32, joblib.effective_n_jobs) == 1


def test_processes_that_want_the_same_wait_for_the_one_that_computes(tmp_path):
    script = f"""
    import os, sys, time
    from sklearn_diffult._stage_cache import StageCache
    def compute():
        with open({str(tmp_path / "log")!r}, "a") as log:
            log.write(f"{{os.getpid()}}\\n")
        time.sleep(1)
        return b"value"
    cache = StageCache({str(tmp_path / "cache")!r})
    assert cache.recall("stage", lambda: "0" * 32, compute) == b"value"
    """
    commands = [[sys.executable, "-c", textwrap.dedent(script)]] * 2
    running = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in running] == [0, 0]
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    assert not list((tmp_path / "cache").rglob("*.lock"))


# Kinds of memory, and bad entries -----------------------------------------------------


@pytest.mark.parametrize("compress", [False, True])
def test_a_memory_of_joblib_serves_and_can_be_cleared(tmp_path, computed, capsys, compress):
    memory = Memory(tmp_path, compress=compress)
    balancer(memory=memory).fit_resample(X, Y)
    copied = clone(balancer(memory=memory))
    copied.fit_resample(X, Y)
    assert computed == {"train": 1, "generate": 1}
    memory.reduce_size(bytes_limit=0)
    assert not entries(tmp_path)
    balancer(memory=memory).fit_resample(X, Y)
    assert computed == {"train": 2, "generate": 2}
    memory.clear(warn=False)
    assert not entries(tmp_path)
    balancer(memory=memory).fit_resample(X, Y)
    assert computed == {"train": 3, "generate": 3}
    assert capsys.readouterr().out == ""


def test_a_memory_without_a_place_keeps_nothing(computed):
    for _ in range(2):
        balancer(memory=Memory(None)).fit(X, Y)
    assert computed == {"train": 2}


def test_memory_mapped_arrays_serve(tmp_path, computed):
    memory = Memory(tmp_path, mmap_mode="r")
    first, _ = balancer(memory=memory).fit_resample(X, Y)
    np.testing.assert_array_equal(balancer(memory=memory).fit_resample(X, Y)[0], first)
    assert computed == {"train": 1, "generate": 1}


def size(memory):
    return sum(path.stat().st_size for path in memory.rglob("output.pkl"))


def test_a_directory_holds_no_more_than_its_bound_and_loses_first_what_was_unused_for_longest(
    tmp_path, computed, monkeypatch
):
    for seed in range(4):
        balancer(memory=tmp_path, random_state=seed).fit(X, Y)
    of_one = size(tmp_path) / 4
    balancer(memory=tmp_path, random_state=1).fit(X, Y)  # only reads
    assert computed["train"] == 4
    monkeypatch.setattr(cache_module, "MAX_BYTES", 2.5 * of_one)
    foreign = Memory(tmp_path, verbose=0).cache(by_name)
    foreign(1)
    balancer(memory=tmp_path, random_state=1).fit(X, Y)  # only reads, so nothing is dropped
    assert entries(tmp_path)["training"] == 4
    balancer(memory=tmp_path, random_state=4).fit(X, Y)
    assert size(tmp_path / "joblib" / "sklearn_diffult") <= 2.5 * of_one
    assert entries(tmp_path)["training"] == 2
    assert foreign.check_call_in_cache(1)
    computed.clear()
    for seed in (1, 4):
        balancer(memory=tmp_path, random_state=seed).fit(X, Y)
    assert not computed


def test_a_bound_too_small_for_one_fit_drops_only_what_is_not_its_own(
    tmp_path, computed, monkeypatch
):
    monkeypatch.setattr(cache_module, "MAX_BYTES", 1)
    balancer(memory=tmp_path).fit_resample(X, Y)
    balancer(memory=tmp_path).fit_resample(X, Y)
    assert computed == {"train": 1, "generate": 1}
    balancer(memory=tmp_path, random_state=1).fit_resample(X, Y)
    balancer(memory=tmp_path).fit_resample(X, Y)
    assert computed == {"train": 3, "generate": 3}


def test_who_gives_a_memory_of_joblib_bounds_it(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "MAX_BYTES", 1)
    for seed in range(2):
        balancer(memory=Memory(tmp_path, verbose=0), random_state=seed).fit(X, Y)
    assert entries(tmp_path)["training"] == 2


def test_a_fit_outlives_another_process_that_drops_everything_all_the_time(tmp_path):
    script = """
import sys, time
from sklearn_diffult import _stage_cache
_stage_cache.MAX_BYTES = 0
print("ready", flush=True)
while True:
    cache = _stage_cache.StageCache(sys.argv[1])
    cache._has_written = True
    cache.trim()
    time.sleep(0.001)
"""
    expected, _ = balancer().fit_resample(X, Y)
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as dropping:
        try:
            assert dropping.stdout.readline() == b"ready\n"
            for _ in range(3):
                found, _ = balancer(memory=tmp_path).fit_resample(X, Y)
                np.testing.assert_array_equal(found, expected)
            assert dropping.poll() is None
        finally:
            dropping.kill()


def spoil(content, path):
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:-50])
    elif content == "empty":
        path.write_bytes(b"")
    elif content == "foreign":
        joblib.dump({"a": 1}, path)
    else:
        (other,) = {*path.parents[1].rglob("output.pkl")} - {path}
        shutil.copy(other, path)


@pytest.mark.parametrize("content", ["truncated", "empty", "foreign", "of another key"])
@pytest.mark.parametrize("stage", ["training", "candidates", "scores-copy"])
def test_a_bad_entry_is_computed_again_with_a_warning(stage, content, tmp_path, computed):
    expected, _ = balancer(memory=tmp_path).fit_resample(X, Y)
    first = set(tmp_path.rglob("output.pkl"))
    balancer(memory=tmp_path, learning_rate=1e-5).fit_resample(X, Y)
    (path,) = [path for path in first if path.parts[-3] == stage]
    spoil(content, path)
    computed.clear()
    with pytest.warns(UserWarning, match=f"(?s)cached {stage} .*cannot be used .*computed again"):
        found, _ = balancer(memory=tmp_path).fit_resample(X, Y)
    np.testing.assert_array_equal(found, expected)
    assert computed == {"training": {"train": 1}, "candidates": {"generate": 1}}.get(stage, {})
    computed.clear()
    balancer(memory=tmp_path).fit_resample(X, Y)
    assert not computed


def test_a_failed_training_leaves_no_entry(tmp_path, computed, monkeypatch):
    def fail(*args, **kwargs):
        raise FloatingPointError("no good")

    with monkeypatch.context() as patch:
        patch.setattr("sklearn_diffult.stages.train", fail)
        with pytest.raises(FloatingPointError):
            balancer(memory=tmp_path).fit(X, Y)
    assert not entries(tmp_path)
    balancer(memory=tmp_path).fit(X, Y)
    assert computed == {"train": 1}


# Keys ---------------------------------------------------------------------------------


def by_name(x):
    return x + 1


class Instance:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * x


def adder(n):
    return lambda x: x + n


VALUES = {
    "None": None,
    "0": 0,
    "False": False,
    "empty": "",
    "empty bytes": b"",
    "no items": [],
    "a name": "d1",
    "two names": ["d", "1"],
    "array": np.zeros(4, dtype=np.float32),
    "longer array": np.zeros(5, dtype=np.float32),
    "square": np.zeros((2, 2), dtype=np.float32),
    "doubles": np.zeros(4),
    "function": by_name,
    "closure of 1": adder(1),
    "closure of 2": adder(2),
    "other code": lambda x: x - 1,
    "instance 1": Instance(1),
    "instance 2": Instance(2),
    "partial": functools.partial(by_name, 1),
}


def test_a_function_that_knows_no_module_has_a_key_too():
    assert key_of({}.get) == key_of({}.get)


def test_different_values_have_different_keys():
    keys = {name: key_of(value) for name, value in VALUES.items()}
    assert len(set(keys.values())) == len(VALUES)
    assert all(len(key) == 32 for key in keys.values())
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of(["ab", "c"])}) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (np.float64(0.1), 0.1),
        (np.int32(7), 7),
        ((1, 2), [1, 2]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (torch.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3)),
        (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
        (adder(3), adder(3)),
    ],
)
def test_equal_values_have_equal_keys(one, other):
    assert key_of(one) == key_of(other)


NETWORK = """
import torch
class Network(torch.nn.Module):
    def __init__(self, shape, n_classes):
        super().__init__()
        self.layer = torch.nn.Linear(shape[0], shape[0])
    def forward(self, x, noise_level, labels):
        return {factor} * self.layer(x)
"""
PRINT_KEY = """
from sklearn_diffult._stage_cache import key_of
print(key_of(Network))
"""


def keys_in_processes(*codes):
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for code in codes
    ]
    keys = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(codes)
    return keys


def test_a_class_written_in_a_notebook_has_the_same_key_in_every_process_until_it_changes():
    code = NETWORK.format(factor=2) + PRINT_KEY
    changed = NETWORK.format(factor=3) + PRINT_KEY
    key, same, other = keys_in_processes(code, "# another line\n" + code, changed)
    assert key == same != other


CLOSING_OVER = """
import torch
from sklearn_diffult._stage_cache import key_of
held, names = torch.nn.Linear(2, 2), {{"a", "b", "c", "d", "e"}}
with torch.no_grad():
    for parameter in held.parameters():
        parameter.fill_({value})
def regularizer(batch):
    return held(batch.clean) if batch in names or batch in {{"x", "y", "z"}} else 0
def network(shape, n_classes, names=frozenset(names)):
    return held
print(key_of(regularizer), key_of(network))
"""


def test_tensors_and_sets_give_the_same_key_in_every_process():
    code, changed = (CLOSING_OVER.format(value=value) for value in (1, 2))
    first, same, other = (keys.split() for keys in keys_in_processes(code, code, changed))
    assert first == same
    assert not set(first) & set(other)


@dataclasses.dataclass
class Zeros:
    factor: float = 1.0

    def __call__(self, denoise, x, grid, generator):
        return torch.zeros_like(x)


@dataclasses.dataclass
class Ones:
    factor: float = 1.0

    def __call__(self, denoise, x, grid, generator):
        return torch.ones_like(x)


def test_your_own_dataclasses_are_told_apart_by_what_they_do_and_hold():
    keys = {key_of(Zeros()), key_of(Ones()), key_of(Ones(2.0)), key_of({"factor": 1.0})}
    assert len(keys) == 4
    assert key_of(Ones(2.0)) == key_of(Ones(2.0))


def test_the_key_of_a_modules_class_changes_with_its_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / f"own_network_{tmp_path.name}.py"
    keys = {key_of(import_module(path, NETWORK.format(factor=n)).Network) for n in (2, 3)}
    sys.modules.pop(path.stem)
    assert len(keys) == 2


def import_module(path, text):
    path.write_text(text)
    importlib.invalidate_caches()
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
    sys.modules.pop(path.stem, None)
    return importlib.import_module(path.stem)


STRENGTH = "STRENGTH = {}\ndef regularizer(batch): return STRENGTH * batch.sigma"


def test_the_key_of_a_modules_function_is_that_of_what_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / f"own_regularizer_{tmp_path.name}.py"
    module = import_module(path, STRENGTH.format(1))
    one = key_of(module.regularizer)
    path.write_text(STRENGTH.format(2))
    linecache.checkcache()
    stale = key_of(module.regularizer)
    module = import_module(path, STRENGTH.format(2))
    two = key_of(module.regularizer)
    module.STRENGTH = 3
    assert len({one, two, stale, key_of(module.regularizer)}) == 4
    sys.modules.pop(path.stem)


def test_the_key_of_a_modules_function_does_not_depend_on_where_the_module_lies(
    tmp_path, monkeypatch
):
    name, keys = f"own_module_{tmp_path.name}", []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        with monkeypatch.context() as patched:
            patched.syspath_prepend(folder)
            module = import_module(folder / f"{name}.py", STRENGTH.format(1))
            keys.append(key_of(module.regularizer))
    sys.modules.pop(name)
    assert keys[0] == keys[1]


NESTED = """
import functools, threading
lock = threading.Lock()
@functools.lru_cache
def cached(): return {value}
def one(batch): return cached()
def other(batch): return 2
def several(batch): return [each(batch) for each in TOGETHER]
def locked(batch):
    with lock: return {value}
TOGETHER = {{one, other}}
"""


def test_modules_whose_functions_refer_to_sets_of_each_other_caches_and_locks(
    tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    path, keys = tmp_path / f"own_nested_{tmp_path.name}.py", []
    for value in (1, 1, 2):
        module = import_module(path, NESTED.format(value=value))
        linecache.checkcache()
        keys.append([key_of(module.several), key_of(module.locked)])
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])
    # What the user has registered stays so.
    cloudpickle.register_pickle_by_value(module)
    key_of(module.several)
    assert cloudpickle.list_registry_pickle_by_value() == {module.__name__}
    cloudpickle.unregister_pickle_by_value(module)
    sys.modules.pop(path.stem)


def test_no_tensors_content_is_taken_for_a_name():
    def holding(value):
        return lambda batch: value

    keys = {key_of(holding(torch.tensor(float(value)))) for value in range(300)}
    assert len(keys) == 300


def test_lines_of_a_table_that_one_function_made_are_told_apart():
    assert len({key_of(network) for network in DENOISER_NETWORKS.values()}) == len(
        DENOISER_NETWORKS
    )


def test_what_cannot_be_pickled_is_never_found_again():
    lock = __import__("threading").Lock()

    def held(x):
        return lock, x

    with pytest.warns(UserWarning, match="held.*cannot be pickled.*neither cached nor resumed"):
        keys = [key_of(held) for _ in range(2)]
    assert keys[0] != keys[1]


# Streams ------------------------------------------------------------------------------


class Numbers:
    """A generator whose row is 100 * label + position, and what was asked of it."""

    def __init__(self):
        self.asked = []

    def __call__(self, labels, positions):
        self.asked.append((100 * labels + positions).tolist())
        return torch.from_numpy(100.0 * labels + positions)[:, None]

    def stream(self, memory):
        return CandidateStream(
            StageCache(memory),
            lambda: "of numbers",
            self,
            finish=lambda rows: rows.round(),
            scores={"half": lambda rows, label: rows[:, 0] / 2},
            score_key=lambda: "of halves",
        )


@pytest.mark.parametrize("kept", [True, False])
def test_a_stream_goes_on_where_it_stopped(kept, tmp_path):
    numbers = Numbers()
    stream = numbers.stream(tmp_path if kept else None)
    first, second = stream.draw({1: 3, 2: 2}), stream.draw({1: 2})
    assert first[1].rows.ravel().tolist() == [100, 101, 102]
    assert first[2].rows.ravel().tolist() == [200, 201]
    assert second[1].rows.ravel().tolist() == [103, 104]
    assert second[1].scores["half"].tolist() == [51.5, 52]
    assert numbers.asked == [[100, 101, 102, 200, 201], [103, 104]]


def test_another_reader_gets_the_same_rows_and_generates_only_what_lies_beyond(tmp_path):
    numbers = Numbers()
    writer = numbers.stream(tmp_path)
    writer.draw({1: 3, 2: 2})
    writer.draw({1: 2})
    reader = numbers.stream(tmp_path)
    assert reader.draw({1: 4})[1].rows.ravel().tolist() == [100, 101, 102, 103]
    assert reader.draw({2: 1, 1: 3})[1].rows.ravel().tolist() == [104, 105, 106]
    assert reader.draw({2: 1})[2].rows.ravel().tolist() == [201]
    assert numbers.asked[2:] == [[105, 106]]
