"""FLOPs of a network, and the FLOP/s that this machine can reach."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Flops:
    """Parameters of a network and the FLOPs of one image; a multiplication and an addition is 2."""

    n_parameters: int
    forward: float
    training: float


def count_flops(network: nn.Module, call: Callable[[], Tensor], n_images: int) -> Flops:
    """Count a real forward pass, and a real forward and backward pass, of `n_images`.

    Only matrix products and convolutions are counted; norms and activations are not.
    """
    # The counter knows the products that attention is made of, but not the CPU's fused kernel.
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward, torch.no_grad():
            call()
        with FlopCounterMode(display=False) as training:
            call().square().mean().backward()
    return Flops(
        n_parameters=sum(parameter.numel() for parameter in network.parameters()),
        forward=forward.get_total_flops() / n_images,
        training=training.get_total_flops() / n_images,
    )


def measure_peak(seconds: float, dtype: torch.dtype, device: str = "cpu") -> dict[str, float]:
    """Best FLOP/s of two large matrix products and a convolution, each timed for a third."""
    speeds = {}
    # A GPU needs larger ones to be at its best.
    for side in (1024, 2048) if device == "cpu" else (4096, 8192):
        a, b = (torch.randn(side, side).to(device, dtype) for _ in range(2))
        speeds[f"matmul {side}"] = _best(lambda a=a, b=b: a @ b, 2 * side**3, seconds / 3, device)
    n, channels, side = (32, 128, 28) if device == "cpu" else (512, 256, 28)
    last = {"device": device, "dtype": dtype, "memory_format": torch.channels_last}
    images = torch.randn(n, channels, side, side).to(**last)
    kernel = torch.randn(channels, channels, 3, 3).to(**last)
    flops = 2 * n * channels * channels * 9 * side * side
    speeds["conv 3x3"] = _best(
        lambda: F.conv2d(images, kernel, padding=1), flops, seconds / 3, device
    )
    return speeds


def _best(work: Callable[[], Tensor], flops: int, seconds: float, device: str) -> float:
    work()
    wait_for(device)
    shortest = float("inf")
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        started = time.perf_counter()
        work()
        wait_for(device)
        shortest = min(shortest, time.perf_counter() - started)
    return flops / shortest


def wait_for(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
