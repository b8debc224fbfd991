"""DiffusionBalancer: over-sampling by a diffusion model trained on the data it balances."""

from __future__ import annotations

import os
from collections.abc import Callable
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from imblearn.over_sampling.base import BaseOverSampler
from joblib import Memory
from sklearn.utils.validation import check_is_fitted

from sklearn_diffult._seeds import child_seeds
from sklearn_diffult._torch import resolve_device
from sklearn_diffult._warnings import warn
from sklearn_diffult.diffusion.trainer import TrainingInterrupted
from sklearn_diffult.plans import (
    PARAMETER_CONSTRAINTS,
    filter_plan,
    generation_plan,
    weight_plan,
)
from sklearn_diffult.results import Results
from sklearn_diffult.saving import Savable
from sklearn_diffult.stages import Stages, generate_rows
from sklearn_diffult.training_data import (
    TrainingData,
    check_training_data,
    check_weighting,
    concerns,
    rows_to_generate,
)
from sklearn_diffult.weights import TransformerFace, compute_weights, hand_on


class DiffusionBalancer(TransformerFace, Results, Savable, BaseOverSampler):
    """Over-sample rare classes with rows from a diffusion model trained on the data itself.

    One class-conditional diffusion model learns all classes together, so that what the rich
    classes share reaches the poor ones. It generates what each class lacks; rows too far from the
    real rows of their class, or copies of one, are filtered out; the rest are weighted by omega.
    The recipe is DiffuLT's (Shao et al. 2024, arXiv 2403.05170).

    Parameters
    ----------
    sampling_strategy : float, str, dict, callable or int, default="auto"
        As in imbalanced-learn: ``"auto"`` (same as ``"not majority"``) brings every class to the
        size of the largest. An int from 2 on is the paper's N_t: classes with fewer rows are
        brought up to it, no class is cut. A float, or 1, is the ratio of two classes.
    omega : float in [0, 1] or "auto", default="auto"
        How much synthetic rows weigh, see `weighting`. 0: real rows only. ``"auto"`` is 0.2
        for images, 0.1 for tables.
    weighting : {"class", "row"} or callable, default="class"
        ``"class"``: a class's synthetic rows together hold the share omega of its weight; in all
        there is as much as there are real rows. ``"row"``: a real row weighs 1, a synthetic row
        omega (the paper's choice). Or ``(y, synthetic_mask, omega) -> weights``.
    weight_temper : float in [0, 1] or "auto", default="auto"
        With ``"class"`` a class weighs in proportion to n_real ** weight_temper: 0 makes all alike,
        best for balanced accuracy, 1 leaves their shares, best for probabilities. ``"auto"`` is 0
        for images, 0.1 for tables. Nothing with other weightings, or where a classifier's own
        ``class_weight="balanced"`` evens classes out again.
    d1_max, d2_max : float or None, default=None
        Highest score a synthetic row may have; None turns a filter off. d1: distance in input
        space to the nearest real row of its class; d2: the same among the features of
        classifiers, to real rows that they have not seen. Each is measured in units of what real
        rows of the class show among themselves (see `sklearn_diffult.filters`).
    d3_max : float, "auto" or None, default="auto"
        The same for d3, the surprise of these classifiers at the row's class, where real rows have
        1 on average. ``"auto"`` is 1.5 for tables and None for images.
    centre_max : float or None, default=None
        The same for the distance to the class's mean among features of a classifier of all real
        rows, over the class's diameter there: 1 keeps the paper's in-distribution rows, 2 also the
        approximate ones.
    d1_min : float, default=0.1
        Rows with a lower d1, with regard to any class, are near-copies and never used; 0 rejects
        exact copies only. Those that give nothing away are let through: in tables of few values,
        and next to real rows of a table that have an equal twin.
    max_rounds : int, default=5
        Rounds of generation to make up for rejected rows.
    on_shortfall : {"fill", "warn", "raise"}, default="fill"
        When rows are missing after `max_rounds`: take the least bad rejected ones and warn (of
        those that d3 on "auto" rejected, if most are), leave the class short and warn, or raise.
    network : {"auto", "unet", "unet_large", "mlp", "mlp_large"} or callable, default="auto"
        The denoiser's network; ``"auto"`` is ``"unet"`` for images and ``"mlp"`` for tables. Or
        ``(sample_shape, n_classes) -> torch.nn.Module``, see `sklearn_diffult.networks.denoisers`.
    n_steps : int or "auto", default="auto"
        Optimisation steps. ``"auto"``: ``60 * n_rows / batch_size`` for images, at least 1,000;
        ``25 * sqrt(n_rows)`` for tables, at least 400; never over 30,000.
    batch_size : int or "auto", default="auto"
        Rows per step; ``"auto"`` is 64 for images, 128 for tables. A larger one is cut down to
        the number of rows, or to these if rows are fewer, and makes no difference in generation.
    learning_rate : float or "auto", default="auto"
        Its peak; it warms up over 5 % of the steps and falls to 0 as a cosine. ``"auto"`` is 0.001
        for images, 0.003 for tables.
    class_temper : float in [0, 1] or "auto", default="auto"
        Classes are drawn in proportion to n_rows ** class_temper: 1 keeps their shares, 0 draws all
        alike. ``"auto"`` is 0.5 for images, 1 for tables. In tables no class gets much less than
        2 % of the draws, or half of an equal share.
    sigma_distribution : {"lognormal"} or callable, default="lognormal"
        Noise levels in training; a callable gets sigma_data and returns what has the methods of
        `sklearn_diffult.diffusion.sigma.LogNormalSigma`.
    regularizer : {"cbdm", "coral"}, callable or None, default=None
        Class-balancing regulariser, see `sklearn_diffult.diffusion.regularizers`. ``"cbdm"``
        doubles the cost of a step, ``"coral"`` costs next to nothing.
    regularizer_strength : float, default=1.0
        Its factor, tau.
    horizontal_flip : bool, default=False
        Mirror half of the training images; synthetic ones then come either way. Nothing in tables.
    augmentation : float in [0, 1], default=0.15
        Probability of each small change (magnify, stretch, turn, shift) to a training image, of
        which the network is told (`sklearn_diffult.augmentations.Change`).
    solver : {"dpmpp_2m", "heun", "ddpm"} or callable, default="dpmpp_2m"
        How noise becomes rows, see `sklearn_diffult.diffusion.solvers`.
    n_solver_steps : int, default=18
        Noise levels the solver visits; those with guidance cost two evaluations.
    guidance_scale : float or "auto", default="auto"
        Classifier-free guidance: 1 is the plain conditional model, more trades variety for
        rows that are typical of their class. ``"auto"`` is 1 for images, 1.5 for tables.
    guidance_interval : tuple of two floats, default=(0.4, 4.0)
        Noise levels, in units of the data's standard deviation, at which guidance is on.
    start : {"auto", "noise", "class", "head"} or callable, default="auto"
        What ``fit_resample`` starts from: pure noise, noised real rows of the class or of all
        larger ones. ``"auto"`` is ``"noise"`` for images and ``"class"`` for tables, whose columns
        depend on each other in more ways than a few rows show. Or ``(labels, label) -> row
        numbers``.
    start_noise : float, default=0.7
        How much noise those real rows get, in units of the data's standard deviation.
    image_shape : tuple of int or None, default=None
        ``(height, width)``, ``(height, width, channels)`` or ``(channels, height, width)`` when
        rows are flat images.
    categorical_features : "auto", array-like of int, str or bool, or None, default="auto"
        Columns of a table that hold categories, as in imbalanced-learn's SMOTENC: positions, names
        or a mask. ``"auto"``: text, booleans and pandas' categories. None: none but the latter.
    memory : str, PathLike, joblib.Memory or None, default=None
        Directory that keeps models, candidates and scores for later fits that want the same, in
        any process: changes to omega, `weighting`, thresholds or `sampling_strategy` train
        nothing anew, and ``random_state=None`` repeats itself on the same rows. Held to 10 GB by
        dropping what was not used for longest, unless it is a Memory. Only use a directory that
        you trust: what lies there is unpickled.
    checkpoint : str, PathLike or None, default=None
        Directory for the state of training, written every 30 seconds and on SIGINT and SIGTERM.
        The same call, made again after whatever ended the process, goes on from there (on a CPU to
        the very same model), and removes it in the end.
    device : str, default="auto"
        Its name; ``"auto"`` takes cuda, or else cpu; mps is untested.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of matrix products; ``"auto"`` is bfloat16 for images where the hardware
        multiplies it.
    random_state : int, RandomState or None, default=None
        Same seed, machine and rows: same synthetic rows; with a solver that draws (``"ddpm"``) also
        the same `sampling_strategy`. Global random states are neither read nor changed.
    verbose : int, default=0
        1 shows progress bars with loss and rows per second: of every training, and of every round
        of generation.

    Attributes
    ----------
    sample_weight_ : ndarray of shape (n_rows,), float64
        Weight of every row that the last ``fit_resample`` returned.
    synthetic_mask_ : ndarray of shape (n_rows,), bool
        True for its synthetic rows.
    filter_report_ : dict of label to dict of str to int
        Per class that got rows: ``generated``, ``kept``, ``rejected_<metric>`` (a row may fail
        several), ``filled``, ``shortfall``; with `centre_max` the bands ``ID``, ``AID``, ``OOD``.
    privacy_report_ : PrivacyReport
        How near the synthetic rows are to real ones, beside how near these are to each other, by
        class and overall (`sklearn_diffult.privacy.PrivacyReport`).
    rejected_examples_ : dict of label to tuple (rows, list of str)
        Up to 16 rejected rows per class but near-copies, and which metrics failed them.
    loss_curve_ : ndarray of shape (n_steps,)
        Training loss of every step.
    rows_per_second_ : float
        Training speed.
    sampling_strategy_ : dict of label to int
        Rows to generate.
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    denoiser_ : torch.nn.Module
        The trained denoiser, averaged over the end of training, on the CPU.
    image_shape_ : tuple of int
        Encoded shape "c h w"; only for images.
    n_features_in_, feature_names_in_
        Number and names of columns; only for 2-D input.

    See Also
    --------
    sklearn_diffult.WeightedTorchClassifier : A classifier whose sample weights are real.
    sklearn_diffult.Pipeline : Hands weights on to the final estimator.

    Notes
    -----
    Takes images as arrays (n, height, width), (n, height, width, channels) or (n, channels, height,
    width), uint8 or float, at least 8 pixels a side with 1, 3 or 4 channels; flat rows with
    `image_shape`; lists of Pillow images; tables as arrays, DataFrames, sparse matrices or lists,
    of any columns but dates, with missing values.

    Training takes most of the time: two CPU cores see 200 to 900 images of 28 x 28 a second. EDM
    (Karras et al. 2022) stands for the paper's DDPM; d1, d2 and d3 are our definitions.

    References
    ----------
    Shao et al., "DiffuLT: Diffusion for Long-tail Recognition Without External Knowledge", 2024.
    Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022.
    Qin et al., "Class-Balancing Diffusion Models", 2023.

    Examples
    --------
    >>> from collections import Counter
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_diffult import DiffusionBalancer
    >>> X, y = load_iris(return_X_y=True)
    >>> X, y = X[:110], y[:110]
    >>> balancer = DiffusionBalancer(n_steps=200, random_state=0)
    >>> X_balanced, y_balanced = balancer.fit_resample(X, y)
    >>> sorted(Counter(y_balanced.tolist()).items())
    [(0, 50), (1, 50), (2, 50)]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = PARAMETER_CONSTRAINTS

    def __init__(
        self,
        *,
        sampling_strategy: Any = "auto",
        omega: float | str = "auto",
        weighting: str | Callable[..., Any] = "class",
        weight_temper: float | str = "auto",
        d1_max: float | None = None,
        d2_max: float | None = None,
        d3_max: float | str | None = "auto",
        centre_max: float | None = None,
        d1_min: float = 0.1,
        max_rounds: int = 5,
        on_shortfall: str = "fill",
        network: str | Callable[..., torch.nn.Module] = "auto",
        n_steps: int | str = "auto",
        batch_size: int | str = "auto",
        learning_rate: float | str = "auto",
        class_temper: float | str = "auto",
        sigma_distribution: str | Callable[..., Any] = "lognormal",
        regularizer: str | Callable[..., Any] | None = None,
        regularizer_strength: float = 1.0,
        horizontal_flip: bool = False,
        augmentation: float = 0.15,
        solver: str | Callable[..., torch.Tensor] = "dpmpp_2m",
        n_solver_steps: int = 18,
        guidance_scale: float | str = "auto",
        guidance_interval: tuple[float, float] = (0.4, 4.0),
        start: str | Callable[..., Any] = "auto",
        start_noise: float = 0.7,
        image_shape: tuple[int, ...] | None = None,
        categorical_features: Any = "auto",
        memory: str | os.PathLike[str] | Memory | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        super().__init__(sampling_strategy=sampling_strategy)
        self.omega = omega
        self.weighting = weighting
        self.weight_temper = weight_temper
        self.d1_max = d1_max
        self.d2_max = d2_max
        self.d3_max = d3_max
        self.centre_max = centre_max
        self.d1_min = d1_min
        self.max_rounds = max_rounds
        self.on_shortfall = on_shortfall
        self.network = network
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.class_temper = class_temper
        self.sigma_distribution = sigma_distribution
        self.regularizer = regularizer
        self.regularizer_strength = regularizer_strength
        self.horizontal_flip = horizontal_flip
        self.augmentation = augmentation
        self.solver = solver
        self.n_solver_steps = n_solver_steps
        self.guidance_scale = guidance_scale
        self.guidance_interval = guidance_interval
        self.start = start
        self.start_noise = start_noise
        self.image_shape = image_shape
        self.categorical_features = categorical_features
        self.memory = memory
        self.checkpoint = checkpoint
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Train the diffusion model; `generate` then works.

        After KeyboardInterrupt the model is as good as it got, and a warning says so.

        Parameters
        ----------
        X : array-like, DataFrame, sparse matrix or list of Pillow images
            Images or a table, see the class's notes.
        y : array-like of shape (n_rows,)
            Labels, at least two classes.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter, X or y is not as described; before any training.
        FloatingPointError
            If the loss stops being finite, with half the learning rate too.
        MemoryError
            If a single row is too large for the device.
        """
        data, wanted, stages = self._encode(X, y)
        try:
            with stages.resumable():
                result = stages.train()
        except TrainingInterrupted as interrupt:
            result = interrupt.result
            warn(f"{interrupt} The model is as good as it got. {stages.advice()}".rstrip())
        self._take(data, wanted, result)
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Balance the rows.

        Parameters
        ----------
        X, y
            As in `fit`.

        Returns
        -------
        X_resampled : container like X
            The rows of X, bit-identical and in their order, then synthetic rows by class.
        y_resampled : container like y
            Their labels. Weights are in `sample_weight_`; inside imbalanced-learn's pipeline an
            array or Series of labels carries them along.
        """
        X_resampled, y_resampled, sample_weight = self.fit_resample_weighted(X, y)
        return X_resampled, hand_on(y_resampled, sample_weight)

    def fit_resample_weighted(self, X: Any, y: Any) -> tuple[Any, Any, np.ndarray]:
        """Balance the rows and return their weights too.

        Parameters
        ----------
        X, y
            As in `fit`.

        Returns
        -------
        X_resampled, y_resampled, sample_weight
            As in `fit_resample`, and `sample_weight_`.
        """
        return self._fit_resample(X, y)

    def generate(
        self, n: int, label: Any, *, random_state: int | np.random.RandomState | None = None
    ) -> Any:
        """Generate rows of one class from pure noise, unfiltered.

        What the filters of ``fit_resample`` would reject is among them, copies of training rows
        too: a fitted balancer has no training rows to compare with. Whoever has them can measure
        `sklearn_diffult.metrics.distance_to_closest_record`, or have ``fit_resample`` make the
        rows, as many as `sampling_strategy` says.

        Parameters
        ----------
        n : int
            How many, at least 1.
        label : object
            One of `classes_`.
        random_state : int, RandomState or None, default=None
            None repeats the balancer's own `random_state`: an int there gives the same rows at
            every call.

        Returns
        -------
        X_new : container like the X of `fit`
            `n` rows.
        """
        check_is_fitted(self, "denoiser_")
        self._validate_params()
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
            raise ValueError(f"n must be an integer >= 1, got {n!r}.")
        matches = np.flatnonzero(self.classes_ == label) if np.ndim(label) == 0 else []
        if len(matches) != 1:
            choice = self.classes_.tolist()
            raise ValueError(f"label must be one of {choice}, one for all rows, got {label!r}.")
        source = self.random_state if random_state is None else random_state
        # None of the four seeds of fit_resample, whose rows these must not repeat.
        seed = child_seeds(source, 5)[4]
        labels, positions = np.full(int(n), matches[0]), np.arange(int(n))
        rows = generate_rows(self, self.denoiser_, self.codec_, labels, positions, seed)
        return self.codec_.decode(rows)

    def _fit_resample(self, X: Any, y: Any) -> tuple[Any, Any, np.ndarray]:
        """Follow the main path: encode, train, generate, filter, weigh, decode."""
        data, wanted, stages = self._encode(X, y)
        omega, temper = weight_plan(self, data.codec.is_image)
        with stages.resumable():
            if callable(self.weighting):
                check_weighting(self.weighting, omega, data, wanted)
            result = stages.train()
            evidence = stages.evidence()
            candidates = stages.generate(result.denoiser, evidence)
            selection = stages.select(wanted, candidates)
            labels, y_resampled = data.with_synthetic_labels(selection.indices)
            synthetic = np.arange(len(labels)) >= len(data.labels)
            weights = compute_weights(labels, synthetic, omega, self.weighting, temper)
            X_resampled = data.codec.append(data.X, selection.rows)
            reports = self._reports(data, selection, evidence)
            # Whoever interrupts what comes before keeps the former model and results.
            self._take(data, wanted, result)
            self.__dict__.update(reports)
            self._complain()
        self.synthetic_mask_, self.sample_weight_ = synthetic, weights
        return X_resampled, y_resampled, weights.copy()

    def _encode(self, X: Any, y: Any) -> tuple[TrainingData, dict[Any, int], Stages]:
        """Check parameters, X and y before any work, encode, and count the rows to generate."""
        self._validate_params()
        weight_plan(self, is_image=True)
        generation_plan(self, is_image=True, device=resolve_device(self.device))
        filter_plan(self, is_image=True)
        data = check_training_data(X, y, self.image_shape, self.categorical_features)
        wanted = rows_to_generate(self.sampling_strategy, data.labels)
        for message in concerns(data, wanted, self.sampling_strategy):
            warn(message)
        return data, wanted, Stages(self, data, wanted)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = tags.input_tags.three_d_array = True
        return tags
