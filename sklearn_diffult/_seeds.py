"""Random states and the seeds drawn from them; the global ones are never touched."""

from __future__ import annotations

import numpy as np
from sklearn.utils import check_random_state


def new_random_state(random_state: int | np.random.RandomState | None) -> np.random.RandomState:
    """Return a RandomState for an int, the one given, or for None one of fresh entropy.

    scikit-learn's ``check_random_state(None)`` would hand out numpy's global generator.
    """
    return np.random.RandomState() if random_state is None else check_random_state(random_state)


def child_seeds(random_state: int | np.random.RandomState | None, n: int) -> list[int]:
    """Derive `n` independent seeds."""
    drawn = new_random_state(random_state).randint(0, 2**31 - 8, size=n)
    return [int(seed) for seed in drawn]
