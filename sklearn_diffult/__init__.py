"""Balance imbalanced data with a diffusion model trained on nothing but itself."""

from sklearn_diffult.balancer import DiffusionBalancer
from sklearn_diffult.classifier import WeightedTorchClassifier
from sklearn_diffult.datasets import make_long_tailed
from sklearn_diffult.pipeline import Pipeline, make_pipeline

__all__ = [
    "DiffusionBalancer",
    "Pipeline",
    "WeightedTorchClassifier",
    "make_long_tailed",
    "make_pipeline",
]
__version__ = "0.1.0.dev0"
