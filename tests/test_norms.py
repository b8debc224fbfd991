from __future__ import annotations

import itertools
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklearn_diffult.networks import norms
from sklearn_diffult.networks.norms import normed

# Images "n c h w", and groups: of 16 channels, of numbers that are no power of two, of one pixel.
SHAPES = [((3, 48, 14, 14), 3), ((2, 128, 28, 28), 8), ((2, 12, 4, 5), 2), ((2, 6, 1, 1), 2)]
# Beyond what a program holds in registers; one number short of it would be 2 ** 14.
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


@pytest.fixture
def anew():
    """Look for Triton again, then and afterwards."""
    norms._fused.cache_clear()
    yield
    norms._fused.cache_clear()


@pytest.mark.usefixtures("anew")
def test_without_triton_there_is_no_fused_kernel(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn_diffult.networks._fused_norm", None)
    assert norms._fused() is None


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
class TestOnCuda:
    """The kernels beside torch's operations in double precision."""

    @pytest.mark.parametrize(("shape", "n_groups"), SHAPES)
    @pytest.mark.parametrize(("has_film", "activate"), itertools.product([True, False], repeat=2))
    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
    )
    def test_results_and_gradients(self, shape, n_groups, has_film, activate, dtype, tolerance):
        assert norms._fused() is not None
        norm, x, film = arguments(shape, n_groups, dtype, "cuda")
        assert norms._fused().fits(x, n_groups)
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
        assert not norms._fused().fits(x, 1)
        on_cpu = normed(norm.cpu(), x.cpu(), film.cpu())
        torch.testing.assert_close(normed(norm.cuda(), x, film).cpu(), on_cpu)
