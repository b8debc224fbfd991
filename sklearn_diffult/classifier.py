"""WeightedTorchClassifier: a torch classifier that takes sample weights seriously."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn

from sklearn_diffult._carriers import receive
from sklearn_diffult._columns import compare_columns, record_columns
from sklearn_diffult._fitting import (
    EarlyStopping,
    Portable,
    Rows,
    Training,
    apply_in_blocks,
    auto_n_steps,
    constant,
    draw_seed,
    hold_out,
    none_rather_than_half,
    of_positive_weight,
    warm_up_then_cosine,
)
from sklearn_diffult._labels import check_classes, check_labels, class_factors, logit_shift
from sklearn_diffult._seeds import new_random_state
from sklearn_diffult._torch import (
    explain_out_of_memory,
    new_generator,
    resolve_device,
    resolve_precision,
)
from sklearn_diffult.augmentations import Augmentation, resolve_augmentations
from sklearn_diffult.codecs import check_rows, has_columns, looks_like_images, make_codec
from sklearn_diffult.codecs.containers import is_series
from sklearn_diffult.codecs.image import tell_other_scale
from sklearn_diffult.networks.classifiers import CLASSIFIER_NETWORKS, build_classifier, randomness

_LOOKS = 40
_MAX_ONE_HOT = 64  # unlike a denoiser, a classifier learns little from binary digits


class WeightedTorchClassifier(Portable, ClassifierMixin, BaseEstimator):
    """Neural classifier of images or tables in which a row counts by its weight.

    Rows are encoded (images to [-1, 1], numbers to normal scores, categories one-hot) and a torch
    module is trained with AdamW on weighted cross-entropy. Weights reach the training in one of
    two ways that agree in expectation; rows of weight zero are dropped before anything else.

    Parameters
    ----------
    module : str, torch.nn.Module or callable, default="auto"
        ``"resnet"`` (about 0.46 million parameters), ``"mlp"``, or ``"auto"``: the first for
        images, the second for tables. A module is copied, never changed. A callable
        ``(sample_shape, n_classes) -> torch.nn.Module`` gets the shape of one encoded row, "c h w"
        or "d". Modules map float32 rows "n ..." to logits "n classes".
    n_steps : int or "auto", default="auto"
        Optimisation steps of ``fit``; ``"auto"``: ``15 * sqrt(n_rows)``, at least 150, for tables,
        and four times as many for images.
    batch_size : int, default=64
        Rows per step, capped by the number of rows.
    learning_rate : float, default=1e-3
        Peak learning rate of ``fit`` (a short warm-up, then cosine to zero), and the constant one
        of ``partial_fit``.
    weight_decay : float, default=0.01
        Decoupled weight decay of matrices and kernels.
    weight_mode : {"sample", "loss"}, default="sample"
        ``"sample"`` draws rows in proportion to their weight; ``"loss"`` draws them evenly and
        scales each loss by weight over mean weight. The first has the lower variance where few
        rows carry much weight.
    class_weight : dict, "balanced" or None, default=None
        Multiplies the weights by class, as in scikit-learn; ``"balanced"`` counts rows by weight.
    logit_adjustment : float, default=0.0
        tau >= 0: adds ``tau * log(prior)`` to the logits in training only, where the prior is each
        class's share of the total weight (Menon et al. 2021, Eq. (10); at 1 Balanced Softmax, Ren
        et al. 2020, Eq. (3)). Predictions then follow classes of equal share.
    augment : str, sequence of str, callable or None, default="auto"
        Random changes to training images, in the order given: ``"shift"`` by up to an eighth of a
        side, ``"flip"`` left to right, ``"affine"`` (magnify, stretch, turn and shift a little),
        ``"erase"`` (cover a rectangle), ``"solarize"`` (turn bright pixels into their negative).
        ``"auto"``: the last three for images, nothing for tables. None: nothing. A callable
        ``(batch, torch.Generator) -> batch`` gets encoded rows on the CPU, float32: images
        "n c h w" in [-1, 1], or a table "n d".
    early_stopping : bool, default=False
        Keep the parameters with the best weighted balanced accuracy on held-out rows (40 looks).
    validation_fraction : float, default=0.1
        Part of each class held out; a class of one row stays in training.
    patience : int, default=10
        Looks without a gain after which training stops.
    image_shape : tuple of int or None, default=None
        ``(height, width)``, ``(height, width, channels)`` or ``(channels, height, width)`` when
        rows are flat images.
    device : str, default="auto"
        Name of a device; ``"auto"`` takes cuda, or else cpu; mps is untested.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of matrix products; ``"auto"`` takes bfloat16 for images where the hardware multiplies it.
    random_state : int, RandomState or None, default=None
        Seeds initial parameters, batches, augmentation, hold-out and the module's own randomness.
        Same seed, machine and rows: same classifier. Global random state is never changed.
    verbose : int, default=0
        1 shows progress, loss and rows per second.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    module_ : torch.nn.Module
        Trained module, in evaluation mode.
    loss_curve_ : list of float, length n_steps_
        Loss of every step since ``fit``, or since the first ``partial_fit``.
    n_steps_ : int
        Steps taken.
    validation_scores_ : list of float
        Balanced accuracy at each look; only with `early_stopping`.
    image_shape_ : tuple of int
        Encoded shape "c h w"; only for images.
    n_features_in_ : int
        Number of columns; only for 2-D input.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names; only for DataFrames whose names are all strings.

    Notes
    -----
    ``fit`` costs steps times batch size. Results agree from run to run on one machine only. A
    pickle holds the optimiser's state as well, for ``partial_fit``: thrice the module's size.

    References
    ----------
    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
    Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_diffult.classifier import WeightedTorchClassifier
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> classifier = WeightedTorchClassifier(n_steps=50, device="cpu", random_state=0)
    >>> classifier.fit(X, ["low", "low", "high", "high"]).predict([[-1.0], [4.0]])
    array(['low', 'high'], dtype='<U4')
    """

    # Tells imbalanced-learn-style pipelines that labels carrying weights are understood here.
    _receives_weights = True

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "module": [StrOptions({"auto", *CLASSIFIER_NETWORKS}), callable],
        "n_steps": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "weight_mode": [StrOptions({"sample", "loss"})],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "logit_adjustment": [Interval(Real, 0, None, closed="left")],
        "augment": [str, tuple, list, callable, None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "image_shape": [tuple, list, None],
        "device": [str],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        module: str | nn.Module | Callable[[tuple[int, ...], int], nn.Module] = "auto",
        *,
        n_steps: int | str = "auto",
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        weight_mode: str = "sample",
        class_weight: dict[Any, float] | str | None = None,
        logit_adjustment: float = 0.0,
        augment: str | Sequence[str] | Augmentation | None = "auto",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        image_shape: tuple[int, ...] | None = None,
        device: str = "auto",
        precision: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.module = module
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.weight_mode = weight_mode
        self.class_weight = class_weight
        self.logit_adjustment = logit_adjustment
        self.augment = augment
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.image_shape = image_shape
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from scratch.

        Parameters
        ----------
        X : array-like, DataFrame or list of Pillow images
            Images (n, height, width), (n, height, width, channels) or (n, channels, height,
            width), flat rows with `image_shape`, or a table (n_rows, n_columns) of any columns but
            dates; values may be missing.
        y : array-like of shape (n_rows,)
            Labels of at least two classes.
        sample_weight : array-like of shape (n_rows,) or None, default=None
            Non-negative, of any scale. None takes the weights that rows from a
            ``DiffusionBalancer`` carry in a pipeline, else 1.

        Returns
        -------
        WeightedTorchClassifier

        Raises
        ------
        ValueError, TypeError
            If a parameter, X, y or weights are not as described.
        FloatingPointError
            If the loss stops being finite.
        MemoryError
            If `batch_size` is too large for the device.
        """
        self._validate_params()
        X, y, weights = self._check_training_rows(X, y, sample_weight, reset=True)
        classes = np.unique(y)
        if len(classes) < 2:
            raise ValueError(
                f"y holds {len(classes)} class ({classes.tolist()}) in rows of positive weight; "
                "a classifier needs at least 2 classes."
            )
        weights = weights * class_factors(self.class_weight, y, weights, classes)
        X, y, weights = of_positive_weight(X, y, weights)
        if self.early_stopping and np.unique(y, return_counts=True)[1].max() < 2:
            raise ValueError("early_stopping=True needs a class of 2 rows or more to hold out.")
        self._start(X, weights, classes)
        auto = auto_n_steps(len(y), self._codec.is_image)
        n_steps = auto if isinstance(self.n_steps, str) else self.n_steps
        with none_rather_than_half(self):
            rows, early_stopping = self._encode(X, y, weights), None
            if self.early_stopping:
                rows, held_out = hold_out(rows, self.validation_fraction, self._seeds)
                early_stopping = EarlyStopping(held_out, max(1, n_steps // _LOOKS), self.patience)
            self._train(rows, n_steps, warm_up_then_cosine, early_stopping)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Go once over some more rows, at constant learning rate, keeping the optimiser's state.

        Parameters
        ----------
        X, y, sample_weight
            As in :meth:`fit`, weights within one call. The first, best large, fixes the encoding.
        classes : array-like of shape (n_classes,), default=None
            Every label that will ever come; needed in the first call, unless ``fit`` came before.

        Returns
        -------
        WeightedTorchClassifier

        Raises
        ------
        ValueError
            If `classes` is missing in the first call or differs later, if y holds other labels,
            or if ``class_weight="balanced"``, which needs all rows at once. Else as in `fit`.
        """
        self._validate_params()
        first = not hasattr(self, "module_")
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs all rows at once; give partial_fit a dict, as from "
                "sklearn.utils.class_weight.compute_class_weight."
            )
        known = check_classes(classes, None if first else self.classes_)
        X, y, weights = self._check_training_rows(X, y, sample_weight, reset=first)
        unknown = np.setdiff1d(y, known)
        if len(unknown):
            raise ValueError(f"y holds {unknown.tolist()}, not among classes={known.tolist()}.")
        weights = weights * class_factors(self.class_weight, y, weights, known)
        X, y, weights = of_positive_weight(X, y, weights)
        if first:
            self._start(X, weights, known)
        # What a later call refuses leaves the module as it is.
        with none_rather_than_half(self) if first else nullcontext():
            self._train(self._encode(X, y, weights), math.ceil(len(y) / self.batch_size), constant)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row, shape (n_rows,)."""
        logits = self._logits(X)
        return self.classes_[logits.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities, float64 of shape (n_rows, n_classes); rows sum to 1."""
        return softmax(self._logits(X), axis=1)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return logarithms of class probabilities, float64 of shape (n_rows, n_classes)."""
        return log_softmax(self._logits(X), axis=1)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return logits, float64 of shape (n_rows, n_classes).

        For two classes it is their log-odds, shape (n_rows,): positive means ``classes_[1]``.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def embed(self, X: Any) -> np.ndarray:
        """Return penultimate features, float32 of shape (n_rows, n_features).

        Raises
        ------
        ValueError
            If the module is your own and has no ``features(rows)``.
        """
        check_is_fitted(self, "module_")
        if not hasattr(self.module_, "features"):
            raise ValueError(
                f"{type(self.module_).__name__} has no method features(rows) -> 'n f', which embed "
                f"needs; add one, or use module= one of {sorted(CLASSIFIER_NETWORKS)}."
            )
        return self._in_blocks("features", self._encode_new(X))

    def _check_training_rows(
        self, X: Any, y: Any, sample_weight: Any, reset: bool
    ) -> tuple[Any, np.ndarray, np.ndarray]:
        X, y, sample_weight = receive(X, y, sample_weight)
        y = check_labels(y)
        X = self._check_rows(X, reset)
        check_consistent_length(X, y)
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        return of_positive_weight(X, y, weights, tell=reset)

    def _check_rows(self, X: Any, reset: bool) -> Any:
        if has_columns(X) or is_series(X):
            # scikit-learn's check would make one dtype of them all; the codec checks each.
            check_rows(np.shape(X))
            return X if reset else compare_columns(self, X)
        if not looks_like_images(X):
            checks = {"ensure_all_finite": "allow-nan", "accept_sparse": "csr"}
            if reset:
                return check_array(X, estimator=self, input_name="X", **checks)
            return validate_data(self, X, reset=False, **checks)
        if len(X) == 0:
            raise ValueError(f"X is empty: its shape is {X.shape}; give at least one image.")
        return X

    def _start(self, X: Any, weights: np.ndarray, classes: np.ndarray) -> None:
        """Learn the encoding and build the module; nothing is set before all of it worked."""
        resolve_device(self.device)
        codec = make_codec(X, self.image_shape, max_one_hot=_MAX_ONE_HOT).fit(X, weights)
        resolve_augmentations(self.augment, codec.is_image)
        seeds = new_random_state(self.random_state)
        module = build_classifier(
            self.module, codec.sample_shape, len(classes), new_generator(draw_seed(seeds))
        )
        self._codec, self._seeds, self.module_, self.classes_ = codec, seeds, module, classes
        self._class_mass = np.zeros(len(classes))
        self._optimizer_state: dict[str, Any] | None = None
        self.loss_curve_: list[float] = []
        for name in ("image_shape_", "validation_scores_"):
            self.__dict__.pop(name, None)
        if codec.is_image:
            self.image_shape_ = codec.sample_shape
        record_columns(self, X, not looks_like_images(X))

    def _encode(self, X: Any, y: np.ndarray, weights: np.ndarray) -> Rows:
        targets = torch.from_numpy(np.searchsorted(self.classes_, y))
        return Rows(self._codec.encode(X), targets, torch.from_numpy(weights / weights.mean()))

    def _train(
        self,
        rows: Rows,
        n_steps: int,
        schedule: Callable[[int, int], float],
        early_stopping: EarlyStopping | None = None,
    ) -> None:
        """Take steps on the module: the one loop of `fit` and `partial_fit`."""
        device, dtype = self._device_and_dtype()
        targets = rows.targets.numpy()
        self._class_mass += np.bincount(targets, rows.weights.numpy(), len(self.classes_))
        training = Training(
            module=self.module_,
            device=device,
            dtype=dtype,
            generator=new_generator(draw_seed(self._seeds)),
            logit_shift=torch.from_numpy(logit_shift(self.logit_adjustment, self._class_mass)),
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            scale_loss=self.weight_mode == "loss",
            augmentations=resolve_augmentations(self.augment, self._codec.is_image),
            verbose=self.verbose,
        )
        out_of_memory = explain_out_of_memory("batch_size")
        own = randomness(self.module, self.module_, draw_seed(self._seeds), device)
        with none_rather_than_half(self), out_of_memory, own:
            losses, self._optimizer_state = training.run(
                rows, n_steps, schedule, self._optimizer_state, early_stopping
            )
        if early_stopping is not None:
            self.validation_scores_ = early_stopping.scores
        self.loss_curve_ += losses
        self.n_steps_ = len(self.loss_curve_)

    def _device_and_dtype(self) -> tuple[torch.device, torch.dtype]:
        # Resolved at every use: a classifier fitted on a GPU may be unpickled where there is none.
        device = resolve_device(self.device)
        return device, resolve_precision(self.precision, device, self._codec.is_image)

    def _encode_new(self, X: Any) -> Tensor:
        check_is_fitted(self, "module_")
        encoded = self._codec.encode(self._check_rows(X, reset=False))
        return tell_other_scale(encoded, self._codec)

    def _logits(self, X: Any) -> np.ndarray:
        return self._in_blocks("__call__", self._encode_new(X)).astype(np.float64)

    def _in_blocks(self, method: str, inputs: Tensor) -> np.ndarray:
        device, dtype = self._device_and_dtype()
        return apply_in_blocks(getattr(self.module_.to(device), method), inputs, device, dtype)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inputs = tags.input_tags
        inputs.three_d_array = inputs.string = inputs.allow_nan = inputs.sparse = True
        return tags
