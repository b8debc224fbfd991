"""Random changes to training images that leave their label alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move every image "n c h w" by up to an eighth of each side; its edge fills the gap."""
    n, _, height, width = images.shape
    rows = _shifted_indices(n, height, generator).to(images.device)
    columns = _shifted_indices(n, width, generator).to(images.device)
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
    heads = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(heads.to(images.device), images.flip(-1), images)


AUGMENTATIONS: dict[str, Augmentation] = {"shift": shift, "flip": flip}


def resolve_augmentations(
    augment: str | tuple[str, ...] | Augmentation | None, is_image: bool
) -> list[Augmentation]:
    """Turn the parameter `augment` into functions; a ValueError says what is allowed."""
    if augment is None:
        return []
    if callable(augment):
        return [augment]
    names = (augment,) if isinstance(augment, str) else augment
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        raise ValueError(
            f"augment={augment!r} holds {unknown}; use names of {sorted(AUGMENTATIONS)}, "
            "or a callable (batch, torch.Generator) -> batch."
        )
    if not is_image:
        raise ValueError(
            f"augment={augment!r} moves pixels, but X is a table; use augment=None, "
            "a callable, or image_shape= if the rows are flat images."
        )
    return [AUGMENTATIONS[name] for name in names]
