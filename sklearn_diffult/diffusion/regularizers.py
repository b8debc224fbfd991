"""Class-balancing regularisers, one function and one table line each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sklearn_diffult.diffusion.denoiser import Denoiser, mean_square


@dataclass(frozen=True)
class RegularizerInput:
    """What a regulariser sees of one training batch of n rows.

    Attributes
    ----------
    denoiser : Denoiser
        The denoiser in training.
    noisy, sigma, labels : Tensor
        Noisy rows "n ...", their noise levels (n,) and labels (n,) after label dropout.
    denoised : Tensor
        D(noisy; sigma, labels), with its gradient.
    other_labels : Tensor
        A second label per row drawn from the training frequencies, shape (n,).
    time : Tensor
        t / T at which DDPM has each sigma, shape (n,), see `sigma.ddpm_time`.
    augmentation : Tensor of shape (n, n_conditions) or None
        How images were changed, for the denoiser.
    features : Tensor of shape (n, n_features) or None
        What the network's ``bottleneck`` made of the rows, averaged over pixels; with its gradient.
        None where the network names no such module.
    """

    denoiser: Denoiser
    noisy: Tensor
    sigma: Tensor
    labels: Tensor
    denoised: Tensor
    other_labels: Tensor
    time: Tensor
    augmentation: Tensor | None = None
    features: Tensor | None = None


@contextlib.contextmanager
def bottleneck_features(network: nn.Module | None) -> Iterator[list[Tensor]]:
    """Collect what the network's ``bottleneck`` returns meanwhile, averaged over pixels."""
    found: list[Tensor] = []
    bottleneck = getattr(network, "bottleneck", None)
    if bottleneck is None:
        yield found
        return
    handle = bottleneck.register_forward_hook(
        lambda module, inputs, output: found.append(
            output.flatten(2).mean(2) if output.ndim > 2 else output
        )
    )
    try:
        yield found
    finally:
        handle.remove()


Regularizer = Callable[[RegularizerInput], Tensor]


def cbdm(batch: RegularizerInput) -> Tensor:
    """Pull predictions under different labels together where the label matters least.

    Class-balancing diffusion models (Qin et al. 2023, Eqs. (8) and (9)) add, to the loss on
    noise, ``t/T * (|eps(x,y) - sg eps(x,y')|^2 + 1/4 |sg eps(x,y) - eps(x,y')|^2)`` with ``sg``
    the stopped gradient and ``y'`` drawn from the training frequencies. Deviations: the difference
    is taken between clean estimates weighted by lambda(sigma), as the loss is, so that at each
    sigma both pull as hard against each other as they do there; rows whose own label was dropped
    do not take part.

    Returns
    -------
    penalty : Tensor of shape (n,)
        To be multiplied by the strength tau and added to each row's loss.
    """
    other = batch.denoiser(batch.noisy, batch.sigma, batch.other_labels, batch.augmentation)
    to_other = mean_square(batch.denoised - other.detach())
    from_other = mean_square(batch.denoised.detach() - other)
    has_label = batch.labels != batch.denoiser.null_label
    weight = batch.denoiser.loss_weight(batch.sigma) * batch.time * has_label
    return weight * (to_other + from_other / 4)


CORAL_TEMPERATURE = 0.1
# How fast the weight falls with t / T, and where it ends; it is 1.4 without noise.
CORAL_DECAY = 0.3
CORAL_WEIGHT = 0.05
# A logit whose probability is 0; minus infinity would make NaN where there is no other row.
NEVER = -1e4


def coral(batch: RegularizerInput) -> Tensor:
    """Keep the classes apart in the network's bottleneck, above all at little noise.

    Contrastive regularisation for aligning latents (Rodriguez et al. 2025, arXiv 2506.15933): the
    supervised contrastive loss (Khosla et al. 2020, Eq. (2)) between the bottleneck's features of
    a batch, at temperature 0.1, times ``0.05 exp((1 - t/T) / 0.3)``. Deviations: features are
    compared as they are, without a projection head; each row has the weight of its own noise, not
    the batch's mean; rows whose label was dropped do not take part. Where memory is too little for
    a batch at once, only rows of the same part are compared.

    Returns
    -------
    penalty : Tensor of shape (n,)
        To be multiplied by the strength and added to each row's loss. 0 for rows alone in their
        class.

    Raises
    ------
    ValueError
        If the network has no attribute ``bottleneck``.
    """
    if batch.features is None:
        raise ValueError(
            "regularizer='coral' compares what a network's bottleneck makes of rows: give your "
            "network an attribute `bottleneck`, one of its modules, or use regularizer=None."
        )
    directions = F.normalize(batch.features.float(), dim=1)
    # Divided by the temperature, what bfloat16 leaves out would count ten times.
    with torch.autocast(directions.device.type, enabled=False):
        likeness = directions @ directions.T
    has_label = batch.labels != batch.denoiser.null_label
    others = has_label[None, :] & ~torch.eye(
        len(directions), dtype=torch.bool, device=directions.device
    )
    same = others & has_label[:, None] & (batch.labels[:, None] == batch.labels[None, :])
    logits = (likeness / CORAL_TEMPERATURE).masked_fill(~others, NEVER)
    surprise = -logits.log_softmax(dim=1).masked_fill(~same, 0.0)
    contrast = surprise.sum(dim=1) / same.sum(dim=1).clamp(min=1)
    return CORAL_WEIGHT * ((1 - batch.time) / CORAL_DECAY).exp() * contrast


REGULARIZERS: dict[str, Regularizer] = {"cbdm": cbdm, "coral": coral}
