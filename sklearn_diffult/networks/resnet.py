"""Small residual network: the default classifier for images."""

from __future__ import annotations

import itertools

import torch
from einops import reduce
from torch import Tensor, nn

from sklearn_diffult.networks.norms import normed

# The stem brings the longer side to at most this many pixels, so that the cost of a row hardly
# grows with its size.
_MAX_SIDE = 16
_GROUP_WIDTH = 16


def _norm(width: int) -> nn.GroupNorm:
    # Not BatchNorm: its statistics would mix rows, so that drawing rows by weight and scaling
    # their loss would no longer agree in expectation, and a batch of one row would mean nothing.
    return nn.GroupNorm(max(1, width // _GROUP_WIDTH), width)


class ConvNorm(nn.Sequential):
    """Convolution (3x3, larger where it strides), group normalisation, max pooling, ReLU."""

    def __init__(self, width_in: int, width: int, stride: int = 1, pool: int = 1):
        super().__init__(
            nn.Conv2d(width_in, width, 2 * stride + 1, stride, padding=stride, bias=False),
            _norm(width),
            # The two commute, and in this order ReLU has fewer pixels to see to.
            nn.MaxPool2d(pool, ceil_mode=True) if pool > 1 else nn.Identity(),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map "n c h w" to "n c' h' w'"."""
        convolution, norm, pool, relu = self
        return relu(pool(normed(norm, convolution(x), activate=False)))


class ResidualStage(nn.Module):
    """Widen, halve the sides (odd ones round up), and add two convolutions to the result."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.widen = ConvNorm(width_in, width, pool=2)
        self.refine = nn.Sequential(ConvNorm(width, width), ConvNorm(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map "n c h w" to "n c' h' w'", where h' = ceil(h / 2)."""
        x = self.widen(x)
        return x + self.refine(x)


class ResNet(nn.Module):
    """Residual classifier of images from 8x8 upwards, odd sides and any channel count included.

    A stem of convolution and max pooling leaves at most 16 pixels a side; one residual stage per
    further width halves them; the mean over pixels is the feature vector of a linear head.

    Parameters
    ----------
    sample_shape : tuple of int
        Shape "c h w" of one encoded image.
    n_classes : int
        Number of logits.
    widths : tuple of int, default=(32, 64, 128)
        Channels of the stem and of each stage; the last is the length of the feature vector.

    Raises
    ------
    ValueError
        If `sample_shape` is not that of an image.

    References
    ----------
    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. Ours pools where theirs
    strides, normalises groups of channels, and leaves the sum without a ReLU.
    """

    # Runs the same kernels each time, which CUDA may record and replay.
    is_recordable = True

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        n_classes: int,
        widths: tuple[int, ...] = (32, 64, 128),
    ):
        super().__init__()
        if len(sample_shape) != 3:
            raise ValueError(
                f"module='resnet' needs images, but a row has shape {sample_shape}; use "
                "module='mlp', or image_shape= if the rows are flat images."
            )
        channels, *sides = sample_shape
        shrink = -(-max(sides) // _MAX_SIDE)
        # Pooling loses less than striding, but a convolution at full size is dear from 64x64 on.
        stride = max(1, shrink // 2)
        self.stem = ConvNorm(channels, widths[0], stride, pool=-(-shrink // stride))
        self.stages = nn.Sequential(*itertools.starmap(ResidualStage, itertools.pairwise(widths)))
        self.head = nn.Linear(widths[-1], n_classes)
        # The layout in which a CPU convolves fastest.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, images: Tensor) -> Tensor:
        """Map images "n c h w" to penultimate features "n f"."""
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        return reduce(self.stages(x), "n c h w -> n c", "mean")

    def forward(self, images: Tensor) -> Tensor:
        """Map images "n c h w" to logits "n classes"."""
        return self.head(self.features(images))
