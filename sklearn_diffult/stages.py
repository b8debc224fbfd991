"""The stages of one fit: train, generate, score; each done once where `memory` keeps it."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import io
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from sklearn_diffult._seeds import child_seeds
from sklearn_diffult._stage_cache import StageCache, key_of
from sklearn_diffult._torch import lookup, resolve_device, resolve_precision
from sklearn_diffult.codecs import ImageCodec, TableCodec
from sklearn_diffult.codecs.containers import BLOCK
from sklearn_diffult.diffusion.checkpoint import checkpoint_path, hold_checkpoint
from sklearn_diffult.diffusion.denoiser import Denoiser
from sklearn_diffult.diffusion.generation import check_solver, generate, row_seed
from sklearn_diffult.diffusion.sigma import SIGMA_DISTRIBUTIONS
from sklearn_diffult.diffusion.starts import eligible_rows
from sklearn_diffult.diffusion.trainer import TrainingResult, train
from sklearn_diffult.evidence import gather_evidence
from sklearn_diffult.filters import METRICS, Evidence
from sklearn_diffult.networks.denoisers import named_network
from sklearn_diffult.plans import (
    build_network,
    filter_plan,
    generation_plan,
    own_randomness,
    training_plan,
)
from sklearn_diffult.selection import Selection, select
from sklearn_diffult.streams import CandidateStream
from sklearn_diffult.training_data import TrainingData


class Stages:
    """What one fit computes from parameters and rows, by stage and by what the stage depends on.

    | stage | depends on |
    |---|---|
    | training | encoded rows, class indices, training parameters, seeds |
    | candidates | training, generation parameters, seed; class and place in the class's stream |
    | classifiers of d2 and d3 | encoded rows, class indices, precision, seed |
    | scores | those, the candidates' content, class, metric |

    Not on the containers of X and y, the labels' names, `sampling_strategy`, omega, `weighting`,
    `weight_temper`, thresholds, `max_rounds`, `on_shortfall`, `device` or `verbose`. Selection and
    weights are not kept: making them takes less time than reading them.

    Parameters
    ----------
    parameters : DiffusionBalancer
        Whose parameters to follow.
    data : TrainingData
        Checked rows.
    wanted : mapping of label to int
        How many rows to generate; of other classes `start` is asked nothing.

    Raises
    ------
    ValueError
        If `memory` or `checkpoint` cannot be used as a directory, or `start` names no rows.
    """

    def __init__(self, parameters: Any, data: TrainingData, wanted: Mapping[Any, int]):
        self._parameters, self._data = parameters, data
        self._cache = StageCache(parameters.memory)
        if parameters.checkpoint is not None:
            _make_directory(parameters.checkpoint)
        self._is_image = data.codec.is_image
        self._device = resolve_device(parameters.device)
        self._check_own_parts(wanted)
        random_state = parameters.random_state
        is_drawn_from = isinstance(random_state, np.random.RandomState)
        self._random_state_before = random_state.get_state() if is_drawn_from else None
        self._seeds = self._draw_seeds()
        self._filter_plan = filter_plan(parameters, self._is_image, data.codec.is_discrete)

    def _check_own_parts(self, wanted: Mapping[Any, int]) -> None:
        """Find out before training whether the user's own starts and solver are such."""
        plan = generation_plan(self._parameters, self._is_image, self._device)
        with own_randomness(self._parameters, 0, self._device):
            if plan.start is not None:
                for index, label in enumerate(self._data.classes.tolist()):
                    if wanted.get(label):
                        eligible_rows(plan.start, self._data.indices, index)
            if callable(self._parameters.solver):
                check_solver(plan.solver, self._data.codec.sample_shape, plan.n_steps, self._device)

    def _draw_seeds(self) -> list[int]:
        """Draw a seed each for candidates, network, training and classifiers.

        `random_state=None` means the same fresh entropy for every fit on the same rows with the
        same memory: a search would otherwise never find what an earlier candidate computed.
        """
        random_state = self._parameters.random_state
        if random_state is not None:
            return child_seeds(random_state, 4)
        seeds = self._cache.recall("seeds", lambda: self._data_key, lambda: child_seeds(None, 4))
        return list(seeds)

    # Training -------------------------------------------------------------------------

    def train(self) -> TrainingResult:
        """Train one denoiser on the rows of all classes."""
        if not self._cache.is_on:
            return self._train()
        packed = self._cache.recall(
            "training", lambda: self._training_key, lambda: _pack(self._train())
        )
        return _unpack(packed, self._empty_denoiser())

    def _train(self) -> TrainingResult:
        parameters, data, seed = self._parameters, self._data, self._seeds[2]
        denoiser = self._new_denoiser()
        sigma_distribution = lookup(SIGMA_DISTRIBUTIONS, parameters.sigma_distribution)
        with (
            # `Batches` draws from this seed and the next three.
            own_randomness(parameters, seed + 4, self._device) as foreign_generators,
            hold_checkpoint(parameters.checkpoint, lambda: self._checkpoint_key) as checkpoint,
        ):
            return train(
                denoiser,
                data.encoded,
                torch.from_numpy(data.indices),
                training_plan(parameters, len(data.encoded), self._is_image),
                sigma_distribution(denoiser.sigma_data),
                seed=seed,
                device=self._device,
                dtype=resolve_precision(parameters.precision, self._device, self._is_image),
                verbose=parameters.verbose,
                checkpoint=checkpoint,
                foreign_generators=foreign_generators,
            )

    def _new_denoiser(self) -> Denoiser:
        network = build_network(self._parameters.network, self._data, self._seeds[1], self._device)
        return self._wrap(network)

    def _empty_denoiser(self) -> Denoiser:
        """Build a denoiser for a state to come; our own networks without drawing weights first."""
        choice, codec = self._parameters.network, self._data.codec
        if callable(choice):
            return self._new_denoiser()
        factory = named_network(choice, codec.sample_shape)
        with torch.device("meta"):
            network = factory(codec.sample_shape, len(self._data.classes))
        return self._wrap(network)

    def _wrap(self, network: torch.nn.Module) -> Denoiser:
        deviation = float(self._data.encoded.std(correction=0)) if self._is_image else 1.0
        return Denoiser(network, deviation or 1.0, len(self._data.classes))

    @contextlib.contextmanager
    def resumable(self) -> Iterator[None]:
        """Keep the checkpoint until all is done, and point to it when the user interrupts.

        When all is done, bound what `memory` holds.
        """
        directory = self._parameters.checkpoint
        try:
            yield
        except BaseException as error:
            if self._random_state_before is not None:
                # The same call would otherwise draw other seeds, and find no checkpoint of theirs.
                self._parameters.random_state.set_state(self._random_state_before)
            if directory is not None and isinstance(error, KeyboardInterrupt):
                error.add_note(self.advice())
            raise
        if directory is not None:
            checkpoint_path(directory, self._checkpoint_key).unlink(missing_ok=True)
        self._cache.trim()

    def advice(self) -> str:
        """Say how to go on after an interruption; "" where there is no checkpoint."""
        directory = self._parameters.checkpoint
        if directory is None:
            return ""
        return f"checkpoint={directory!r} holds the training: the same call goes on from there."

    # Candidates -----------------------------------------------------------------------

    def generate(self, denoiser: Denoiser, evidence: Evidence) -> CandidateStream:
        """Return the streams of candidates, which are generated and scored when drawn."""
        return CandidateStream(
            self._cache,
            lambda: self._candidates_key,
            lambda labels, positions: generate_rows(
                self._parameters,
                denoiser,
                self._data.codec,
                labels,
                positions,
                self._seeds[0],
                self._data,
            ),
            self._as_the_user_gets_them,
            {
                name: functools.partial(METRICS[name], evidence)
                for name in self._filter_plan.metrics
            },
            lambda: self._evidence_key,
        )

    def select(self, wanted: dict[Any, int], candidates: CandidateStream) -> Selection:
        """Draw candidates in rounds and keep the rows that pass the filters."""
        parameters, data = self._parameters, self._data
        position = {label: index for index, label in enumerate(data.classes.tolist())}
        counts = {position[label]: n for label, n in wanted.items() if n > 0}
        if not counts:
            return Selection(data.encoded[:0], np.zeros(0, dtype=np.int64), [])
        fill = parameters.on_shortfall == "fill"
        return select(counts, candidates.draw, self._filter_plan, parameters.max_rounds, fill)

    def _as_the_user_gets_them(self, rows: torch.Tensor) -> torch.Tensor:
        """Round, clip, and bring into the columns' support."""
        codec, finished = self._data.codec, torch.empty_like(rows)
        for block, place in zip(rows.split(BLOCK), finished.split(BLOCK), strict=True):
            place.copy_(codec.encode(codec.decode(block)))
        return finished

    def evidence(self) -> Evidence:
        """Return what the filters look at; nothing is computed yet."""
        return gather_evidence(
            self._data.encoded,
            self._data.indices,
            seed=self._seeds[3],
            recall=lambda name, compute: self._cache.recall(
                name.replace(" ", "-"), lambda: key_of(self._evidence_key, name), compute
            ),
            device=self._parameters.device,
            precision=self._parameters.precision,
            verbose=self._parameters.verbose,
        )

    # Keys -----------------------------------------------------------------------------

    @functools.cached_property
    def _data_key(self) -> str:
        return key_of(self._data.encoded, self._data.indices)

    @functools.cached_property
    def _training_key(self) -> str:
        return self._key_of_training(self._seeds[1:3])

    @functools.cached_property
    def _checkpoint_key(self) -> str:
        # A state on disk replaces whatever was drawn from fresh entropy.
        is_fresh = self._parameters.random_state is None
        return self._key_of_training(None if is_fresh else self._seeds[1:3])

    def _key_of_training(self, seeds: list[int] | None) -> str:
        parameters = self._parameters
        choices = (parameters.network, parameters.sigma_distribution, parameters.precision)
        plan = training_plan(parameters, len(self._data.encoded), self._is_image)
        return key_of(self._data_key, choices, plan, seeds)

    @functools.cached_property
    def _candidates_key(self) -> str:
        plan = generation_plan(self._parameters, self._is_image, self._device)
        # The number of rows at a time differs between devices; rows do only if the solver draws.
        return key_of(self._training_key, dataclasses.replace(plan, batch_size=0), self._seeds[0])

    @functools.cached_property
    def _evidence_key(self) -> str:
        return key_of(self._data_key, self._parameters.precision, self._seeds[3])


def generate_rows(
    parameters: Any,
    denoiser: Denoiser,
    codec: ImageCodec | TableCodec,
    labels: np.ndarray,
    positions: np.ndarray,
    seed: int,
    data: TrainingData | None = None,
) -> torch.Tensor:
    """Generate encoded rows, given by class index and number among the rows of the class.

    Without the real rows, as a fitted balancer carries none, generation starts from pure noise.
    """
    device = resolve_device(parameters.device)
    plan = generation_plan(parameters, codec.is_image, device)
    real = None if data is None else (data.encoded, data.indices)
    if device.type != "cpu":
        denoiser = copy.deepcopy(denoiser).to(device)
    # Not the seed that the solver's generator has.
    with own_randomness(parameters, row_seed(seed + 1, labels[0], positions[0]), device):
        return generate(
            denoiser,
            labels,
            positions,
            codec.sample_shape,
            plan,
            seed=seed,
            device=device,
            dtype=resolve_precision(parameters.precision, device, codec.is_image),
            real=real,
            verbose=parameters.verbose,
        )


def _pack(result: TrainingResult) -> dict[str, Any]:
    """Keep numbers only: a user's own network may be impossible to pickle, or outdated."""
    content = io.BytesIO()
    torch.save(result.denoiser.state_dict(), content)
    return {
        "denoiser": content.getvalue(),
        "loss_curve": result.loss_curve,
        "rows_per_second": result.rows_per_second,
    }


def _unpack(packed: dict[str, Any], denoiser: Denoiser) -> TrainingResult:
    state = torch.load(io.BytesIO(packed["denoiser"]), weights_only=True, map_location="cpu")
    denoiser.load_state_dict(state, assign=True)
    denoiser.eval().requires_grad_(False)
    return TrainingResult(denoiser, np.array(packed["loss_curve"]), packed["rows_per_second"])


def _make_directory(path: str | os.PathLike[str]) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"checkpoint={path!r} cannot be used as a directory ({error}); "
            "give a path that can be written to."
        ) from error
