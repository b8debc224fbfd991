"""One measurement in a process of its own: ``python cases.py '{"case": "train", ...}'``.

`throughput.py` starts these and reads the JSON on their last line. Every case has its own process
so that the peak memory it reports is its own. Libraries are imported inside the cases: what one
side never loads must not count as its memory.
"""

from __future__ import annotations

import importlib
import json
import platform
import resource
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np
import torch

Reply = dict[str, Any]
Request = dict[str, Any]

SIDES = {
    "ours": ("ours", "Ours"),
    "theirs": ("theirs", "Theirs"),
    "diffusers": ("theirs_diffusers", "Diffusers"),
}
# Imported by scikit-learn and imbalanced-learn where they are installed, but no requirement of
# either side: a development environment must not count as memory of the library.
NOT_REQUIRED = ("pandas", "pytest")
EVALUATOR_STEPS = {"digits": 1500, "fashion": 2000}
MAX_FASHION_ROWS = 10_000
GENERATION_BATCHES = (16, 64, 256)


class RequiredPackages(PathFinder):
    """Python's search for modules, blind to the packages of NOT_REQUIRED."""

    @classmethod
    def find_spec(cls, name: str, *args: Any) -> Any:
        """Find a module as Python does, or None."""
        return None if name in NOT_REQUIRED else super().find_spec(name, *args)


def peak_memory() -> int:
    """Peak resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def prepare(request: Request) -> Reply:
    """Split a data set by class into rows for the generators, the evaluator, and the reference."""
    import joblib
    from ours import narrow_resnet

    from sklearn_diffult import WeightedTorchClassifier

    rows, evaluator_rows, reference = _load(request["dataset"], request["seed"])
    evaluator = WeightedTorchClassifier(
        narrow_resnet,
        n_steps=max(1, int(EVALUATOR_STEPS[request["dataset"]] * request["scale"])),
        augment=None,
        device="cpu",
        random_state=request["seed"],
    ).fit(*evaluator_rows)
    folder = Path(request["folder"])
    np.savez(folder / "rows.npz", images=rows[0], labels=rows[1])
    np.savez(folder / "reference.npz", images=reference[0], labels=reference[1])
    joblib.dump(evaluator, folder / "evaluator.joblib")
    return {
        "n_rows": len(rows[0]),
        "n_evaluator_rows": len(evaluator_rows[0]),
        "n_reference_rows": len(reference[0]),
        "evaluator_accuracy": float(evaluator.score(*reference)),
    }


def _load(dataset: str, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from sklearn_diffult.datasets import load_fashion_mnist

    def split(images: np.ndarray, labels: np.ndarray, share: float) -> list[Any]:
        first, second, y_first, y_second = train_test_split(
            images, labels, train_size=share, stratify=labels, random_state=seed
        )
        return [(first, y_first), (second, y_second)]

    if dataset == "digits":
        images, labels = load_digits(return_X_y=True)
        rows, others = split(images.reshape(-1, 8, 8).astype(np.float32), labels, 0.4)
        return [rows, *split(*others, 0.5)]
    images, labels, test_images, test_labels = load_fashion_mnist()
    rows, evaluator_rows = split(images, labels.astype(np.int64), 0.5)
    few, _ = split(*rows, MAX_FASHION_ROWS / len(rows[0]))
    few_others, _ = split(*evaluator_rows, MAX_FASHION_ROWS / len(evaluator_rows[0]))
    return [few, few_others, (test_images, test_labels.astype(np.int64))]


def measure_machine(request: Request) -> Reply:
    """Peak FLOP/s in the precision that both sides will use, and what this machine is."""
    from importlib.metadata import version

    from counting import measure_peak

    from sklearn_diffult._torch import resolve_precision

    dtype = resolve_precision(request["precision"], torch.device("cpu"), is_image=True)
    speeds = measure_peak(request["seconds"], dtype)
    packages = ["torch", "numpy", "scikit-learn", "denoising-diffusion-pytorch", "ema-pytorch"]
    packages += request.get("further_packages", [])
    return {
        "flops_per_second": max(speeds.values()),
        "by_kernel": speeds,
        "precision": str(dtype).removeprefix("torch."),
        "cpu": cpu_name(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
    }


def cpu_name() -> str:
    """Name the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def match(request: Request) -> Reply:
    """Count what one image costs both sides, and time their networks of our size in training."""
    ours = _side(request, "ours").network_size()
    return {"ours": vars(ours), "candidates": _candidates(request, "theirs", ours.n_parameters)}


def match_all(request: Request) -> Reply:
    """Do the same for every other side."""
    ours = _side(request, "ours").network_size()
    others = [name for name in SIDES if name != "ours"]
    found = {name: _candidates(request, name, ours.n_parameters) for name in others}
    return {"ours": vars(ours)} | found


def _candidates(request: Request, name: str, n_parameters: int) -> list[Reply]:
    n_classes = int(_rows(request)[1].max()) + 1
    module = importlib.import_module(SIDES[name][0])
    candidates = module.networks_of_size(n_parameters, n_classes, request["tolerance"])
    if not candidates:
        raise ValueError(f"no network of {name} has about {n_parameters} parameters")
    for candidate in candidates:
        side = _side(request | candidate, name)
        candidate["flops"] = vars(side.network_size())
        candidate["images_per_second"] = side.training_speed(request["seconds"] / 2)
    return candidates


def try_batches(request: Request) -> Reply:
    """Time their generation at several batch sizes: image size and caches decide which is best."""
    timings = []
    for batch in GENERATION_BATCHES:
        side = _side(request | {"generation_batch": batch}, "theirs")
        side.train(request["seconds"], n_steps=1)
        timings.append(side.generation_speed(request["seconds"] / 2))
    return {"timings": timings}


def train(request: Request) -> Reply:
    """Training speed and memory; leaves the model for `generate`."""
    side = _side(request, request["side"])
    baseline = peak_memory()
    speed = side.training_speed(request["seconds"])
    reply = {"images_per_second": speed} | _memory(baseline)
    side.save(Path(request["folder"]) / f"{request['side']}.model")
    return reply


def generate(request: Request) -> Reply:
    """Generation speed and memory of the model that `train` left."""
    side = _side(request, request["side"])
    baseline = peak_memory()
    side.load(Path(request["folder"]) / f"{request['side']}.model")
    return side.generation_speed(request["seconds"]) | _memory(baseline)


def train_for_quality(request: Request) -> Reply:
    """Train afresh: ours a number of steps, theirs as many seconds as that took."""
    side = _side(request, request["side"])
    if request["side"] == "ours":
        n_images, seconds = side.train(request["n_steps"])
    else:
        n_images, seconds = side.train(request["seconds"])
    side.save(Path(request["folder"]) / f"{request['side']}.model")
    return {"n_images": n_images, "seconds": seconds}


def sample_and_score(request: Request) -> Reply:
    """Frechet distance of draws of the model that `train_for_quality` left, and their time."""
    import time

    from sklearn_diffult.metrics import frechet_distance

    evaluate, reference = _evaluator(request)
    side = _side(request, request["side"])
    side.load(Path(request["folder"]) / f"{request['side']}.model")
    distances, seconds = [], []
    for draw in range(request["n_draws"]):
        started = time.perf_counter()
        rows = side.sample(request["n_per_class"], seed=1000 * draw + request["seed"])
        seconds.append(time.perf_counter() - started)
        distances.append(frechet_distance(evaluate(rows), reference))
    return {"frechet_distances": distances, "seconds_per_draw": seconds, "n_images": len(rows)}


def time_to_quality(request: Request) -> Reply:
    """Train and generate within a budget of seconds; Frechet distance of what came out."""
    import time

    from sklearn_diffult.metrics import frechet_distance

    evaluate, reference = _evaluator(request)
    side = _side(request, request["side"])
    n_classes = int(_rows(request)[1].max()) + 1
    n_per_class = request["n_images"] // n_classes
    speed = side.training_speed(request["seconds"])
    # A batch first, as the first call is slower; then as many images as fill some batches.
    n_probe = min(n_per_class, 26)
    side.sample(n_probe, seed=0)
    started = time.perf_counter()
    side.sample(n_probe, seed=0)
    per_image = (time.perf_counter() - started) / (n_probe * n_classes)
    budget = request["budget"]
    left = max(budget / 2, budget - per_image * n_per_class * n_classes)
    started = time.perf_counter()
    if request["side"] == "ours":
        n_seen, _ = side.train(max(1, round(left * speed / request["batch_size"])))
    else:
        n_seen, _ = side.train(left)
    trained = time.perf_counter()
    rows = side.sample(n_per_class, seed=request["seed"])
    return {
        "training_seconds": trained - started,
        "training_images": n_seen,
        "generation_seconds": time.perf_counter() - trained,
        "n_images": len(rows),
        "frechet_distance": frechet_distance(evaluate(rows), reference),
    }


def score_real(request: Request) -> Reply:
    """Frechet distance of as many real training rows: what a perfect generator would get."""
    from sklearn_diffult.metrics import frechet_distance

    evaluate, reference = _evaluator(request)
    images, labels = _rows(request)
    rng = np.random.default_rng(request["seed"])
    distances = []
    for _ in range(request["n_draws"]):
        chosen = np.concatenate(
            [
                rng.permutation(np.flatnonzero(labels == label))[: request["n_per_class"]]
                for label in np.unique(labels)
            ]
        )
        distances.append(frechet_distance(evaluate(images[chosen]), reference))
    return {"frechet_distances": distances}


def _evaluator(request: Request) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    import joblib

    folder = Path(request["folder"])
    evaluator = joblib.load(folder / "evaluator.joblib")
    return evaluator.embed, evaluator.embed(np.load(folder / "reference.npz")["images"])


def _rows(request: Request) -> tuple[np.ndarray, np.ndarray]:
    rows = np.load(Path(request["folder"]) / "rows.npz")
    return rows["images"], rows["labels"]


def _side(request: Request, name: str) -> Any:
    module, side = SIDES[name]
    return getattr(importlib.import_module(module), side)(*_rows(request), request)


def _memory(baseline: int) -> Reply:
    """Peak memory, and its growth over what imports and data alone had taken."""
    peak = peak_memory()
    return {"peak_bytes": peak, "growth_bytes": peak - baseline}


CASES: dict[str, Callable[[Request], Reply]] = {
    case.__name__: case
    for case in (
        prepare,
        measure_machine,
        match,
        match_all,
        try_batches,
        train,
        generate,
        train_for_quality,
        sample_and_score,
        time_to_quality,
        score_real,
    )
}

if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    sys.meta_path[sys.meta_path.index(PathFinder)] = RequiredPackages
    torch.set_num_threads(request["threads"])
    print(json.dumps(CASES[request["case"]](request)))
