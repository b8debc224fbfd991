"""Noise levels: the distribution seen in training and the grid walked in generation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

EDM_SIGMA_DATA = 0.5


@dataclass(frozen=True)
class LogNormalSigma:
    """Training noise with ``ln(sigma) ~ Normal(log_mean, log_std)``.

    Karras et al. 2022, Table 1, gives log_mean = -1.2 and log_std = 1.2 for data of standard
    deviation 0.5. We keep sigma / sigma_data distributed alike for data of any scale.
    """

    sigma_data: float
    log_mean: float = -1.2
    log_std: float = 1.2

    @property
    def _shift(self) -> float:
        return self.log_mean + math.log(self.sigma_data / EDM_SIGMA_DATA)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` noise levels, shape (n,), on the generator's device."""
        normal = torch.randn(n, generator=generator, device=generator.device, dtype=torch.float32)
        return (normal * self.log_std + self._shift).exp()


def ddpm_time(sigma: Tensor, sigma_data: float) -> Tensor:
    """Return t / T at which DDPM's linear schedule has the noise `sigma`, of the same shape.

    From 0 to 1 over DDPM's range, beyond it for more noise. Solves Song et al. 2021, Eq. (33), with
    beta from 0.1 to 20, the continuous form of Ho et al. 2020: there
    ``log(1 + sigma ** 2) = 0.1 t + 9.95 t ** 2`` for data of standard deviation 0.5.
    """
    total = torch.log1p((sigma / sigma_data * EDM_SIGMA_DATA).square())
    return ((0.1**2 + 4 * 9.95 * total).sqrt() - 0.1) / (2 * 9.95)


SIGMA_DISTRIBUTIONS: dict[str, Callable[[float], LogNormalSigma]] = {"lognormal": LogNormalSigma}


def sigma_grid(
    n_steps: int, sigma_data: float, *, low: float = 0.004, high: float = 160.0, rho: float = 7.0
) -> Tensor:
    """Return `n_steps` falling noise levels and a final 0, shape (n_steps + 1,), float64.

    Karras et al. 2022, Eq. (5). `low` and `high` are in units of sigma_data: their 0.002 and 80
    divided by 0.5.
    """
    ramp = torch.linspace(0, 1, n_steps, dtype=torch.float64)
    first, last = high ** (1 / rho), low ** (1 / rho)
    grid = sigma_data * (first + ramp * (last - first)) ** rho
    return torch.cat([grid, grid.new_zeros(1)])
