"""Speed, memory and quality of DiffusionBalancer beside denoising-diffusion-pytorch, on a CPU.

    python benchmarks/throughput.py            # about 24 minutes on two cores
    python benchmarks/throughput.py --quick    # a few minutes; the numbers mean little

What is measured, and how the two sides are made comparable, is in ``benchmarks/README.md``; the
last full results are in ``benchmarks/results/``.

Only the standard library is imported here: on Linux a process starts with its parent's peak
memory, so a large parent would hide what the cases take.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
SIDES = ("ours", "theirs")
DATASETS = ("digits", "fashion")
NAMES = {"digits": "digits, 8x8", "fashion": "Fashion-MNIST, 28x28"}
MEBI = 2**20

Record = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A line of the targets' table: what is compared, and the bound on ours over theirs."""

    name: str
    at_least: float | None = None
    at_most: float | None = None

    def met(self, ratio: float) -> bool:
        """Tell whether a ratio keeps the bound."""
        above = self.at_least is None or ratio >= self.at_least
        return above and (self.at_most is None or ratio <= self.at_most)

    def bound(self) -> str:
        """Write the bound as in a table."""
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"


TARGETS = {
    ("train", "images_per_second"): Target("training, images/s", at_least=1.5),
    ("generate", "images_per_second"): Target("generation, images/s", at_least=20),
    ("train", "peak_bytes"): Target("peak memory, training, MiB", at_most=1),
    ("train", "growth_bytes"): Target("its growth over imports and data, MiB", at_most=1),
    ("generate", "peak_bytes"): Target("peak memory, generation, MiB", at_most=1),
    ("generate", "growth_bytes"): Target("its growth over imports and data, MiB", at_most=1),
}
QUALITY_TARGET = Target("Frechet distance", at_most=1)


@dataclass(frozen=True)
class Effort:
    """How long the parts of the benchmark take, by data set where it matters."""

    repetitions: int
    seconds: float
    training_seconds: dict[str, float]
    rows_per_class: dict[str, int]
    draws: int
    evaluator_scale: float


FULL = Effort(
    repetitions=3,
    seconds=4,
    training_seconds={"digits": 30, "fashion": 90},
    rows_per_class={"digits": 15, "fashion": 7},
    draws=5,
    evaluator_scale=1,
)
QUICK = Effort(
    repetitions=2,
    seconds=0.6,
    training_seconds={"digits": 3, "fashion": 3},
    rows_per_class={"digits": 1, "fashion": 1},
    draws=2,
    evaluator_scale=0.05,
)


def run_case(case: str, request: Record, threads: int) -> Record:
    """Run a case in a fresh process and return what it reports."""
    # Set here, not inherited: a library reads these when it is first imported.
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TQDM_DISABLE": "1",
    }
    message = json.dumps(request | {"case": case, "threads": threads})
    command = [sys.executable, str(HERE / "cases.py"), message]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"case {case!r} failed:\n{run.stderr[-4000:]}")
    reply: Record = json.loads(run.stdout.splitlines()[-1])
    return reply


def fastest(timings: Sequence[Record]) -> Record:
    """Choose the fastest: what makes the other side look best."""
    return max(timings, key=lambda timing: timing["images_per_second"])


def compare(records: Iterable[Record], case: str, quantity: str) -> Record:
    """Return both sides' values per repetition, their ratios (ours / theirs), and medians."""
    ours, theirs = ([record[side][case][quantity] for record in records] for side in SIDES)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "ours": ours,
        "theirs": theirs,
        "ratios": ratios,
        "median_ours": median(ours),
        "median_theirs": median(theirs),
        "median_ratio": median(ratios),
    }


def flop_share(record: Record, sizes: Record, evaluations: Record) -> Record:
    """Share of the machine's measured peak FLOP/s that each side reaches, per case."""
    shares: Record = {}
    for side in SIDES:
        training = record[side]["train"]["images_per_second"] * sizes[side]["training"]
        per_image = evaluations[side] * sizes[side]["forward"]
        generation = record[side]["generate"]["images_per_second"] * per_image
        shares[side] = {
            "train": training / record["peak_flops_per_second"],
            "generate": generation / record["peak_flops_per_second"],
        }
    return shares


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay out rows as a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def number(value: float) -> str:
    """Write a number with three significant digits, without an exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - int(f"{abs(value):e}".split("e")[1]))
    return f"{value:,.{digits}f}"


def say(*words: object) -> None:
    """Print at once: the cases take minutes."""
    print(*words, flush=True)


class Benchmark:
    """Runs the cases of all data sets in one temporary folder."""

    def __init__(self, effort: Effort, threads: int, seed: int, precision: str):
        self.effort, self.threads = effort, threads
        self.common: Record = {
            "seed": seed,
            "batch_size": 64,
            "seconds": effort.seconds,
        }
        self.machine = self._run("measure_machine", {"precision": precision})
        self.common["precision"] = self.machine["precision"]

    def _run(self, case: str, request: Record) -> Record:
        return run_case(case, self.common | request, self.threads)

    def dataset(self, dataset: str, folder: str) -> Record:
        """Measure everything on one data set."""
        base: Record = {"dataset": dataset, "folder": folder}
        data = self._run("prepare", base | {"scale": self.effort.evaluator_scale})
        say(f"\n{NAMES[dataset]}: {data}")
        sizes = self._run("match", base | {"tolerance": 0.05})
        network = fastest(sizes["candidates"])
        say(
            f"parameters: ours {sizes['ours']['n_parameters']:,}, theirs "
            f"{network['n_parameters']:,} (dim={network['dim']}, dim_mults={network['dim_mults']})"
        )
        base |= {"dim": network["dim"], "dim_mults": network["dim_mults"]}
        batches = self._run("try_batches", base)["timings"]
        base["generation_batch"] = fastest(batches)["batch_size"]
        flops = {"ours": sizes["ours"], "theirs": network["flops"]}
        records = [self._repetition(base, flops) for _ in range(self.effort.repetitions)]
        return {
            "data": data,
            "networks": sizes | {"theirs": network},
            "their_batches": batches,
            "repetitions": records,
            "comparisons": [
                {"case": case, "quantity": quantity, **compare(records, case, quantity)}
                for case, quantity in TARGETS
            ],
            "quality": self._quality(dataset, base, records),
        }

    def _repetition(self, base: Record, flops: Record) -> Record:
        peak = self._run("measure_machine", {"precision": self.common["precision"]})
        record: Record = {"peak_flops_per_second": peak["flops_per_second"]}
        for side in SIDES:
            record[side] = {
                case: self._run(case, base | {"side": side}) for case in ("train", "generate")
            }
        record["share_of_peak"] = flop_share(record, flops, {"ours": 18, "theirs": 1000})
        for case in ("train", "generate"):
            ours, theirs = (record[side][case]["images_per_second"] for side in SIDES)
            say(
                f"  {case}: ours {number(ours)} images/s, theirs {number(theirs)}, "
                f"ratio {number(ours / theirs)}"
            )
        return record

    def _quality(self, dataset: str, base: Record, records: Sequence[Record]) -> Record:
        wanted = {"n_per_class": self.effort.rows_per_class[dataset]}
        draws = wanted | {"n_draws": self.effort.draws}
        speed = compare(records, "train", "images_per_second")["median_ours"]
        seconds = self.effort.training_seconds[dataset]
        steps = max(1, round(seconds * speed / self.common["batch_size"]))
        ours = self._run("train_for_quality", base | {"side": "ours", "n_steps": steps})
        ours |= self._run("sample_and_score", base | {"side": "ours"} | draws)
        same_time = {"side": "theirs", "seconds": ours["seconds"]}
        theirs = self._run("train_for_quality", base | same_time)
        theirs |= self._run("sample_and_score", base | {"side": "theirs", "n_draws": 1} | wanted)
        real = self._run("score_real", base | draws)
        ours_distance, theirs_distance = (
            median(side["frechet_distances"]) for side in (ours, theirs)
        )
        say(
            f"  Frechet distance of {ours['n_images']} images after {ours['seconds']:.0f} s: "
            f"ours {number(ours_distance)}, theirs {number(theirs_distance)}, "
            f"real rows {number(median(real['frechet_distances']))}"
        )
        return {
            "ours": ours,
            "theirs": theirs,
            "real": real,
            "ratio": ours_distance / theirs_distance,
            "full_sampling_ratio": theirs["seconds_per_draw"][0] / median(ours["seconds_per_draw"]),
        }


def dataset_markdown(dataset: str, result: Record) -> str:
    """Write one data set's results as Markdown."""
    return "\n\n".join(
        [
            f"## {NAMES[dataset]}",
            _networks_table(result["networks"]),
            _comparison_table(result["comparisons"]),
            _shares_table(result["repetitions"]),
            _quality_table(result["quality"]),
        ]
    )


def _networks_table(networks: Record) -> str:
    theirs = networks["theirs"]
    sizes = {'ours, `network="auto"`': networks["ours"]} | {
        f"theirs, `dim={theirs['dim']}, dim_mults={tuple(theirs['dim_mults'])}`": theirs["flops"]
    }
    rows = [
        (
            name,
            f"{size['n_parameters']:,}",
            number(size["training"] / 1e6),
            number(size["forward"] / 1e6),
        )
        for name, size in sizes.items()
    ]
    return markdown_table(
        ("network", "parameters", "MFLOP per image, training", "MFLOP per image, forward"), rows
    )


def _comparison_table(comparisons: Iterable[Record]) -> str:
    rows = []
    for comparison in comparisons:
        quantity = comparison["quantity"]
        target = TARGETS[comparison["case"], quantity]
        scale = MEBI if quantity.endswith("bytes") else 1
        ratio = comparison["median_ratio"]
        rows.append(
            (
                target.name,
                number(comparison["median_ours"] / scale),
                number(comparison["median_theirs"] / scale),
                " ".join(map(number, comparison["ratios"])),
                number(ratio),
                target.bound(),
                "yes" if target.met(ratio) else "**no**",
            )
        )
    header = ("", "ours", "theirs", "ratio of each repetition", "median ratio", "target", "met")
    return markdown_table(header, rows)


def _shares_table(records: Sequence[Record]) -> str:
    rows = [
        (
            f"{side}, {case}",
            " ".join(f"{100 * record['share_of_peak'][side][case]:.1f}" for record in records),
        )
        for side in SIDES
        for case in ("train", "generate")
    ]
    peaks = " ".join(number(record["peak_flops_per_second"] / 1e9) for record in records)
    header = ("", f"% of the measured peak (GFLOP/s: {peaks})")
    return markdown_table(header, rows)


def _quality_table(quality: Record) -> str:
    rows = []
    for name in ("ours", "theirs", "real"):
        side = quality[name]
        distances = " ".join(map(number, side["frechet_distances"]))
        trained = number(side["seconds"]) if "seconds" in side else ""
        images = f"{side['n_images']:,}" if "n_images" in side else ""
        seconds = number(median(side["seconds_per_draw"])) if "seconds_per_draw" in side else ""
        rows.append((name, trained, images, seconds, distances))
    table = markdown_table(
        ("", "s of training", "images drawn", "s to draw them", "Frechet distance of each draw"),
        rows,
    )
    verdict = "met" if QUALITY_TARGET.met(quality["ratio"]) else "**not met**"
    return (
        f"{table}\n\nFrechet distance, ours over theirs: {number(quality['ratio'])} (target "
        f"{QUALITY_TARGET.bound()}: {verdict}). Seconds of full 1000-step sampling over ours: "
        f"{number(quality['full_sampling_ratio'])}."
    )


def report_markdown(report: Record) -> str:
    """Write the whole report as Markdown."""
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    head = (
        "# DiffusionBalancer beside denoising-diffusion-pytorch\n\n"
        f"`{report['command']}`\n\n"
        f"{report['date']}, {report['minutes']:.0f} minutes. {machine['cpu']}, "
        f"{report['threads']} threads on {report['cores']} cores, {machine['precision']}; "
        f"seed {report['seed']}. {versions}. What the numbers mean: [README](../README.md)."
    )
    parts = [dataset_markdown(name, result) for name, result in report["datasets"].items()]
    return "\n\n".join([head, *parts]) + "\n"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Benchmark beside denoising-diffusion-pytorch.")
    parser.add_argument("--quick", action="store_true", help="a small version, to see it run")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16; both sides")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--output", type=Path, help="folder for the JSON and the Markdown")
    return parser.parse_args(arguments)


def main() -> None:
    """Run the benchmark and write the report."""
    options = parse()
    started = time.time()
    benchmark = Benchmark(
        QUICK if options.quick else FULL, options.threads, options.seed, options.precision
    )
    say(benchmark.machine)
    results = {}
    for dataset in options.datasets:
        with tempfile.TemporaryDirectory() as folder:
            results[dataset] = benchmark.dataset(dataset, folder)
        say("\n" + dataset_markdown(dataset, results[dataset]))
    report = {
        "command": shlex.join(["python", "benchmarks/throughput.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "minutes": (time.time() - started) / 60,
        "threads": options.threads,
        "cores": os.cpu_count(),
        "seed": options.seed,
        "machine": benchmark.machine,
        "effort": vars(benchmark.effort),
        "datasets": results,
    }
    output = options.output or HERE / "results"
    name = "throughput-quick" if options.quick else "throughput"
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (output / f"{name}.md").write_text(report_markdown(report))
    say(f"\nWritten to {output}/{name}.json and .md in {report['minutes']:.1f} minutes.")


if __name__ == "__main__":
    main()
