"""Exponential moving average of parameters, its half-life counted in samples."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class ExponentialMovingAverage(Generic[M]):
    """Average of a module's parameters over the samples it was trained on.

    Parameters
    ----------
    module : Module
        The module to follow; buffers are copied as they are.
    half_life : float
        Samples after which a parameter's share has halved. Early in training it is shortened to
        a twentieth of the samples seen, so that the initial values fade (Karras et al. 2022,
        appendix F.2).
    """

    def __init__(self, module: M, half_life: float):
        self.module: M = copy.deepcopy(module).eval().requires_grad_(False)
        self.half_life = half_life
        self._n_seen = 0
        self._averaged: list[Tensor] = [
            p for p in self.module.parameters() if p.is_floating_point()
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {"module": self.module.state_dict(), "n_seen": self._n_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the average that `state_dict` described."""
        self.module.load_state_dict(state["module"])
        self._n_seen = state["n_seen"]

    @torch.no_grad()
    def update(self, module: M, n_samples: int) -> None:
        """Move the average towards `module` after a step on `n_samples` samples."""
        self._n_seen += n_samples
        half_life = max(min(self.half_life, self._n_seen / 20), 1e-8)
        weight = 1 - 0.5 ** (n_samples / half_life)
        current: list[Tensor] = [p for p in module.parameters() if p.is_floating_point()]
        torch._foreach_lerp_(self._averaged, current, weight)
        for average, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            average.copy_(buffer)
