"""Networks of the classifier: shapes, features, independence of rows, private randomness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_diffult._torch import build, new_generator
from sklearn_diffult.networks.classifiers import CLASSIFIER_NETWORKS, build_classifier
from sklearn_diffult.networks.denoisers import DENOISER_NETWORKS
from sklearn_diffult.networks.mlp_classifier import Dropout, drawing_from

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


@pytest.mark.parametrize("name", ["unet", "unet_large", "resnet"])
def test_a_network_lies_in_memory_as_its_class_wants(name):
    factory = (DENOISER_NETWORKS | CLASSIFIER_NETWORKS)[name]
    built, wanted = (
        build(lambda: factory((3, 28, 28), 4), new_generator(0)),
        factory((3, 28, 28), 4),
    )
    kernels = [each for each in built.parameters() if each.ndim == 4]
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in kernels)
    assert [p.stride() for p in built.parameters()] == [p.stride() for p in wanted.parameters()]


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


def test_the_resnet_draws_nothing_in_training():
    network, rows = _network("resnet", (1, 8, 8)), torch.ones(2, 1, 8, 8)
    torch.testing.assert_close(network.eval()(rows), network.train()(rows), atol=1e-5, rtol=1e-4)


PARTS = {"rows": "dropout", "block 0": "blocks.0.dropout", "block 1": "blocks.1.dropout"}


@pytest.mark.parametrize("kept", PARTS)
def test_the_mlp_drops_values_of_rows_and_inside_of_every_block(kept):
    network = _network("mlp", (5,)).train()
    for block in network.blocks:
        # They start as the identity.
        nn.init.ones_(block.narrow.weight)
    for name, part in network.named_modules():
        if isinstance(part, Dropout) and name != PARTS[kept]:
            part.p = 0.0
    rows = torch.randn(6, 5, generator=new_generator(1))
    with drawing_from(new_generator(2), network):
        assert not torch.equal(network(rows), network.eval()(rows))


def test_the_mlp_drops_values_of_rows_and_features_by_the_same_part():
    network, widths = _network("mlp", (5,)).train(), []
    network.dropout.register_forward_hook(lambda part, inputs, _: widths.append(inputs[0].shape[1]))
    with drawing_from(new_generator(2), network):
        assert (network.features(torch.ones(6, 5)) == 0).any()
    assert widths == [5, network.head.in_features]


def test_dropout_keeps_the_mean_and_draws_from_its_generator_alone():
    dropout, ones = Dropout(0.25).train(), torch.ones(200, 500)
    before = torch.get_rng_state()
    with drawing_from(new_generator(0), dropout):
        dropped = dropout(ones)
    with drawing_from(new_generator(0), dropout):
        assert torch.equal(dropped, dropout(ones))
    assert torch.equal(torch.get_rng_state(), before)
    assert dropout.generator is None
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean() == pytest.approx(1, abs=0.01)
    assert dropout.eval()(ones) is ones


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
