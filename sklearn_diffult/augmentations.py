"""Random changes to training images that leave their label alone.

A classifier takes them as they are. A diffusion model must not generate them, so its network is
told of each change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sklearn_diffult._torch import sent

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move every image "n c h w" by up to an eighth of each side; its edge fills the gap."""
    n, _, height, width = images.shape
    rows = sent(_shifted_indices(n, height, generator), images.device)
    columns = sent(_shifted_indices(n, width, generator), images.device)
    every = torch.arange(n, device=images.device)[:, None, None]
    # The two index arrays around the channel axis put it last: "n h w c".
    moved = images[every, :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _shifted_indices(n: int, side: int, generator: torch.Generator) -> Tensor:
    reach = max(1, side // 8)
    offsets = torch.randint(-reach, reach + 1, (n, 1), generator=generator)
    return (torch.arange(side) + offsets).clamp(0, side - 1)


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every image "n c h w" left to right with probability 1/2."""
    heads = _uniform((len(images), 1, 1, 1), generator) < 0.5
    return torch.where(sent(heads, images.device), images.flip(-1), images)


def affine(images: Tensor, generator: torch.Generator) -> Tensor:
    """Magnify, stretch, turn and shift images "n c h w" a little, each with probability 0.15."""
    return Change.draw(len(images), 0.15, generator).apply(images)


def erase(images: Tensor, generator: torch.Generator) -> Tensor:
    """Cover a rectangle of every fourth image "n c h w" with a value (Zhong et al., AAAI 2020).

    It takes 2 to 33 % of the area, its sides are to each other as 1:3.2 to 3.2:1, and what lies
    beyond the image is cut off. They fill it with noise or the mean.
    """
    n, _, height, width = images.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * _uniform((n, 1), generator)

    def covered(side: int, share: Tensor) -> Tensor:
        first = uniform(0, 1) * side * (1 - share).clamp(min=0)
        place = torch.arange(side) + 0.5 - first  # of the pixels' centres
        return (place >= 0) & (place < side * share)

    area, ratio = uniform(0.02, 0.33), 10 ** uniform(-0.5, 0.5)
    rows, columns = covered(height, (area * ratio).sqrt()), covered(width, (area / ratio).sqrt())
    is_covered = rows[:, None, :, None] & columns[:, None, None, :]
    is_covered &= (uniform(0, 1) < 0.25)[:, :, None, None]
    value = uniform(-1, 1)[:, :, None, None].to(images.dtype)
    covered_there = sent(is_covered, images.device)
    return torch.where(covered_there, sent(value, images.device), images)


def solarize(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn what is brighter than some value into its negative, in three of ten images "n c h w"."""
    threshold = 2 * _uniform((len(images), 1, 1, 1), generator) - 1
    happens = _uniform((len(images), 1, 1, 1), generator) < 0.3
    threshold = sent(threshold.to(images.dtype), images.device)
    is_bright = sent(happens, images.device) & (images > threshold)
    return torch.where(is_bright, -images, images)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float32)


AUGMENTATIONS: dict[str, Augmentation] = {
    "shift": shift,
    "flip": flip,
    "affine": affine,
    "erase": erase,
    "solarize": solarize,
}


# What "auto" stands for with images. Mirrors are not among them: some classes are each other's.
DEFAULT = ("affine", "erase", "solarize")


def resolve_augmentations(
    augment: str | Sequence[str] | Augmentation | None, is_image: bool
) -> list[Augmentation]:
    """Turn the parameter `augment` into functions; a ValueError says what is allowed."""
    if isinstance(augment, str) and augment == "auto":
        augment = DEFAULT if is_image else None
    if augment is None:
        return []
    if callable(augment):
        return [augment]
    names = (augment,) if isinstance(augment, str) else augment
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        raise ValueError(
            f"augment={augment!r} holds {unknown}; use 'auto', None, a callable (batch, "
            f"torch.Generator) -> batch, or one or several of {sorted(AUGMENTATIONS)}."
        )
    if not is_image:
        raise ValueError(
            f"augment={augment!r} moves pixels, but X is a table; use augment=None, "
            "a callable, or image_shape= if the rows are flat images."
        )
    return [AUGMENTATIONS[name] for name in names]


# --------------------------------------------------------------------------------------
# For diffusion models
# --------------------------------------------------------------------------------------

# Spread of each change: powers of two for the scales, radians, and shares of the image's sides.
SCALE, STRETCH, ANGLE, SHIFT = 0.2, 0.15, 0.15, 0.1
# What the network is told: scale, stretch, cos - 1 and sin of the angle, two shifts.
N_CONDITIONS = 6


@dataclass(frozen=True)
class Change:
    """How to change each of n images; all zero means not at all.

    Non-leaking augmentation, Karras et al. 2022, Appendix F.2, with smaller changes and without
    mirrors, which a short training does not learn to tell apart; the edge fills in, pixels are
    interpolated linearly, and each shift happens by itself. A network knows ten images of a
    class by heart before long, but not their changed versions; and as it is told of the change,
    images generated with zeros look unchanged.

    Attributes
    ----------
    scale, stretch, angle, right, down : Tensor of shape (n,)
        log2 of the magnification and of the ratio between width and height; radians; shift as a
        share of the width and of the height.
    """

    scale: Tensor
    stretch: Tensor
    angle: Tensor
    right: Tensor
    down: Tensor

    @classmethod
    def draw(cls, n: int, probability: float, generator: torch.Generator) -> Change:
        """Draw changes, each kind with `probability` and independently."""

        def spread(deviation: float) -> Tensor:
            happens = _uniform((n,), generator) < probability
            sizes = torch.randn(n, generator=generator, dtype=torch.float32)
            return happens * (deviation * sizes)

        return cls(spread(SCALE), spread(STRETCH), spread(ANGLE), spread(SHIFT), spread(SHIFT))

    def condition(self) -> Tensor:
        """What the network is told, shape (n, N_CONDITIONS), of at most about unit size."""
        columns = [
            self.scale / SCALE,
            self.stretch / STRETCH,
            (self.angle.cos() - 1) / ANGLE,
            self.angle.sin() / ANGLE,
            self.right / SHIFT,
            self.down / SHIFT,
        ]
        return torch.stack(columns, dim=1)

    def apply(self, images: Tensor) -> Tensor:
        """Change images "n c h w"; the edge fills what comes into sight. Unchanged ones stay exact.

        Magnify and stretch, then turn, then shift.
        """
        height, width = images.shape[-2:]
        # Each pixel of the result is looked up in the original, so everything is inverted.
        across = torch.exp2(-self.scale - self.stretch / 2)
        along = torch.exp2(-self.scale + self.stretch / 2)
        cos, sin = self.angle.cos(), self.angle.sin()
        # The coordinates of a grid run from -1 to 1 on either side, whatever its pixels.
        turn = torch.stack(
            [
                across * cos,
                across * sin * height / width,
                -along * sin * width / height,
                along * cos,
            ],
            dim=1,
        ).reshape(-1, 2, 2)
        shift = torch.stack([2 * self.right, 2 * self.down], dim=1)[:, :, None]
        affine = sent(torch.cat([turn, -turn @ shift], dim=2).to(images.dtype), images.device)
        grid = F.affine_grid(affine, list(images.shape), align_corners=False)
        moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        is_changed = sent((self.condition() != 0).any(dim=1), images.device)
        return torch.where(is_changed[:, None, None, None], moved, images)
