"""Long-tailed versions of data sets, and readers for data sets that are already on disk."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from bisect import bisect_right
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing, check_consistent_length, column_or_1d

from sklearn_diffult._seeds import new_random_state


def _exponential_count(n_max: int, imbalance_ratio: float, position: float) -> int:
    # A whole number must not fall short of itself by rounding.
    return int(n_max * imbalance_ratio ** (-position) * (1 + 1e-12))


def _step_count(n_max: int, imbalance_ratio: float, position: float) -> int:
    # The middle class of an odd number sits at exactly 0.5 and belongs to the tail.
    return n_max if position < 0.5 else int(n_max / imbalance_ratio)


# Rows kept of the class at a position from 0, the first, to 1, the last.
PROFILES: dict[str, Callable[[int, float, float], int]] = {
    "exponential": _exponential_count,
    "step": _step_count,
}


def make_long_tailed(
    X: Any,
    y: Any,
    imbalance_ratio: float,
    n_max: int | None = None,
    profile: str = "exponential",
    random_state: int | np.random.RandomState | None = None,
) -> tuple[Any, Any]:
    """Drop rows until the class counts have a long tail.

    Parameters
    ----------
    X : array of shape (n_rows, ...), DataFrame or list
        Rows of any kind: tables, images of any number of axes, Pillow images.
    y : array-like of shape (n_rows,)
        Labels. Their sorted order decides which classes become the tail.
    imbalance_ratio : float
        Rows of the largest class per row of the smallest, at least 1 (which balances).
    n_max : int, optional
        Rows of the largest class. By default as many as leave every class able to serve its count.
    profile : {"exponential", "step"}, default="exponential"
        With C classes in sorted order, class c = 0, ..., C - 1 keeps, but never fewer than one row,

        - "exponential": ``int(n_max * imbalance_ratio ** (-c / (C - 1)))`` rows;
        - "step": ``n_max`` rows in the first ``C // 2`` classes and
          ``int(n_max / imbalance_ratio)`` in the others.
    random_state : int, RandomState instance or None, default=None
        Chooses the rows. With the same int and `n_max`, a higher `imbalance_ratio` keeps a subset
        of the rows that a lower one keeps. None chooses differently in each call.

    Returns
    -------
    X, y : same types as the input
        The rows kept, in their original order.

    Raises
    ------
    ValueError
        When a parameter is out of its range, `y` has fewer than two classes or another length than
        `X`, or a class has fewer rows than the profile asks of it.

    Notes
    -----
    The exponential profile is that of CIFAR-LT (Cui et al., "Class-Balanced Loss Based on Effective
    Number of Samples", CVPR 2019), the step profile that of Buda et al. (Neural Networks, 2018).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_diffult.datasets import make_long_tailed
    >>> X, y = load_digits(return_X_y=True)
    >>> X_tail, y_tail = make_long_tailed(X, y, imbalance_ratio=20, n_max=160, random_state=0)
    >>> X_tail.shape
    (541, 64)
    >>> np.bincount(y_tail)
    array([160, 114,  82,  58,  42,  30,  21,  15,  11,   8])
    """
    _check_profile(imbalance_ratio, n_max, profile)
    check_consistent_length(X, y)
    classes, codes, n_rows = np.unique(
        column_or_1d(y, warn=True), return_inverse=True, return_counts=True
    )
    if len(classes) < 2:
        raise ValueError(
            f"y has {len(classes)} class(es); a long tail needs at least 2. Pass all labels."
        )
    positions = [c / (len(classes) - 1) for c in range(len(classes))]

    def counts(n_max: int) -> list[int]:
        return [max(1, PROFILES[profile](n_max, imbalance_ratio, p)) for p in positions]

    # Every count grows with n_max, and n_max = 1 always fits, so the largest can be bisected.
    largest = bisect_right(
        range(1, int(n_rows[0]) + 1), False, key=lambda n: bool(np.any(counts(n) > n_rows))
    )
    n_kept = counts(largest if n_max is None else int(n_max))
    for label, has, needs in zip(classes.tolist(), n_rows, n_kept, strict=True):
        if has < needs:
            raise ValueError(
                f"class {label!r} has {has} rows, but n_max={n_max} with imbalance_ratio="
                f"{imbalance_ratio} and profile={profile!r} needs {needs}. Lower n_max to at most "
                f"{largest}, or leave it None."
            )
    kept = np.sort(_choose_rows(codes, n_kept, random_state))
    return _safe_indexing(X, kept), _safe_indexing(y, kept)


def _check_profile(imbalance_ratio: float, n_max: int | None, profile: str) -> None:
    if not isinstance(imbalance_ratio, Real) or not 1 <= imbalance_ratio < float("inf"):
        raise ValueError(
            f"imbalance_ratio={imbalance_ratio!r} must be a finite number of at least 1: "
            "rows of the largest class per row of the smallest."
        )
    if n_max is not None and (not isinstance(n_max, Integral) or n_max < 1):
        raise ValueError(f"n_max={n_max!r} must be an int of at least 1, or None.")
    if profile not in PROFILES:
        raise ValueError(f"profile={profile!r} must be one of {sorted(PROFILES)}.")


def _choose_rows(
    codes: np.ndarray, n_kept: list[int], random_state: int | np.random.RandomState | None
) -> np.ndarray:
    rng = new_random_state(random_state)
    # A whole permutation per class, so that the draws do not depend on how many rows are kept.
    return np.concatenate(
        [rng.permutation(np.flatnonzero(codes == code))[:n] for code, n in enumerate(n_kept)]
    )


FASHION_MNIST_VARIABLE = "FASHION_MNIST"
FASHION_MNIST_PLACES = (
    "/usr/share/datasets/fashion-mnist",
    "~/fashion-mnist",
    "~/datasets/fashion-mnist",
    "~/data/fashion-mnist",
    "~/.local/share/datasets/fashion-mnist",
)
FASHION_MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def load_fashion_mnist(
    path: str | os.PathLike[str] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read Fashion-MNIST from disk; nothing is downloaded.

    Parameters
    ----------
    path : path-like, optional
        Folder with the four ``*-ubyte.gz`` files. By default the folder that the environment
        variable ``FASHION_MNIST`` names, or else the first that has the files of where Debian's
        package ``dataset-fashion-mnist`` puts them and a few usual folders below the home folder.

    Returns
    -------
    X_train : uint8 array of shape (60000, 28, 28)
        Images, rows x columns, 0 is background.
    y_train : uint8 array of shape (60000,)
        Labels 0 to 9.
    X_test : uint8 array of shape (10000, 28, 28)
        Images.
    y_test : uint8 array of shape (10000,)
        Labels.

    Raises
    ------
    FileNotFoundError
        When no folder has the four files.
    ValueError
        When a file is not what its header says, or images and labels differ in number.

    Examples
    --------
    >>> from sklearn_diffult.datasets import load_fashion_mnist
    >>> try:
    ...     X_train, y_train, X_test, y_test = load_fashion_mnist("/no/such/folder")
    ... except FileNotFoundError as error:
    ...     print(error)
    Fashion-MNIST was not found; looked in: /no/such/folder. Install it with `apt install
    dataset-fashion-mnist`, or set path or the environment variable FASHION_MNIST to the folder
    that holds train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz,
    t10k-labels-idx1-ubyte.gz.
    """
    folder = _find_fashion_mnist(path)
    X_train, y_train, X_test, y_test = (_read_idx(folder / name) for name in FASHION_MNIST_FILES)
    for images, labels, part in ((X_train, y_train, "train"), (X_test, y_test, "t10k")):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ValueError(
                f"{folder}: the {part} images have shape {images.shape} and the labels "
                f"{labels.shape}, not (n, height, width) and (n,). Install the files again."
            )
    return X_train, y_train, X_test, y_test


def _find_fashion_mnist(path: str | os.PathLike[str] | None) -> Path:
    chosen = path if path is not None else os.environ.get(FASHION_MNIST_VARIABLE)
    # A folder that the user named is not replaced by another one behind their back.
    folders = [
        Path(place).expanduser()
        for place in (FASHION_MNIST_PLACES if chosen is None else (chosen,))
    ]
    for folder in folders:
        if all((folder / name).is_file() for name in FASHION_MNIST_FILES):
            return folder
    raise FileNotFoundError(
        f"Fashion-MNIST was not found; looked in: {', '.join(map(str, folders))}. Install it with "
        "`apt install dataset-fashion-mnist`, or set path or the environment variable "
        f"{FASHION_MNIST_VARIABLE} to the folder that holds {', '.join(FASHION_MNIST_FILES)}."
    )


def _read_idx(path: Path) -> np.ndarray:
    """Read a gzipped idx file of bytes: 0, 0, 8, number of axes, big-endian sizes, values."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}). Install it again.") from error
    n_axes = content[3] if len(content) > 3 else 0
    start = 4 + 4 * n_axes
    if content[:3] != b"\x00\x00\x08" or len(content) < start:
        raise ValueError(
            f"{path} starts with {content[:4]!r}; an idx file of unsigned bytes starts with "
            "b'\\x00\\x00\\x08', its number of axes and their sizes. Install it again."
        )
    sizes = np.frombuffer(content, dtype=">u4", count=n_axes, offset=4).tolist()
    values = np.frombuffer(content, dtype=np.uint8, offset=start)
    if values.size != math.prod(sizes):
        raise ValueError(
            f"{path} holds {values.size} values, but its header says {sizes}. Install it again."
        )
    return values.reshape(sizes).copy()
