"""What fits leave in a balancer, and how to be rid of what it can do without."""

from __future__ import annotations

from typing import Any, Self

import torch

from sklearn_diffult._columns import record_columns
from sklearn_diffult._warnings import warn
from sklearn_diffult.codecs.image import looks_like_images
from sklearn_diffult.diffusion.trainer import TrainingResult
from sklearn_diffult.filters import Evidence
from sklearn_diffult.privacy import report_privacy
from sklearn_diffult.selection import Selection, shortfall_message
from sklearn_diffult.training_data import TrainingData

OF_RESAMPLING = (
    "sample_weight_",
    "synthetic_mask_",
    "filter_report_",
    "privacy_report_",
    "rejected_examples_",
)


class Results:
    """Setting and dropping a balancer's fitted attributes."""

    d3_max: float | str | None
    max_rounds: int
    on_shortfall: str
    filter_report_: dict[Any, dict[str, int]]

    def __getattr__(self, name: str) -> Any:
        """Say where attributes that are missing come from."""
        message = f"{type(self).__name__!r} object has no attribute {name!r}"
        if name in OF_RESAMPLING:
            message += (
                ": fit_resample sets it, fit does not, and files and forget_resampling drop it"
            )
        raise AttributeError(message, name=name, obj=self)

    def forget_resampling(self) -> Self:
        """Drop what only the last ``fit_resample`` is about, before the balancer is handed on.

        Weights, mask, reports and rejected examples go; `generate` works as before. No training
        row is among them, but numbers of rows, and distances and examples close to some.

        Returns
        -------
        self : DiffusionBalancer
        """
        for name in OF_RESAMPLING:
            self.__dict__.pop(name, None)
        return self

    def _take(self, data: TrainingData, wanted: dict[Any, int], result: TrainingResult) -> None:
        """Set what `fit` sets, all at once, and leave nothing of an earlier fit."""
        self.forget_resampling()
        record_columns(self, data.X, not looks_like_images(data.X))
        self.__dict__.pop("image_shape_", None)
        if data.codec.is_image:
            self.image_shape_ = data.codec.sample_shape
        self.codec_, self.classes_, self.sampling_strategy_ = data.codec, data.classes, wanted
        self.denoiser_ = result.denoiser
        self.loss_curve_, self.rows_per_second_ = result.loss_curve, result.rows_per_second

    def _reports(
        self, data: TrainingData, selection: Selection, evidence: Evidence
    ) -> dict[str, Any]:
        """Return fitted attributes that say what became of the candidates."""
        labels = data.classes.tolist()
        rows = selection.rows.flatten(1).numpy()
        return {
            "filter_report_": {labels[each.label]: each.report for each in selection.candidates},
            "rejected_examples_": {
                labels[each.label]: (data.codec.decode(torch.stack(each.examples)), each.reasons)
                for each in selection.candidates
                if each.examples
            },
            "privacy_report_": report_privacy(evidence, rows, selection.indices, labels),
        }

    def _complain(self) -> None:
        """Speak up where too few candidates passed."""
        unasked = ["d3"] if self.d3_max == "auto" else []
        message = shortfall_message(self.filter_report_, self.max_rounds, unasked)
        if message and self.on_shortfall == "raise":
            raise RuntimeError(message)
        if message:
            warn(message)
