"""Group normalisation with what comes after it, on a GPU in one kernel."""

from __future__ import annotations

import functools
from types import ModuleType

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sklearn_diffult._recording import is_hooked


def normed(norm: nn.Module, x: Tensor, film: Tensor | None = None, activate: bool = True) -> Tensor:
    """Normalise "n c h w", scale and shift it by `film` "n (two c)", and take its SiLU."""
    # A module that was put in its place, or is watched, is to be called.
    if type(norm) is nn.GroupNorm and norm.affine and not is_hooked(norm):
        fused = _fused(x.device)
        if fused is not None and fused.fits(x, norm.num_groups):
            film = None if film is None else film.expand(len(x), -1)
            affine = norm.weight, norm.bias
            return fused.normed(x, *affine, film, norm.num_groups, norm.eps, activate)
    return modulated(norm(x), film, activate)


def modulated(h: Tensor, film: Tensor | None, activate: bool) -> Tensor:
    """Scale and shift "n c h w" by `film` "n (two c)", and take its SiLU."""
    if film is not None:
        scale, shift = rearrange(film, "n (two c) -> two n c 1 1", two=2)
        h = torch.addcmul(shift, h, 1 + scale)
    return F.silu(h) if activate else h


@functools.cache
def _fused(device: torch.device) -> ModuleType | None:
    """Return the module of the kernels if Triton is here and can build them for a device."""
    if device.type != "cuda":
        return None
    x, ones = torch.ones(1, 1, 2, 2, device=device), torch.ones(1, device=device)
    try:
        from sklearn_diffult.networks import _fused_norm

        with torch.no_grad():
            _fused_norm.normed(x, ones, ones, None, 1, 1e-5, True)
    # Triton is missing, or its C compiler, or the GPU is older than it can serve.
    except Exception:
        return None
    return _fused_norm
