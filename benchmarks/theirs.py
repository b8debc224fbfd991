"""denoising-diffusion-pytorch as the benchmark drives it.

Its class-conditional U-Net and GaussianDiffusion (module ``classifier_free_guidance``), with the
package's own loss (noise prediction, cosine schedule, 1000 steps) and ema-pytorch as its Trainer
sets it. The Trainer itself reads image files and knows no labels, so its step is repeated here,
without its data loader and its ``loss.item()`` at every step.
"""

from __future__ import annotations

import importlib
import sys
import time
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from counting import Flops, count_flops
from driving import autocast, padded_side, to_pixels


def _stub_torchvision() -> None:
    """Stand in for torchvision, which only its Trainer and its FID code use.

    torchvision would have to match this build of torch. The stub takes no memory.
    """
    module = types.ModuleType("torchvision")
    module.__spec__ = ModuleSpec("torchvision", None)
    for attribute in ("transforms", "utils", "models"):
        setattr(module, attribute, None)
    sys.modules["torchvision"] = module


_stub_torchvision()
_package: Any = importlib.import_module("denoising_diffusion_pytorch.classifier_free_guidance")
_ema: Any = importlib.import_module("ema_pytorch")

# Networks to choose from: its default multipliers and shorter ones for small images.
DIM_MULTS = ((1, 2, 4, 8), (1, 2, 4), (1, 2, 2), (1, 2), (1, 1, 2, 2))
DIMS = range(4, 129, 2)
# Its trainer's default is 1e-4, for long training. Of the rates tried (digits 1e-4 to 2e-3,
# Fashion-MNIST 1e-3 to 4e-3) this gave its average the lowest loss on held-out images.
LEARNING_RATE = 2e-3
LABEL_DROPOUT = 0.1


class ConditionalUnet(_package.Unet):
    """Its class-conditional U-Net, able to sample without guidance.

    At ``cond_scale=1`` the package returns one tensor where its caller unpacks two, so sampling
    raises. Its default scale of 6 would cost it two evaluations a step and variety.
    """

    def forward_with_cond_scale(self, *args: Any, cond_scale: float = 1.0, **kwargs: Any) -> Any:
        """Return the prediction with and without label; at scale 1 the latter is not used."""
        if cond_scale != 1:
            return super().forward_with_cond_scale(*args, cond_scale=cond_scale, **kwargs)
        prediction = self.forward(*args, cond_drop_prob=0.0)
        return prediction, prediction


class Theirs:
    """Train and generate with denoising-diffusion-pytorch.

    `settings` adds ``dim``, ``dim_mults`` and ``generation_batch``. Sides that its poolings
    do not divide are padded with the lowest value, and cropped from what it generates.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, settings: dict[str, Any]):
        self.settings = settings
        self.low, self.high = (0, 255) if images.dtype == np.uint8 else (images.min(), images.max())
        self.dtype, self.shape = images.dtype, images.shape[1:]
        unit = (images.astype(np.float32) - self.low) / (self.high - self.low)
        self.size = padded_side(self.shape[0], len(settings["dim_mults"]))
        padding = self.size - self.shape[0]
        self.images = F.pad(torch.from_numpy(unit)[:, None], (0, padding, 0, padding))
        self.labels = torch.from_numpy(labels)
        self.n_classes = int(labels.max()) + 1
        # The package draws from torch's global generator.
        torch.manual_seed(settings["seed"])
        network = ConditionalUnet(
            dim=settings["dim"],
            num_classes=self.n_classes,
            dim_mults=tuple(settings["dim_mults"]),
            channels=1,
            cond_drop_prob=LABEL_DROPOUT,
        )
        self.diffusion = _package.GaussianDiffusion(
            network,
            image_size=self.size,
            sampling_timesteps=settings.get("sampling_timesteps"),
        )

    def train(self, seconds: float, n_steps: float = float("inf")) -> tuple[int, float]:
        """Train until `seconds` or `n_steps` are over; return images seen and seconds taken."""
        optimizer = torch.optim.AdamW(
            self.diffusion.parameters(),
            lr=LEARNING_RATE,
            betas=(0.9, 0.99),
            weight_decay=1e-4,
        )
        average = _ema.EMA(self.diffusion, beta=0.995, update_every=10)
        self.diffusion.train()
        batch_size, step, started = self.settings["batch_size"], 0, time.perf_counter()
        while step < n_steps and time.perf_counter() - started < seconds:
            rows = torch.randint(0, len(self.images), (batch_size,))
            optimizer.zero_grad()
            with autocast(self.settings["precision"]):
                loss = self.diffusion(self.images[rows], classes=self.labels[rows])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.diffusion.parameters(), 1.0)
            optimizer.step()
            average.update()
            step += 1
        self.average = average.ema_model.eval()
        return step * batch_size, time.perf_counter() - started

    def training_speed(self, seconds: float) -> float:
        """Images per second of a training loop of about `seconds`, after a short one."""
        self.train(seconds, n_steps=3)
        n_images, elapsed = self.train(seconds)
        return n_images / elapsed

    @torch.no_grad()
    def generation_speed(self, seconds: float) -> dict[str, float]:
        """Images per second of 1000-step sampling, from its first steps."""
        batch_size = self.settings["generation_batch"]
        classes = torch.arange(batch_size) % self.n_classes
        images = torch.randn(batch_size, 1, self.size, self.size)
        last, n_steps = self.average.num_timesteps - 1, 0
        images = self._step(images, last, classes)
        started = time.perf_counter()
        while n_steps == 0 or (time.perf_counter() - started < seconds and n_steps < last):
            n_steps += 1
            images = self._step(images, last - n_steps, classes)
        per_step = (time.perf_counter() - started) / n_steps
        return {
            "images_per_second": batch_size / (per_step * self.average.num_timesteps),
            "batch_size": batch_size,
            "timed_steps": n_steps,
        }

    def _step(self, images: torch.Tensor, time_step: int, classes: torch.Tensor) -> torch.Tensor:
        with autocast(self.settings["precision"]):
            return self.average.p_sample(images, time_step, classes, 1.0, 0.0)[0]

    @torch.no_grad()
    def sample(self, n_per_class: int, seed: int) -> np.ndarray:
        """Generate images of every class, in the training images' pixels.

        In all 1000 steps, or in the ``sampling_timesteps`` of the settings by its DDIM sampler.
        """
        torch.manual_seed(seed)
        classes = torch.arange(self.n_classes).repeat_interleave(n_per_class)
        batches = []
        for labels in classes.split(self.settings["generation_batch"]):
            with autocast(self.settings["precision"]):
                batches.append(
                    self.average.sample(labels, cond_scale=1.0, rescaled_phi=0.0).float()
                )
        unit = torch.cat(batches)[:, 0, : self.shape[0], : self.shape[1]].clamp(0, 1).numpy()
        return to_pixels(unit, self.low, self.high, self.dtype)

    def save(self, path: Path) -> None:
        torch.save(self.average.state_dict(), path)

    def load(self, path: Path) -> None:
        self.diffusion.load_state_dict(torch.load(path))
        self.average = self.diffusion.eval()

    def network_size(self) -> Flops:
        """Count parameters, and FLOPs of one image."""
        n = self.settings["batch_size"]
        images, times = self.images[:n], torch.arange(n)
        classes, network = self.labels[:n], self.diffusion.model
        return count_flops(network, lambda: network(images, times, classes), len(images))


def networks_of_size(n_parameters: int, n_classes: int, tolerance: float) -> list[dict[str, Any]]:
    """List the U-Nets, one per choice of multipliers, with about as many parameters."""
    found = []
    for dim_mults in DIM_MULTS:
        sizes = {dim: _count_parameters(dim, dim_mults, n_classes) for dim in DIMS}
        dim = min(sizes, key=lambda dim: abs(sizes[dim] - n_parameters))
        if abs(sizes[dim] - n_parameters) <= tolerance * n_parameters:
            found.append({"dim": dim, "dim_mults": dim_mults, "n_parameters": sizes[dim]})
    return found


def _count_parameters(dim: int, dim_mults: tuple[int, ...], n_classes: int) -> int:
    with torch.device("meta"):
        network = ConditionalUnet(dim, n_classes, dim_mults=dim_mults, channels=1)
    return sum(parameter.numel() for parameter in network.parameters())
