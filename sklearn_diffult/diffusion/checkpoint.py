"""Training state on disk, so that a killed training goes on where it was."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from filelock import FileLock, Timeout

from sklearn_diffult._files import drafts_of, replace_file
from sklearn_diffult._warnings import warn

CHECKPOINT_SECONDS = 30.0
# Writing takes at most this share of the time, however large the network.
WRITING_SHARE = 0.05


class Checkpoint:
    """One training's state in one file, replaced as a whole or not at all.

    Parameters
    ----------
    path : Path
        The file, named by what the training depends on; one that was written under another name is
        not read.
    """

    def __init__(self, path: Path):
        self.path = path
        self._due_at = time.monotonic() + CHECKPOINT_SECONDS

    @property
    def is_due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() >= self._due_at

    def read(self) -> dict[str, Any] | None:
        """Return the state, or None where there is none; a bad file is ignored with a warning."""
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            if content["key"] == self.path.stem:
                return dict(content["state"])
            fault = "it belongs to another training"
        except Exception as error:  # foreign bytes may raise anything
            fault = f"{type(error).__name__}: {error}"
        self.warn_unusable(fault)
        return None

    def warn_unusable(self, fault: str) -> None:
        """Say that training starts anew, and why."""
        warn(f"The checkpoint {self.path} cannot be used ({fault}); training starts anew.")

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file; where the disk does not take it, warn and keep the former one."""
        started = time.monotonic()
        # Through memory: torch's own writer does not tell a full disk from other faults.
        content = io.BytesIO()
        torch.save({"key": self.path.stem, "state": state}, content)
        try:
            replace_file(self.path, content.getbuffer())
        except OSError as error:
            former = "the one before it is kept" if self.path.exists() else "there is none yet"
            warn(
                f"The checkpoint {self.path} could not be written ({error}); {former}, and "
                "training goes on."
            )
        now = time.monotonic()
        self._due_at = now + max(CHECKPOINT_SECONDS, (now - started) / WRITING_SHARE)


def checkpoint_path(directory: str | os.PathLike[str], key: str) -> Path:
    """Return the file of the training with this key."""
    return Path(directory, f"{key}.checkpoint")


@contextlib.contextmanager
def hold_checkpoint(
    directory: str | os.PathLike[str] | None, key: Callable[[], str]
) -> Iterator[Checkpoint | None]:
    """Open the checkpoint of a training and keep others from writing it.

    None where no directory is given, and where another process is at the same training: its
    checkpoint serves both.
    """
    if directory is None:
        yield None
        return
    path = checkpoint_path(directory, key())
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield None
        return
    try:
        for left_over in drafts_of(path):  # by processes killed in writing
            left_over.unlink(missing_ok=True)
        yield Checkpoint(path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()


class DeferredSignals:
    """Hold back SIGINT and SIGTERM until their sender can be obeyed without loss.

    The first signal waits for `deliver`; a second one goes through at once. Outside the main
    thread, where Python allows no handlers, and when not asked to, nothing happens.
    """

    def __init__(self, wanted: bool):
        self.pending: int | None = None
        self._wanted = wanted and threading.current_thread() is threading.main_thread()
        self._former: dict[int, Any] = {}

    def __enter__(self) -> DeferredSignals:
        self._install()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._restore()
        self.deliver()

    def deliver(self) -> None:
        """Let the former handler have the signal that came meanwhile, if one did."""
        if self.pending is None:
            return
        signum, self.pending = self.pending, None
        handler = self._former.get(signum)
        was_installed = signal.getsignal(signum) == self._note
        self._restore()
        if callable(handler):
            handler(signum, None)
        else:
            signal.raise_signal(signum)
        if was_installed:  # the former handler chose to go on
            self._install()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.pending is not None:
            self.deliver()
        self.pending = signum

    def _install(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(signum)
            # None: set by foreign code, and impossible to put back.
            if self._wanted and handler not in (None, signal.SIG_IGN, self._note):
                self._former[signum] = signal.signal(signum, self._note)

    def _restore(self) -> None:
        for signum, handler in self._former.items():
            signal.signal(signum, handler)
