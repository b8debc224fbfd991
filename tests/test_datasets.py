from __future__ import annotations

import gzip
import struct

import numpy as np
import pandas as pd
import pytest

from sklearn_diffult import datasets
from sklearn_diffult.datasets import (
    FASHION_MNIST_FILES,
    PROFILES,
    load_fashion_mnist,
    make_long_tailed,
)


def _balanced(n_per_class: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    y = np.tile(np.arange(n_classes), n_per_class)
    return np.arange(len(y)).reshape(-1, 1), y


def test_the_exponential_profile_gives_the_published_counts_of_cifar10_lt():
    X, y = _balanced(5000, 10)
    _, y_tail = make_long_tailed(X, y, 100, n_max=5000)
    assert np.bincount(y_tail).tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


@pytest.mark.parametrize(
    ("n_classes", "expected"), [(2, [60, 7]), (4, [60, 60, 7, 7]), (5, [60, 60, 7, 7, 7])]
)
def test_the_step_profile_has_two_levels(n_classes, expected):
    X, y = _balanced(60, n_classes)
    _, y_tail = make_long_tailed(X, y, 8, n_max=60, profile="step")
    assert np.bincount(y_tail).tolist() == expected


@pytest.mark.parametrize("profile", PROFILES)
def test_a_ratio_of_one_balances(profile):
    X, y = _balanced(9, 3)
    _, y_tail = make_long_tailed(X, y, 1, n_max=4, profile=profile)
    assert np.bincount(y_tail).tolist() == [4, 4, 4]


def test_no_class_loses_its_last_row():
    X, y = _balanced(20, 3)
    _, y_tail = make_long_tailed(X, y, 1000)
    assert np.bincount(y_tail).min() == 1


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("n_rows", [(40, 40, 40), (40, 9, 40), (40, 40, 3), (7, 40, 1)])
def test_the_default_n_max_is_the_largest_that_every_class_can_serve(profile, n_rows):
    y = np.repeat([0, 1, 2], n_rows)
    X = y.reshape(-1, 1)
    _, y_tail = make_long_tailed(X, y, 4, profile=profile)
    n_max = np.bincount(y_tail)[0]
    with pytest.raises(ValueError, match=f"Lower n_max to at most {n_max}, or"):
        make_long_tailed(X, y, 4, n_max=n_max + 1, profile=profile)


def test_rows_keep_their_order_and_their_labels():
    X, y = _balanced(30, 4)
    X_tail, y_tail = make_long_tailed(X, y, 6, random_state=3)
    assert (np.diff(X_tail.ravel()) > 0).all()
    np.testing.assert_array_equal(y_tail, y[X_tail.ravel()])


def test_the_same_seed_chooses_the_same_rows_and_another_seed_others():
    X, y = _balanced(30, 4)
    first, again, other = (make_long_tailed(X, y, 6, random_state=s)[0] for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_higher_ratio_keeps_a_subset_of_the_rows_of_a_lower_one():
    X, y = _balanced(30, 4)
    mild, severe = (make_long_tailed(X, y, ir, n_max=30, random_state=0)[0] for ir in (3, 15))
    assert len(severe) < len(mild)
    assert np.isin(severe, mild).all()


@pytest.mark.usefixtures("global_state_kept")
@pytest.mark.parametrize("random_state", [None, 0])
def test_no_global_random_state_is_consumed(random_state):
    make_long_tailed(*_balanced(10, 2), 2, random_state=random_state)


def test_sorted_labels_decide_the_tail_whatever_their_type():
    y = np.array(["wren", "ant"] * 10, dtype=object)
    X_tail, y_tail = make_long_tailed(np.zeros((20, 3, 3)), y, 5)
    assert X_tail.shape == (12, 3, 3)
    assert y_tail.dtype == object
    assert y_tail.tolist().count("ant") == 10


def test_frames_series_and_lists_stay_what_they_are():
    frame = pd.DataFrame({"a": range(20), "b": pd.Categorical(["x", "y"] * 10)})
    series = pd.Series([0, 1] * 10, index=range(100, 120), name="label")
    X_tail, y_tail = make_long_tailed(frame, series, 5)
    pd.testing.assert_frame_equal(X_tail, frame.loc[X_tail.index])
    pd.testing.assert_series_equal(y_tail, series.loc[y_tail.index])
    X_list, y_list = make_long_tailed(list("abcd"), [0, 0, 1, 1], 2, random_state=0)
    assert isinstance(X_list, list)
    assert isinstance(y_list, list)
    assert y_list == [0, 0, 1]


def test_a_class_with_too_few_rows_is_named_with_what_it_has_and_needs():
    y = np.repeat(["a", "b"], [50, 3])
    with pytest.raises(ValueError, match="class 'b' has 3 rows.* needs 10"):
        make_long_tailed(np.zeros((53, 1)), y, 5, n_max=50)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"imbalance_ratio": 0.5}, "imbalance_ratio=0.5"),
        ({"imbalance_ratio": float("nan")}, "imbalance_ratio=nan"),
        ({"imbalance_ratio": "10"}, "imbalance_ratio='10'"),
        ({"n_max": 0}, "n_max=0"),
        ({"n_max": 2.5}, "n_max=2.5"),
        ({"profile": "linear"}, r"profile='linear' must be one of \['exponential', 'step'\]"),
        ({"y": [0] * 8}, "at least 2"),
        ({"y": [0, 1]}, "inconsistent numbers of samples"),
    ],
)
def test_bad_input_is_named(wrong, message):
    arguments = {"X": np.zeros((8, 2)), "y": [0, 1] * 4, "imbalance_ratio": 2} | wrong
    with pytest.raises(ValueError, match=message):
        make_long_tailed(**arguments)


def _write_idx(path, values, magic=b"\x00\x00\x08", sizes=None):
    sizes = values.shape if sizes is None else sizes
    header = magic + bytes([len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)
    path.write_bytes(gzip.compress(header + values.tobytes()))


@pytest.fixture
def fashion_folder(tmp_path):
    rng = np.random.RandomState(0)
    for name, n_rows in zip(FASHION_MNIST_FILES, (6, 6, 4, 4), strict=True):
        shape = (n_rows, 28, 28) if "images" in name else (n_rows,)
        _write_idx(tmp_path / name, rng.randint(0, 10, shape).astype(np.uint8))
    return tmp_path


def test_fashion_mnist_is_read_back_as_it_was_written(fashion_folder):
    X_train, y_train, X_test, y_test = load_fashion_mnist(fashion_folder)
    rng = np.random.RandomState(0)
    for part, shape in [(X_train, (6, 28, 28)), (y_train, 6), (X_test, (4, 28, 28)), (y_test, 4)]:
        np.testing.assert_array_equal(part, rng.randint(0, 10, shape))
        assert part.dtype == np.uint8
        assert part.flags.writeable


def test_the_environment_variable_names_the_folder(fashion_folder, monkeypatch):
    monkeypatch.setenv("FASHION_MNIST", str(fashion_folder))
    assert load_fashion_mnist()[0].shape == (6, 28, 28)


def test_the_usual_places_are_searched_in_turn(fashion_folder, monkeypatch, tmp_path):
    monkeypatch.delenv("FASHION_MNIST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    fashion_folder.joinpath("data/fashion-mnist").mkdir(parents=True)
    for name in FASHION_MNIST_FILES:
        fashion_folder.joinpath(name).rename(tmp_path / "data/fashion-mnist" / name)
    monkeypatch.setattr(
        datasets, "FASHION_MNIST_PLACES", ("/no/such/folder", "~/data/fashion-mnist")
    )
    assert load_fashion_mnist()[0].shape == (6, 28, 28)


def test_missing_files_are_an_error_that_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delenv("FASHION_MNIST", raising=False)
    monkeypatch.setattr(datasets, "FASHION_MNIST_PLACES", (str(tmp_path / "a"), "~/b"))
    with pytest.raises(FileNotFoundError, match="apt install dataset-fashion-mnist") as caught:
        load_fashion_mnist()
    assert str(tmp_path / "a") in str(caught.value)
    assert "~" not in str(caught.value)


def test_a_named_folder_without_the_files_is_not_replaced_by_another(fashion_folder, monkeypatch):
    monkeypatch.setenv("FASHION_MNIST", str(fashion_folder))
    with pytest.raises(FileNotFoundError, match="looked in: /no/such/folder"):
        load_fashion_mnist("/no/such/folder")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "not a whole gzip file"),
        (gzip.compress(bytes(100))[:-9], "not a whole gzip file"),
        (gzip.compress(b""), "starts with b''"),
        (gzip.compress(b"\x00\x00\x0d\x01" + bytes(8)), "starts with"),
        (gzip.compress(b"\x00\x00\x08\x03" + bytes(8)), "starts with"),
        (gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x05" + bytes(4)), r"4 values.*says \[5\]"),
    ],
    ids=["no gzip", "cut short", "empty", "another type", "half a header", "too few values"],
)
def test_a_malformed_file_is_named_with_what_is_wrong(fashion_folder, content, message):
    fashion_folder.joinpath("t10k-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(ValueError, match=rf"t10k-labels-idx1-ubyte.gz .*{message}"):
        load_fashion_mnist(fashion_folder)


def test_images_and_labels_that_do_not_belong_together_are_refused(fashion_folder):
    _write_idx(fashion_folder / "t10k-labels-idx1-ubyte.gz", np.zeros(3, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"t10k images have shape \(4, 28, 28\).*\(3,\)"):
        load_fashion_mnist(fashion_folder)


def test_a_whole_number_of_rows_does_not_fall_short_by_rounding():
    # 98 * 49 ** -1.0 is 1.9999999999999998.
    X, y = np.arange(196)[:, None], np.repeat([0, 1], 98)
    _, kept = make_long_tailed(X, y, imbalance_ratio=49, n_max=98, random_state=0)
    assert np.bincount(kept).tolist() == [98, 2]
