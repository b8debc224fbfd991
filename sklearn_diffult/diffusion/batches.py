"""Draw training batches: tempered rows, flips, label dropout, noise, second labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sklearn_diffult._torch import new_generator, sent
from sklearn_diffult.augmentations import Change
from sklearn_diffult.diffusion.denoiser import add_noise, expand
from sklearn_diffult.diffusion.sigma import LogNormalSigma

if TYPE_CHECKING:
    from sklearn_diffult.diffusion.trainer import TrainingPlan


def row_probabilities(
    labels: Tensor, n_classes: int, class_temper: float, least_share: float = 0.0
) -> Tensor:
    """Probability of each row under tempered class sampling, shape (n,), summing to 1.

    Before all are scaled to that sum, no class has a share below `least_share`, or below half of an
    equal one where that is less.
    """
    counts = torch.bincount(labels, minlength=n_classes).double()
    shares = torch.where(counts > 0, counts.clamp(min=1) ** class_temper, 0.0)
    least = min(least_share, 0.5 / int((counts > 0).sum()))
    shares = (shares / shares.sum()).clamp(min=least)
    rows = (shares / counts.clamp(min=1))[labels]
    return rows / rows.sum()


class Batch(NamedTuple):
    """One training batch of b rows, everything random in it drawn.

    Attributes
    ----------
    clean, noisy : Tensor "b ..."
    sigma : Tensor of shape (b,)
    labels : Tensor of shape (b,)
        Some of them dropped.
    other_labels : Tensor of shape (b,) or None
        They follow the training frequencies; only where a regulariser wants them.
    augmentation : Tensor of shape (b, n_conditions) or None
        How images were changed; only where the network takes it.
    """

    clean: Tensor
    noisy: Tensor
    sigma: Tensor
    labels: Tensor
    other_labels: Tensor | None
    augmentation: Tensor | None

    def split(self, n_rows: int) -> Iterator[Batch]:
        """Yield parts of at most `n_rows` rows."""
        for start in range(0, len(self.clean), n_rows):
            rows = slice(start, start + n_rows)
            others, told = self.other_labels, self.augmentation
            yield Batch(
                self.clean[rows],
                self.noisy[rows],
                self.sigma[rows],
                self.labels[rows],
                None if others is None else others[rows],
                None if told is None else told[rows],
            )


class Batches:
    """Draws training batches without end.

    Which rows and labels come up is drawn on the CPU, so it does not depend on the device.

    Parameters
    ----------
    clean, labels : Tensor "n ...", Tensor of shape (n,)
        Training rows.
    plan : TrainingPlan
        Batch size, label dropout, class temper, flips, augmentation; whether a regulariser wants
        second labels.
    noise : LogNormalSigma
        Where noise levels come from.
    n_classes : int
        Number of classes; also the label that means "no label".
    seed : int
        Seeds the generators.
    device : torch.device
        Where batches are wanted.

    Attributes
    ----------
    generators : tuple of torch.Generator
        All that a batch's randomness comes from.
    """

    def __init__(
        self,
        clean: Tensor,
        labels: Tensor,
        plan: TrainingPlan,
        noise: LogNormalSigma,
        *,
        n_classes: int,
        seed: int,
        device: torch.device,
    ):
        room = torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else 2**32
        stored_on = device if clean.nbytes <= room else torch.device("cpu")
        self._clean, self._labels, self._noise = clean.to(stored_on), labels, noise
        self._plan, self._null, self._device = plan, n_classes, device
        self._cumulative = row_probabilities(
            labels, n_classes, plan.class_temper, plan.least_share
        ).cumsum(0)
        self._generator = new_generator(seed, device)
        self._row_generator = new_generator(seed + 1)
        # Of its own, so that a regulariser of strength 0 repeats plain training bit for bit.
        self._other_generator = new_generator(seed + 2)
        self._change_generator = new_generator(seed + 3)
        self.generators = (
            self._generator,
            self._row_generator,
            self._other_generator,
            self._change_generator,
        )

    def draw(self) -> Batch:
        """Return a batch on the device."""
        rows = torch.searchsorted(self._cumulative, self._uniform(self._row_generator))
        rows = rows.clamp(max=len(self._labels) - 1)
        clean = sent(self._clean[sent(rows, self._clean.device)], self._device)
        dropped = self._uniform(self._row_generator) < self._plan.label_dropout
        labels = torch.where(dropped, self._null, self._labels[rows])
        if self._plan.horizontal_flip:
            mirrored = sent(self._uniform(self._row_generator) < 0.5, self._device)
            clean = torch.where(expand(mirrored, clean), clean.flip(-1), clean)
        augmentation = None
        if self._plan.augmentation > 0:
            change = Change.draw(len(clean), self._plan.augmentation, self._change_generator)
            clean, augmentation = change.apply(clean), sent(change.condition(), self._device)
        sigma = self._noise.sample(len(clean), self._generator)
        noisy = add_noise(clean, sigma, self._generator)
        others = None if self._plan.regularizer is None else self._draw_other_labels()
        return Batch(clean, noisy, sigma, sent(labels, self._device), others, augmentation)

    def _draw_other_labels(self) -> Tensor:
        rows = (self._uniform(self._other_generator) * len(self._labels)).long()
        return sent(self._labels[rows], self._device)

    def _uniform(self, generator: torch.Generator) -> Tensor:
        return torch.rand(self._plan.batch_size, generator=generator, dtype=torch.float64)
