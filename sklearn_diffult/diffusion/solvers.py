"""Solvers: plain functions ``solver(denoise, x, grid, generator) -> clean x``.

`denoise(x, sigma)` takes rows "n ..." and a scalar tensor sigma; `grid` falls from the noise level
of `x` to 0; `generator` feeds the stochastic solvers and is ignored by the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from sklearn_diffult.diffusion.guidance import Denoise

Solver = Callable[[Denoise, Tensor, Tensor, torch.Generator], Tensor]


def heun(denoise: Denoise, x: Tensor, grid: Tensor, generator: torch.Generator) -> Tensor:
    """Integrate the probability-flow ODE with Heun's second-order method.

    Karras et al. 2022, Algorithm 1; two evaluations a step but for the last.
    """
    for sigma, lower in itertools.pairwise(grid):
        slope = (x - denoise(x, sigma)) / sigma
        euler = x + (lower - sigma) * slope
        if lower == 0:
            x = euler
        else:
            slope_at_end = (euler - denoise(euler, lower)) / lower
            x = x + (lower - sigma) * (slope + slope_at_end) / 2
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, grid: Tensor, generator: torch.Generator) -> Tensor:
    """Integrate with the second-order multistep DPM-Solver++; one evaluation a step.

    Lu et al. 2022b, Algorithm 2 with alpha = 1, so lambda = -ln(sigma).
    """
    previous: Tensor | None = None
    previous_step = grid.new_zeros(())
    for sigma, lower in itertools.pairwise(grid):
        clean = denoise(x, sigma)
        if lower == 0:
            # The step is infinite: of first order, which gives the estimate itself.
            return clean
        step = (sigma / lower).log()
        estimate = clean
        if previous is not None:
            estimate = clean + (clean - previous) * (step / (2 * previous_step))
        x = (lower / sigma) * x + (1 - lower / sigma) * estimate
        previous, previous_step = clean, step
    return x


def ddpm(denoise: Denoise, x: Tensor, grid: Tensor, generator: torch.Generator) -> Tensor:
    """Walk down by ancestral sampling from the posterior q(x_lower | x_sigma, clean).

    Ho et al. 2020, Eqs. (6) and (7) with alpha = 1: mean ``D + (lower/sigma)^2 (x - D)``, variance
    ``lower^2 (sigma^2 - lower^2) / sigma^2``.
    """
    for sigma, lower in itertools.pairwise(grid):
        clean = denoise(x, sigma)
        ratio = (lower / sigma).square()
        spread = lower * (1 - ratio).sqrt()
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        x = clean + ratio * (x - clean) + spread * noise
    return x


SOLVERS: dict[str, Solver] = {"dpmpp_2m": dpmpp_2m, "heun": heun, "ddpm": ddpm}
