"""Residual multilayer perceptron: the denoiser's network for tables."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sklearn_diffult.networks.embedding import ConditionEmbedding


class ResidualBlock(nn.Module):
    """LayerNorm, conditioned scale and shift, two linear layers, added to the input."""

    def __init__(self, width: int, condition_width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.film = nn.Linear(condition_width, 2 * width)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Start as the identity, so that depth costs nothing early in training."""
        nn.init.zeros_(self.narrow.weight)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Map "n f" to "n f"."""
        scale, shift = self.film(condition).chunk(2, dim=1)
        return h + self.narrow(F.silu(self.widen(self.norm(h) * (1 + scale) + shift)))


class MLP(nn.Module):
    """Residual perceptron over columns, conditioned on noise level and label.

    Parameters
    ----------
    n_columns : int
        Columns of the encoded table.
    n_classes : int
        Number of classes; label `n_classes` means "no label".
    width, n_blocks : int
        Hidden width and number of residual blocks.
    condition_width : int
        Length of the embedding of noise level and label, which need less room than the columns.
    """

    # Runs the same kernels each time, which CUDA may record and replay.
    is_recordable = True

    def __init__(
        self,
        n_columns: int,
        n_classes: int,
        width: int = 128,
        n_blocks: int = 2,
        condition_width: int = 64,
    ):
        super().__init__()
        self.embed = ConditionEmbedding(n_classes, condition_width)
        self.inward = nn.Linear(n_columns, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, condition_width) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width)
        self.outward = nn.Linear(width, n_columns)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Start at zero output: the denoiser then returns its skip connection."""
        nn.init.zeros_(self.outward.weight)

    @property
    def bottleneck(self) -> nn.Module:
        """The module whose features regularisers may compare."""
        return self.blocks[-1]

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        """Map "n d" with noise levels (n,) and labels (n,) to "n d"."""
        condition = self.embed(noise_level, labels)
        h = self.inward(x)
        for block in self.blocks:
            h = block(h, condition)
        return self.outward(self.norm(h))
