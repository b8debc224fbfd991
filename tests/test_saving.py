from __future__ import annotations

import copy
import io
import json
import os
import pickle
import random
import re
import resource
import sys
import time
import tracemalloc
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from damage import BY_CHANCE, change_claims, parts, write_signed
from safetensors.torch import save_file
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError

from sklearn_diffult import DiffusionBalancer, WeightedTorchClassifier
from sklearn_diffult.saving import KEY, LEFT_BEHIND, VERSION, checksum


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    kept = np.concatenate([np.flatnonzero(y == label)[: 12 - label] for label in range(10)])
    return X[kept].reshape(-1, 8, 8).astype(np.uint8), y[kept]


@pytest.fixture(scope="module")
def of_images(digits):
    return DiffusionBalancer(n_steps=3, random_state=0).fit(*digits)


@pytest.fixture(scope="module")
def saved(of_images, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "digits.safetensors"
    of_images.save(path)
    return path


def test_a_loaded_balancer_generates_the_same_rows(of_images, saved):
    loaded = DiffusionBalancer.load(saved)
    for label in (0, 9):
        rows, again = of_images.generate(5, label), loaded.generate(5, label)
        assert again.dtype == np.uint8
        np.testing.assert_array_equal(again, rows)
    assert loaded.get_params() == of_images.get_params()
    assert loaded.image_shape_ == of_images.image_shape_ == (1, 8, 8)
    np.testing.assert_array_equal(loaded.loss_curve_, of_images.loss_curve_)
    assert loaded.sampling_strategy_ == of_images.sampling_strategy_


def test_a_loaded_balancer_can_be_saved_again_and_fitted_again(digits, saved, tmp_path):
    loaded = DiffusionBalancer.load(saved)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()
    assert loaded.fit(*digits).generate(1, 3).shape == (1, 8, 8)


@pytest.mark.parametrize("kind", ["images", "table"])
def test_a_file_that_is_overwritten_in_place_changes_no_loaded_balancer(kind, digits, tmp_path):
    X, y = digits if kind == "images" else load_iris(return_X_y=True)
    fitted = [DiffusionBalancer(n_steps=2, random_state=i).fit(X[i:90], y[i:90]) for i in range(2)]
    for i, each in enumerate(fitted):
        each.save(tmp_path / str(i))
    loaded = DiffusionBalancer.load(tmp_path / "0")
    content = (tmp_path / "1").read_bytes()
    with open(tmp_path / "0", "r+b") as file:
        file.write(content)
        file.truncate(100)
    label = y[0]
    np.testing.assert_array_equal(loaded.generate(3, label), fitted[0].generate(3, label))


def test_a_loaded_network_lies_in_memory_as_a_fitted_one(of_images, saved):
    for one, other in zip(
        of_images.denoiser_.parameters(),
        DiffusionBalancer.load(saved).denoiser_.parameters(),
        strict=True,
    ):
        assert one.stride() == other.stride()


@pytest.mark.parametrize("labels", [["ab", "c"], [True, False], [1.0, 2.0]])
def test_labels_of_every_kind_come_back(labels, tmp_path):
    X, y = load_iris(return_X_y=True)
    chosen = np.array(labels)[(y[:80] > 0).astype(int)]
    balancer = DiffusionBalancer(n_steps=2, random_state=0).fit(X[:80], chosen)
    balancer.save(tmp_path / "file")
    loaded = DiffusionBalancer.load(tmp_path / "file")
    assert loaded.classes_.dtype == balancer.classes_.dtype
    np.testing.assert_array_equal(loaded.classes_, balancer.classes_)
    np.testing.assert_array_equal(loaded.generate(3, labels[0]), balancer.generate(3, labels[0]))


def test_a_mixed_table_comes_back_as_a_data_frame(tmp_path):
    pd = pytest.importorskip("pandas")
    rng = np.random.RandomState(0)
    X = pd.DataFrame(
        {
            "size": rng.normal(size=60),
            "gaps": np.where(rng.rand(60) < 0.2, np.nan, rng.rand(60)),
            "count": pd.array(rng.randint(0, 9, 60), dtype="Int64"),
            "colour": pd.Categorical(rng.choice(["red", "blue", "green"], 60)),
            "word": rng.choice(["a", "b"], 60),
        }
    )
    y = np.repeat([0, 1], [50, 10])
    balancer = DiffusionBalancer(n_steps=5, random_state=0).fit(X, y)
    balancer.save(tmp_path / "table")
    loaded = DiffusionBalancer.load(tmp_path / "table")
    pd.testing.assert_frame_equal(loaded.generate(20, 1), balancer.generate(20, 1))
    assert loaded.feature_names_in_.tolist() == list(X.columns)
    assert loaded.n_features_in_ == 5


@pytest.mark.parametrize("container", [np.array, pd.Index, pd.Series, list])
def test_columns_named_by_any_array_come_back(container, tmp_path):
    X = pd.DataFrame({"code": np.arange(60) % 3, "size": np.linspace(0, 1, 60)})
    balancer = DiffusionBalancer(
        n_steps=2, n_solver_steps=2, categorical_features=container(["code"]), random_state=0
    ).fit(X, np.repeat([0, 1], [40, 20]))
    balancer.save(tmp_path / "file")
    loaded = DiffusionBalancer.load(tmp_path / "file")
    pd.testing.assert_frame_equal(loaded.generate(4, label=1), balancer.generate(4, label=1))


def test_settings_of_a_place_stay_behind_and_tuples_and_dicts_come_back(digits, tmp_path):
    balancer = DiffusionBalancer(
        n_steps=1,
        sampling_strategy={9: 5},
        image_shape=(8, 8),
        memory=str(tmp_path / "cache"),
        verbose=0,
        device="cpu",
        random_state=np.int64(3),
    ).fit(digits[0].reshape(len(digits[0]), -1), digits[1])
    balancer.save(tmp_path / "file")
    loaded = DiffusionBalancer.load(tmp_path / "file")
    assert loaded.memory is None
    assert loaded.device == "auto"
    assert loaded.sampling_strategy == {9: 5}
    assert loaded.image_shape == (8, 8)
    assert loaded.random_state == 3


def test_a_file_holds_no_training_row(digits, saved):
    content = saved.read_bytes()
    assert not any(row.tobytes() in content for row in digits[0])
    assert not any((row / 127.5 - 1).astype(np.float32).tobytes() in content for row in digits[0])


def test_what_is_not_fitted_or_is_code_cannot_be_saved(digits, tmp_path):
    with pytest.raises(NotFittedError):
        DiffusionBalancer().save(tmp_path / "file")
    balancer = DiffusionBalancer(n_steps=1, weighting=lambda y, mask, omega: np.ones(len(y)))
    with pytest.raises(TypeError, match="weighting .*cannot be saved"):
        balancer.fit(*digits).save(tmp_path / "file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changed", [{"network": "unet_large"}, {"omega": 2.0}])
def test_what_could_not_be_loaded_is_not_saved(changed, of_images, saved, tmp_path):
    balancer = copy.deepcopy(of_images).set_params(**changed)
    with pytest.raises(ValueError, match="could not be loaded again"):
        balancer.save(tmp_path / "changed.safetensors")
    assert not (tmp_path / "changed.safetensors").exists()


def test_a_failing_disk_leaves_the_former_file(of_images, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"former")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        of_images.save(path)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"former"


def test_a_file_keeps_its_permissions_and_a_link_its_target(of_images, tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    path.touch(mode=0o600)
    link.symlink_to(path)
    of_images.save(link)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    DiffusionBalancer.load(path)


def test_what_is_no_file_is_not_replaced(of_images, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="not a file"):
            of_images.save(path)
    assert (tmp_path / "pipe").is_fifo()


# Versions -----------------------------------------------------------------------------


@pytest.mark.parametrize("content", [{}, {"checksum": "0", "content": None}, {"else": [1]}])
def test_a_newer_format_is_refused_by_name_whatever_it_holds(content, saved, tmp_path):
    _, tensors = parts(saved)
    head = {"version": VERSION + 1} | content
    save_file(tensors, tmp_path / "new", {KEY: json.dumps(head)})
    with pytest.raises(ValueError, match=f"version {VERSION + 1}.*upgrade sklearn_diffult"):
        DiffusionBalancer.load(tmp_path / "new")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_images_of_versions_1_to_3_load_with_the_norms_of_then(version, of_images, saved, tmp_path):
    content, tensors = parts(saved)
    del content["groups"], content["codec"]["state"]["is_whole_"]
    signed = {"checksum": checksum(content, tensors), "content": content}
    head = {"version": version} | (content if version == 1 else signed)
    save_file(tensors, tmp_path / "old", {KEY: json.dumps(head)})
    loaded = DiffusionBalancer.load(tmp_path / "old")
    norms = [m for m in loaded.denoiser_.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {8}
    then = copy.deepcopy(of_images)
    for module in then.denoiser_.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.num_groups = 8
    np.testing.assert_array_equal(loaded.generate(3, 9), then.generate(3, 9))
    loaded.save(tmp_path / "new")
    again = DiffusionBalancer.load(tmp_path / "new")
    np.testing.assert_array_equal(again.generate(3, 9), then.generate(3, 9))


@pytest.mark.parametrize("version", [1, 2])
def test_a_table_of_versions_1_and_2_loads(version, tmp_path):
    X = np.random.RandomState(0).rand(40, 3)
    X[:, 1], X[::4, 2] = np.arange(40), np.nan
    # What was called "mlp" then.
    balancer = DiffusionBalancer(n_steps=2, network="mlp_large", random_state=0)
    balancer.fit(X, np.arange(40) < 10).save(tmp_path / "new")
    content, tensors = parts(tmp_path / "new")
    content["parameters"]["network"] = "auto"
    for column, *_ in content["codec"]["state"]["fields"]:
        numbers = column.get("gappy", column)["number"]
        numbers["is_whole"] = numbers.pop("decimals") == 0
    signed = {"checksum": checksum(content, tensors), "content": content}
    head = {"version": version} | (content if version == 1 else signed)
    save_file(tensors, tmp_path / "old", {KEY: json.dumps(head)})
    old, new = DiffusionBalancer.load(tmp_path / "old"), DiffusionBalancer.load(tmp_path / "new")
    np.testing.assert_array_equal(old.generate(5, True), new.generate(5, True))


def test_a_file_from_before_a_parameter_was_added_loads(saved, tmp_path):
    content, tensors = parts(saved)
    del content["parameters"]["augmentation"]
    loaded = DiffusionBalancer.load(write_signed(tmp_path / "old", content, tensors))
    assert loaded.augmentation == DiffusionBalancer().augmentation


@pytest.mark.parametrize("version", [None, 0, -1, True, 1.0, "2", [2]])
def test_a_version_that_is_none_is_refused(version, saved, tmp_path):
    _, tensors = parts(saved)
    save_file(tensors, tmp_path / "odd", {KEY: json.dumps({"version": version})})
    with pytest.raises(ValueError, match="version of the format is .*, not a number"):
        DiffusionBalancer.load(tmp_path / "odd")


# Damage -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["weights", "encoding", "content"])
def test_a_flipped_bit_is_refused_by_the_checksum(where, tmp_path):
    X, y = load_iris(return_X_y=True)
    DiffusionBalancer(n_steps=2, random_state=0).fit(X[:80], y[:80]).save(tmp_path / "file")
    data = bytearray((tmp_path / "file").read_bytes())
    n_header = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n_header])
    if where == "content":
        # The lowest bit of a digit, which leaves a number.
        place = re.search(rb'sigma_data\\": \d\.\d', data).end() - 1
    else:
        name = {"weights": "denoiser.network.inward.weight", "encoding": "codec.0"}[where]
        place = 8 + n_header + header[name]["data_offsets"][0]
    data[place] ^= 1
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ValueError, match="checksum.*damaged; copy or save it again"):
        DiffusionBalancer.load(tmp_path / "file")


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign", {"format": "pt"})
    with pytest.raises(ValueError, match="holds something else"):
        DiffusionBalancer.load(tmp_path / "foreign")


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        DiffusionBalancer.load(tmp_path / "nothing")


def _claim(**changes):
    def change(content, tensors):
        content.update(changes)

    return change


def _drop_a_tensor(content, tensors):
    del tensors["denoiser.network.inward.weight"]


def _cut_a_tensor(content, tensors):
    tensors["denoiser.network.inward.weight"] = torch.zeros(3)


def _huge_images(content, tensors):
    content["codec"]["state"]["sample_shape"] = [1, 10**7, 10**7]


def _many_classes(content, tensors):
    content["classes"]["labels"] = list(range(10**5))


def _unknown_parameter(content, tensors):
    content["parameters"]["os.system"] = "true"


def _bad_parameter(content, tensors):
    content["parameters"]["omega"] = 7


def _code_for_a_network(content, tensors):
    content["parameters"]["network"] = "../../evil"


def _table_codec(content, tensors):
    content["codec"] = {"kind": "table", "state": {"fields": [], "template": {"array": "system"}}}


def _nan_weights(content, tensors):
    tensors["denoiser.network.inward.weight"].view(-1)[0] = np.nan


def _another_tensor(content, tensors):
    tensors["../../evil"] = torch.zeros(1)


def _long_labels(content, tensors):
    content["classes"]["dtype"] = "<U100000000"


def _backward_range(content, tensors):
    content["codec"]["state"]["low_"] = 300.0


def _any_function_of_scipy(content, tensors):
    state = content["codec"]["state"]
    state["image_shape"] = [8, 8]
    state["template"] = {"array": "identity", "dtype": "<f8", "shape": [0, 64]}


def _a_large_container(content, tensors):
    state = content["codec"]["state"]
    state["image_shape"] = [8, 8]
    state["template"] = {"array": "csr_matrix", "dtype": "<f8", "shape": [10**5, 64]}


def _place_of(name):
    def change(content, tensors):
        content["parameters"][name] = "elsewhere"

    return change


HOSTILE = [
    *map(_place_of, LEFT_BEHIND),
    _nan_weights,
    _another_tensor,
    _long_labels,
    _backward_range,
    _any_function_of_scipy,
    _a_large_container,
    _claim(sigma_data=float("nan")),
    _claim(sigma_data=-0.5),
    _claim(groups=[]),
    _claim(groups=[0] * 16),
    _claim(groups=[5] * 16),
    _claim(groups=16),
    _claim(rows_per_second=float("nan")),
    _claim(rows_to_generate=[[0, -5]]),
    _claim(rows_to_generate=[["no label", 5]]),
    _claim(n_features=-1),
    _claim(n_features=2, feature_names=["a"]),
    _claim(codec=None),
    _claim(codec={"kind": "__class__", "state": {}}),
    _claim(classes={"dtype": "O", "labels": [[]] * 10}),
    _claim(classes={"dtype": "float99", "labels": [1, 2]}),
    _claim(parameters=[]),
    _claim(sigma_data="x"),
    _drop_a_tensor,
    _cut_a_tensor,
    _huge_images,
    _many_classes,
    _unknown_parameter,
    _bad_parameter,
    _code_for_a_network,
    _table_codec,
]


@pytest.mark.parametrize("change", HOSTILE)
def test_hostile_content_gets_an_error_fast_and_in_bounded_memory(saved, tmp_path, change):
    content, tensors = parts(saved)
    change(content, tensors)
    path = write_signed(tmp_path / "hostile", content, tensors)
    DiffusionBalancer.load(saved)
    started = time.process_time()
    with pytest.raises(ValueError, match="cannot be loaded"):
        DiffusionBalancer.load(path)
    seconds = time.process_time() - started
    # Tracing takes several times as long as what it traces.
    tracemalloc.start()
    with pytest.raises(ValueError, match="cannot be loaded"):
        DiffusionBalancer.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Bounds of the format's promise, far above what is measured.
    assert seconds < 1
    assert peak < 2**27


class Watch:
    """Fails when code is run, a file written, or a connection made while it is on.

    An audit hook stays for good, so there is one.
    """

    FORBIDDEN = (
        "compile",
        "ctypes.dlopen",
        "exec",
        "os.exec",
        "os.posix_spawn",
        "os.system",
        "pickle.find_class",
        "socket.connect",
        "subprocess.Popen",
    )

    def __init__(self):
        self.is_on = False
        sys.addaudithook(self._hear)

    def _hear(self, event, arguments):
        if not self.is_on:
            return
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or event in self.FORBIDDEN:
            self.is_on = False
            raise AssertionError(f"{event} {arguments} while loading")

    def __enter__(self):
        self.is_on = True

    def __exit__(self, *_):
        self.is_on = False


@pytest.fixture(scope="session")
def watch():
    return Watch()


def load_watched(path, watch):
    """Return what the file holds, None if it is refused; a second at most."""
    started = time.process_time()
    try:
        with watch, warnings.catch_warnings():
            # Foreign dtypes may be deprecated ones.
            warnings.simplefilter("ignore")
            return DiffusionBalancer.load(path)
    except ValueError as error:
        assert "damaged" in str(error) or "cannot be loaded" in str(error)  # noqa: PT017
        return None
    finally:
        assert time.process_time() - started < 1


@pytest.fixture(scope="module", params=["images", "table", "flat"])
def original(request, saved, tmp_path_factory):
    """A saved balancer of each kind."""
    if request.param == "images":
        return saved
    path = tmp_path_factory.mktemp("original") / "file"
    rng = np.random.RandomState(0)
    y = np.repeat(["a", "b"], [30, 10])
    if request.param == "flat":
        X = rng.randint(0, 9, (40, 64))
        DiffusionBalancer(n_steps=1, image_shape=(8, 8), random_state=0).fit(X, y).save(path)
        return path
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame(
        {
            "size": rng.normal(size=40),
            "gaps": np.where(rng.rand(40) < 0.2, np.nan, rng.rand(40)),
            "count": pd.array(rng.randint(0, 9, 40), dtype="Int64"),
            "colour": pd.Categorical(rng.choice(["red", "blue", "green"], 40)),
            "word": rng.choice(["a", "b"], 40),
            "constant": 1.5,
        }
    )
    DiffusionBalancer(n_steps=1, random_state=0).fit(X, y).save(path)
    return path


# Of the whole process; a file of 5 MB takes some of it.
MAX_GROWTH = 2**28
FEW_OR_MANY = pytest.mark.parametrize("n_files", [50, pytest.param(1_000, marks=pytest.mark.slow)])


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@FEW_OR_MANY
def test_a_damaged_file_is_refused_or_loads_equal(n_files, original, watch, tmp_path):
    content, before = original.read_bytes(), peak_bytes()
    DiffusionBalancer.load(original)
    n_equal = 0
    for seed in range(n_files):
        rng = random.Random(seed)
        data = bytearray(content)
        BY_CHANCE[seed % len(BY_CHANCE)](data, rng)
        (tmp_path / "damaged").write_bytes(data)
        loaded = load_watched(tmp_path / "damaged", watch)
        if loaded is not None:
            n_equal += 1
            loaded.save(tmp_path / "again")
            assert (tmp_path / "again").read_bytes() == content, f"seed {seed} loads as another"
    assert n_equal < n_files / 5
    assert peak_bytes() - before < MAX_GROWTH


@FEW_OR_MANY
def test_a_hostile_file_is_refused_or_is_what_it_says(n_files, original, watch, tmp_path):
    content, tensors = parts(original)
    before = peak_bytes()
    n_refused = 0
    for seed in range(n_files):
        claims, changed = copy.deepcopy(content), dict(tensors)
        is_complete = change_claims(claims, changed, random.Random(seed))
        loaded = load_watched(write_signed(tmp_path / "hostile", claims, changed), watch)
        if loaded is None:
            n_refused += 1
        elif is_complete:
            loaded.save(tmp_path / "again")
            found, arrays = parts(tmp_path / "again")
            assert found == claims, f"seed {seed}"
            assert arrays.keys() == changed.keys()
            assert all(torch.equal(arrays[name], changed[name]) for name in arrays)
    assert n_refused > n_files / 2
    assert peak_bytes() - before < MAX_GROWTH


def test_a_header_of_absurd_size_is_not_read(tmp_path):
    (tmp_path / "absurd").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="not written by save"):
        DiffusionBalancer.load(tmp_path / "absurd")


# Other ways to keep a model -----------------------------------------------------------


def _joblib(value):
    stream = io.BytesIO()
    joblib.dump(value, stream)
    stream.seek(0)
    return joblib.load(stream)


def _skops(value):
    skops = pytest.importorskip("skops.io")
    content = skops.dumps(value)
    return skops.loads(content, trusted=skops.get_untrusted_types(data=content))


COPIES = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "joblib": _joblib,
    "deepcopy": copy.deepcopy,
    "skops": _skops,
}


@pytest.fixture(scope="module")
def of_tables():
    X, y = load_iris(return_X_y=True)
    return DiffusionBalancer(n_steps=3, random_state=0).fit(X[:80], y[:80])


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", ["of_images", "of_tables"])
def test_a_copied_balancer_generates_the_same_rows(kind, copied, request):
    balancer = request.getfixturevalue(kind)
    again = copied(balancer)
    assert again is not balancer
    np.testing.assert_array_equal(again.generate(5, 0), balancer.generate(5, 0))


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", ["images", "tables"])
def test_a_copied_classifier_predicts_the_same(kind, copied, digits):
    X, y = digits if kind == "images" else load_iris(return_X_y=True)
    classifier = WeightedTorchClassifier(n_steps=3, random_state=0).fit(X, y)
    again = copied(classifier)
    np.testing.assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))


def test_a_copied_classifier_goes_on_training_the_same_and_keeps_what_its_module_shares():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inward = torch.nn.Linear(4, 4)
            self.outward = torch.nn.Linear(4, 4)
            self.outward.weight = self.inward.weight

        def forward(self, x):
            return self.outward(self.inward(x).relu())[:, :3]

    X, y = load_iris(return_X_y=True)
    classifier = WeightedTorchClassifier(Tied(), n_steps=3, random_state=0).fit(X, y)
    again = copy.deepcopy(classifier)
    module = again.module_
    assert module.inward.weight is module.outward.weight
    assert module.inward.weight is not classifier.module_.inward.weight
    assert isinstance(module.inward.weight, torch.nn.Parameter)
    for each in (classifier, again):
        each.partial_fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))
