"""U-Net: the denoiser's network for images of any size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sklearn_diffult.augmentations import N_CONDITIONS
from sklearn_diffult.networks.embedding import ConditionEmbedding
from sklearn_diffult.networks.norms import normed


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the second conditioned by scale and shift, added to the input."""

    def __init__(self, n_in: int, n_out: int, condition_width: int):
        super().__init__()
        self.norm_in = nn.GroupNorm(_groups(n_in), n_in)
        self.conv_in = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.film = nn.Linear(condition_width, 2 * n_out)
        self.norm_out = nn.GroupNorm(_groups(n_out), n_out)
        self.conv_out = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Start as the identity, so that depth costs nothing early in training."""
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map "n c h w" to "n c' h w"."""
        h = self.conv_in(normed(self.norm_in, x))
        h = self.conv_out(normed(self.norm_out, h, self.film(condition)))
        return self.skip(x) + h


class Attention(nn.Module):
    """Self-attention over pixels, added to the input."""

    def __init__(self, n_channels: int, head_width: int = 32):
        super().__init__()
        self.n_heads = max(1, n_channels // head_width)
        self.norm = nn.GroupNorm(_groups(n_channels), n_channels)
        self.qkv = nn.Conv2d(n_channels, 3 * n_channels, 1)
        self.out = nn.Conv2d(n_channels, n_channels, 1)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Start as the identity."""
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map "n c h w" to "n c h w"."""
        height, width = x.shape[-2:]
        query, key, value = rearrange(
            self.qkv(normed(self.norm, x, activate=False)),
            "n (three head c) h w -> three n head (h w) c",
            three=3,
            head=self.n_heads,
        )
        mixed = _attend(query, key, value)
        return x + self.out(rearrange(mixed, "n head (h w) c -> n (head c) h w", h=height, w=width))


class UNet(nn.Module):
    """Residual U-Net with attention at its lowest resolution.

    Parameters
    ----------
    image_shape : tuple of int
        (channels, height, width).
    n_classes : int
        Number of classes; label `n_classes` means "no label".
    width : int
        Channels at full resolution; doubled below.
    n_blocks : int
        Residual blocks per resolution, on the way down and on the way up.
    patch : int
        Squares of `patch` x `patch` pixels become one position, their pixels channels: the same
        width costs patch ** 2 times less (Hoogeboom et al. 2023, section 3.2, do so with a
        discrete cosine or wavelet transform).

    Notes
    -----
    Resolutions halve down to about 4 to 7 positions, at most four of them. Sides that do not
    divide are padded by their edge pixels inside and cropped on the way out.
    """

    # Runs the same kernels each time, which CUDA may record and replay.
    is_recordable = True
    # Tells the trainer that images may be augmented.
    takes_augmentation = True

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n_classes: int,
        width: int = 64,
        n_blocks: int = 1,
        patch: int = 1,
    ):
        super().__init__()
        n_channels, *sides = image_shape
        n_levels = 1 + min(3, max(0, int(math.log2(min(sides) / patch / 4))))
        self.patch = patch
        self.multiple = patch * 2 ** (n_levels - 1)
        widths = [width] + [2 * width] * (n_levels - 1)
        condition = 4 * width
        self.embed = ConditionEmbedding(n_classes, condition, N_CONDITIONS)
        self.inward = nn.Conv2d(n_channels * patch**2, width, 3, padding=1)
        self.down = nn.ModuleList()
        skips = [width]
        current = width
        for level_width in widths:
            blocks = nn.ModuleList()
            for _ in range(n_blocks):
                blocks.append(ResidualBlock(current, level_width, condition))
                current = level_width
                skips.append(current)
            self.down.append(blocks)
        self.middle_in = ResidualBlock(current, current, condition)
        self.attention = Attention(current)
        self.middle_out = ResidualBlock(current, current, condition)
        self.up = nn.ModuleList()
        for level_width in reversed(widths):
            blocks = nn.ModuleList()
            for _ in range(n_blocks):
                blocks.append(ResidualBlock(current + skips.pop(), level_width, condition))
                current = level_width
            self.up.append(blocks)
        self.last = ResidualBlock(current + skips.pop(), width, condition)
        self.norm = nn.GroupNorm(_groups(width), width)
        self.outward = nn.Conv2d(width, n_channels * patch**2, 3, padding=1)
        # Convolutions want their weights in the layout of their input.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Start at zero output: the denoiser then returns its skip connection."""
        nn.init.zeros_(self.outward.weight)

    @property
    def bottleneck(self) -> nn.Module:
        """The module whose features regularisers may compare."""
        return self.middle_out

    def forward(
        self, x: Tensor, noise_level: Tensor, labels: Tensor, augmentation: Tensor | None = None
    ) -> Tensor:
        """Map "n c h w" with noise levels (n,), labels (n,) and augmentations to "n c h w"."""
        height, width = x.shape[-2:]
        condition = self.embed(noise_level, labels, augmentation)
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate")
        x = F.pixel_unshuffle(x, self.patch)
        h = self.inward(x.contiguous(memory_format=torch.channels_last))
        skips = [h]
        for level, blocks in enumerate(self.down):
            if level > 0:
                h = F.avg_pool2d(h, 2)
            for block in blocks.children():
                h = block(h, condition)
                skips.append(h)
        h = self.middle_out(self.attention(self.middle_in(h, condition)), condition)
        for level, blocks in enumerate(self.up):
            if level > 0:
                h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            for block in blocks.children():
                h = block(torch.cat([h, skips.pop()], dim=1), condition)
        h = self.last(torch.cat([h, skips.pop()], dim=1), condition)
        patches = self.outward(normed(self.norm, h))
        return F.pixel_shuffle(patches, self.patch)[..., :height, :width]


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Mix values "n head position c" by the softmax of products of queries and keys."""
    if query.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value)
    # On a CPU the gradient of torch's fused kernel takes five times as long as all of this.
    products = (query * query.shape[-1] ** -0.5) @ key.mT
    return products.softmax(dim=-1).to(value.dtype) @ value


def _groups(n_channels: int) -> int:
    # Of groups of other sizes a CPU takes ten times as long in bfloat16 with the channels last.
    return n_channels // 16 if n_channels % 16 == 0 else math.gcd(8, n_channels)
