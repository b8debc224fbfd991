"""Classifier networks: the table of names, and what a name, a module or a callable builds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn

from sklearn_diffult._fitting import private_global_rng
from sklearn_diffult._torch import build, new_generator
from sklearn_diffult.networks.mlp_classifier import MLPClassifierNetwork, drawing_from
from sklearn_diffult.networks.resnet import ResNet

Factory = Callable[[tuple[int, ...], int], nn.Module]

# name -> (sample_shape, n_classes) -> network. A network maps encoded rows to logits "n classes"
# and offers features(rows), the penultimate features "n f" under its linear head.
CLASSIFIER_NETWORKS: dict[str, Factory] = {"resnet": ResNet, "mlp": MLPClassifierNetwork}


def build_classifier(
    module: str | nn.Module | Factory,
    sample_shape: tuple[int, ...],
    n_classes: int,
    generator: torch.Generator,
) -> nn.Module:
    """Build a network by name, or copy a module or what a callable returns; on the CPU.

    Raises
    ------
    TypeError
        If the callable returns no module.
    ValueError
        If the module's output is not one logit per class.
    """
    if isinstance(module, str):
        name = module
        if name == "auto":
            name = "resnet" if len(sample_shape) == 3 else "mlp"
        factory = CLASSIFIER_NETWORKS[name]
        return build(lambda: factory(sample_shape, n_classes), generator)
    with private_global_rng(generator.initial_seed(), torch.device("cpu")):
        is_module = isinstance(module, nn.Module)
        network = module if is_module else module(sample_shape, n_classes)
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"module must make a torch.nn.Module, but it returned {type(network).__name__}."
            )
        network = copy.deepcopy(network).cpu()
        # Also brings lazy layers to their shape before the optimiser asks for their parameters.
        with torch.no_grad():
            logits = network.eval()(torch.zeros(2, *sample_shape, dtype=torch.float32))
    if tuple(logits.shape) != (2, n_classes):
        raise ValueError(
            f"module must map rows of shape {(2, *sample_shape)} to logits of shape "
            f"{(2, n_classes)}, one per class; it returned {tuple(logits.shape)}."
        )
    return network


def randomness(
    module: str | nn.Module | Factory, network: nn.Module, seed: int, device: torch.device
) -> AbstractContextManager[None]:
    """Keep what `network` draws in training repeatable and private: for dropout and its like.

    The user's own draws from torch's global state, which one thread at a time may seed.
    """
    if isinstance(module, str):
        return drawing_from(new_generator(seed, device), network)
    return private_global_rng(seed, device)
