"""Train one class-conditional denoiser on all classes together."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_diffult._torch import (
    autocast,
    explain_out_of_memory,
    new_generator,
    progress,
    repeatable,
)
from sklearn_diffult.diffusion.denoiser import Denoiser, add_noise, expand, mean_square
from sklearn_diffult.diffusion.ema import ExponentialMovingAverage
from sklearn_diffult.diffusion.regularizers import Regularizer, RegularizerInput
from sklearn_diffult.diffusion.sigma import LogNormalSigma

CHECK_EVERY = 25


@dataclass(frozen=True)
class TrainingPlan:
    """How to train: every number the loop needs.

    Attributes
    ----------
    n_steps, batch_size : int
        Optimisation steps and rows per step.
    learning_rate : float
        Peak of a schedule that warms up over 5 % of the steps and falls to 0 as a cosine.
    ema_half_life : float
        Half-life of the parameter average, in samples.
    label_dropout : float
        Share of rows trained without a label, which makes guidance possible.
    class_temper : float
        Classes are drawn in proportion to n_rows ** class_temper: 1 keeps their shares, 0 draws
        all alike.
    regularizer, regularizer_strength : callable or None, float
        A line of REGULARIZERS and its factor.
    horizontal_flip : bool
        Mirror half of the images.
    """

    n_steps: int
    batch_size: int
    learning_rate: float
    ema_half_life: float
    label_dropout: float
    class_temper: float
    regularizer: Regularizer | None
    regularizer_strength: float
    horizontal_flip: bool


@dataclass(frozen=True)
class TrainingResult:
    """The averaged denoiser, the loss of every step, and rows per second."""

    denoiser: Denoiser
    loss_curve: np.ndarray
    rows_per_second: float


def row_probabilities(labels: Tensor, n_classes: int, class_temper: float) -> Tensor:
    """Probability of each row under tempered class sampling, shape (n,), summing to 1."""
    counts = torch.bincount(labels, minlength=n_classes).double()
    per_class = torch.where(counts > 0, counts.clamp(min=1) ** (class_temper - 1), 0.0)
    rows = per_class[labels]
    return rows / rows.sum()


def learning_rate_factor(step: int, n_steps: int) -> float:
    """Warm up linearly over 5 % of the steps, then fall to 0 as a cosine."""
    warm_up = max(1, n_steps // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))


def train(
    denoiser: Denoiser,
    clean: Tensor,
    labels: Tensor,
    plan: TrainingPlan,
    noise: LogNormalSigma,
    *,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    verbose: int = 0,
) -> TrainingResult:
    """Train `denoiser` on clean rows "n ..." with integer labels (n,).

    The loss is Karras et al. 2022, Eq. (8). Randomness comes from `seed` alone; the regulariser
    draws from a generator of its own, so that strength 0 repeats plain training bit for bit.

    Raises
    ------
    FloatingPointError
        If the loss stops being finite.
    MemoryError
        If the device runs out of memory; names batch_size.
    """
    losses: list[Tensor] = []
    bar = progress(plan.n_steps, "train diffusion", verbose)
    with bar, explain_out_of_memory("batch_size"), repeatable(device):
        denoiser = denoiser.to(device).train()
        batches = _Batches(clean, labels, plan, denoiser, seed, device)
        average = ExponentialMovingAverage(denoiser, plan.ema_half_life)
        optimizer = torch.optim.AdamW(
            denoiser.parameters(), plan.learning_rate, (0.9, 0.99), weight_decay=1e-4, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, plan.n_steps)
        )
        started = time.perf_counter()
        for step in range(plan.n_steps):
            # Before the forward pass, so that gradients and activations do not peak together.
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, dtype):
                loss = _batch_loss(denoiser, batches, plan, noise)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            average.update(denoiser, plan.batch_size)
            losses.append(loss.detach())
            if (step + 1) % CHECK_EVERY == 0 or step + 1 == plan.n_steps:
                speed = plan.batch_size * (step + 1) / (time.perf_counter() - started)
                _report(bar, losses, step, speed)
    curve = torch.stack(losses).cpu().numpy().astype(np.float64)
    speed = plan.batch_size * plan.n_steps / (time.perf_counter() - started)
    return TrainingResult(average.module, curve, speed)


def _batch_loss(
    denoiser: Denoiser, batches: _Batches, plan: TrainingPlan, noise: LogNormalSigma
) -> Tensor:
    clean, labels = batches.draw()
    sigma = noise.sample(len(clean), batches.generator)
    noisy = add_noise(clean, sigma, batches.generator)
    denoised = denoiser(noisy, sigma, labels)
    loss = denoiser.loss_weight(sigma) * mean_square(denoised - clean)
    if plan.regularizer is not None:
        batch = RegularizerInput(
            denoiser,
            noisy,
            sigma,
            labels,
            denoised,
            batches.draw_other_labels(),
            noise.quantile(sigma),
        )
        loss = loss + plan.regularizer_strength * plan.regularizer(batch)
    return loss.mean()


def _report(bar: Any, losses: list[Tensor], step: int, speed: float) -> None:
    # One transfer for many steps: reading every loss would stall the device.
    recent = float(torch.stack(losses[-CHECK_EVERY:]).mean())
    if not math.isfinite(recent):
        raise FloatingPointError(
            f"The diffusion loss became {recent} at step {step + 1}. Lower learning_rate, "
            "use precision='float32', or look for extreme values in X."
        )
    bar.update(step + 1 - bar.n)
    bar.set_postfix(loss=f"{recent:.3f}", rows_per_s=f"{speed:.0f}")


class _Batches:
    """Draws training batches: tempered rows, flips, label dropout, second labels.

    Which rows and labels come up is drawn on the CPU, so it does not depend on the device.
    """

    def __init__(
        self,
        clean: Tensor,
        labels: Tensor,
        plan: TrainingPlan,
        denoiser: Denoiser,
        seed: int,
        device: torch.device,
    ):
        room = torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else 2**32
        stored_on = device if clean.nbytes <= room else torch.device("cpu")
        self._clean, self._labels = clean.to(stored_on), labels
        self._plan, self._null, self._device = plan, denoiser.null_label, device
        chances = row_probabilities(labels, denoiser.n_classes, plan.class_temper)
        self._cumulative = chances.cumsum(0)
        self.generator = new_generator(seed, device)
        self._row_generator = new_generator(seed + 1)
        self._other_generator = new_generator(seed + 2)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Return clean rows "b ..." and labels (b,), some of them dropped, on the device."""
        rows = torch.searchsorted(self._cumulative, self._uniform(self._row_generator))
        rows = rows.clamp(max=len(self._labels) - 1)
        clean = self._clean[rows.to(self._clean.device)].to(self._device)
        dropped = self._uniform(self._row_generator) < self._plan.label_dropout
        labels = torch.where(dropped, self._null, self._labels[rows])
        if self._plan.horizontal_flip:
            mirrored = (self._uniform(self._row_generator) < 0.5).to(self._device)
            clean = torch.where(expand(mirrored, clean), clean.flip(-1), clean)
        return clean, labels.to(self._device)

    def draw_other_labels(self) -> Tensor:
        """Return labels (b,) that follow the training frequencies."""
        rows = (self._uniform(self._other_generator) * len(self._labels)).long()
        return self._labels[rows].to(self._device)

    def _uniform(self, generator: torch.Generator) -> Tensor:
        return torch.rand(self._plan.batch_size, generator=generator, dtype=torch.float64)
