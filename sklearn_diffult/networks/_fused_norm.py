"""Group normalisation, scale and shift, and SiLU as one CUDA kernel each way.

torch normalises groups in float32 with the channels first. With the channels last in bfloat16, as
convolutions are fastest, casts and changes of layout around its norms take longer than the norms.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from sklearn_diffult.networks.norms import modulated

# Numbers of one group of one image, which a program holds in registers.
_MAX_NUMBERS = 2**14
_NUMBERS_PER_WARP = 2**10


def fits(x: Tensor, n_groups: int) -> bool:
    """Tell whether the kernels take images "n c h w" of this shape and dtype."""
    return (
        x.dtype in (torch.float32, torch.bfloat16)
        and 0 < x.numel() < 2**31
        and _positions(x) * _channels(x, n_groups) <= _MAX_NUMBERS
    )


def normed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    film: Tensor | None,
    n_groups: int,
    eps: float,
    activate: bool,
) -> Tensor:
    """Normalise groups of "n c h w", scale and shift by `film` "n (two c)", and take SiLU."""
    # Here, where gradients pass through.
    x = x.contiguous(memory_format=torch.channels_last)
    film = None if film is None else film.contiguous()
    return _Normed.apply(x, weight, bias, film, n_groups, eps, activate)


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        film: Tensor | None,
        n_groups: int,
        eps: float,
        activate: bool,
    ) -> Tensor:
        y = torch.empty_like(x)
        mean_rstd = torch.empty(len(x) * n_groups, 2, dtype=torch.float32, device=x.device)
        arguments = weight, bias, y, mean_rstd, eps
        _launch(_group_norm_forward, x, n_groups, activate, film, *arguments)
        ctx.save_for_backward(x, weight, bias, film, mean_rstd)
        ctx.n_groups, ctx.eps, ctx.activate = n_groups, eps, activate
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, film, mean_rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable_gradients(ctx, x, weight, bias, film, dy)
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(x)
        # Of each image, so that they are added up in one order.
        of_images = torch.empty(len(x), 2, x.shape[1], dtype=torch.float32, device=x.device)
        dfilm = None if film is None else torch.empty_like(film)
        # Without a film its places are never looked at, but take a tensor.
        arguments = weight, bias, mean_rstd, dy, dx, of_images, dx if dfilm is None else dfilm
        _launch(_group_norm_backward, x, ctx.n_groups, ctx.activate, film, *arguments)
        dweight, dbias = of_images.sum(dim=0)
        return dx, dweight.to(weight.dtype), dbias.to(bias.dtype), dfilm, None, None, None


def _differentiable_gradients(
    ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, film: Tensor | None, dy: Tensor
) -> tuple[Tensor | None, ...]:
    """Compute gradients with a graph of their own, by torch's operations."""
    y = modulated(F.group_norm(x, ctx.n_groups, weight, bias, ctx.eps), film, ctx.activate)
    inputs = (x, weight, bias, film)
    wanted = [each for each in inputs if each is not None and each.requires_grad]
    gradients = iter(torch.autograd.grad(y, wanted, dy.to(y.dtype), create_graph=True))
    found = [
        next(gradients) if each is not None and each.requires_grad else None for each in inputs
    ]
    return *found, None, None, None


def _positions(x: Tensor) -> int:
    return triton.next_power_of_2(x.shape[2] * x.shape[3])


def _channels(x: Tensor, n_groups: int) -> int:
    return triton.next_power_of_2(x.shape[1] // n_groups)


def _launch(
    kernel: Any, x: Tensor, n_groups: int, activate: bool, film: Tensor | None, *arguments: Any
) -> None:
    n_images, n_channels, height, width = x.shape
    positions, channels = _positions(x), _channels(x, n_groups)
    # Triton launches on the current device.
    with torch.cuda.device_of(x):
        kernel[(n_images * n_groups,)](
            x,
            x if film is None else film,
            *arguments,
            height * width,
            n_channels,
            n_channels // n_groups,
            has_film=film is not None,
            activate=activate,
            positions=positions,
            channels=channels,
            num_warps=max(1, positions * channels // _NUMBERS_PER_WARP),
        )


@triton.jit
def _places(n_positions, n_channels, group_size, positions: tl.constexpr, channels: tl.constexpr):
    """Image, channels of the group, and places of its numbers, of a program."""
    n_groups = n_channels // group_size
    image = tl.program_id(0) // n_groups
    position = tl.arange(0, positions)[:, None]
    in_group = tl.arange(0, channels)[None, :]
    channel = tl.program_id(0) % n_groups * group_size + in_group
    is_channel = in_group < group_size
    is_there = (position < n_positions) & is_channel
    where = (image * n_positions + position) * n_channels + channel
    return image, channel, is_channel, where, is_there


@triton.jit
def _group_norm_forward(
    x,
    film,
    weight,
    bias,
    y,
    mean_rstd,
    eps,
    n_positions,
    n_channels,
    group_size,
    has_film: tl.constexpr,
    activate: tl.constexpr,
    positions: tl.constexpr,
    channels: tl.constexpr,
):
    image, channel, is_channel, where, is_there = _places(
        n_positions, n_channels, group_size, positions, channels
    )
    size = n_positions * group_size
    value = tl.load(x + where, mask=is_there, other=0.0).to(tl.float32)
    mean = tl.sum(value) / size
    centred = tl.where(is_there, value - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred) / size + eps)
    result = centred * rstd * tl.load(weight + channel, mask=is_channel, other=0.0)
    result = result + tl.load(bias + channel, mask=is_channel, other=0.0)
    if has_film:
        scale = film + 2 * image * n_channels + channel
        factor = 1.0 + tl.load(scale, mask=is_channel, other=0.0).to(tl.float32)
        shift = tl.load(scale + n_channels, mask=is_channel, other=0.0).to(tl.float32)
        result = result * factor + shift
    if activate:
        result = result * tl.sigmoid(result)
    tl.store(y + where, result.to(y.dtype.element_ty), mask=is_there)
    tl.store(mean_rstd + 2 * tl.program_id(0), mean)
    tl.store(mean_rstd + 2 * tl.program_id(0) + 1, rstd)


@triton.jit
def _group_norm_backward(
    x,
    film,
    weight,
    bias,
    mean_rstd,
    dy,
    dx,
    of_images,
    dfilm,
    n_positions,
    n_channels,
    group_size,
    has_film: tl.constexpr,
    activate: tl.constexpr,
    positions: tl.constexpr,
    channels: tl.constexpr,
):
    image, channel, is_channel, where, is_there = _places(
        n_positions, n_channels, group_size, positions, channels
    )
    size = n_positions * group_size
    value = tl.load(x + where, mask=is_there, other=0.0).to(tl.float32)
    mean = tl.load(mean_rstd + 2 * tl.program_id(0))
    rstd = tl.load(mean_rstd + 2 * tl.program_id(0) + 1)
    x_hat = tl.where(is_there, (value - mean) * rstd, 0.0)
    gain = tl.load(weight + channel, mask=is_channel, other=0.0)
    affine = x_hat * gain + tl.load(bias + channel, mask=is_channel, other=0.0)
    gradient = tl.load(dy + where, mask=is_there, other=0.0).to(tl.float32)
    before_silu = affine
    if has_film:
        scale = 2 * image * n_channels + channel
        factor = 1.0 + tl.load(film + scale, mask=is_channel, other=0.0).to(tl.float32)
        shift = tl.load(film + scale + n_channels, mask=is_channel, other=0.0).to(tl.float32)
        before_silu = affine * factor + shift
    if activate:
        sigmoid = tl.sigmoid(before_silu)
        gradient = gradient * sigmoid * (1.0 + before_silu * (1.0 - sigmoid))
    if has_film:
        dscale = tl.sum(gradient * affine, axis=0, keep_dims=True)
        dshift = tl.sum(gradient, axis=0, keep_dims=True)
        tl.store(dfilm + scale, dscale.to(dfilm.dtype.element_ty), mask=is_channel)
        tl.store(dfilm + scale + n_channels, dshift.to(dfilm.dtype.element_ty), mask=is_channel)
        gradient = gradient * factor
    sums = of_images + 2 * image * n_channels + channel
    tl.store(sums, tl.sum(gradient * x_hat, axis=0, keep_dims=True), mask=is_channel)
    tl.store(sums + n_channels, tl.sum(gradient, axis=0, keep_dims=True), mask=is_channel)
    gradient = gradient * gain
    along, across = tl.sum(gradient * x_hat) / size, tl.sum(gradient) / size
    result = rstd * (gradient - across - x_hat * along)
    tl.store(dx + where, result.to(dx.dtype.element_ty), mask=is_there)
