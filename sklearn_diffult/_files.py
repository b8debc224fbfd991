"""Files that are never half written."""

from __future__ import annotations

import contextlib
import glob
import os
import threading
from pathlib import Path


def drafts_of(path: Path) -> list[Path]:
    """Return what processes left that were killed while they wrote this file."""
    return list(path.parent.glob(f"{glob.escape(path.name)}.*.tmp"))


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that at any moment, a crash included, it is the former one or the new one.

    Raises
    ------
    OSError
        If the disk does not take it; the former file is as it was.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{str(path)!r} cannot be written: there is no such folder.")
    draft = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
