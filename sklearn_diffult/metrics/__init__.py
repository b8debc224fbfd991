"""Scores of classifiers on long-tailed data, and of synthetic rows against real ones."""

from __future__ import annotations

from sklearn_diffult.metrics.fidelity import (
    ManifoldScores,
    distance_to_closest_record,
    frechet_distance,
    inception_score,
    manifold_scores,
)
from sklearn_diffult.metrics.shots import ShotScores, make_shot_scorers, shot_groups, shot_scores

__all__ = [
    "ManifoldScores",
    "ShotScores",
    "distance_to_closest_record",
    "frechet_distance",
    "inception_score",
    "make_shot_scorers",
    "manifold_scores",
    "shot_groups",
    "shot_scores",
]
