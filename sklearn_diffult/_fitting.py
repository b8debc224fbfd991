"""What a weighted training loop is made of; pickles and global state of both estimators."""

from __future__ import annotations

import contextlib
import copy
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils import _safe_indexing
from torch import Tensor, nn

from sklearn_diffult._recording import RecordedSteps, is_recordable
from sklearn_diffult._torch import (
    AdamW,
    autocast,
    learning,
    progress,
    sent,
    threads_for,
    undisturbed,
)
from sklearn_diffult._warnings import first_few, warn
from sklearn_diffult.augmentations import Augmentation

_STEPS_PER_READING = 25
_BLOCK_ROWS = 128
# torch's global generators are one for all threads, so those that need them take turns.
_GLOBAL_GENERATORS = threading.RLock()


class Rows(NamedTuple):
    """Encoded rows, class indices (int64) and weights (float64, mean 1), all on the CPU."""

    inputs: Tensor
    targets: Tensor
    weights: Tensor

    def take(self, mask: Tensor) -> Rows:
        """Return the rows where `mask` is true, with weights of mean 1 again."""
        weights = self.weights[mask]
        return Rows(self.inputs[mask], self.targets[mask], weights / weights.mean())


def of_positive_weight(
    X: Any, y: np.ndarray, weights: np.ndarray, tell: bool = False
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Drop rows of weight zero; tell which classes lose all of theirs, if two or more stay."""
    keep = weights > 0
    if keep.all():
        return X, y, weights
    kept = np.unique(y[keep])
    lost = np.setdiff1d(y, kept).tolist()
    if tell and lost and len(kept) > 1:
        few = first_few([repr(label) for label in lost])
        warn(f"All rows of these classes weigh 0, so nothing is learnt of them: {few}.")
    return _safe_indexing(X, keep), y[keep], weights[keep]


def weighted_batches(
    weights: Tensor, batch_size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield index batches for ever; a row comes up in proportion to its weight.

    Systematic resampling: an epoch lays the rows end to end in random order, each as long as its
    weight, and picks n_rows evenly spaced points from a random start. A row's count per epoch
    then differs from its expectation by less than one, and equal weights give plain epochs.
    """
    n_rows = len(weights)
    left_over = torch.empty(0, dtype=torch.int64)
    while True:
        order = torch.randperm(n_rows, generator=generator)
        edges = weights[order].cumsum(0)
        start = torch.rand((), generator=generator, dtype=torch.float64)
        points = (torch.arange(n_rows) + start) * (edges[-1] / n_rows)
        # Rounding may put the last point on the last edge.
        picks = order[torch.searchsorted(edges, points, right=True).clamp_(max=n_rows - 1)]
        picks = picks[torch.randperm(n_rows, generator=generator)]
        queue = torch.cat([left_over, picks])
        *batches, left_over = queue.split(batch_size)
        if len(left_over) == batch_size:
            batches, left_over = [*batches, left_over], left_over[:0]
        yield from batches


def auto_n_steps(n_rows: int, is_image: bool) -> int:
    """Steps of ``n_steps="auto"``: they grow as the square root of the rows.

    Tables are learnt, and then known by heart, in fewer of them; changed at random, images are not.
    """
    steps = max(150, round(15 * math.sqrt(n_rows)))
    return 4 * steps if is_image else steps


def warm_up_then_cosine(step: int, n_steps: int) -> float:
    """Share of the learning rate: a linear rise over a tenth of the steps, then cosine to zero."""
    n_rise = max(1, min(n_steps // 10, 200))
    if step < n_rise:
        return (step + 1) / n_rise
    return 0.5 * (1.0 + math.cos(math.pi * (step - n_rise + 1) / (n_steps - n_rise + 1)))


def constant(step: int, n_steps: int) -> float:
    """Share of the learning rate that suits training without a known end."""
    return 1.0


def hold_out(rows: Rows, fraction: float, random_state: np.random.RandomState) -> tuple[Rows, Rows]:
    """Take `fraction` of each class away, at least one row; a class of one row is left alone."""
    targets = rows.targets.numpy()
    taken = np.zeros(len(targets), dtype=bool)
    for target in np.unique(targets):
        members = random_state.permutation(np.flatnonzero(targets == target))
        count = min(len(members) - 1, max(1, round(fraction * len(members))))
        taken[members[:count]] = True
    mask = torch.from_numpy(taken)
    return rows.take(~mask), rows.take(mask)


def apply_in_blocks(
    function: Callable[[Tensor], Tensor], inputs: Tensor, device: torch.device, dtype: torch.dtype
) -> np.ndarray:
    """Apply `function` to inputs "n ..." in padded blocks; float32 array "n ...".

    A matrix product may round a row differently when the number of rows differs. Blocks of one
    size make a row's result independent of its neighbours.
    """
    outputs = []
    with torch.inference_mode(), undisturbed(device), autocast(device, dtype):
        for block in inputs.split(_BLOCK_ROWS):
            padding = block.new_zeros(_BLOCK_ROWS - len(block), *block.shape[1:])
            output = function(torch.cat([block, padding]).to(device))
            # A view of a parameter asks for gradients even here.
            outputs.append(output[: len(block)].detach().float().cpu())
    return torch.cat(outputs).numpy()


def balanced_accuracy(targets: np.ndarray, guesses: np.ndarray, weights: np.ndarray) -> float:
    """Mean over the classes in `targets` of the weighted share of rows guessed right."""
    mass = np.bincount(targets, weights)
    hits = np.bincount(targets, weights * (guesses == targets))
    return float((hits[mass > 0] / mass[mass > 0]).mean())


class EarlyStopping:
    """Look at held-out rows now and then, keep the best parameters, and tell when to stop.

    Parameters
    ----------
    held_out : Rows
        Rows that are not trained on.
    every : int
        Steps between looks.
    patience : int
        Looks without a gain after which to stop.
    """

    def __init__(self, held_out: Rows, every: int, patience: int):
        self.held_out = held_out
        self.every = every
        self.patience = patience
        self.scores: list[float] = []
        self._best = -math.inf
        self._since_gain = 0
        self._state: dict[str, Any] = {}

    def look(self, step: int, n_steps: int, training: Training) -> bool:
        """Score the module if it is time to, or the last step; True means stop."""
        if step % self.every and step < n_steps:
            return False
        module, (inputs, targets, weights) = training.module, self.held_out
        logits = apply_in_blocks(module.eval(), inputs, training.device, training.dtype)
        module.train()
        score = balanced_accuracy(targets.numpy(), logits.argmax(axis=1), weights.numpy())
        self.scores.append(score)
        self._since_gain = 0 if score > self._best else self._since_gain + 1
        # Among equals the later is kept: it has seen the lower learning rate.
        if score >= self._best:
            self._best = score
            self._state = copy.deepcopy(module.state_dict())
        return self._since_gain >= self.patience

    def restore(self, module: nn.Module) -> None:
        """Put the best parameters back."""
        module.load_state_dict(self._state)


@dataclass
class Training:
    """Weighted cross-entropy descent on one module.

    Parameters
    ----------
    module : nn.Module
        Maps inputs "n ..." to logits "n classes"; trained in place on `device`.
    logit_shift : Tensor
        Shape "classes"; added to the logits of every step.
    scale_loss : bool
        Whether weights scale losses of evenly drawn rows, or rows are drawn by weight.
    augmentations : list of callables
        Applied in turn to each batch of inputs, on the CPU.
    """

    module: nn.Module
    device: torch.device
    dtype: torch.dtype
    generator: torch.Generator
    logit_shift: Tensor
    batch_size: int
    learning_rate: float
    weight_decay: float
    scale_loss: bool
    augmentations: list[Augmentation]
    verbose: int

    def run(
        self,
        rows: Rows,
        n_steps: int,
        schedule: Callable[[int, int], float],
        optimizer_state: dict[str, Any] | None = None,
        early_stopping: EarlyStopping | None = None,
    ) -> tuple[list[float], dict[str, Any]]:
        """Take up to `n_steps` steps; return the loss of each and the optimiser's state.

        Raises
        ------
        FloatingPointError
            If the loss is not finite.
        """
        self.module.to(self.device).train()
        optimizer = _adamw(self.module, self.learning_rate, self.weight_decay)
        if optimizer_state is not None:
            # A state brings its own, but the parameter may have been changed since.
            decays = [group["weight_decay"] for group in optimizer.param_groups]
            optimizer.load_state_dict(optimizer_state)
            for group, decay in zip(optimizer.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        self.logit_shift = self.logit_shift.to(self.device)

        def step(inputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(inputs, targets, weights)
            loss.backward()
            optimizer.step()
            return loss.detach()

        take_step = RecordedSteps(step, optimizer, self.device, is_recordable(self.module))
        chances = torch.ones_like(rows.weights) if self.scale_loss else rows.weights
        batch_size = min(self.batch_size, len(chances))
        batches = weighted_batches(chances, batch_size, self.generator)
        losses: list[float] = []
        pending: list[Tensor] = []
        bar = progress(n_steps, "train classifier", self.verbose)
        threads = threads_for(self.module, rows.inputs.shape[1:], self.device)
        with bar, undisturbed(self.device), threads, learning():
            for n_taken in range(1, n_steps + 1):
                take_step.set_rate(self.learning_rate * schedule(n_taken - 1, n_steps))
                pending.append(take_step(*self.draw(rows, next(batches))))
                stop = early_stopping is not None and early_stopping.look(n_taken, n_steps, self)
                # Reading a loss waits for the device, so it is done once in a while.
                if stop or len(pending) == _STEPS_PER_READING or n_taken == n_steps:
                    losses += _finite(torch.stack(pending).tolist())
                    if self.verbose:
                        speed = n_taken * batch_size / bar.format_dict["elapsed"]
                        told = {"loss": f"{losses[-1]:.3f}", "rows/s": f"{speed:.0f}"}
                        bar.set_postfix(told, refresh=False)
                    bar.update(len(pending))
                    pending.clear()
                if stop:
                    break
        # Gradients hold on to the memory of a recording.
        optimizer.zero_grad()
        if early_stopping is not None:
            early_stopping.restore(self.module)
        self.module.eval()
        return losses, optimizer.state_dict()

    def draw(self, rows: Rows, batch: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the rows at the indices `batch`, changed at random, on the device.

        Inputs, targets, and weights where they scale losses.
        """
        inputs = rows.inputs[batch]
        shape = inputs.shape
        for augment in self.augmentations:
            inputs = augment(inputs, self.generator)
            if not isinstance(inputs, Tensor) or inputs.shape != shape:
                raise TypeError(
                    f"augment must return a torch.Tensor of shape {tuple(shape)} like the batch "
                    f"that it gets, got {getattr(inputs, 'shape', type(inputs).__name__)}."
                )
        weights = sent(rows.weights[batch].float(), self.device) if self.scale_loss else None
        return sent(inputs, self.device), sent(rows.targets[batch], self.device), weights

    def loss(self, inputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Mean loss of a batch that is on the device."""
        with autocast(self.device, self.dtype):
            logits = self.module(inputs)
        logits = logits.float() + self.logit_shift
        losses = F.cross_entropy(logits, targets, reduction="none")
        if weights is not None:
            losses = losses * weights
        return losses.mean()


def _finite(losses: list[float]) -> list[float]:
    if not np.isfinite(losses).all():
        raise FloatingPointError(
            "The loss is no longer finite, so training stopped. Lower learning_rate, or use "
            "precision='float32'; a module of your own must give finite logits."
        )
    return losses


def _adamw(module: nn.Module, learning_rate: float, weight_decay: float) -> AdamW:
    """AdamW that decays matrices and kernels only, not biases and norms."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW([g for g in groups if g["params"]], lr=learning_rate, fused=True)


@contextlib.contextmanager
def none_rather_than_half(classifier: Any) -> Iterator[None]:
    """Take all that is fitted from a classifier whose training fails or is interrupted.

    Untrained, half-trained or full of NaN, it would predict without a word.
    """
    try:
        yield
    except BaseException:
        for name in [name for name in vars(classifier) if name.endswith("_")]:
            delattr(classifier, name)
        raise


@contextlib.contextmanager
def private_global_rng(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for foreign code, and put them back afterwards.

    One thread at a time: others wait.
    """
    devices = [device] if device.type == "cuda" else []
    with _GLOBAL_GENERATORS, torch.random.fork_rng(devices=devices):
        # torch.manual_seed would also seed the devices that are not put back.
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def draw_seed(random_state: np.random.RandomState) -> int:
    """Draw a seed for a torch.Generator."""
    return int(random_state.randint(np.iinfo(np.int32).max))


class Portable:
    """Estimators whose state holds no tensor: read where there is no GPU, and by skops.

    skops knows arrays but no tensors. It also lists the types of a file, here those of the
    modules, and makes none that its user does not trust.
    """

    def __getstate__(self) -> Any:
        return _without_tensors(super().__getstate__(), {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(_with_tensors(state, {}))  # type: ignore[misc]


@dataclass
class PlainTensor:
    """A tensor as an array, of one axis: other strides may mean other kernels and roundings."""

    array: np.ndarray
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    is_parameter: bool
    requires_grad: bool

    @classmethod
    def of(cls, tensor: Tensor) -> PlainTensor:
        """Copy a tensor."""
        copied = tensor.detach().cpu().clone()  # now without gaps
        array = copied.as_strided((copied.numel(),), (1,)).numpy()
        kind = isinstance(tensor, nn.Parameter), tensor.requires_grad
        return cls(array, tuple(copied.shape), copied.stride(), *kind)

    def tensor(self) -> Tensor:
        """Return the tensor, on the CPU."""
        found = torch.from_numpy(self.array.copy()).as_strided(self.shape, self.strides)
        return nn.Parameter(found, self.requires_grad) if self.is_parameter else found


# What was replaced by what, by the first one's id, which is good for as long as it lives.
_Memo = dict[int, tuple[Any, Any]]


def _without_tensors(value: Any, memo: _Memo) -> Any:
    """Copy modules, dicts and lists with arrays for tensors; what modules share stays shared."""
    if isinstance(value, nn.Module):
        module = copy.deepcopy(value).cpu()
        for held in _tensors_of(module):
            held.update({name: _without_tensors(each, memo) for name, each in held.items()})
        return module
    if type(value) in (Tensor, nn.Parameter) and value.dtype != torch.bfloat16:  # as numpy
        if id(value) not in memo:
            memo[id(value)] = value, PlainTensor.of(value)
        return memo[id(value)][1]
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _without_tensors(item, memo) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_tensors(item, memo) for item in value]
    return value


def _with_tensors(value: Any, memo: _Memo) -> Any:
    """Undo `_without_tensors`."""
    if isinstance(value, nn.Module):
        for held in _tensors_of(value):
            held.update({name: _with_tensors(each, memo) for name, each in held.items()})
    elif isinstance(value, PlainTensor):
        if id(value) not in memo:
            memo[id(value)] = value, value.tensor()
        return memo[id(value)][1]
    elif isinstance(value, dict):
        return {key: _with_tensors(item, memo) for key, item in value.items()}
    elif isinstance(value, list):
        return [_with_tensors(item, memo) for item in value]
    return value


def _tensors_of(module: nn.Module) -> Iterator[dict[str, Any]]:
    """Parameters and buffers of each part."""
    for part in module.modules():
        yield part._parameters
        yield part._buffers
