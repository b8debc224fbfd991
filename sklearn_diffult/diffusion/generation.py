"""Turn noise into clean rows of given labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sklearn_diffult._torch import (
    autocast,
    explain_out_of_memory,
    new_generator,
    progress,
    repeatable,
)
from sklearn_diffult.diffusion.denoiser import Denoiser
from sklearn_diffult.diffusion.guidance import guided
from sklearn_diffult.diffusion.sigma import sigma_grid
from sklearn_diffult.diffusion.solvers import Solver


@dataclass(frozen=True)
class GenerationPlan:
    """How to generate: solver, number of noise levels, guidance, rows at a time."""

    solver: Solver
    n_steps: int
    guidance_scale: float
    guidance_interval: tuple[float, float]
    batch_size: int


@torch.no_grad()
def generate(
    denoiser: Denoiser,
    labels: Tensor,
    sample_shape: tuple[int, ...],
    plan: GenerationPlan,
    *,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    verbose: int = 0,
) -> Tensor:
    """Return one clean row per label, shape (n_rows, *sample_shape), float32 on the CPU.

    Starts from Gaussian noise at the highest level of the grid. The grid is computed in float64
    and handed to the solver in float32.

    Raises
    ------
    MemoryError
        If the device runs out of memory; names batch_size.
    FloatingPointError
        If a row is not finite.
    """
    generator = new_generator(seed, device)
    grid = sigma_grid(plan.n_steps, denoiser.sigma_data).float().to(device)
    clean = torch.empty(len(labels), *sample_shape)
    bar = progress(len(labels), "generate", verbose)
    with bar, explain_out_of_memory("batch_size"), repeatable(device), autocast(device, dtype):
        for start in range(0, len(labels), plan.batch_size):
            rows = slice(start, start + plan.batch_size)
            batch = labels[rows].to(device)
            noise = torch.randn(len(batch), *sample_shape, generator=generator, device=device)
            denoise = guided(denoiser, batch, plan.guidance_scale, plan.guidance_interval)
            clean[rows] = plan.solver(denoise, grid[0] * noise, grid, generator).float().cpu()
            bar.update(len(batch))
    if not torch.isfinite(clean).all():
        raise FloatingPointError(
            "Generated rows are not finite. Use precision='float32', lower learning_rate, or look "
            "at your own solver or network."
        )
    return clean
