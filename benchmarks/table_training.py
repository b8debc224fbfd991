"""How soon a diffusion model knows the rare rows of a small table by heart.

    python benchmarks/table_training.py        # five minutes

Trains on three quarters of each class and looks at the denoising loss of the rest, by class: for
the defaults, and with one of them changed at a time. The tables are of those that `tables.py` does
not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from benefit import RESULTS, machine
from report import publish
from tables import load_table
from throughput import markdown_table

from sklearn_diffult import DiffusionBalancer
from sklearn_diffult._torch import build, new_generator
from sklearn_diffult.codecs import TableCodec
from sklearn_diffult.diffusion.denoiser import Denoiser, add_noise, mean_square
from sklearn_diffult.diffusion.sigma import LogNormalSigma
from sklearn_diffult.diffusion.trainer import train
from sklearn_diffult.networks.denoisers import named_network
from sklearn_diffult.plans import training_plan

TABLES = ["glass4", "ecoli4", "winequality_white_3_vs_7", "yeast_0_5_6_7_9_vs_4", "pc1"]
SEEDS = (0, 1, 2)
N_JUDGED = 4_000
DEFAULT = "default"
# What replaces parts of the default plan; steps are a factor.
CHANGES: dict[str, dict[str, float]] = {
    DEFAULT: {},
    "class_temper 0.5": {"class_temper": 0.5},
    "weight decay 0.0001": {"weight_decay": 1e-4},
    "twice the steps": {"steps": 2},
    "four times the steps": {"steps": 4},
    "all three": {"class_temper": 0.5, "weight_decay": 1e-4, "steps": 4},
}


def held_out_losses(name: str, change: str, seed: int) -> dict[str, float]:
    """Train once; mean loss of unseen rows of the larger and of the rarer class."""
    table = load_table(name)
    drawn = np.random.RandomState(seed)
    unseen = np.zeros(len(table.y), dtype=bool)
    for label in (0, 1):
        members = drawn.permutation(np.flatnonzero(table.y == label))
        unseen[members[: len(members) // 4]] = True
    encoded = TableCodec().fit(table.X).encode(table.X)
    labels = torch.from_numpy(table.y)
    noise = LogNormalSigma(1.0)
    factory = named_network("auto", tuple(encoded.shape[1:]))
    network = build(lambda: factory(tuple(encoded.shape[1:]), 2), new_generator(seed))
    changes = dict(CHANGES[change])
    plan = training_plan(DiffusionBalancer(), int((~unseen).sum()), is_image=False)
    n_steps = int(plan.n_steps * changes.pop("steps", 1))
    half_life = plan.ema_half_life * n_steps / plan.n_steps
    plan = replace(plan, n_steps=n_steps, ema_half_life=half_life, **changes)
    result = train(
        Denoiser(network, 1.0, 2),
        encoded[~unseen],
        labels[~unseen],
        plan,
        noise,
        seed=seed,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    return {
        kind: _loss(result.denoiser, encoded[unseen & (table.y == label)], label, noise)
        for kind, label in (("large", 0), ("rare", 1))
    }


@torch.no_grad()
def _loss(denoiser: Denoiser, rows: torch.Tensor, label: int, noise: LogNormalSigma) -> float:
    rows = rows.repeat(-(-N_JUDGED // len(rows)), 1)
    generator = new_generator(0)
    sigma = noise.sample(len(rows), generator)
    denoised = denoiser(add_noise(rows, sigma, generator), sigma, torch.full((len(rows),), label))
    return float((denoiser.loss_weight(sigma) * mean_square(denoised - rows)).mean())


def write_report(records: list[dict[str, Any]]) -> str:
    """Write a row per change: loss of unseen rows by table, large class / rare class."""
    rows = []
    for change in CHANGES:
        cells = [change]
        for name in TABLES:
            own = [r for r in records if (r["table"], r["change"]) == (name, change)]
            means = [np.mean([record[kind] for record in own]) for kind in ("large", "rare")]
            cells.append(f"{means[0]:.2f} / {means[1]:.2f}")
        rows.append(cells)
    return (
        "Denoising loss of unseen rows, large class / rare class, mean over seeds "
        f"{', '.join(map(str, SEEDS))}\n\n{markdown_table(['training', *TABLES], rows)}"
    )


def main(arguments: list[str]) -> None:
    """Measure all, and write the data and the table."""
    argparse.ArgumentParser(description="How soon rare rows are known.").parse_args(arguments)
    torch.set_num_threads(1)
    records = []
    for name in TABLES:
        for change in CHANGES:
            for seed in SEEDS:
                found = held_out_losses(name, change, seed)
                losses = {kind: round(loss, 4) for kind, loss in found.items()}
                records.append({"table": name, "change": change, "seed": seed, **losses})
    path = RESULTS / "table_training.json"
    path.write_text(json.dumps({"machine": machine(), "records": records}, indent=0) + "\n")
    publish(path, "table_training.py", arguments, write_report(records) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
