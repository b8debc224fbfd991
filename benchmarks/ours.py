"""DiffusionBalancer as the benchmark drives it: through its public methods and nothing else."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from counting import Flops, count_flops
from torch import nn

from sklearn_diffult import DiffusionBalancer
from sklearn_diffult.networks.resnet import ResNet

WARM_UP_STEPS = 10


class Ours:
    """Train and generate with a DiffusionBalancer whose network is ``"auto"``."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, settings: dict[str, Any]):
        self.images, self.labels, self.settings = images, labels, settings
        self.balancer = self._new(n_steps=1)

    def _new(self, n_steps: int) -> DiffusionBalancer:
        return DiffusionBalancer(
            n_steps=n_steps,
            batch_size=self.settings["batch_size"],
            precision=self.settings["precision"],
            guidance_scale=1.0,
            network=self.settings.get("network", "auto"),
            device=self.settings.get("device", "cpu"),
            random_state=self.settings["seed"],
        )

    def train(self, n_steps: int) -> tuple[int, float]:
        """Train afresh; return the images seen and the seconds of the whole ``fit``."""
        started = time.perf_counter()
        self.balancer = self._new(n_steps).fit(self.images, self.labels)
        return n_steps * self.settings["batch_size"], time.perf_counter() - started

    def training_speed(self, seconds: float) -> float:
        """Images per second of a training loop of about `seconds`, after a short one."""
        self.train(WARM_UP_STEPS)
        n_steps = seconds * self.balancer.rows_per_second_ / self.settings["batch_size"]
        self.train(max(WARM_UP_STEPS, round(n_steps)))
        return self.balancer.rows_per_second_

    def generation_speed(self, seconds: float) -> dict[str, float]:
        """Images per second of ``generate``, a batch of the balancer's own size at a time."""
        n_rows = 4 * self.settings["batch_size"]
        label = self.balancer.classes_[0]
        self.balancer.generate(n_rows, label)
        started, n_calls = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            self.balancer.generate(n_rows, label)
            n_calls += 1
        speed = n_calls * n_rows / (time.perf_counter() - started)
        return {"images_per_second": speed, "batch_size": n_rows, "timed_calls": n_calls}

    def sample(self, n_per_class: int, seed: int) -> np.ndarray:
        """Generate images of every class, in the pixels of the training images."""
        rows = [
            self.balancer.generate(n_per_class, label, random_state=seed + index)
            for index, label in enumerate(self.balancer.classes_)
        ]
        return np.concatenate(rows)

    def save(self, path: Path) -> None:
        joblib.dump(self.balancer, path)

    def load(self, path: Path) -> None:
        self.balancer = joblib.load(path)

    def network_size(self) -> Flops:
        """Count parameters, and FLOPs of one image."""
        self.train(1)
        # What fit keeps is frozen; a training step has gradients.
        denoiser = copy.deepcopy(self.balancer.denoiser_).requires_grad_(True)
        n = self.settings["batch_size"]
        noisy = torch.randn(n, *self.balancer.image_shape_)
        sigma, labels = torch.rand(n) + 0.1, torch.arange(n) % len(self.balancer.classes_)
        return count_flops(denoiser, lambda: denoiser(noisy, sigma, labels), n)


def narrow_resnet(sample_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Build a classifier with 32 features.

    Covariances of 128 features would be all bias with as few rows as 1000-step sampling affords.
    """
    return ResNet(sample_shape, n_classes, widths=(16, 32, 32))
