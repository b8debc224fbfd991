from __future__ import annotations

import itertools
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklearn_diffult import networks
from sklearn_diffult.networks import norms
from sklearn_diffult.networks.norms import normed

CUDA = torch.device("cuda")

# Images "n c h w", and groups: of 16 channels, of numbers that are no power of two, of one pixel.
SHAPES = [((3, 48, 14, 14), 3), ((2, 128, 28, 28), 8), ((2, 12, 4, 5), 2), ((2, 6, 1, 1), 2)]
# One pixel a side more than a program holds in registers.
TOO_LARGE = (1, 16, 33, 33)


def arguments(shape, n_groups, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(0)

    def draw(*size):
        return torch.randn(*size, generator=generator).to(device)

    norm = nn.GroupNorm(n_groups, shape[1], device=device)
    with torch.no_grad():
        norm.weight.copy_(draw(shape[1]))
        norm.bias.copy_(draw(shape[1]))
    film = 0.3 * draw(shape[0], 2 * shape[1])
    return norm, (3 * draw(*shape) + 2).to(dtype), film.to(dtype)


@pytest.mark.parametrize(("shape", "n_groups"), SHAPES)
def test_scale_and_shift_come_after_the_norm_and_before_the_activation(shape, n_groups):
    norm, x, film = arguments(shape, n_groups)
    scale, shift = film[:, :, None, None].chunk(2, dim=1)
    torch.testing.assert_close(normed(norm, x, film), F.silu(norm(x) * (1 + scale) + shift))
    torch.testing.assert_close(normed(norm, x), F.silu(norm(x)))
    torch.testing.assert_close(normed(norm, x, activate=False), norm(x))


class Fused:
    """Stands in for the kernels, which only CUDA can run."""

    def __init__(self, has_room=True):
        self.has_room = has_room

    def fits(self, x, n_groups):
        return self.has_room

    def normed(self, x, weight, bias, film, n_groups, eps, activate):
        return "fused", None if film is None else film.shape


class Own(nn.GroupNorm):
    def forward(self, x):
        return super().forward(x) + 1


def watched(*arguments):
    norm = nn.GroupNorm(*arguments)
    norm.register_forward_hook(lambda module, inputs, output: None)
    return norm


def test_the_kernels_get_what_fits_and_a_film_for_each_image(monkeypatch):
    norm, x, film = arguments((2, 12, 4, 5), 2)
    monkeypatch.setattr(norms, "_fused", lambda device: Fused())
    assert normed(norm, x) == ("fused", None)
    assert normed(norm, x, film[:1]) == ("fused", film.shape)
    monkeypatch.setattr(norms, "_fused", lambda device: Fused(has_room=False))
    torch.testing.assert_close(normed(norm, x), F.silu(norm(x)))


@pytest.mark.parametrize(
    "norm",
    [watched(2, 12), Own(2, 12), nn.GroupNorm(2, 12, affine=False), nn.BatchNorm2d(12).eval()],
    ids=["watched", "own", "not affine", "another"],
)
def test_a_norm_that_is_not_torch_s_own_or_is_watched_is_called(monkeypatch, norm):
    x = arguments((2, 12, 4, 5), 2)[1]
    monkeypatch.setattr(norms, "_fused", lambda device: Fused())
    torch.testing.assert_close(normed(norm, x, activate=False), norm(x))


@pytest.fixture
def kernels(monkeypatch):
    """Look for the kernels again, then and afterwards; they are what the test says."""
    norms._fused.cache_clear()

    def are(module):
        monkeypatch.setitem(sys.modules, "sklearn_diffult.networks._fused_norm", module)
        monkeypatch.setattr(networks, "_fused_norm", module, raising=False)
        monkeypatch.setattr(torch, "ones", lambda *shape, device: np.ones(shape))

    yield are
    norms._fused.cache_clear()


def test_kernels_are_taken_where_they_run(kernels):
    fused = Fused()
    kernels(fused)
    assert norms._fused(CUDA) is fused
    assert norms._fused(torch.device("cpu")) is None


def test_where_they_cannot_be_built_there_are_none(kernels):
    kernels(Mock(normed=Mock(side_effect=RuntimeError("Failed to find C compiler"))))
    assert norms._fused(CUDA) is None


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
class TestOnCuda:
    """The kernels beside torch's operations in double precision."""

    @pytest.mark.parametrize(("shape", "n_groups"), SHAPES)
    @pytest.mark.parametrize(("has_film", "activate"), itertools.product([True, False], repeat=2))
    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
    )
    @pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
    def test_results_and_gradients(
        self, shape, n_groups, has_film, activate, dtype, tolerance, memory_format
    ):
        assert norms._fused(CUDA) is not None
        norm, x, film = arguments(shape, n_groups, dtype, "cuda")
        x = x.contiguous(memory_format=memory_format)
        assert norms._fused(CUDA).fits(x, n_groups)
        exact = nn.GroupNorm(n_groups, shape[1], device="cuda", dtype=torch.float64)
        exact.load_state_dict(norm.state_dict())
        results = []
        for module, inputs in ((norm, (x, film)), (exact, (x.double(), film.double()))):
            x, film = (each.clone().requires_grad_() for each in inputs)
            y = normed(module, x, film if has_film else None, activate)
            y.backward(torch.linspace(-1, 1, y.numel(), device="cuda").view_as(y).to(y.dtype))
            gradients = [x.grad, module.weight.grad, module.bias.grad]
            results.append([y, *gradients, *([film.grad] if has_film else [])])
        for found, expected in zip(*results, strict=True):
            assert (found - expected).norm() <= tolerance * expected.norm() + 1e-6

    def test_what_is_too_large_goes_to_torch(self):
        norm, x, film = arguments(TOO_LARGE, 1, device="cuda")
        assert not norms._fused(CUDA).fits(x, 1)
        on_cpu = normed(norm.cpu(), x.cpu(), film.cpu())
        torch.testing.assert_close(normed(norm.cuda(), x, film).cpu(), on_cpu)

    def test_second_derivatives(self):
        norm, x, film = arguments((2, 12, 4, 5), 2, device="cuda")
        results = []
        for module in (norm, watched(2, 12).cuda()):
            module.load_state_dict(norm.state_dict())
            x, film = (each.clone().requires_grad_() for each in (x.detach(), film.detach()))
            (slope,) = torch.autograd.grad(
                normed(module, x, film).square().sum(), x, create_graph=True
            )
            inputs = [x, film, module.weight, module.bias]
            results.append(torch.autograd.grad(slope.square().sum(), inputs))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
