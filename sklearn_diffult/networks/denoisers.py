"""Table of denoiser networks: a name and ``(sample_shape, n_classes) -> nn.Module``.

A network is called as ``network(x, noise_level, labels)`` with ``x`` "n ...", ``noise_level`` (n,)
and integer ``labels`` (n,), where label `n_classes` means "no label", and returns the shape of
``x``. A new one is one class and one line here.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from sklearn_diffult.networks.mlp import MLP
from sklearn_diffult.networks.unet import UNet

NetworkFactory = Callable[[tuple[int, ...], int], nn.Module]


def _unet(width: int, n_blocks: int, n_positions: int) -> NetworkFactory:
    def factory(sample_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        channels, height, width_pixels = sample_shape
        # Images of n_positions pixels a side or more are cut into patches of 2 x 2, 4 x 4, ...:
        # convolutions at full resolution would take most of the time and add little.
        patch = 2 ** (min(height, width_pixels) // n_positions).bit_length()
        shape = (channels, height, width_pixels)
        return UNet(shape, n_classes, width=width, n_blocks=n_blocks, patch=patch)

    return factory


def _mlp(width: int, n_blocks: int) -> NetworkFactory:
    def factory(sample_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        return MLP(sample_shape[0], n_classes, width=width, n_blocks=n_blocks)

    return factory


DENOISER_NETWORKS: dict[str, NetworkFactory] = {
    "unet": _unet(width=48, n_blocks=1, n_positions=20),
    "unet_large": _unet(width=128, n_blocks=2, n_positions=40),
    "mlp": _mlp(width=128, n_blocks=2),
    "mlp_large": _mlp(width=256, n_blocks=3),
}
IMAGE_NETWORKS = ("unet", "unet_large")


def named_network(name: str, sample_shape: tuple[int, ...]) -> NetworkFactory:
    """Return a line of the table, for ``"auto"`` the one that suits the rows.

    Raises
    ------
    ValueError
        If the network is for images and the rows are a table, or the other way round.
    """
    is_image = len(sample_shape) == 3
    default = "unet" if is_image else "mlp"
    name = default if name == "auto" else name
    if (name in IMAGE_NETWORKS) != is_image:
        raise ValueError(
            f"network={name!r} does not fit encoded rows of shape {sample_shape}; "
            f"use 'auto' or {default!r}."
        )
    return DENOISER_NETWORKS[name]
