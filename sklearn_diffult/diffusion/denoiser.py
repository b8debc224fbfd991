"""The preconditioned denoiser D(x; sigma, y), which returns an estimate of clean x."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def expand(per_row: Tensor, like: Tensor) -> Tensor:
    """Give a tensor of shape (n,) as many trailing axes as `like` has."""
    return per_row.reshape(-1, *[1] * (like.ndim - 1))


class Denoiser(nn.Module):
    """Wrap a raw network so that input, output and target have unit variance at every sigma.

    Karras et al. 2022, Eq. (7) with the coefficients of their Table 1; about the data's mean.

    Parameters
    ----------
    network : Module
        ``network(x, noise_level, labels)`` with ``x`` "n ...", ``noise_level`` (n,) and integer
        ``labels`` (n,), returning the shape of ``x``. Label ``n_classes`` means "no label". If it
        has a true attribute ``takes_augmentation``, a fourth argument tells it how images were
        augmented, or is not given where they were not.
    sigma_data : float
        Standard deviation of the clean data.
    n_classes : int
        Number of classes.
    """

    def __init__(self, network: nn.Module, sigma_data: float, n_classes: int):
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data
        self.n_classes = n_classes

    def forward(
        self, noisy: Tensor, sigma: Tensor, labels: Tensor, augmentation: Tensor | None = None
    ) -> Tensor:
        """Denoise rows "n ..." at noise levels (n,) given labels (n,) and augmentations."""
        level = expand(sigma, noisy)
        total = level.square() + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = level * self.sigma_data * total.rsqrt()
        c_in = total.rsqrt()
        c_noise = sigma.log() / 4
        told = () if augmentation is None else (augmentation,)
        found = self.network(c_in * noisy, c_noise, labels, *told)
        check_shape("network", found, noisy)
        return c_skip * noisy + c_out * found.float()

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Return lambda(sigma) of Table 1, which equalises the loss over sigma, shape (n,)."""
        return (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()

    @property
    def null_label(self) -> int:
        """The label that stands for "no label"."""
        return self.n_classes


def check_shape(source: str, found: Any, rows: Tensor) -> None:
    """Refuse what a user's own part makes of rows "n ..." unless it is a tensor of their shape.

    Another shape would be stretched to theirs without a word.
    """
    if not isinstance(found, Tensor) or found.shape != rows.shape:
        what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)[:80]
        raise ValueError(
            f"{source} must return a torch.Tensor of the shape of the rows that it gets, "
            f"{tuple(rows.shape)}, and returned {what}."
        )


def mean_square(difference: Tensor) -> Tensor:
    """Mean over all axes but the first, shape (n,)."""
    return difference.square().flatten(1).mean(1)


def add_noise(clean: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """Return clean rows "n ..." plus Gaussian noise of levels (n,)."""
    noise = torch.randn(clean.shape, generator=generator, device=clean.device, dtype=clean.dtype)
    return clean + expand(sigma, clean) * noise
