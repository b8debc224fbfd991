"""How close training comes to what this machine can do, and where the rest of the time goes.

    python benchmarks/training_profile.py                   # Fashion-MNIST, 28x28: two minutes
    python benchmarks/training_profile.py --data digits
    python benchmarks/training_profile.py --device cuda --network unet_large

Three speeds in one process, in the precision that `DiffusionBalancer` takes by itself: its whole
training loop; the convolutions and linear layers of a step alone, each on a tensor of the shape
that it gets there, forward and backward; and the best of large matrix products and a convolution.
They take turns, so that a slow minute hits all three. The profile is torch's, by kind of operation.
A CPU without bfloat16 trains in float32, which its results' names tell.
On CUDA the layers are recorded, as training is, so that the CPU's launches do not count.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benefit import RESULTS, machine, make_task
from counting import measure_peak, wait_for
from ours import Ours
from report import publish
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from sklearn_diffult._recording import Recorded
from sklearn_diffult._torch import resolve_precision

IMBALANCE_RATIO = {"digits": 20, "fashion-mnist": 100}
BATCH_SIZE = 64
PASSES = 20
WARM_UP_CALLS = 5
PROFILED_STEPS = 20
# Kinds of operations by what torch's names of them hold; the first that fits counts.
KINDS = {
    "convolutions and matrix products": ("convolution", "mm", "linear", "matmul"),
    "attention": ("attention",),
    "norms": ("norm",),
    "activations": ("silu",),
    "optimiser and parameter average": ("adam", "foreach"),
    "casts, copies and layout": ("copy", "_to_", "clone", "cat", "index", "pad", "grid"),
}
# CUDA's kernels have names of their own.
KERNELS = {
    "convolutions and matrix products": (
        "conv",
        "gemm",
        "dgrad",
        "wgrad",
        "fprop",
        "xmma",
        "nvjet",
    ),
    "norms": ("group_norm", "RowwiseMoments", "GroupNorm"),
    "optimiser and parameter average": ("multi_tensor",),
    "casts, copies and layout": ("copy", "CatArray", "Memcpy", "Memset", "index"),
    "sums": ("reduce",),
    "activations, scales and shifts": ("elementwise",),
}
OTHER = "all else"


def kind_of(name: str, kinds: dict[str, tuple[str, ...]] = KINDS) -> str:
    """Kind of an operation by its name, such as "aten::mkldnn_convolution"."""
    fits = (kind for kind, parts in kinds.items() if any(part in name for part in parts))
    return next(fits, OTHER)


def layers_and_inputs(
    network: nn.Module, call: Callable[[], Any]
) -> list[tuple[nn.Module, Tensor]]:
    """Convolutions and linear layers that `call` runs, each with random numbers of its input."""
    found: list[tuple[nn.Module, Tensor]] = []

    def remember(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append((layer, torch.randn_like(inputs[0])))

    layers = [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(remember) for layer in layers]
    with torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return found


def seconds_alone(layers: list[tuple[nn.Module, Tensor]], dtype: torch.dtype) -> float:
    """Median time of a forward and backward pass of each layer, to its inputs and parameters."""
    alone = [
        (copy.deepcopy(layer).to(dtype), inputs.to(dtype).requires_grad_(True))
        for layer, inputs in layers
    ]
    gradients = [torch.ones_like(layer(inputs)) for layer, inputs in alone]
    device = gradients[0].device

    def both_ways() -> Tensor:
        for (layer, inputs), gradient in zip(alone, gradients, strict=True):
            layer.zero_grad()
            inputs.grad = None
            layer(inputs).backward(gradient)
        # What is recorded returns a tensor.
        return gradients[0][:1]

    # The layers' tensors are not among its inputs, so that none is copied.
    call = Recorded(both_ways, device, is_recordable=True)
    for _ in range(WARM_UP_CALLS):
        call()
    seconds = []
    for _ in range(PASSES):
        wait_for(device.type)
        started = time.perf_counter()
        call()
        wait_for(device.type)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def measure(
    data: str, seconds: float, repetitions: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Measure all three speeds in turns, and the profile."""
    task = make_task(data, IMBALANCE_RATIO[data], 0, hold_out=False)
    device, n_rows = settings["device"], settings["batch_size"]
    side = Ours(task.X, task.y, {"precision": "auto", "seed": 0} | settings)
    size = side.network_size()
    dtype = resolve_precision("auto", torch.device(device), is_image=True)
    denoiser = copy.deepcopy(side.balancer.denoiser_).requires_grad_(True).to(device)
    noisy = torch.randn(n_rows, *side.balancer.image_shape_, device=device)
    levels = torch.rand(n_rows, device=device) + 0.1
    labels = torch.arange(n_rows, device=device) % 10
    layers = layers_and_inputs(denoiser, lambda: denoiser(noisy, levels, labels))
    runs = []
    for _ in range(repetitions):
        speed = side.training_speed(seconds)
        alone = seconds_alone(layers, dtype)
        peak = measure_peak(seconds, dtype, device)
        runs.append(
            {
                "images_per_second": speed,
                "flops_per_second": speed * size.training,
                "flops_per_second_of_layers_alone": n_rows * size.training / alone,
                "peak_flops_per_second": peak,
            }
        )
    return (
        {
            "data": data,
            "batch_size": n_rows,
            "network": vars(size),
            "precision": str(dtype).removeprefix("torch."),
            "runs": runs,
            "profile": time_by_kind(lambda: side.train(PROFILED_STEPS), device),
        }
        | machine()
        | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})
    )


def time_by_kind(work: Callable[[], Any], device: str) -> dict[str, float]:
    """Share of each kind of operation in the time, on CUDA of its kernels in the GPU's."""
    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
    with profile(activities=activities) as profiled:
        work()
    kinds: Counter[str] = Counter()
    for event in profiled.key_averages():
        kind = kind_of(event.key, KERNELS if on_gpu else KINDS)
        kinds[kind] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    return {kind: count / kinds.total() for kind, count in kinds.most_common()}


def table(record: dict[str, Any]) -> str:
    """Write speeds, shares and profile."""
    lines = [
        f"{record['data']}, {record['network']['n_parameters']:,} parameters, "
        f"{record['network']['training'] / 1e6:.0f} MFLOP an image, batches of "
        f"{record['batch_size']}, {record['precision']}. "
        f"{record.get('gpu', record['cpu'])}, {record['threads']} threads, torch "
        f"{record['torch']}, {record['date']}.",
        "",
        "| images/s | GFLOP/s in training | of its layers alone | of large products "
        "| training over its layers | over large products |",
        "|---|---|---|---|---|---|",
    ]
    for run in record["runs"]:
        reached, alone = run["flops_per_second"], run["flops_per_second_of_layers_alone"]
        peak = max(run["peak_flops_per_second"].values())
        lines.append(
            f"| {run['images_per_second']:.0f} | {reached / 1e9:.0f} | {alone / 1e9:.0f} "
            f"| {peak / 1e9:.0f} | {reached / alone:.0%} | {reached / peak:.0%} |"
        )
    lines += ["", "| kind of operation | share of the time |", "|---|---|"]
    lines += [f"| {kind} | {share:.1%} |" for kind, share in record["profile"].items()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Measure, write the record and print the tables."""
    parser = argparse.ArgumentParser(description="Speed of training beside that of its layers.")
    parser.add_argument("--data", choices=sorted(IMBALANCE_RATIO), default="fashion-mnist")
    parser.add_argument("--seconds", type=float, default=10.0, help="per speed and repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--network", choices=("auto", "unet_large"), default="auto")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    chosen = parser.parse_args(arguments)
    names = ("device", "network", "batch_size")
    settings = {name: getattr(chosen, name) for name in names}
    record = measure(chosen.data, chosen.seconds, chosen.repetitions, settings)
    others = [str(settings[name]) for name in names if settings[name] != parser.get_default(name)]
    if record["precision"] != "bfloat16":
        others.append(record["precision"])
    path = RESULTS / f"{'_'.join(['training_profile', chosen.data, *others])}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    publish(path, "training_profile.py", arguments, table(record))


if __name__ == "__main__":
    main(sys.argv[1:])
