"""What a denoiser's network is told besides the noisy rows: noise level and label."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConditionEmbedding(nn.Module):
    """Embed noise level and label as one vector "n width".

    Parameters
    ----------
    n_classes : int
        Number of classes; one more embedding stands for "no label".
    width : int
        Length of the vector, even.
    """

    def __init__(self, n_classes: int, width: int):
        super().__init__()
        self.width = width
        self.label = nn.Embedding(n_classes + 1, width)
        self.noise_in = nn.Linear(width, width)
        self.noise_out = nn.Linear(width, width)

    def forward(self, noise_level: Tensor, labels: Tensor) -> Tensor:
        """Map noise levels (n,) and labels (n,) to "n width"."""
        # Frequencies 1 to 100 suit c_noise = ln(sigma)/4, which spans about -2 to 2.
        frequencies = torch.exp(
            torch.linspace(0, math.log(100), self.width // 2, device=noise_level.device)
        )
        angles = noise_level[:, None] * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        noise = self.noise_out(F.silu(self.noise_in(waves)))
        return F.silu(noise + self.label(labels))
