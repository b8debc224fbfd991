"""Exponential moving average of parameters, its half-life counted in samples."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_diffult.diffusion.denoiser import Denoiser


class ExponentialMovingAverage:
    """Average of a denoiser's parameters over the samples it was trained on.

    Parameters
    ----------
    module : Denoiser
        The one to follow; buffers are copied as they are.
    half_life : float
        Samples after which a parameter's share has halved. Early in training it is shortened to
        a twentieth of the samples seen, so that the initial values fade (Karras et al. 2022,
        appendix F.2).
    """

    def __init__(self, module: Denoiser, half_life: float):
        self.module: Denoiser = copy.deepcopy(module).eval().requires_grad_(False)
        self.half_life = half_life
        self._n_seen = 0
        self._source = module
        # Walking through all modules for them would take as long as averaging small networks.
        self._averaged, self._current = _floating(self.module), _floating(module)
        self._has_buffers = any(True for _ in module.buffers())

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {"module": self.module.state_dict(), "n_seen": self._n_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the average that `state_dict` described."""
        self.module.load_state_dict(state["module"])
        self._n_seen = state["n_seen"]

    @torch.no_grad()
    def update(self, n_samples: int) -> None:
        """Move the average towards the module after a step on `n_samples` samples."""
        self._n_seen += n_samples
        half_life = max(min(self.half_life, self._n_seen / 20), 1e-8)
        weight = 1 - 0.5 ** (n_samples / half_life)
        torch._foreach_lerp_(self._averaged, self._current, weight)
        if self._has_buffers:
            for average, buffer in zip(self.module.buffers(), self._source.buffers(), strict=True):
                average.copy_(buffer)


def _floating(module: nn.Module) -> list[Tensor]:
    return [parameter for parameter in module.parameters() if parameter.is_floating_point()]
