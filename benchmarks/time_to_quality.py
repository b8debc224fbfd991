"""Frechet distance after equal wall-clock for training plus 7,500 images, three libraries.

    python benchmarks/time_to_quality.py --threads 1              # digits: half an hour
    python benchmarks/time_to_quality.py --datasets fashion       # 28x28: hours

DiffusionBalancer, denoising-diffusion-pytorch (its DDIM sampler) and diffusers (UNet2DModel,
DPMSolverMultistepScheduler) with networks of about as many parameters. Each first measures how
fast it trains and generates, keeps back the time that generating takes, though never more than half
of the budget, and trains for the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from throughput import HERE, NAMES, fastest, markdown_table, number, run_case, say

Record = dict[str, Any]

LIBRARIES = {
    "ours": "DiffusionBalancer",
    "theirs": "denoising-diffusion-pytorch",
    "diffusers": "diffusers",
}
# Seconds for training and generation together.
BUDGETS = {"digits": 150, "fashion": 1500}
N_IMAGES = 7_500
# Of the other sides, a network may differ from ours by this share of parameters.
TOLERANCE = 0.1
GENERATION_BATCH = 64
# Steps of denoising-diffusion-pytorch's DDIM sampler; fewer leave visible noise.
DDIM_STEPS = 25


def compare(dataset: str, options: argparse.Namespace, precision: str) -> Record:
    """Measure all libraries on one data set, seed after seed."""
    budget = options.budget or BUDGETS[dataset]
    runs = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            base = {
                "dataset": dataset,
                "folder": folder,
                "seed": seed,
                "batch_size": 64,
                "precision": precision,
                "seconds": options.probe,
                "generation_batch": GENERATION_BATCH,
                "sampling_timesteps": DDIM_STEPS,
            }
            run_case("prepare", base | {"scale": options.evaluator_scale}, options.threads)
            sizes = run_case("match_all", base | {"tolerance": TOLERANCE}, options.threads)
            run: Record = {"seed": seed, "sizes": {"ours": sizes["ours"]}}
            for side in LIBRARIES:
                request = base | {"side": side, "budget": budget, "n_images": options.images}
                if side != "ours":
                    chosen = fastest(sizes[side])
                    run["sizes"][side] = chosen
                    request |= chosen
                run[side] = run_case("time_to_quality", request, options.threads)
                say(
                    f"{dataset}, seed {seed}: {LIBRARIES[side]:<28} "
                    f"distance {number(run[side]['frechet_distance'])}, "
                    f"{run[side]['training_seconds']:.0f} s of training, "
                    f"{run[side]['generation_seconds']:.0f} s of generation"
                )
            runs.append(run)
    return {"budget": budget, "runs": runs}


def markdown(report: Record) -> str:
    """Write the report as Markdown."""
    machine = report["machine"]
    lines = [
        "# Time to quality",
        f"`{report['command']}`",
        f"{report['date']}, {report['minutes']:.0f} minutes. {machine['cpu']}, "
        f"{report['threads']} threads, {machine['precision']}. "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
    ]
    for dataset, result in report["datasets"].items():
        lines += [
            f"## {NAMES[dataset]}: {result['budget']:g} s for training and "
            f"{report['images']:,} images",
            _table(result["runs"]),
        ]
    return "\n\n".join(lines) + "\n"


def _table(runs: list[Record]) -> str:
    ours = [run["ours"]["frechet_distance"] for run in runs]
    rows = []
    for side, name in LIBRARIES.items():
        distances = [run[side]["frechet_distance"] for run in runs]
        ratios = [a / b for a, b in zip(ours, distances, strict=True)]
        spread = f" ± {stdev(distances):.2g}" if len(distances) > 1 else ""
        rows.append(
            (
                name,
                f"{runs[0]['sizes'][side]['n_parameters']:,}",
                number(mean(run[side]["training_seconds"] for run in runs)),
                number(mean(run[side]["training_images"] for run in runs)),
                number(mean(run[side]["generation_seconds"] for run in runs)),
                number(mean(distances)) + spread,
                "" if side == "ours" else " ".join(map(number, ratios)),
            )
        )
    header = (
        "",
        "parameters",
        "s of training",
        "images seen",
        "s of generation",
        "Frechet distance",
        "ours over this, by seed",
    )
    return markdown_table(header, rows)


def main() -> None:
    """Run the comparison and write the report."""
    parser = argparse.ArgumentParser(description="Time to quality, beside two libraries.")
    parser.add_argument("--datasets", nargs="+", choices=list(BUDGETS), default=["digits"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=float, help="seconds; default by data set")
    parser.add_argument("--images", type=int, default=N_IMAGES)
    parser.add_argument("--probe", type=float, default=6.0, help="seconds to measure a speed")
    parser.add_argument("--evaluator-scale", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()
    started = time.time()
    probe = {
        "seconds": 2,
        "precision": options.precision,
        "seed": 0,
        "further_packages": ["diffusers"],
    }
    machine = run_case("measure_machine", probe, options.threads)
    results = {name: compare(name, options, machine["precision"]) for name in options.datasets}
    report = {
        "command": shlex.join(["python", "benchmarks/time_to_quality.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "minutes": (time.time() - started) / 60,
        "threads": options.threads,
        "images": options.images,
        "machine": machine,
        "datasets": results,
    }
    name = "time_to_quality_" + "_".join(options.datasets)
    (options.output / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.output / f"{name}.md").write_text(markdown(report))
    say("\n" + markdown(report))


if __name__ == "__main__":
    main()
