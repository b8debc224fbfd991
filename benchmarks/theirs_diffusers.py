"""diffusers as the benchmark drives it: UNet2DModel and DPMSolverMultistepScheduler.

Training is that of its unconditional-generation example with class labels added: noise prediction,
a cosine schedule of noise, AdamW with warm-up and cosine decay, its EMAModel.
"""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from counting import Flops, count_flops
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from driving import autocast, padded_side, to_pixels

# Channels by resolution as multiples of a width, and layers per resolution, to choose from.
LAYOUTS = (((1, 2), 1), ((1, 2, 2), 1), ((1, 1, 2), 1), ((1, 2, 2), 2), ((1, 2), 2))
WIDTHS = range(16, 129, 8)
# Its example's 1e-4 is for long training.
LEARNING_RATE = 1e-3
WARM_UP = 0.05
N_SOLVER_STEPS = 18


class Diffusers:
    """Train and generate with diffusers.

    `settings` adds ``width``, ``layout``, ``n_layers`` and ``generation_batch``. Sides that its
    poolings do not divide are padded with the lowest value, and cropped from what it generates.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, settings: dict[str, Any]):
        self.settings = settings
        self.low, self.high = (0, 255) if images.dtype == np.uint8 else (images.min(), images.max())
        self.dtype, self.shape = images.dtype, images.shape[1:]
        scaled = 2 * (images.astype(np.float32) - self.low) / (self.high - self.low) - 1
        self.size = padded_side(self.shape[0], len(settings["layout"]))
        padding = self.size - self.shape[0]
        tensor = torch.from_numpy(scaled)[:, None]
        self.images = F.pad(tensor, (0, padding, 0, padding), value=-1.0)
        self.labels = torch.from_numpy(labels)
        self.n_classes = int(labels.max()) + 1
        self.noise = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
        self._build()

    def _build(self) -> None:
        # The package draws from torch's global generator.
        torch.manual_seed(self.settings["seed"])
        self.network = make_network(self.settings, self.size, self.n_classes)

    def train(self, seconds: float, n_steps: float = float("inf")) -> tuple[int, float]:
        """Train afresh until `seconds` or `n_steps` are over; return images seen and seconds."""
        self._build()
        optimizer = torch.optim.AdamW(
            self.network.parameters(), LEARNING_RATE, (0.95, 0.999), weight_decay=1e-6
        )
        average = EMAModel(self.network.parameters(), use_ema_warmup=True, power=0.75)
        self.network.train()
        batch_size, step, started = self.settings["batch_size"], 0, time.perf_counter()
        while step < n_steps and time.perf_counter() - started < seconds:
            share = min(1.0, max((time.perf_counter() - started) / seconds, step / n_steps))
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * rate_factor(share)
            rows = torch.randint(0, len(self.images), (batch_size,))
            clean, times = self.images[rows], torch.randint(0, 1000, (batch_size,))
            noise = torch.randn_like(clean)
            noisy = self.noise.add_noise(clean, noise, times)
            optimizer.zero_grad()
            with autocast(self.settings["precision"]):
                guess = self.network(noisy, times, class_labels=self.labels[rows]).sample
            F.mse_loss(guess.float(), noise).backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimizer.step()
            average.step(self.network.parameters())
            step += 1
        self.average = copy.deepcopy(self.network).eval()
        average.copy_to(self.average.parameters())
        return step * batch_size, time.perf_counter() - started

    def training_speed(self, seconds: float) -> float:
        """Images per second of a training loop of about `seconds`, after a short one."""
        self.train(seconds, n_steps=3)
        n_images, elapsed = self.train(seconds)
        return n_images / elapsed

    @torch.no_grad()
    def sample(self, n_per_class: int, seed: int) -> np.ndarray:
        """Generate images of every class, in the training images' pixels."""
        generator = torch.Generator().manual_seed(seed)
        classes = torch.arange(self.n_classes).repeat_interleave(n_per_class)
        batches = []
        for labels in classes.split(self.settings["generation_batch"]):
            solver = DPMSolverMultistepScheduler.from_config(
                self.noise.config, use_karras_sigmas=True
            )
            solver.set_timesteps(N_SOLVER_STEPS)
            # Its noise levels round to equal time steps, among which it would take the second.
            solver.set_begin_index(0)
            images = torch.randn(len(labels), 1, self.size, self.size, generator=generator)
            images = images * solver.init_noise_sigma
            for moment in solver.timesteps:
                with autocast(self.settings["precision"]):
                    guess = self.average(images, moment, class_labels=labels).sample
                images = solver.step(guess.float(), moment, images).prev_sample
            batches.append(images)
        height, width = self.shape
        unit = (torch.cat(batches)[:, 0, :height, :width].clamp(-1, 1).numpy() + 1) / 2
        return to_pixels(unit, self.low, self.high, self.dtype)

    def save(self, path: Path) -> None:
        torch.save(self.average.state_dict(), path)

    def load(self, path: Path) -> None:
        self.network.load_state_dict(torch.load(path))
        self.average = self.network.eval()

    def network_size(self) -> Flops:
        """Count parameters, and FLOPs of one image."""
        n = self.settings["batch_size"]
        images, times, labels = self.images[:n], torch.arange(n), self.labels[:n]
        call = lambda: self.network(images, times, class_labels=labels).sample  # noqa: E731
        return count_flops(self.network, call, len(images))


def rate_factor(share: float) -> float:
    """Warm up linearly, then fall to 0 as a cosine, by the share of training that is over."""
    if share < WARM_UP:
        return max(share / WARM_UP, 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP)))


def make_network(settings: dict[str, Any], size: int, n_classes: int) -> Any:
    """Build its U-Net, with attention at the lowest resolution."""
    layout = settings["layout"]
    plain = len(layout) - 1
    return UNet2DModel(
        sample_size=size,
        in_channels=1,
        out_channels=1,
        layers_per_block=settings["n_layers"],
        block_out_channels=tuple(settings["width"] * multiple for multiple in layout),
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
        num_class_embeds=n_classes,
        norm_num_groups=8,
    )


def networks_of_size(n_parameters: int, n_classes: int, tolerance: float) -> list[dict[str, Any]]:
    """List the U-Nets, one per layout, with about as many parameters."""
    found = []
    for layout, n_layers in LAYOUTS:
        choices = [{"layout": layout, "n_layers": n_layers, "width": width} for width in WIDTHS]
        sizes = [_count_parameters(choice, n_classes) for choice in choices]
        best = int(np.argmin(np.abs(np.array(sizes) - n_parameters)))
        if abs(sizes[best] - n_parameters) <= tolerance * n_parameters:
            found.append(choices[best] | {"n_parameters": sizes[best]})
    return found


def _count_parameters(choice: dict[str, Any], n_classes: int) -> int:
    with torch.device("meta"):
        network = make_network(choice, 32, n_classes)
    return sum(parameter.numel() for parameter in network.parameters())
