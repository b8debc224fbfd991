"""Classifier-free guidance in an interval of noise levels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sklearn_diffult.diffusion.denoiser import Denoiser

Denoise = Callable[[Tensor, Tensor], Tensor]


def guided(
    denoiser: Denoiser,
    labels: Tensor,
    guidance_scale: float,
    interval: tuple[float, float],
    evaluate: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Denoise:
    """Return ``denoise(x, sigma)`` for fixed labels, extrapolated away from "no label".

    Ho and Salimans 2021, Eq. (6), written for clean estimates: ``D_null + s (D_y - D_null)``, so a
    scale of 1 is the plain conditional denoiser. Outside `interval` (noise levels in units of
    sigma_data) the plain denoiser is used, at half the cost (Kynkaanniemi et al. 2024). `evaluate`
    calls the denoiser, by default as it is.
    """
    call = evaluate or denoiser
    # By rounding, a level at an end would lie beyond it.
    low = interval[0] * denoiser.sigma_data * (1 - 1e-6)
    high = interval[1] * denoiser.sigma_data * (1 + 1e-6)
    null = torch.full_like(labels, denoiser.null_label)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        levels = sigma.expand(len(x)).to(x.dtype)
        if guidance_scale == 1 or not low <= float(sigma) <= high:
            return call(x, levels, labels)
        both = call(torch.cat([x, x]), torch.cat([levels, levels]), torch.cat([labels, null]))
        conditional, unconditional = both.chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    return denoise
