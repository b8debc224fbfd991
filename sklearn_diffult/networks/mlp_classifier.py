"""Residual multilayer perceptron: the default classifier for tables."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Set values to 0 with probability `p` in training, and magnify the others (Srivastava 2014).

    Inside of `drawing_from` it draws from a generator of its own; torch's draws from the global
    state only, which threads share.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, h: Tensor) -> Tensor:
        """Map "n f" to "n f"."""
        if not self.training:
            return h
        keep = torch.empty_like(h).bernoulli_(1 - self.p, generator=self.generator)
        return h * keep.div_(1 - self.p)


@contextlib.contextmanager
def drawing_from(generator: torch.Generator, network: nn.Module) -> Iterator[None]:
    """Let every `Dropout` of a network draw from a generator on the network's device."""
    parts = [part for part in network.modules() if isinstance(part, Dropout)]
    for part in parts:
        part.generator = generator
    try:
        yield
    finally:
        for part in parts:
            # Generators of some devices can be neither copied nor pickled.
            part.generator = None


class ResidualBlock(nn.Module):
    """LayerNorm and two linear layers with dropout between them, added to the input."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.dropout = Dropout(dropout)
        self.narrow = nn.Linear(2 * width, width)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Start as the identity, so that depth costs nothing early in training."""
        nn.init.zeros_(self.narrow.weight)

    def forward(self, h: Tensor) -> Tensor:
        """Map "n f" to "n f"."""
        return h + self.narrow(self.dropout(F.silu(self.widen(self.norm(h)))))


class MLPClassifierNetwork(nn.Module):
    """Residual perceptron over the columns of a table; images are flattened.

    Small tables are known by heart after a few hundred steps, with probabilities near 0 and 1 for
    rows never seen. Dropout, of encoded values too, is what helped most against it.

    Parameters
    ----------
    sample_shape : tuple of int
        Shape of one encoded row: "d" for tables, "c h w" for images.
    n_classes : int
        Number of logits.
    width, n_blocks : int, default=128, 2
        Hidden width, which is the length of the feature vector, and number of residual blocks.
    dropout : float, default=0.2
        Probability with which a value is set to 0 in training: of the encoded row (where 0 is the
        middle of a column of numbers), inside of blocks and of the features.
    """

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        n_classes: int,
        width: int = 128,
        n_blocks: int = 2,
        dropout: float = 0.2,
    ):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.inward = nn.Linear(math.prod(sample_shape), width)
        self.blocks = nn.Sequential(*(ResidualBlock(width, dropout) for _ in range(n_blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_classes)

    def features(self, rows: Tensor) -> Tensor:
        """Map rows "n ..." to penultimate features "n f"."""
        h = F.silu(self.inward(self.dropout(rows.flatten(start_dim=1))))
        return self.dropout(self.norm(self.blocks(h)))

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows "n ..." to logits "n classes"."""
        return self.head(self.features(rows))
