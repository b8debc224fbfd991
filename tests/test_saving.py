from __future__ import annotations

import json
import time
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError

from sklearn_diffult import DiffusionBalancer
from sklearn_diffult.saving import KEY, VERSION


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


def _parts(path):
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()[KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return content, tensors


def _write(path, content, tensors):
    save_file(tensors, path, {KEY: json.dumps(content)})
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


def test_a_newer_format_is_refused_by_name(saved, tmp_path):
    content, tensors = _parts(saved)
    path = _write(tmp_path / "new", content | {"version": VERSION + 1}, tensors)
    with pytest.raises(ValueError, match=f"version {VERSION + 1}.*upgrade sklearn_diffult"):
        DiffusionBalancer.load(path)


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


HOSTILE = [
    _claim(version="x"),
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
    content, tensors = _parts(saved)
    change(content, tensors)
    path = _write(tmp_path / "hostile", content, tensors)
    DiffusionBalancer.load(saved)
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(ValueError, match="cannot be loaded"):
        DiffusionBalancer.load(path)
    seconds, peak = time.perf_counter() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Bounds of the format's promise, far above what is measured.
    assert seconds < 1
    assert peak < 2**27


def test_truncated_and_shuffled_bytes_get_an_error(saved, tmp_path):
    content = saved.read_bytes()
    rng = np.random.RandomState(0)
    n_header = int.from_bytes(content[:8], "little")
    for n in [0, 7, 8, 9, n_header, len(content) // 2, len(content) - 1]:
        (tmp_path / "cut").write_bytes(content[:n])
        with pytest.raises(ValueError, match="damaged|cannot be loaded"):
            DiffusionBalancer.load(tmp_path / "cut")
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.randint(0, 8 + n_header, 3):
            damaged[place] = rng.randint(256)
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            DiffusionBalancer.load(tmp_path / "damaged")
        except ValueError as error:
            assert "damaged" in str(error) or "cannot be loaded" in str(error)  # noqa: PT017


def test_a_header_of_absurd_size_is_not_read(tmp_path):
    (tmp_path / "absurd").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="header would have"):
        DiffusionBalancer.load(tmp_path / "absurd")
