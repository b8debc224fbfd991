"""Rows of each class in an order of their own, generated and scored once and kept."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sklearn_diffult._stage_cache import LazyKey, StageCache, key_of

Generate = Callable[[np.ndarray, np.ndarray], Tensor]
Score = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Scored:
    """Rows "n ..." of one class, and their scores (n,) by metric."""

    rows: Tensor
    scores: dict[str, np.ndarray]

    def take(self, rows: slice) -> Scored:
        """Return some of the rows."""
        return Scored(self.rows[rows], {name: s[rows] for name, s in self.scores.items()})


@dataclass
class _Class:
    """What of a class's stream is at hand: rows up to `end`, the last ones not yet handed out."""

    end: int = 0
    waiting: list[Scored] = field(default_factory=list)

    @property
    def n_waiting(self) -> int:
        return sum(len(each.rows) for each in self.waiting)


class CandidateStream:
    """Candidates of every class, the same ones in the same order however they are asked for.

    But for a solver that draws: its noise depends on the batch, so what was asked for first stays.

    A class's stream is kept in segments: under its key, the class and the number of its first row
    lie as many rows as were missing when it was first asked for. So another threshold or another
    `sampling_strategy` reads what is there and generates only what lies beyond.

    Parameters
    ----------
    cache : StageCache
        Where segments and scores are kept.
    key : callable returning str
        What the rows depend on.
    generate : callable
        ``generate(labels, positions) -> rows "n ..."``: rows by class and number in its stream.
    finish : callable
        Maps generated rows to those that the user would get.
    scores : dict of str to callable
        ``score(rows, label) -> (n,)`` by metric, for rows (n, n_values).
    score_key : callable returning str
        What scores depend on besides the rows.
    """

    def __init__(
        self,
        cache: StageCache,
        key: LazyKey,
        generate: Generate,
        finish: Callable[[Tensor], Tensor],
        scores: dict[str, Score],
        score_key: LazyKey,
    ):
        self._cache, self._key = cache, key
        self._generate, self._finish = generate, finish
        self._scores, self._score_key = scores, score_key
        self._classes: defaultdict[int, _Class] = defaultdict(_Class)

    def draw(self, wanted: dict[int, int]) -> dict[int, Scored]:
        """Return the next rows of each class index, as many as wanted, with their scores."""
        missing = self._read(wanted)
        if missing:
            with self._cache.lock(self._key):
                # Another process may have generated them while this one waited.
                missing = self._read(missing)
                if missing:
                    self._extend(missing)
        return {label: self._hand_out(label, count) for label, count in wanted.items()}

    def _read(self, wanted: dict[int, int]) -> dict[int, int]:
        """Take in what is kept; return the counts of the classes that it does not reach."""
        short = {}
        for label, count in wanted.items():
            this = self._classes[label]
            while this.n_waiting < count:
                rows = self._cache.load("candidates", self._segment_key(label, this.end))
                if rows is None:
                    short[label] = count
                    break
                self._append(label, torch.from_numpy(np.array(rows)))
        return short

    def _extend(self, wanted: dict[int, int]) -> None:
        """Generate what is missing, all classes in the same batches."""
        counts = [count - self._classes[label].n_waiting for label, count in wanted.items()]
        starts = [self._classes[label].end for label in wanted]
        positions = [start + np.arange(n) for start, n in zip(starts, counts, strict=True)]
        rows = self._generate(np.repeat(list(wanted), counts), np.concatenate(positions))
        for label, start, segment in zip(wanted, starts, rows.split(counts), strict=True):
            self._cache.store("candidates", self._segment_key(label, start), segment.numpy())
            self._append(label, segment)

    def _append(self, label: int, segment: Tensor) -> None:
        rows = self._finish(segment)
        flat = rows.flatten(1).numpy()
        # By content: what the codec made of the rows is all that scores see of it.
        key = functools.cache(lambda: key_of(self._score_key(), label, flat))
        scores = {
            name: self._cache.recall(f"scores-{name}", key, functools.partial(score, flat, label))
            for name, score in self._scores.items()
        }
        this = self._classes[label]
        this.end += len(rows)
        this.waiting.append(Scored(rows, scores))

    def _hand_out(self, label: int, count: int) -> Scored:
        this = self._classes[label]
        ready = this.waiting[0]
        if len(this.waiting) > 1:
            ready = Scored(
                torch.cat([each.rows for each in this.waiting]),
                {
                    name: np.concatenate([each.scores[name] for each in this.waiting])
                    for name in self._scores
                },
            )
        # Not even an empty part of them, which would keep the whole in memory.
        this.waiting = [ready.take(slice(count, None))] if len(ready.rows) > count else []
        return ready.take(slice(count))

    def _segment_key(self, label: int, start: int) -> LazyKey:
        return lambda: key_of(self._key(), label, start)
