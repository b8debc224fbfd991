"""Scripts beside the tests, run as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def output_of(script, *arguments):
    """What a script prints that ends well."""
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name(script), *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout
