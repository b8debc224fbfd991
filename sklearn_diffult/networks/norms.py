"""Group normalisation with what comes after it, on a GPU in one kernel."""

from __future__ import annotations

import functools
from types import ModuleType

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def normed(
    norm: nn.GroupNorm, x: Tensor, film: Tensor | None = None, activate: bool = True
) -> Tensor:
    """Normalise "n c h w", scale and shift it by `film` "n (two c)", and take its SiLU."""
    fused = _fused() if x.device.type == "cuda" else None
    if fused is not None and fused.fits(x, norm.num_groups):
        return fused.normed(x, norm.weight, norm.bias, film, norm.num_groups, norm.eps, activate)
    h = norm(x)
    if film is not None:
        scale, shift = rearrange(film, "n (two c) -> two n c 1 1", two=2)
        h = torch.addcmul(shift, h, 1 + scale)
    return F.silu(h) if activate else h


@functools.cache
def _fused() -> ModuleType | None:
    """Return the module of the kernels if Triton is here and can build them."""
    try:
        from sklearn_diffult.networks import _fused_norm

        x, ones = torch.ones(1, 1, 2, 2, device="cuda"), torch.ones(1, device="cuda")
        with torch.no_grad():
            _fused_norm.normed(x, ones, ones, None, 1, 1e-5, True)
    # Triton is missing, or its C compiler, or the GPU is older than it can serve.
    except Exception:
        return None
    return _fused_norm
