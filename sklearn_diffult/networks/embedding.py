"""What a denoiser's network is told besides the noisy rows: noise level and label."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConditionEmbedding(nn.Module):
    """Embed noise level, label and augmentation as one vector "n width".

    Parameters
    ----------
    n_classes : int
        Number of classes; one more embedding stands for "no label".
    width : int
        Length of the vector, even.
    n_conditions : int, default=0
        Length of the vectors that tell how an image was augmented.
    """

    def __init__(self, n_classes: int, width: int, n_conditions: int = 0):
        super().__init__()
        self.width = width
        vectors = torch.empty(n_classes + 1, width)
        if not vectors.is_meta:  # drawing none would import the compiler of torch
            nn.init.normal_(vectors)
        self.label = nn.Embedding.from_pretrained(vectors, freeze=False)
        # Without bias: an image that was not augmented adds nothing.
        self.augmentation = nn.Linear(n_conditions, width, bias=False) if n_conditions else None
        self.noise_in = nn.Linear(width, width)
        self.noise_out = nn.Linear(width, width)

    def forward(
        self, noise_level: Tensor, labels: Tensor, augmentation: Tensor | None = None
    ) -> Tensor:
        """Map noise levels (n,), labels (n,) and augmentations (n, n_conditions) to "n width"."""
        # Frequencies 1 to 100 suit c_noise = ln(sigma)/4, which spans about -2 to 2.
        logarithms = torch.linspace(
            0, math.log(100), self.width // 2, dtype=torch.float32, device=noise_level.device
        )
        angles = noise_level[:, None] * logarithms.exp()
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        total = self.noise_out(F.silu(self.noise_in(waves))) + self.label(labels)
        if self.augmentation is not None and augmentation is not None:
            total = total + self.augmentation(augmentation)
        return F.silu(total)
