"""Devices, precision, generators and progress bars, shared by both estimators."""

from __future__ import annotations

import contextlib
import inspect
import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.asyncio import tqdm as tqdm_of_terminals
from tqdm.auto import tqdm


def resolve_device(device: str) -> torch.device:
    """Turn ``"auto"`` or a device name into a device that exists on this machine.

    Raises
    ------
    ValueError
        If the name is unknown to torch or the device is not there.
    """
    if device == "auto":
        # Not mps, which nobody has run this on.
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is not a device name; use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
        ) from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (resolved.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(resolved.type, False):
        raise ValueError(
            f"device={device!r} is not available on this machine; use device='auto' or 'cpu', "
            "after loading a pickle with set_params(device='auto')."
        )
    return resolved


def resolve_precision(precision: str, device: torch.device, is_image: bool) -> torch.dtype:
    """Pick the dtype of matrix work.

    ``"auto"`` is bfloat16 for images where the hardware multiplies it, else float32: emulation is
    slower, and a table's columns need more than bfloat16's eight bits.
    """
    native = precision == "auto" and is_image and _multiplies_bfloat16(device)
    return torch.bfloat16 if native or precision == "bfloat16" else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


@contextlib.contextmanager
def autocast(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Run the enclosed forward passes in `dtype`; nothing happens for float32."""
    if dtype == torch.float32:
        yield
        return
    with torch.autocast(device.type, dtype=dtype):
        yield
    # Inside a block of the caller's, casts of weights would outlive the step that changes them.
    torch.clear_autocast_cache()


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device.

    CUDA takes what lies in ordinary memory aside before it returns, so nobody need wait for the
    kernels that were launched before, as torch would.
    """
    # Pinned memory, of a user's own, is not taken aside.
    is_safe = device.type == "cuda" and not tensor.is_pinned()
    return tensor.to(device, non_blocking=is_safe)


def new_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator of its own, so that torch's global one is never touched."""
    return torch.Generator(device=device).manual_seed(int(seed))


def empty_as(tensor: Tensor) -> Tensor:
    """Return memory on the CPU for a tensor of the meta device, in the same layout.

    `Module.to_empty` does so too, but imports sympy.
    """
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")


def build(factory: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """Build a network and draw every parameter from `generator`.

    Modules are made on the meta device, where torch's own initialisation neither costs anything
    nor consumes the global random state. A module that wants something other than the defaults
    below defines ``reset_parameters(generator)``; it is called after its children's. Its state is
    all in its ``state_dict()``, and parameters are not shared.
    """
    with torch.device("meta"):
        network = factory()
    empty = {name: empty_as(tensor) for name, tensor in network.state_dict().items()}
    network.load_state_dict(empty, assign=True)
    network = network.to(torch.float32)
    _initialise(network, generator)
    return network


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    for child in module.children():
        _initialise(child, generator)
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, generator=generator)
    elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
        module.reset_parameters()
    elif (reset := getattr(module, "reset_parameters", None)) is not None:
        reset(generator)


class AdamW(torch.optim.AdamW):
    """torch's, without its compiler.

    When first called, some of its methods import the compiler, to be left alone by it. That takes
    a second or two and about 90 MiB in every process.
    """

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)


class _SharedFlags:
    """Flags of torch, one for all threads: the first to come sets them, the last to go resets them.

    If each put back what it found, one that ends early would change the kernels of another, and
    the last to end would leave the flags set for good.
    """

    def __init__(self, set_flags: Callable[[], contextlib.AbstractContextManager[None]]):
        self._set_flags = set_flags
        self._lock = threading.Lock()
        self._n_users = 0
        self._flags_set = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._n_users == 0:
                self._flags_set.enter_context(self._set_flags())
            self._n_users += 1

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        with self._lock:
            self._n_users -= 1
            if self._n_users == 0:
                self._flags_set.close()


@contextlib.contextmanager
def _deterministic_kernels() -> Iterator[None]:
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cudnn.deterministic = before


_REPEATABLE = _SharedFlags(_deterministic_kernels)


@contextlib.contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Work as if the caller had set no autocast and no default device.

    On CUDA, take only kernels that add up in one order; flags are put back by the last user.
    """
    with contextlib.ExitStack() as modes:
        # What is drawn for a GPU is computed on the CPU.
        for kind in {"cpu", device.type}:
            if torch.is_autocast_enabled(kind):
                modes.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        if device.type == "cuda":
            modes.enter_context(_REPEATABLE)
        yield


@contextlib.contextmanager
def learning() -> Iterator[None]:
    """Record gradients, whatever the caller has set.

    Raises
    ------
    RuntimeError
        Inside ``torch.inference_mode()``, whose tensors can never have any.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "Nothing can be trained inside torch.inference_mode(); leave that block for fit, or "
            "use torch.no_grad()."
        )
    with torch.enable_grad():
        yield


class _OneThread:
    """One thread for torch's operations; the number is put back for whoever leaves.

    torch keeps it per thread of Python, but a thread that is new to torch finds what another has
    set last. So those who come while it is 1 put back what the first to come found.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_users = 0
        self._before = 1

    def __enter__(self) -> None:
        with self._lock:
            if self._n_users == 0:
                self._before = torch.get_num_threads()
            self._n_users += 1
            torch.set_num_threads(1)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        with self._lock:
            self._n_users -= 1
            torch.set_num_threads(self._before)


_ONE_THREAD = _OneThread()
# Parameters up to which a network of a table is small.
SMALL_NETWORK = 500_000


def threads_for(
    module: nn.Module, sample_shape: Sequence[int], device: torch.device
) -> contextlib.AbstractContextManager[None]:
    """On a CPU, keep a small network of a table on one thread.

    Threads gain next to nothing in products that small, and wait for each other in between: where
    anything else runs on the machine, a step took ten times as long as with one.
    """
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    is_small = len(sample_shape) == 1 and n_parameters <= SMALL_NETWORK
    return _ONE_THREAD if is_small and device.type == "cpu" else contextlib.nullcontext()


@contextlib.contextmanager
def explain_out_of_memory(parameter: str) -> Iterator[None]:
    """Turn torch's out-of-memory errors into a MemoryError that names what to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"The device ran out of memory; lower {parameter}. ({error})") from error
    except RuntimeError as error:
        # CPU and MPS allocators report exhaustion as a plain RuntimeError.
        phrases = ("out of memory", "not enough memory", "can't allocate memory")
        if not any(phrase in str(error) for phrase in phrases):
            raise
        raise MemoryError(f"Memory ran out; lower {parameter}. ({error})") from error


class _Lines:
    """A stream to which bars write one line after another, where nobody sees them redrawn."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        self._stream.write(text.replace("\r", "\n"))


def progress(total: int, description: str, verbose: int) -> Any:
    """Return a tqdm bar, silent when ``verbose == 0``; a file gets a line every ten seconds."""
    isatty = getattr(sys.stderr, "isatty", None)  # a service may have none
    is_seen = tqdm is not tqdm_of_terminals or (isatty is not None and isatty())
    return tqdm(
        total=total,
        desc=description,
        disable=not verbose,
        dynamic_ncols=True,
        file=sys.stderr if is_seen else _Lines(sys.stderr),
        mininterval=0.1 if is_seen else 10.0,
    )


def lookup(table: dict[Any, Any], choice: Any) -> Any:
    """Return a line of a table by its name, or the user's own choice as it is."""
    return choice if callable(choice) else table[choice]
