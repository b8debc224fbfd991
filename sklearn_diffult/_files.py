"""Files that are never half written."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
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
        If the disk does not take it, or the path is that of no file; what was there is as it was.
    """
    path = path.resolve()  # else a link would be replaced, and not the file
    if path.exists() and not path.is_file():
        raise OSError(f"{str(path)!r} cannot be written: it is a folder or device, not a file.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{str(path)!r} cannot be written: there is no such folder.")
    draft = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            draft.chmod(stat.S_IMODE(path.stat().st_mode))
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
