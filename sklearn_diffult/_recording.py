"""Work on CUDA that is recorded once and replayed, so that the CPU need not launch every kernel.

A step of a small network is a thousand kernels of a few microseconds. Launching them one by one
takes the CPU several times as long as the GPU needs to run them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn

# Libraries set themselves up, and an optimiser its state, in the first few.
_CALLS_BEFORE_RECORDING = 3
# One recording at a time.
_RECORDING = threading.Lock()

Inputs = tuple[Tensor | None, ...]


class Recorded:
    """A function of tensors on a device; on CUDA its kernels are recorded, and later replayed.

    Parameters
    ----------
    function : callable
        ``function(*inputs) -> Tensor``. Inputs are tensors on the device or None.
    device : torch.device
        Where the work is done.
    is_recordable : bool
        Whether `function` runs the same kernels for inputs of the same shapes each time, draws
        nothing and brings nothing from the CPU. Otherwise, on devices other than CUDA, and where
        a recording fails (for lack of memory, or as another thread came in between), it is just
        called.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device, is_recordable: bool):
        self._function, self._device = function, device
        # torch looks for anomalies by reading gradients, which a recording cannot.
        can_record = device.type == "cuda" and not torch.is_anomaly_enabled()
        self.is_recordable = is_recordable and can_record
        self.forget()

    def forget(self) -> None:
        """Drop what was recorded, as tensors besides the inputs are no longer where they were."""
        self._n_calls: dict[tuple[object, ...], int] = {}
        self._recordings: dict[tuple[object, ...], _Recording] = {}

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """Return a tensor of its own."""
        # A replay leaves no trace for gradients.
        is_differentiated = any(each is not None and each.requires_grad for each in inputs)
        if not self.is_recordable or is_differentiated:
            return self._function(*inputs)
        shapes = tuple(None if each is None else each.shape for each in inputs)
        n_calls = self._n_calls.get(shapes, 0)
        self._n_calls[shapes] = n_calls + 1
        if n_calls == _CALLS_BEFORE_RECORDING:
            try:
                self._recordings[shapes] = self._record(inputs)
            except (RuntimeError, MemoryError):
                self.is_recordable = False
                self.forget()
        recording = self._recordings.get(shapes)
        return self._function(*inputs) if recording is None else recording.replay(inputs)

    def _record(self, inputs: Inputs) -> _Recording:
        return _Recording(self._function, inputs, self._device)


class _Recording:
    """Kernels of a function, with tensors to read inputs from and to write the result into."""

    def __init__(self, function: Callable[..., Tensor], inputs: Inputs, device: torch.device):
        self._inputs = tuple(None if each is None else each.clone() for each in inputs)
        self._graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
        with (
            _RECORDING,
            # torch's context leaves its stream behind if the recording fails.
            torch.cuda.stream(stream),
            torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"),
        ):
            # What autocast keeps would be written by replays alone.
            torch.clear_autocast_cache()
            self._result = function(*self._inputs)
            torch.clear_autocast_cache()

    def replay(self, inputs: Inputs) -> Tensor:
        """Run the kernels on other inputs; return a tensor of its own."""
        for kept, new in zip(self._inputs, inputs, strict=True):
            if kept is not None and new is not None:
                kept.copy_(new)
        self._graph.replay()
        return self._result.clone()


class RecordedSteps(Recorded):
    """Optimiser steps, by a function that ends in ``optimizer.step()`` and returns the loss.

    Once a state was loaded into the optimiser they are to be forgotten.

    Parameters
    ----------
    step, device, is_recordable
        As in `Recorded`; gradients are to start from zero in each step.
    optimizer : Optimizer
        A fused one.
    """

    def __init__(
        self,
        step: Callable[..., Tensor],
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        is_recordable: bool,
    ):
        super().__init__(step, device, is_recordable)
        self._optimizer = optimizer
        # A recording reads it where it was.
        self._rate = torch.zeros((), dtype=torch.float32, device=device)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the steps to come."""
        if self.is_recordable:
            self._rate.fill_(rate)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate if self.is_recordable else rate

    def _record(self, inputs: Inputs) -> _Recording:
        # Gradients belong to the recording from now on.
        self._optimizer.zero_grad(set_to_none=True)
        self._set_capturable(True)
        try:
            return super()._record(inputs)
        finally:
            self._set_capturable(False)

    def _set_capturable(self, is_capturable: bool) -> None:
        # Outside of a recording torch would warn of it.
        for group in self._optimizer.param_groups:
            group["capturable"] = is_capturable


def is_recordable(network: nn.Module) -> bool:
    """Tell whether a network's class says that it runs the same kernels each time.

    It speaks neither for classes made from it nor for hooks and dropout that were put in.
    """
    return bool(vars(type(network)).get("is_recordable", False)) and not any(
        isinstance(part, nn.modules.dropout._DropoutNd) or is_hooked(part)
        for part in network.modules()
    )


def is_hooked(module: nn.Module) -> bool:
    """Tell whether something is to be called before or after a module."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def is_recording(device: torch.device) -> bool:
    """Tell whether work on a device is being recorded by this thread."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
