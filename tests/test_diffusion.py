"""Diffusion on Gaussian data, where the optimal denoiser and the exact samples are known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sklearn_diffult._torch import build, new_generator
from sklearn_diffult.augmentations import N_CONDITIONS
from sklearn_diffult.diffusion.batches import row_probabilities
from sklearn_diffult.diffusion.denoiser import Denoiser, add_noise, mean_square
from sklearn_diffult.diffusion.ema import ExponentialMovingAverage
from sklearn_diffult.diffusion.generation import GenerationPlan, generate, starting_noise
from sklearn_diffult.diffusion.guidance import guided
from sklearn_diffult.diffusion.regularizers import (
    REGULARIZERS,
    RegularizerInput,
    bottleneck_features,
    cbdm,
    coral,
)
from sklearn_diffult.diffusion.sigma import LogNormalSigma, ddpm_time, sigma_grid
from sklearn_diffult.diffusion.solvers import SOLVERS
from sklearn_diffult.diffusion.trainer import (
    TrainingPlan,
    learning_rate_factor,
    train,
)
from sklearn_diffult.networks.denoisers import DENOISER_NETWORKS
from sklearn_diffult.networks.mlp import MLP
from sklearn_diffult.networks.unet import UNet, _attend

MEAN, DEVIATION = 1.5, 0.5


def optimal_denoiser(x, sigma):
    """E[clean | x] for clean ~ Normal(MEAN, DEVIATION^2)."""
    share = DEVIATION**2 / (DEVIATION**2 + sigma**2)
    return MEAN + share * (x - MEAN)


def exact_sample(x, sigma):
    """Solution at sigma = 0 of the probability-flow ODE through x at sigma."""
    return MEAN + DEVIATION / torch.sqrt(DEVIATION**2 + sigma**2) * (x - MEAN)


def ode_error(solver, n_steps):
    grid = sigma_grid(n_steps, DEVIATION)
    x = MEAN + grid[0] * torch.linspace(-2, 2, 9, dtype=torch.float64)
    found = SOLVERS[solver](optimal_denoiser, x, grid, new_generator(0))
    return float((found - exact_sample(x, grid[0])).abs().max())


@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m"])
def test_ode_solvers_reach_the_exact_sample_of_a_gaussian(solver):
    assert ode_error(solver, 60) < 2e-2


@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m"])
def test_ode_solvers_converge_at_second_order(solver):
    def error(n_steps):
        # A fixed lowest level: the jump from there to 0 is no matter of order.
        grid = sigma_grid(n_steps, DEVIATION, low=0.05, high=20.0)[:-1]
        x = MEAN + grid[0] * torch.linspace(-2, 2, 9, dtype=torch.float64)
        found = SOLVERS[solver](optimal_denoiser, x, grid, new_generator(0))
        # Along the flow, (x - mean) / sqrt(deviation^2 + sigma^2) is constant.
        spread = torch.sqrt((DEVIATION**2 + grid[-1] ** 2) / (DEVIATION**2 + grid[0] ** 2))
        return float((found - (MEAN + spread * (x - MEAN))).abs().max())

    order = math.log2(error(160) / error(320))
    assert order == pytest.approx(2.0, abs=0.15)


def test_ancestral_sampling_yields_the_mean_and_deviation_of_a_gaussian():
    grid = sigma_grid(400, DEVIATION)
    x = grid[0] * torch.randn(40_000, generator=new_generator(1), dtype=torch.float64)
    found = SOLVERS["ddpm"](optimal_denoiser, x, grid, new_generator(2))
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(found.std()) == pytest.approx(DEVIATION, rel=0.02)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_every_solver_returns_a_point_when_the_data_are_one_point(solver):
    grid = sigma_grid(10, DEVIATION)
    x = grid[0] * torch.randn(5, 2, generator=new_generator(0), dtype=torch.float64)
    found = SOLVERS[solver](lambda x, sigma: torch.full_like(x, 3.0), x, grid, new_generator(0))
    assert torch.allclose(found, torch.full_like(x, 3.0))


def test_sigma_grid_falls_from_high_to_low_and_ends_at_zero():
    grid = sigma_grid(7, 0.5)
    assert grid[0] == pytest.approx(80.0)
    assert grid[-2] == pytest.approx(0.002)
    assert grid[-1] == 0
    assert (grid.diff() < 0).all()


def test_training_noise_is_log_normal_around_the_scale_of_the_data():
    noise = LogNormalSigma(sigma_data=2.0)
    drawn = noise.sample(50_000, new_generator(0))
    assert float(drawn.log().mean()) == pytest.approx(-1.2 + math.log(4), abs=0.02)
    assert float(drawn.log().std()) == pytest.approx(1.2, rel=0.02)
    ranks = torch.special.ndtr((drawn.log() + 1.2 - math.log(4)) / 1.2).sort().values
    assert torch.allclose(ranks, torch.linspace(0, 1, len(ranks)), atol=0.01)


def test_ddpm_time_is_the_step_of_a_thousand_at_which_ddpm_has_that_noise():
    kept = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    steps = torch.tensor([1, 10, 100, 300, 500, 800, 1000])
    sigma = ((1 - kept) / kept).sqrt()[steps - 1]
    # Their data lie in [-1, 1], with a standard deviation of 0.5.
    torch.testing.assert_close(
        ddpm_time(sigma * 6, sigma_data=3.0), steps / 1000, atol=4e-3, rtol=0, check_dtype=False
    )
    assert ddpm_time(torch.zeros(1), 0.5) == 0


class Echo(torch.nn.Module):
    """A network that returns its input times a factor, and remembers what it saw."""

    def __init__(self, factor=0.0):
        super().__init__()
        self.factor = factor

    def forward(self, x, noise_level, labels):
        self.seen = (x, noise_level, labels)
        return self.factor * x


@pytest.mark.parametrize("sigma", [0.01, 0.5, 30.0])
def test_preconditioning_gives_the_network_unit_variance_at_every_sigma(sigma):
    network = Echo()
    denoiser = Denoiser(network, sigma_data=0.5, n_classes=2)
    generator = new_generator(0)
    clean = 0.5 * torch.randn(20_000, 1, generator=generator)
    levels = torch.full((20_000,), sigma)
    noisy = add_noise(clean, levels, generator)
    denoiser(noisy, levels, torch.zeros(20_000, dtype=torch.long))
    seen, noise_level, _ = network.seen
    assert float(seen.std()) == pytest.approx(1.0, rel=0.02)
    assert float(noise_level[0]) == pytest.approx(math.log(sigma) / 4)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 30.0])
def test_a_silent_network_is_the_optimal_denoiser_of_centred_gaussian_data(sigma):
    """c_skip alone is the posterior mean for Normal(0, sigma_data^2), so the loss is 1."""
    denoiser = Denoiser(Echo(), sigma_data=0.5, n_classes=2)
    generator = new_generator(0)
    clean = 0.5 * torch.randn(50_000, 1, generator=generator)
    levels = torch.full((50_000,), sigma)
    noisy = add_noise(clean, levels, generator)
    denoised = denoiser(noisy, levels, torch.zeros(50_000, dtype=torch.long))
    assert torch.allclose(denoised, 0.25 / (0.25 + sigma**2) * noisy)
    loss = denoiser.loss_weight(levels) * mean_square(denoised - clean)
    assert float(loss.mean()) == pytest.approx(1.0, rel=0.03)


def test_guidance_extrapolates_inside_the_interval_and_is_plain_outside():
    class ByLabel(torch.nn.Module):
        sigma_data, null_label = 0.5, 7

        def forward(self, noisy, sigma, labels):
            return labels[:, None].to(noisy.dtype).expand_as(noisy)

    labels = torch.tensor([1, 2])
    denoise = guided(ByLabel(), labels, guidance_scale=3.0, interval=(0.4, 4.0))
    x = torch.zeros(2, 1)
    inside, outside = denoise(x, torch.tensor(1.0)), denoise(x, torch.tensor(10.0))
    assert inside.flatten().tolist() == [7 + 3 * (1 - 7), 7 + 3 * (2 - 7)]
    assert outside.flatten().tolist() == [1, 2]
    # The ends belong to it; in float32 these lie beyond.
    denoise = guided(ByLabel(), labels, guidance_scale=3.0, interval=(0.7, 1.2))
    for end in (0.7, 1.2):
        assert torch.equal(denoise(x, torch.tensor(0.5 * end)), inside)


def test_average_halves_an_old_parameter_after_its_half_life():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    average = ExponentialMovingAverage(module, half_life=100)
    average._n_seen = 10**6  # past the shortened half-life of the start
    torch.nn.init.ones_(module.weight)
    for _ in range(10):
        average.update(10)
    assert float(average.module.weight) == pytest.approx(0.5, abs=1e-5)


def test_tempered_sampling_draws_classes_by_the_power_of_their_size():
    labels = torch.tensor([0] * 16 + [1] * 4)
    for temper, share in [(1.0, 16 / 20), (0.5, 4 / 6), (0.0, 0.5)]:
        chances = row_probabilities(labels, 3, temper)
        assert float(chances[:16].sum()) == pytest.approx(share)
        assert float(chances.sum()) == pytest.approx(1.0)


def test_no_class_is_drawn_less_than_the_least_share_or_half_of_an_equal_one():
    labels = torch.tensor([0] * 197 + [1] * 3)
    chances = row_probabilities(labels, 3, 1.0, least_share=0.02)
    # 1.5 % become 2 %, and then all is scaled to 1.
    assert float(chances[197:].sum()) == pytest.approx(0.02 / 1.005)
    assert torch.equal(row_probabilities(labels, 3, 1.0, 0.01), row_probabilities(labels, 3, 1.0))
    many = torch.cat([torch.zeros(1000), torch.arange(1, 100)]).long()
    rare = row_probabilities(many, 100, 1.0, least_share=0.02)[1000:]
    share = 0.5 / 100
    assert rare.tolist() == pytest.approx([share / (1000 / 1099 + 99 * share)] * 99)


def test_learning_rate_rises_to_one_and_falls_to_zero():
    factors = [learning_rate_factor(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.2)
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] < 1e-3
    assert np.all(np.diff(factors[5:]) < 0)


def plan_with(**changes):
    values = {
        "n_steps": 20,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "ema_half_life": 100.0,
        "label_dropout": 0.1,
        "class_temper": 0.5,
        "least_share": 0.0,
        "weight_decay": 1e-4,
        "regularizer": None,
        "regularizer_strength": 1.0,
        "horizontal_flip": False,
        "augmentation": 0.0,
    }
    return TrainingPlan(**{**values, **changes})


def trained(plan, clean=None, labels=None, width=16, seed=3):
    if clean is None:
        clean = torch.randn(64, 2, generator=new_generator(0))
        labels = torch.arange(64) % 2
    network = build(lambda: MLP(clean.shape[1], 2, width=width, n_blocks=1), new_generator(5))
    return train(
        Denoiser(network, 1.0, 2),
        clean,
        labels,
        plan,
        LogNormalSigma(1.0),
        seed=seed,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def parameters_of(result):
    return torch.cat([p.flatten() for p in result.denoiser.parameters()])


class Listener(torch.nn.Module):
    """Predicts next to nothing and keeps what it is told about augmentation."""

    def __init__(self, takes_augmentation):
        super().__init__()
        self.takes_augmentation = takes_augmentation
        self.told = []
        self.constant = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, noise_level, labels, *augmentation):
        self.told.append(augmentation)
        return self.constant * x


@pytest.mark.parametrize(
    ("takes", "probability", "is_told"),
    [(True, 0.5, True), (True, 0.0, False), (False, 0.5, False)],
)
def test_a_network_is_told_of_changes_if_it_listens_and_there_are_any(takes, probability, is_told):
    network = Listener(takes)
    train(
        Denoiser(network, 1.0, 2),
        torch.randn(8, 1, 8, 8, generator=new_generator(0)),
        torch.arange(8) % 2,
        plan_with(n_steps=2, augmentation=probability, regularizer=REGULARIZERS["cbdm"]),
        LogNormalSigma(1.0),
        seed=0,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    told = [augmentation[0] for augmentation in network.told if augmentation]
    # Four calls: two steps, two labels each; both labels of a step see the same changes.
    assert len(told) == (4 if is_told else 0)
    if is_told:
        assert told[0].shape == (32, N_CONDITIONS)
        assert 0.2 < float((told[0] != 0).float().mean()) < 0.8
        assert torch.equal(told[0], told[1])
        assert not torch.equal(told[0], told[2])


def test_the_unet_hears_changes_and_a_change_of_zero_is_none():
    network = build(lambda: UNet((1, 8, 8), 2, width=8), new_generator(0))
    for parameter in network.parameters():  # some start at zero and would hide the difference
        torch.nn.init.normal_(parameter, std=0.1, generator=new_generator(1))
    x, level = torch.randn(2, 1, 8, 8, generator=new_generator(2)), torch.ones(2)
    labels = torch.arange(2)
    plain = network(x, level, labels)
    assert torch.equal(plain, network(x, level, labels, torch.zeros(2, N_CONDITIONS)))
    assert not torch.allclose(plain, network(x, level, labels, torch.ones(2, N_CONDITIONS)))


@pytest.mark.parametrize("name", ["cbdm", "coral"])
def test_a_regulariser_of_strength_zero_equals_plain_training_bit_for_bit(name):
    plain = trained(plan_with())
    regular = trained(plan_with(regularizer=REGULARIZERS[name], regularizer_strength=0.0))
    assert torch.equal(parameters_of(plain), parameters_of(regular))
    assert np.array_equal(plain.loss_curve, regular.loss_curve)


def test_cbdm_penalty_is_the_formula_on_hand_made_predictions():
    class ByLabel(torch.nn.Module):
        null_label = 9

        def forward(self, noisy, sigma, labels, augmentation):
            return labels[:, None].to(noisy.dtype).expand_as(noisy)

        def loss_weight(self, sigma):
            return 2 * torch.ones_like(sigma)

    penalty = cbdm(
        RegularizerInput(
            ByLabel(),
            noisy=torch.zeros(3, 4),
            sigma=torch.ones(3),
            labels=torch.tensor([1, 1, 9]),
            denoised=torch.ones(3, 4),
            other_labels=torch.tensor([1, 4, 4]),
            time=torch.tensor([0.5, 0.5, 0.5]),
        )
    )
    # weight 2, t/T 0.5, squared difference 9, factor 1 + 1/4; no label, no penalty.
    assert penalty.tolist() == [0.0, 2 * 0.5 * 9 * 1.25, 0.0]


def penalty_of_coral(features, labels, time, null_label=9):
    denoiser = SimpleNamespace(null_label=null_label)
    n = len(labels)
    unused = torch.zeros(n)
    return coral(
        RegularizerInput(denoiser, unused, unused, labels, unused, unused, time, features=features)
    )


def test_coral_penalty_is_the_formula_on_orthogonal_classes():
    features = 5 * torch.eye(2)[torch.tensor([0, 0, 1, 1, 0])]
    labels = torch.tensor([0, 0, 1, 1, 9])
    time = torch.tensor([0.0, 0.3, 0.0, 0.6, 0.0])
    # One row of the own class at cosine 1, two of the other at cosine 0; no label, no part.
    surprise = -math.log(math.exp(10) / (math.exp(10) + 2))
    wanted = 0.05 * surprise * torch.tensor([1, math.exp(-1), 1, math.exp(-2), 0])
    wanted *= math.exp(1 / 0.3)
    torch.testing.assert_close(penalty_of_coral(features, labels, time), wanted)


def test_coral_is_finite_where_no_row_has_company():
    for labels in ([0, 1], [9, 9], [0, 9]):
        features = torch.ones(2, 3, requires_grad=True)
        penalty = penalty_of_coral(features, torch.tensor(labels), torch.zeros(2))
        penalty.sum().backward()
        assert penalty.tolist() == [0, 0]
        assert torch.isfinite(features.grad).all()


def test_coral_pulls_the_bottleneck_s_classes_apart():
    clean = torch.randn(200, 2, generator=new_generator(0))
    labels = torch.arange(200) % 2
    same = labels[:, None] == labels
    gaps = []
    for regularizer in (None, coral):
        plan = plan_with(n_steps=500, regularizer=regularizer, regularizer_strength=20.0)
        network = trained(plan, clean, labels, width=32).denoiser.network
        with bottleneck_features(network) as found, torch.no_grad():
            network(clean, torch.full((200,), -1.0), labels)
        directions = F.normalize(found[0], dim=1)
        cosines = directions @ directions.T
        gaps.append(float(cosines[same].mean() - cosines[~same].mean()))
    assert gaps[0] < 0.2
    assert gaps[1] > 0.5


@pytest.mark.parametrize("shape", [(1, 8, 8), (5,)])
def test_the_networks_have_one_vector_a_row_in_their_bottleneck(shape):
    network = DENOISER_NETWORKS["unet" if len(shape) == 3 else "mlp"](shape, 2)
    with bottleneck_features(network) as found:
        network(torch.zeros(3, *shape), torch.zeros(3), torch.zeros(3, dtype=torch.long))
    assert found[0].ndim == 2
    assert len(found[0]) == 3
    assert not network.bottleneck._forward_hooks


def test_coral_says_what_a_network_without_a_bottleneck_lacks():
    with pytest.raises(ValueError, match="attribute `bottleneck`"):
        penalty_of_coral(None, torch.zeros(2), torch.zeros(2))


def test_training_is_repeatable_and_depends_on_its_seed():
    assert torch.equal(parameters_of(trained(plan_with())), parameters_of(trained(plan_with())))
    other = parameters_of(trained(plan_with(), seed=4))
    assert not torch.equal(parameters_of(trained(plan_with())), other)


def test_training_stops_with_advice_when_the_loss_is_not_finite_twice():
    with (
        pytest.warns(UserWarning, match="from step 0 with half the learning rate"),
        pytest.raises(FloatingPointError, match="learning_rate"),
    ):
        trained(plan_with(learning_rate=1e30, n_steps=50))


def test_a_last_step_that_leads_astray_is_not_handed_on():
    def steep(batch):
        # 0, with an infinite slope.
        return torch.sqrt(0 * batch.denoised.square().mean(1))

    with pytest.raises(FloatingPointError, match="no longer finite after step 1"):
        trained(plan_with(n_steps=1, regularizer=steep, regularizer_strength=1.0))


def test_a_trained_model_generates_each_class_where_it_lies():
    """Two Gaussians of known mean and deviation come back, the rare one too."""
    generator = new_generator(0)
    labels = (torch.arange(660) >= 600).long()
    centres = torch.tensor([[-1.0, 0.0], [1.0, 0.5]])
    clean = centres[labels] + 0.2 * torch.randn(660, 2, generator=generator)
    result = trained(
        plan_with(n_steps=600, batch_size=128, ema_half_life=2000.0), clean, labels, width=64
    )
    plan = GenerationPlan(SOLVERS["dpmpp_2m"], 18, 1.0, (0.0, 1.0), 512)
    for label in (0, 1):
        rows = generate(
            result.denoiser,
            np.full(500, label),
            np.arange(500),
            (2,),
            plan,
            seed=1,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        assert torch.allclose(rows.mean(0), centres[label], atol=0.12)
        assert torch.allclose(rows.std(0), torch.tensor([0.2, 0.2]), atol=0.08)


# Rows by class and position -----------------------------------------------------------


def test_starting_noise_is_gaussian_and_depends_on_seed_label_and_position_alone():
    labels, positions = np.repeat([0, 1], 3000), np.tile(np.arange(3000), 2)
    noise = starting_noise(7, labels, positions, (4,))
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, rel=0.02)
    assert len(torch.unique(noise, dim=0)) == 6000
    chosen = np.random.RandomState(0).permutation(6000)[:50]
    again = starting_noise(7, labels[chosen], positions[chosen], (4,))
    assert torch.equal(again, noise[chosen])
    assert not (starting_noise(8, labels, positions, (4,)) == noise).all(1).any()


NETWORKS = {
    "table": ((5,), lambda: MLP(5, 3, width=32, n_blocks=1)),
    "images": ((1, 9, 11), lambda: UNet((1, 9, 11), 3, width=16)),
}


def generated(network, solver, labels, positions, dtype=torch.float32):
    shape, make = NETWORKS[network]
    return generate(
        Denoiser(build(make, new_generator(1)), 1.0, 3).eval(),
        labels,
        positions,
        shape,
        GenerationPlan(SOLVERS[solver], 4, 1.5, (0.4, 4.0), batch_size=16),
        seed=3,
        device=torch.device("cpu"),
        dtype=dtype,
    )


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_does_not_depend_on_what_else_is_asked_for(network, solver, dtype):
    labels, positions = np.repeat([0, 2], 25), np.tile(np.arange(25), 2)
    rows = generated(network, solver, labels, positions, dtype)
    chosen = np.random.RandomState(0).permutation(50)[:21]
    found = generated(network, solver, labels[chosen], positions[chosen], dtype)
    assert torch.equal(found, rows[chosen])


def test_an_ancestral_solver_repeats_a_request_and_never_a_row():
    labels, positions = np.zeros(40, dtype=int), np.arange(40)
    rows = generated("table", "ddpm", labels, positions)
    assert torch.equal(rows, generated("table", "ddpm", labels, positions))
    assert len(torch.unique(rows, dim=0)) == 40
    later = generated("table", "ddpm", labels, positions + 40)
    assert not (later[:, None] == rows).all(-1).any()


def test_attention_is_the_same_with_and_without_gradients():
    parts = torch.randn(3, 2, 4, 9, 8, generator=new_generator(0))
    with torch.no_grad():
        expected = _attend(*parts)
    torch.testing.assert_close(_attend(*parts.requires_grad_()), expected)


@pytest.mark.parametrize("width", [48, 128])
def test_groups_of_norms_have_16_channels_where_these_divide(width):
    network = UNet((1, 16, 16), 3, width=width)
    sizes = {
        norm.num_channels // norm.num_groups
        for norm in network.modules()
        if isinstance(norm, torch.nn.GroupNorm)
    }
    assert sizes == {16}
