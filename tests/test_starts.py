"""Generation that starts from real rows, on Gaussian data, where the solution is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

from sklearn_diffult import DiffusionBalancer
from sklearn_diffult.diffusion.generation import GenerationPlan, generate, starting_noise
from sklearn_diffult.diffusion.solvers import SOLVERS
from sklearn_diffult.diffusion.starts import STARTS, eligible_rows, pick_rows

# Of five, three and one rows.
REAL_LABELS = np.array([0, 1, 0, 2, 0, 1, 0, 1, 0])
REAL = torch.arange(9.0)[:, None] * torch.tensor([[1.0, -1.0]])


class Standard(torch.nn.Module):
    """The optimal denoiser of data that is Normal(0, 1), whatever the class."""

    sigma_data, null_label, network = 1.0, 3, None

    def forward(self, x, sigma, labels):
        return x / (1 + sigma[:, None] ** 2)


def started(kind, level, labels, positions, n_steps=200):
    return generate(
        Standard(),
        labels,
        positions,
        (2,),
        GenerationPlan(SOLVERS["heun"], n_steps, 1.0, (0.0, 1.0), 4, STARTS[kind], level),
        seed=5,
        device=torch.device("cpu"),
        dtype=torch.float32,
        real=(REAL, REAL_LABELS),
    )


@pytest.mark.parametrize("level", [0.01, 1.0, 20.0])
def test_rows_are_the_noised_real_rows_carried_along_the_flow(level):
    labels, positions = np.array([0, 0, 1, 2, 1]), np.array([0, 1, 7, 0, 2])
    picked = pick_rows(STARTS["class"], REAL_LABELS, 5, labels, positions)
    noisy = REAL[picked] + level * starting_noise(5, labels, positions, (2,))
    # Along the flow of a standard normal, x / sqrt(1 + sigma^2) is constant.
    wanted = noisy / np.sqrt(1 + level**2)
    torch.testing.assert_close(
        started("class", level, labels, positions), wanted, rtol=0.01, atol=0.01
    )


def test_a_start_is_drawn_from_the_class_or_from_larger_ones():
    labels, positions = np.repeat([0, 1, 2], 30), np.tile(np.arange(30), 3)
    own = REAL_LABELS[pick_rows(STARTS["class"], REAL_LABELS, 0, labels, positions)]
    assert (own == labels).all()
    head = REAL_LABELS[pick_rows(STARTS["head"], REAL_LABELS, 0, labels, positions)]
    assert set(head[labels == 2]) == {0, 1}
    assert set(head[labels == 1]) == {0}
    assert set(head[labels == 0]) == {0}  # no class is larger


def test_every_real_row_has_its_turn_before_one_comes_again():
    picked = pick_rows(STARTS["class"], REAL_LABELS, 0, np.zeros(10, dtype=int), np.arange(10))
    assert sorted(picked[:5]) == sorted(picked[5:]) == np.flatnonzero(REAL_LABELS == 0).tolist()


def test_a_start_depends_on_seed_class_and_number_alone():
    labels, positions = np.repeat([0, 1], 20), np.tile(np.arange(20), 2)
    picked = pick_rows(STARTS["head"], REAL_LABELS, 3, labels, positions)
    chosen = np.random.RandomState(0).permutation(40)[:7]
    again = pick_rows(STARTS["head"], REAL_LABELS, 3, labels[chosen], positions[chosen])
    assert (again == picked[chosen]).all()
    other = pick_rows(STARTS["head"], REAL_LABELS, 4, labels, positions)
    assert not (other == picked).all()


@pytest.mark.parametrize("eligible", [[], [[0]], [0.5], [-1], [9], [False] * 9, [True] * 8])
def test_a_start_of_your_own_must_name_rows(eligible):
    with pytest.raises(ValueError, match="start returned .* class index 1; it must name"):
        eligible_rows(lambda labels, label: np.array(eligible), REAL_LABELS, 1)


def test_a_start_of_your_own_may_return_a_mask():
    found = eligible_rows(lambda labels, label: labels != label, REAL_LABELS, 0)
    assert found.tolist() == [1, 3, 5, 7]


def rows_from(**parameters):
    X, y = load_iris(return_X_y=True)
    balancer = DiffusionBalancer(
        n_steps=30, d3_max=None, d1_min=0.0, random_state=0, device="cpu", **parameters
    )
    X_resampled, _ = balancer.fit_resample(X[:110], y[:110])
    return balancer, X_resampled[110:]


def test_the_balancer_starts_near_real_rows_and_generate_from_noise():
    balancer, near = rows_from(start="class", start_noise=0.05)
    _, far = rows_from()
    real = load_iris().data[100:110]
    distance = [np.linalg.norm(rows[:, None] - real, axis=2).min(1) for rows in (near, far)]
    assert np.median(distance[0]) < np.median(distance[1]) / 3
    assert np.array_equal(balancer.generate(5, 2), rows_from()[0].generate(5, 2))


def test_a_start_of_your_own_is_used():
    def always_the_first(labels, label):
        return np.array([0])

    _, rows = rows_from(start=always_the_first, start_noise=0.1)
    # A setosa's petals, under a virginica's label.
    assert np.median(rows[:, 2]) < 2
    assert np.median(rows_from()[1][:, 2]) > 2


def test_a_start_is_not_asked_about_classes_that_lack_no_rows():
    def larger(labels, label):
        counts = np.bincount(labels)
        return np.flatnonzero(counts[labels] > counts[label])

    balancer, rows = rows_from(start=larger)
    assert balancer.sampling_strategy_ == {1: 0, 2: 40}
    assert len(rows) == 40


def test_a_bad_start_is_found_before_training(monkeypatch):
    monkeypatch.setattr("sklearn_diffult.stages.train", None)
    with pytest.raises(ValueError, match="start returned"):
        rows_from(start=lambda labels, label: np.array([10_000]))


def test_a_level_next_to_the_start_is_not_visited():
    visited = []

    def solver(denoise, x, grid, generator):
        visited.append(grid)
        return x

    rows_from(start="class", start_noise=0.7, n_solver_steps=14, solver=solver)
    del visited[0]  # a trial before training
    # Among 14 levels there is one of 0.698.
    assert visited[0][0] == pytest.approx(0.7)
    assert all(grid[1] < 0.9 * grid[0] for grid in visited)
