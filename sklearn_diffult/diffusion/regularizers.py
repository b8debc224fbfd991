"""Class-balancing regularisers, one function and one table line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

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
    noise_quantile : Tensor
        Share of training noise below each sigma, in [0, 1], shape (n,); stands for t / T.
    augmentation : Tensor of shape (n, n_conditions) or None
        How images were changed, for the denoiser.
    """

    denoiser: Denoiser
    noisy: Tensor
    sigma: Tensor
    labels: Tensor
    denoised: Tensor
    other_labels: Tensor
    noise_quantile: Tensor
    augmentation: Tensor | None = None


Regularizer = Callable[[RegularizerInput], Tensor]


def cbdm(batch: RegularizerInput) -> Tensor:
    """Pull predictions under different labels together where the label matters least.

    Class-balancing diffusion models (Qin et al. 2023, Eqs. (8) and (9)) add, to the loss on
    noise, ``t/T * (|eps(x,y) - sg eps(x,y')|^2 + 1/4 |sg eps(x,y) - eps(x,y')|^2)`` with ``sg``
    the stopped gradient and ``y'`` drawn from the training frequencies. Deviations: the difference
    is taken between clean estimates weighted by lambda(sigma), which is the same quantity in the
    EDM parametrisation up to that weight; ``t/T`` becomes the quantile of sigma in training, which
    is uniform as t/T is; rows whose own label was dropped do not take part.

    Returns
    -------
    penalty : Tensor of shape (n,)
        To be multiplied by the strength tau and added to each row's loss.
    """
    other = batch.denoiser(batch.noisy, batch.sigma, batch.other_labels, batch.augmentation)
    to_other = mean_square(batch.denoised - other.detach())
    from_other = mean_square(batch.denoised.detach() - other)
    has_label = batch.labels != batch.denoiser.null_label
    weight = batch.denoiser.loss_weight(batch.sigma) * batch.noise_quantile * has_label
    return weight * (to_other + from_other / 4)


REGULARIZERS: dict[str, Regularizer] = {"cbdm": cbdm}
