"""Networks of the classifier: shapes, features, independence of rows, private randomness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_diffult._torch import new_generator
from sklearn_diffult.networks.classifiers import CLASSIFIER_NETWORKS, build_classifier

SHAPES = [(1, 8, 8), (3, 9, 13), (4, 28, 28), (1, 17, 64)]


def _network(name, shape, n_classes=3, seed=0):
    return build_classifier(name, shape, n_classes, new_generator(seed))


@pytest.mark.parametrize("name", sorted(CLASSIFIER_NETWORKS))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_rows", [1, 5])
def test_images_of_any_shape_become_features_and_their_linear_head_logits(name, shape, n_rows):
    network = _network(name, shape).eval()
    rows = torch.randn(n_rows, *shape, generator=new_generator(1))
    features = network.features(rows)
    assert features.shape == (n_rows, network.head.in_features)
    assert network(rows).shape == (n_rows, 3)
    torch.testing.assert_close(network(rows), features @ network.head.weight.T + network.head.bias)


def test_the_table_network_takes_a_single_column():
    assert _network("mlp", (1,))(torch.zeros(2, 1)).shape == (2, 3)


def test_auto_takes_the_resnet_for_images_and_the_mlp_for_tables():
    assert type(_network("auto", (1, 8, 8))) is CLASSIFIER_NETWORKS["resnet"]
    assert type(_network("auto", (5,))) is CLASSIFIER_NETWORKS["mlp"]


def test_the_resnet_refuses_tables_and_names_the_mlp():
    with pytest.raises(ValueError, match="module='mlp'"):
        _network("resnet", (5,))


@pytest.mark.parametrize("name", sorted(CLASSIFIER_NETWORKS))
def test_a_row_is_the_same_alone_and_among_others(name):
    network = _network(name, (1, 8, 8)).eval()
    rows = torch.randn(6, 1, 8, 8, generator=new_generator(1))
    alone = torch.cat([network(row[None]) for row in rows])
    torch.testing.assert_close(alone, network(rows), atol=1e-5, rtol=1e-4)


def test_a_row_is_the_same_in_training_mode_but_for_dropout():
    rows = torch.randn(6, 1, 8, 8, generator=new_generator(1))
    resnet, mlp = _network("resnet", (1, 8, 8)), _network("mlp", (1, 8, 8))
    torch.testing.assert_close(resnet.eval()(rows), resnet.train()(rows), atol=1e-5, rtol=1e-4)
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(mlp.eval()(rows), mlp.train()(rows))
    for part in mlp.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    torch.testing.assert_close(mlp.eval()(rows), mlp.train()(rows))


@pytest.mark.parametrize("name", sorted(CLASSIFIER_NETWORKS))
@pytest.mark.parametrize("shape", SHAPES)
def test_every_parameter_gets_a_gradient_after_the_first_step(name, shape):
    network = _network(name, shape)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    rows = torch.randn(4, *shape, generator=new_generator(1))
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(rows), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    without = [key for key, p in network.named_parameters() if not p.grad.abs().sum() > 0]
    assert not without


@pytest.mark.parametrize("name", sorted(CLASSIFIER_NETWORKS))
def test_parameters_come_from_the_generator_alone(name, global_state_kept):
    first, again, other = (_network(name, (1, 8, 8), seed=seed) for seed in (0, 0, 1))
    for one, two in zip(first.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_the_resnet_has_a_few_hundred_thousand_parameters():
    count = sum(p.numel() for p in _network("resnet", (3, 32, 32), 10).parameters())
    assert 100_000 < count < 500_000


def test_a_callable_is_built_from_its_own_seed_and_global_state_is_kept(global_state_kept):
    def factory(sample_shape, n_classes):
        return nn.Linear(int(np.prod(sample_shape)), n_classes)

    first, again, other = (
        build_classifier(factory, (4,), 3, new_generator(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_a_module_is_copied():
    module = nn.Linear(4, 3)
    network = build_classifier(module, (4,), 3, new_generator(0))
    assert network is not module
    assert torch.equal(network.weight, module.weight)
    assert network.weight.data_ptr() != module.weight.data_ptr()


def test_a_callable_that_makes_no_module_is_refused():
    with pytest.raises(TypeError, match=r"must make a torch\.nn\.Module, but it returned str"):
        build_classifier(lambda shape, n: "net", (4,), 3, new_generator(0))


def test_a_module_with_the_wrong_number_of_logits_is_refused():
    with pytest.raises(ValueError, match=r"logits of shape \(2, 3\).*returned \(2, 5\)"):
        build_classifier(nn.Linear(4, 5), (4,), 3, new_generator(0))
