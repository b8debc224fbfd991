"""Turn noise into clean rows of given labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sklearn_diffult._recording import Recorded, is_recordable
from sklearn_diffult._torch import (
    autocast,
    explain_out_of_memory,
    new_generator,
    progress,
    threads_for,
    undisturbed,
)
from sklearn_diffult.diffusion.denoiser import Denoiser, check_shape
from sklearn_diffult.diffusion.guidance import guided
from sklearn_diffult.diffusion.sigma import sigma_grid
from sklearn_diffult.diffusion.solvers import Solver
from sklearn_diffult.diffusion.starts import Start, pick_rows

# A generator costs as much as the noise of some rows, so that one serves several.
NOISE_BLOCK = 16


@dataclass(frozen=True)
class GenerationPlan:
    """How to generate: solver, number of noise levels, guidance, rows at a time, start.

    Attributes
    ----------
    solver, n_steps, guidance_scale, guidance_interval, batch_size
        As the balancer's parameters say.
    start : callable or None
        A line of STARTS.
    start_noise : float
        Noise level, in units of sigma_data, of real rows to start from.
    """

    solver: Solver
    n_steps: int
    guidance_scale: float
    guidance_interval: tuple[float, float]
    batch_size: int
    start: Start | None = None
    start_noise: float = 1.0


@torch.no_grad()
def generate(
    denoiser: Denoiser,
    labels: np.ndarray,
    positions: np.ndarray,
    sample_shape: tuple[int, ...],
    plan: GenerationPlan,
    *,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    real: tuple[Tensor, np.ndarray] | None = None,
    verbose: int = 0,
) -> Tensor:
    """Return one clean row per label, shape (n_rows, *sample_shape), float32 on the CPU.

    Starts from Gaussian noise at the highest level of the grid, or from real rows with noise of
    level `plan.start_noise` and goes on at the lower levels of the grid (SDEdit, Meng et al. 2022,
    Algorithm 1, with a solver of choice), but for a level that lies within a tenth below: from so
    short a first step, a multistep solver would extrapolate by a multiple of rounding errors. The
    grid is computed in float64 and handed to the solver in float32.

    The rows of a label are numbered, and a row's noise comes from seed, label and number alone.
    Batches are filled up to one size, as matrix products of other sizes may round differently. So
    a row does not depend on what else is asked for, if the network treats rows alone and the
    solver draws nothing; a solver that does draws from a generator of the batch's own.

    Parameters
    ----------
    labels, positions : ndarray of int, shape (n_rows,)
        Class index of each row, and its number among the rows of its class, from 0 on.
    real : tuple of Tensor "m ..." and ndarray of int, shape (m,)
        Clean real rows and their class indices, which a plan with a start begins at; without them
        it begins at pure noise.

    Raises
    ------
    MemoryError
        If the device runs out of memory; names batch_size.
    FloatingPointError
        If a row is not finite.
    """
    bar = progress(len(labels), "generate", verbose)
    with (
        bar,
        explain_out_of_memory("batch_size"),
        undisturbed(device),
        threads_for(denoiser, sample_shape, device),
        autocast(device, dtype),
    ):
        grid = sigma_grid(plan.n_steps, denoiser.sigma_data)
        if plan.start is not None and real is not None:
            highest = plan.start_noise * denoiser.sigma_data
            grid = torch.cat([grid.new_tensor([highest]), grid[grid < 0.9 * highest]])
        grid = grid.float()
        clean = torch.empty(len(labels), *sample_shape, dtype=torch.float32)
        evaluate = Recorded(denoiser, device, is_recordable(denoiser.network))
        for first in range(0, len(labels), plan.batch_size):
            rows = slice(first, first + plan.batch_size)
            n_rows = len(labels[rows])
            # Filled up with copies of the last row.
            filled = np.arange(plan.batch_size).clip(max=n_rows - 1)
            noisy = grid[0] * starting_noise(seed, labels[rows], positions[rows], sample_shape)
            if plan.start is not None and real is not None:
                picked = pick_rows(plan.start, real[1], seed, labels[rows], positions[rows])
                noisy = noisy + real[0][picked]
            batch = torch.from_numpy(labels[rows][filled]).to(device)
            denoise = guided(denoiser, batch, plan.guidance_scale, plan.guidance_interval, evaluate)
            drawing = new_generator(row_seed(seed, labels[first], positions[first]), device)
            starts = noisy[filled].to(device)
            found = plan.solver(denoise, starts, grid.to(device), drawing)
            check_shape("solver", found, starts)
            clean[rows] = found[:n_rows].float().cpu()
            bar.update(n_rows)
    if not torch.isfinite(clean).all():
        raise FloatingPointError(
            "Generated rows are not finite. Use precision='float32', lower learning_rate, or look "
            "at your own solver or network."
        )
    return clean


@torch.no_grad()
def check_solver(
    solver: Solver, sample_shape: tuple[int, ...], n_steps: int, device: torch.device
) -> None:
    """Find out before training what a user's own solver makes of two rows of noise.

    They are denoised as if clean rows were standard normal.

    Raises
    ------
    ValueError
        If it is not two rows. Whatever the solver raises itself is left to the real rows.
    """
    generator = new_generator(0, device)
    grid = sigma_grid(n_steps, 1.0).float().to(device)
    noisy = grid[0] * torch.randn(2, *sample_shape, generator=generator, device=device)
    try:
        found = solver(lambda x, sigma: x / (1 + sigma.square()), noisy, grid, generator)
    except Exception:  # it may want what two rows of noise have not
        return
    check_shape("solver", found, noisy)


def starting_noise(
    seed: int, labels: np.ndarray, positions: np.ndarray, sample_shape: tuple[int, ...]
) -> Tensor:
    """Return Gaussian noise (n_rows, *sample_shape), each row by seed, label and position alone.

    numpy's generators take all of these numbers as a seed; torch's keeps 32 bits of it, which
    would repeat itself among many rows.
    """
    noise = np.empty((len(labels), *sample_shape), dtype=np.float32)
    blocks = positions // NOISE_BLOCK
    for label, block in sorted(set(zip(labels.tolist(), blocks.tolist(), strict=True))):
        members = (labels == label) & (blocks == block)
        generator = np.random.default_rng([seed, label, block])
        drawn = generator.standard_normal((NOISE_BLOCK, *sample_shape), dtype=np.float32)
        noise[members] = drawn[positions[members] % NOISE_BLOCK]
    return torch.from_numpy(noise)


def row_seed(seed: int, label: int, position: int) -> int:
    """Return a seed of its own for what begins with this row."""
    entropy = np.random.SeedSequence([seed, int(label), int(position)])
    return int(entropy.generate_state(1, np.uint64)[0] >> 1)
