"""Train one class-conditional denoiser on all classes together."""

from __future__ import annotations

import contextlib
import copy
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from sklearn_diffult._recording import RecordedSteps, is_recordable, is_recording
from sklearn_diffult._torch import (
    AdamW,
    autocast,
    explain_out_of_memory,
    learning,
    progress,
    threads_for,
    undisturbed,
)
from sklearn_diffult._warnings import warn
from sklearn_diffult.diffusion.batches import Batch, Batches
from sklearn_diffult.diffusion.checkpoint import Checkpoint, DeferredSignals
from sklearn_diffult.diffusion.denoiser import Denoiser, mean_square
from sklearn_diffult.diffusion.ema import ExponentialMovingAverage
from sklearn_diffult.diffusion.regularizers import (
    Regularizer,
    RegularizerInput,
    bottleneck_features,
)
from sklearn_diffult.diffusion.sigma import LogNormalSigma, ddpm_time

CHECK_EVERY = 25
# All state is written down, so not at every check.
KEEP_EVERY = 20 * CHECK_EVERY


@dataclass(frozen=True)
class TrainingPlan:
    """How to train: every number the loop needs.

    Attributes
    ----------
    n_steps, batch_size : int
        Optimisation steps and rows per step.
    learning_rate : float
        Peak of a schedule that warms up over 5 % of the steps and falls to 0 as a cosine.
    ema_half_life : float
        Half-life of the parameter average, in samples.
    label_dropout : float
        Share of rows trained without a label, which makes guidance possible.
    class_temper : float
        Classes are drawn in proportion to n_rows ** class_temper: 1 keeps their shares, 0 draws
        all alike.
    least_share : float
        But no class's share is less, see `batches.row_probabilities`.
    weight_decay : float
        Decoupled weight decay of AdamW.
    regularizer, regularizer_strength : callable or None, float
        A line of REGULARIZERS and its factor.
    horizontal_flip : bool
        Mirror half of the images.
    augmentation : float
        Probability of each non-leaking change to an image, see `augmentations.Change`; 0 where the
        network takes none.
    """

    n_steps: int
    batch_size: int
    learning_rate: float
    ema_half_life: float
    label_dropout: float
    class_temper: float
    least_share: float
    weight_decay: float
    regularizer: Regularizer | None
    regularizer_strength: float
    horizontal_flip: bool
    augmentation: float


@dataclass(frozen=True)
class TrainingResult:
    """The averaged denoiser, the loss of every step, and rows per second."""

    denoiser: Denoiser
    loss_curve: np.ndarray
    rows_per_second: float


class TrainingInterrupted(KeyboardInterrupt):
    """Training was interrupted; `result` is what it had reached."""

    def __init__(self, result: TrainingResult, n_steps: int):
        n_taken = len(result.loss_curve)
        super().__init__(f"Training was interrupted after {n_taken} of {n_steps} steps.")
        self.result = result


def learning_rate_factor(step: int, n_steps: int) -> float:
    """Warm up linearly over 5 % of the steps, then fall to 0 as a cosine."""
    warm_up = max(1, n_steps // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))


def train(
    denoiser: Denoiser,
    clean: Tensor,
    labels: Tensor,
    plan: TrainingPlan,
    noise: LogNormalSigma,
    *,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    verbose: int = 0,
    checkpoint: Checkpoint | None = None,
    foreign_generators: Sequence[torch.Generator] = (),
) -> TrainingResult:
    """Train `denoiser` on clean rows "n ..." with integer labels (n,).

    The loss is Karras et al. 2022, Eq. (8). Randomness comes from `seed` alone; the regulariser
    draws from a generator of its own, so that strength 0 repeats plain training bit for bit. A
    checkpoint is taken up where there is one, written from time to time, on SIGINT and SIGTERM,
    and at the end; what comes of a resumed training is bit-identical on a CPU.
    `foreign_generators` are those that the user's own callables draw from.

    Raises
    ------
    FloatingPointError
        If the loss stops being finite for a second time. After the first, training goes back to
        the last good state and on with half the learning rate.
    MemoryError
        If the device runs out of memory with a single row at a time; names batch_size.
    TrainingInterrupted
        On KeyboardInterrupt after at least one step.
    """
    bar = progress(plan.n_steps, "train diffusion", verbose)
    signals = DeferredSignals(checkpoint is not None)
    with (
        bar,
        explain_out_of_memory("batch_size"),
        undisturbed(device),
        threads_for(denoiser, clean.shape[1:], device),
        signals,
        learning(),
        # In memory, what to go back to would take as much as all that is trained.
        _scratch_file() as kept,
    ):
        denoiser = denoiser.to(device).train()
        if not getattr(denoiser.network, "takes_augmentation", False):
            plan = replace(plan, augmentation=0.0)
        batches = Batches(
            clean, labels, plan, noise, n_classes=denoiser.n_classes, seed=seed, device=device
        )
        generators = (*batches.generators, *foreign_generators)
        training = _Training(denoiser, batches, plan, generators, device, dtype, kept)
        with contextlib.closing(training):
            if checkpoint is not None:
                training.resume(checkpoint)
            try:
                while training.step < plan.n_steps:
                    training.advance()
                    if training.step % CHECK_EVERY == 0 or training.step == plan.n_steps:
                        training.check()
                        _show(bar, training)
                    if checkpoint is not None and (signals.pending or checkpoint.is_due):
                        training.check()
                        checkpoint.write(training.state())
                        signals.deliver()
            except KeyboardInterrupt as interrupt:
                if not training.is_usable():
                    raise
                raise TrainingInterrupted(training.result(), plan.n_steps) from interrupt
            result = training.result()
            if checkpoint is not None:
                checkpoint.write(training.state())
    return result


def _are_finite(tensors: Iterable[Tensor]) -> bool:
    # One transfer for all, as each waits for the device.
    norms = torch._foreach_norm([each for each in tensors if each.is_floating_point()])
    return bool(torch.stack([norm.float() for norm in norms]).isfinite().all())


@contextlib.contextmanager
def _scratch_file() -> Iterator[IO[bytes]]:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        yield file
    finally:
        # What a full disk did not take is still waiting to be written.
        with contextlib.suppress(OSError):
            file.close()


def _show(bar: Any, training: _Training) -> None:
    if training.losses:  # not back at the start
        recent = np.mean(training.losses[-CHECK_EVERY:])
        told = {"loss": f"{recent:.3f}", "rows/s": f"{training.rows_per_second:.0f}"}
        bar.set_postfix(told, refresh=False)
    bar.update(training.step - bar.n)


class _Training:
    """Everything that changes from step to step, and how."""

    def __init__(
        self,
        denoiser: Denoiser,
        batches: Batches,
        plan: TrainingPlan,
        generators: Sequence[torch.Generator],
        device: torch.device,
        dtype: torch.dtype,
        kept: IO[bytes],
    ):
        self.step = 0
        self.losses: list[float] = []
        self._unread: list[Tensor] = []
        self._denoiser, self._batches, self._plan = denoiser, batches, plan
        self._generators, self._device, self._dtype = generators, device, dtype
        self._average = ExponentialMovingAverage(denoiser, plan.ema_half_life)
        self._parameters = list(denoiser.parameters())
        self._optimizer = AdamW(
            self._parameters,
            plan.learning_rate,
            (0.9, 0.99),
            weight_decay=plan.weight_decay,
            fused=True,
        )
        # A regulariser may be the user's, or want other rows in each step.
        is_same = plan.regularizer is None and is_recordable(denoiser.network)
        self._take_step = RecordedSteps(self._learn, self._optimizer, device, is_same)
        self._rate = plan.learning_rate
        self._micro_batch = plan.batch_size
        self._started = time.perf_counter()
        self._kept, self._is_kept = kept, False
        self._keep_if_finite()

    @property
    def rows_per_second(self) -> float:
        """Rows seen per second of training, over all sittings."""
        seconds = time.perf_counter() - self._started
        return self._plan.batch_size * self.step / max(seconds, 1e-9)

    def advance(self) -> None:
        """Take one step."""
        rate = self._rate * learning_rate_factor(self.step, self._plan.n_steps)
        self._take_step.set_rate(rate)
        self._unread.append(self._take_step(*self._batches.draw()))
        self._average.update(self._plan.batch_size)
        self.step += 1

    def _learn(self, *fields: Tensor) -> Tensor:
        # Before the forward pass, so that gradients and activations do not peak together.
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._backward(Batch(*fields))
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        return loss

    def check(self) -> None:
        """Read the losses since the last check; go back once if they are not finite."""
        # One transfer for many steps: reading every loss would stall the device.
        unread = torch.stack(self._unread).tolist() if self._unread else []
        self._unread.clear()
        if not np.isfinite(unread).all():
            self._go_back(unread)
            return
        self.losses += unread
        if self.step % KEEP_EVERY == 0:
            self._keep_if_finite()

    def result(self) -> TrainingResult:
        """Return what was reached; training is over then.

        Raises
        ------
        FloatingPointError
            If it is not finite: the last step's gradient may have been what its loss was not.
        """
        if not _are_finite(self._average.module.parameters()):
            raise FloatingPointError(
                f"The diffusion model is no longer finite after step {self.step}. Lower "
                "learning_rate, use precision='float32', or look for extreme values in X."
            )
        # At rest on the CPU: pickles travel to machines without a GPU, and threads may share it.
        return TrainingResult(
            self._average.module.cpu(), np.array(self.losses), self.rows_per_second
        )

    def close(self) -> None:
        """Let go of the steps, which hold on to this: a GPU's memory is free at once."""
        del self._take_step

    def is_usable(self) -> bool:
        """Tell whether at least one step was taken, and none led astray."""
        unread = torch.stack(self._unread).tolist() if self._unread else []
        self._unread.clear()
        self.losses += unread
        return len(self.losses) > 0 and bool(np.isfinite(unread).all())

    def state(self) -> dict[str, Any]:
        """Return all that the steps to come depend on; the tensors are shared."""
        return {
            "step": self.step,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "seconds": time.perf_counter() - self._started,
            "rate": self._rate,
            "micro_batch": self._micro_batch,
            "denoiser": self._denoiser.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generators": [generator.get_state() for generator in self._generators],
        }

    def _load(self, state: dict[str, Any]) -> None:
        self._denoiser.load_state_dict(state["denoiser"])
        self._average.load_state_dict(state["average"])
        # The optimiser would go on writing into the tensors it is given.
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._take_step.forget()
        for generator, saved in zip(self._generators, state["generators"], strict=True):
            generator.set_state(saved)
        self._rate, self._micro_batch = state["rate"], state["micro_batch"]
        self._started = time.perf_counter() - state["seconds"]
        self.step, self.losses = state["step"], state["losses"].tolist()

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take up a checkpoint if there is one that fits."""
        state = checkpoint.read()
        if state is None:
            return
        before = copy.deepcopy(self.state())
        try:
            self._load(state)
        except Exception as error:  # whatever a state of other shapes leads to
            checkpoint.warn_unusable(f"{type(error).__name__}: {error}")
            self._load(before)
        self._keep_if_finite()

    def _keep_if_finite(self) -> None:
        """Keep the state to go back to, if it is good."""
        tensors: list[Tensor] = [*self._parameters, *self._average.module.parameters()]
        for moments in self._optimizer.state.values():
            tensors += [moment for moment in moments.values() if isinstance(moment, Tensor)]
        if not _are_finite(tensors):
            return
        try:
            self._kept.seek(0)
            self._kept.truncate()
            torch.save(self.state(), self._kept)
            self._is_kept = True
        except (OSError, RuntimeError):  # torch's way of saying that the disk is full
            self._is_kept = False

    def _go_back(self, losses: list[float]) -> None:
        found = next(loss for loss in losses if not math.isfinite(loss))
        step = self.step - len(losses) + losses.index(found) + 1
        if not self._is_kept or self._rate < self._plan.learning_rate:
            raise FloatingPointError(
                f"The diffusion loss became {found} at step {step}. Lower learning_rate, "
                "use precision='float32', or look for extreme values in X."
            )
        self._kept.seek(0)
        self._load(torch.load(self._kept, map_location="cpu", weights_only=True))
        self._rate /= 2
        warn(
            f"The diffusion loss became {found} at step {step}; training goes on from step "
            f"{self.step} with half the learning rate. "
            f"Lower learning_rate={self._plan.learning_rate:g}."
        )

    def _backward(self, batch: Batch) -> Tensor:
        """Leave the gradients of a batch's mean loss; smaller parts where memory runs out."""
        wanted = self._micro_batch
        while True:
            try:
                with explain_out_of_memory("batch_size"):
                    loss = self._accumulate(batch)
                break
            except MemoryError:
                if self._micro_batch == 1 or is_recording(self._device):
                    raise
            self._micro_batch = math.ceil(self._micro_batch / 2)
            self._optimizer.zero_grad(set_to_none=True)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        if self._micro_batch < wanted:
            warn(
                f"{wanted} rows at a time were too many for the device's memory: training goes on "
                f"with {self._micro_batch}, whose gradients are added up to the same batches; a "
                "regulariser that compares rows sees fewer at a time. A lower batch_size makes "
                "smaller batches."
            )
        return loss

    def _accumulate(self, batch: Batch) -> Tensor:
        if self._micro_batch >= len(batch.clean):
            return self._descend(batch, 1.0)
        parts = batch.split(self._micro_batch)
        losses = [self._descend(part, len(part.clean) / len(batch.clean)) for part in parts]
        return torch.stack(losses).sum()

    def _descend(self, batch: Batch, share: float) -> Tensor:
        with autocast(self._device, self._dtype):
            loss = self._row_losses(batch).mean()
        if share < 1:
            loss = loss * share
        loss.backward()
        return loss.detach()

    def _row_losses(self, batch: Batch) -> Tensor:
        denoiser, regularizer = self._denoiser, self._plan.regularizer
        with bottleneck_features(None if regularizer is None else denoiser.network) as features:
            denoised = denoiser(batch.noisy, batch.sigma, batch.labels, batch.augmentation)
        losses = denoiser.loss_weight(batch.sigma) * mean_square(denoised - batch.clean)
        if regularizer is None or batch.other_labels is None:
            return losses
        seen = RegularizerInput(
            denoiser,
            batch.noisy,
            batch.sigma,
            batch.labels,
            denoised,
            batch.other_labels,
            ddpm_time(batch.sigma, denoiser.sigma_data),
            batch.augmentation,
            features[0] if features else None,
        )
        return losses + self._plan.regularizer_strength * regularizer(seen)
