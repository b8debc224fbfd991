"""What the balancer's parameters mean to the rooms below."""

from __future__ import annotations

import contextlib
import copy
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from joblib import Memory
from sklearn.utils._param_validation import Interval, StrOptions

from sklearn_diffult._fitting import private_global_rng
from sklearn_diffult._torch import build, lookup, new_generator
from sklearn_diffult.diffusion.generation import GenerationPlan
from sklearn_diffult.diffusion.regularizers import REGULARIZERS
from sklearn_diffult.diffusion.sigma import SIGMA_DISTRIBUTIONS
from sklearn_diffult.diffusion.solvers import SOLVERS
from sklearn_diffult.diffusion.starts import STARTS
from sklearn_diffult.diffusion.trainer import TrainingPlan
from sklearn_diffult.filters import FilterPlan
from sklearn_diffult.networks.denoisers import DENOISER_NETWORKS, named_network
from sklearn_diffult.training_data import TrainingData
from sklearn_diffult.weights import WEIGHTINGS, check_share

# What every parameter of DiffusionBalancer may be, in scikit-learn's terms.
PARAMETER_CONSTRAINTS: dict[str, list[Any]] = {
    "sampling_strategy": [
        Interval(Integral, 1, None, closed="left"),
        Interval(Real, 0, 1, closed="right"),
        StrOptions({"auto", "not minority", "not majority", "all", "minority"}),
        Mapping,
        callable,
    ],
    "omega": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="both")],
    "weighting": [StrOptions(set(WEIGHTINGS)), callable],
    "weight_temper": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="both")],
    "d1_max": [Interval(Real, 0, None, closed="neither"), None],
    "d2_max": [Interval(Real, 0, None, closed="neither"), None],
    "d3_max": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither"), None],
    "centre_max": [Interval(Real, 0, None, closed="neither"), None],
    "d1_min": [Interval(Real, 0, None, closed="left")],
    "max_rounds": [Interval(Integral, 1, None, closed="left")],
    "on_shortfall": [StrOptions({"fill", "warn", "raise"})],
    "network": [StrOptions({"auto", *DENOISER_NETWORKS}), callable],
    "n_steps": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
    "class_temper": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="both")],
    "sigma_distribution": [StrOptions(set(SIGMA_DISTRIBUTIONS)), callable],
    "regularizer": [StrOptions(set(REGULARIZERS)), callable, None],
    "regularizer_strength": [Interval(Real, 0, None, closed="left")],
    "horizontal_flip": ["boolean"],
    "augmentation": [Interval(Real, 0, 1, closed="both")],
    "solver": [StrOptions(set(SOLVERS)), callable],
    "n_solver_steps": [Interval(Integral, 2, None, closed="left")],
    "guidance_scale": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
    "guidance_interval": [tuple, list],
    "start": [StrOptions({"auto", *STARTS}), callable],
    "start_noise": [Interval(Real, 0, None, closed="neither")],
    "image_shape": [tuple, list, None],
    "categorical_features": [StrOptions({"auto"}), "array-like", None],
    "memory": [str, os.PathLike, Memory, None],
    "checkpoint": [str, os.PathLike, None],
    "device": [str],
    "precision": [StrOptions({"auto", "float32", "bfloat16"})],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


@dataclass(frozen=True)
class Defaults:
    """What "auto" stands for."""

    omega: float
    weight_temper: float
    d3_max: float | None
    guidance_scale: float
    start: str
    class_temper: float
    least_share: float
    learning_rate: float
    weight_decay: float
    batch_size: int
    # Of the numbers of rows and of rows per step.
    n_steps: Callable[[int, int], float]
    least_steps: int
    # A CPU gains nothing from more images at a time; rows of tables are too little work alone.
    batches_at_a_time: int


IMAGES = Defaults(
    omega=0.2,
    weight_temper=0.0,
    d3_max=None,
    # More guidance costs a fifth more and taught the classifier no more.
    guidance_scale=1.0,
    start="noise",
    class_temper=0.5,
    least_share=0.0,
    learning_rate=1e-3,
    weight_decay=1e-4,
    batch_size=64,
    n_steps=lambda n_rows, batch_size: 60 * n_rows / batch_size,
    least_steps=1_000,
    batches_at_a_time=1,
)
# On small tables the loss of unseen rows of rare classes rises before long: what drew these classes
# more often, decayed weights less or took more steps knew their rows by heart.
TABLES = Defaults(
    omega=0.1,
    # With equally heavy classes probabilities are further off than SMOTE's, whose rows keep
    # closer to those that a classifier knows.
    weight_temper=0.1,
    # Where classes overlap, real rows score about 1 each: a maximum of 1 would choose among them by
    # what little tells the classes apart, and exaggerate it.
    d3_max=1.5,
    guidance_scale=1.5,
    # Columns depend on each other in more ways than a small model learns from a small table.
    start="class",
    class_temper=1.0,
    # Of a class that hardly ever came up nothing would be learnt.
    least_share=0.02,
    learning_rate=3e-3,
    weight_decay=0.3,
    batch_size=128,
    n_steps=lambda n_rows, batch_size: 25 * math.sqrt(n_rows),
    least_steps=400,
    batches_at_a_time=8,
)
MOST_STEPS = 30_000


def defaults(is_image: bool) -> Defaults:
    """Return what "auto" stands for with images or tables."""
    return IMAGES if is_image else TABLES


def resolve(choice: Any, default: Any) -> Any:
    """Return a parameter's value, the default where it is "auto"."""
    return default if isinstance(choice, str) and choice == "auto" else choice


LABEL_DROPOUT = 0.1
# Half-life of the parameter average, as a share of all rows seen in training.
EMA_SHARE = 0.02


def build_network(
    choice: str | Callable[..., torch.nn.Module],
    data: TrainingData,
    seed: int,
    device: torch.device,
) -> torch.nn.Module:
    """Build the denoiser's network for the rows at hand; what a callable returns is copied.

    It might return one module each time, and every fit would go on from the one before.

    Raises
    ------
    ValueError
        If the named network is for images and the rows are a table, or the other way round.
    TypeError
        If a callable does not return a module, or is one itself.
    """
    shape, n_classes = data.codec.sample_shape, len(data.classes)
    if callable(choice):
        with private_global_rng(seed, device):
            is_module = isinstance(choice, torch.nn.Module)
            network = None if is_module else choice(shape, n_classes)
        if not isinstance(network, torch.nn.Module):
            raise TypeError(
                f"network={choice!r} must be a name or a function (sample_shape, n_classes) -> "
                "torch.nn.Module; wrap a module as network=lambda shape, n_classes: module."
            )
        return copy.deepcopy(network)
    factory = named_network(choice, shape)
    return build(lambda: factory(shape, n_classes), new_generator(seed))


@contextlib.contextmanager
def own_randomness(
    parameters: Any, seed: int, device: torch.device
) -> Iterator[tuple[torch.Generator, ...]]:
    """Keep what the user's own callables draw from torch's global state repeatable and private.

    Yields the generators that they draw from, none where all callables are the library's.
    """
    names = ("network", "regularizer", "sigma_distribution", "solver", "start")
    if not any(callable(getattr(parameters, name)) for name in names):
        yield ()
        return
    with private_global_rng(seed, device):
        on_device = []
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            on_device = [torch.cuda.default_generators[index]]
        yield (torch.default_generator, *on_device)


def training_plan(parameters: Any, n_rows: int, is_image: bool) -> TrainingPlan:
    """Read the training parameters of a balancer."""
    default = defaults(is_image)
    # More rows than there are would come twice or more in every step.
    most = max(n_rows, default.batch_size)
    batch_size = min(resolve(parameters.batch_size, default.batch_size), most)
    n_steps = int(np.clip(default.n_steps(n_rows, batch_size), default.least_steps, MOST_STEPS))
    n_steps = resolve(parameters.n_steps, n_steps)
    return TrainingPlan(
        n_steps=n_steps,
        batch_size=batch_size,
        learning_rate=resolve(parameters.learning_rate, default.learning_rate),
        ema_half_life=EMA_SHARE * n_steps * batch_size,
        label_dropout=LABEL_DROPOUT,
        class_temper=resolve(parameters.class_temper, default.class_temper),
        least_share=default.least_share,
        weight_decay=default.weight_decay,
        regularizer=lookup(REGULARIZERS | {None: None}, parameters.regularizer),
        regularizer_strength=parameters.regularizer_strength,
        horizontal_flip=parameters.horizontal_flip and is_image,
        augmentation=parameters.augmentation if is_image else 0.0,
    )


def generation_plan(parameters: Any, is_image: bool, device: torch.device) -> GenerationPlan:
    """Read the generation parameters of a balancer.

    Raises
    ------
    ValueError
        If guidance_interval is not two rising noise levels.
    """
    interval = tuple(parameters.guidance_interval)
    numbers = all(isinstance(level, Real) for level in interval)
    if len(interval) != 2 or not numbers or not 0 <= interval[0] <= interval[1]:
        raise ValueError(
            f"guidance_interval={parameters.guidance_interval!r} must be two noise levels "
            "(low, high) with 0 <= low <= high, such as (0.4, 4.0)."
        )
    default = defaults(is_image)
    return GenerationPlan(
        solver=lookup(SOLVERS, parameters.solver),
        n_steps=parameters.n_solver_steps,
        guidance_scale=resolve(parameters.guidance_scale, default.guidance_scale),
        guidance_interval=interval,
        # Generation keeps no activations for a backward pass, so there is room for more rows. It
        # fills its batches up, so that large ones would make a single row dear.
        batch_size=min(resolve(parameters.batch_size, default.batch_size), default.batch_size)
        * (default.batches_at_a_time if device.type == "cpu" else 8),
        start=lookup(STARTS, resolve(parameters.start, default.start)),
        start_noise=float(parameters.start_noise),
    )


def filter_plan(parameters: Any, is_image: bool, is_discrete: bool = False) -> FilterPlan:
    """Read the thresholds of a balancer.

    Where rows are made of a few values only (`is_discrete`), equal ones give nothing away, and none
    but them may be right: there the guard against copies is off.

    Raises
    ------
    ValueError
        If d1_max leaves nothing beyond d1_min.
    """
    if parameters.d1_max is not None and parameters.d1_max <= parameters.d1_min:
        raise ValueError(
            f"d1_max={parameters.d1_max!r} must be greater than d1_min={parameters.d1_min!r}: no "
            "row could pass. Distances are in units of those between real rows, so d1_max is "
            "usually 1 or more."
        )
    maxima = {name: getattr(parameters, f"{name}_max") for name in ("d1", "d2", "d3", "centre")}
    maxima["d3"] = resolve(maxima["d3"], defaults(is_image).d3_max)
    on = {name: float(maximum) for name, maximum in maxima.items() if maximum is not None}
    return FilterPlan(on, parameters.d1_min, copies_allowed=is_discrete)


def weight_plan(parameters: Any, is_image: bool) -> tuple[float, float]:
    """Read omega and `weight_temper` of a balancer.

    Raises
    ------
    TypeError
        If one of them is True or False, which are numbers to Python.
    """
    default = defaults(is_image)
    omega = resolve(parameters.omega, default.omega)
    temper = resolve(parameters.weight_temper, default.weight_temper)
    check_share("omega", omega)
    check_share("weight_temper", temper)
    return omega, temper
