"""Displays: pictures of what a balancer made and what its filters decided.

matplotlib is imported when a picture is drawn, not before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from sklearn_diffult.codecs import ImageCodec


def _pictures(X: Any, codec: ImageCodec) -> np.ndarray:
    """Return images of the codec's container as floats "n h w c" in [0, 1]."""
    return ((codec.encode(X) + 1) / 2).permute(0, 2, 3, 1).numpy()


def _draw_row(axes: Any, images: np.ndarray, titles: list[str] | None = None) -> None:
    for column, ax in enumerate(axes):
        ax.set_axis_off()
        if column < len(images):
            image = images[column]
            ax.imshow(
                image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray_r", vmin=0, vmax=1
            )
            if titles is not None:
                ax.set_title(titles[column], fontsize=7, color="firebrick", pad=2)


def _name_row(ax: Any, name: str) -> None:
    ax.text(-0.15, 0.5, name, transform=ax.transAxes, ha="right", va="center", fontsize=9)


@dataclass(repr=False)
class SyntheticDisplay:
    """Real images beside synthetic images, one line per class.

    Parameters
    ----------
    real, synthetic : dict of label to ndarray "n h w c"
        Images in [0, 1].

    Attributes
    ----------
    figure_ : matplotlib Figure
        Set by `plot`.
    """

    real: dict[Any, np.ndarray]
    synthetic: dict[Any, np.ndarray]

    @classmethod
    def from_resampled(
        cls,
        X: Any,
        y: ArrayLike,
        synthetic_mask: np.ndarray,
        *,
        labels: list[Any] | None = None,
        n_columns: int = 8,
        image_shape: tuple[int, ...] | None = None,
    ) -> Self:
        """Take the first rows of each class out of what ``fit_resample`` returned.

        Parameters
        ----------
        X : images
            As returned by ``fit_resample``.
        y : array-like of shape (n_rows,)
            Their labels.
        synthetic_mask : ndarray of shape (n_rows,), bool
            ``balancer.synthetic_mask_``.
        labels : list or None, default=None
            Classes to show; None takes those with synthetic rows.
        n_columns : int, default=8
            Images per class and kind.
        image_shape : tuple or None, default=None
            As in `DiffusionBalancer`, for flat rows.
        """
        y = np.asarray(y)
        images = _pictures(X, ImageCodec(image_shape).fit(X))
        if labels is None:
            labels = np.unique(y[synthetic_mask]).tolist()
        pick = {
            kind: {label: images[(y == label) & mask][:n_columns] for label in labels}
            for kind, mask in (("real", ~synthetic_mask), ("synthetic", synthetic_mask))
        }
        return cls(**pick)

    def plot(self) -> Self:
        """Draw one line per class: real rows left, synthetic rows right."""
        import matplotlib.pyplot as plt

        n_columns = max(len(images) for images in [*self.real.values(), *self.synthetic.values()])
        figure, axes = plt.subplots(
            len(self.real),
            2 * n_columns + 1,
            figsize=(0.55 * (2 * n_columns + 2), 0.6 * len(self.real) + 0.6),
            squeeze=False,
        )
        for line, label in zip(axes, self.real, strict=True):
            _draw_row(line[:n_columns], self.real[label])
            _draw_row(line[n_columns : n_columns + 1], self.real[label][:0])
            _draw_row(line[n_columns + 1 :], self.synthetic[label])
            _name_row(line[0], f"class {label}")
        figure.text(0.3, 0.97, "real", ha="center", va="top", fontsize=10)
        figure.text(0.73, 0.97, "synthetic", ha="center", va="top", fontsize=10)
        self.figure_ = figure
        return self


@dataclass(repr=False)
class FilterDisplay:
    """Images that the filters kept beside images that they rejected, with the reasons.

    Parameters
    ----------
    kept, rejected : dict of label to ndarray "n h w c"
        Images in [0, 1].
    reasons : dict of label to list of str
        The metrics each rejected image failed.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Set by `plot`.
    """

    kept: dict[Any, np.ndarray]
    rejected: dict[Any, np.ndarray]
    reasons: dict[Any, list[str]]

    @classmethod
    def from_balancer(
        cls, balancer: Any, X: Any, y: ArrayLike, *, n_columns: int = 8, n_classes: int = 5
    ) -> Self:
        """Take the rows from a balancer and what its ``fit_resample`` returned.

        Parameters
        ----------
        balancer : DiffusionBalancer
            After ``fit_resample``.
        X, y : images and labels
            As returned by it.
        n_columns : int, default=8
            Images per class and decision.
        n_classes : int, default=5
            Classes shown: those with the most rejected examples.
        """
        unfiltered = "%(name)s has filtered nothing yet; call fit_resample first."
        check_is_fitted(balancer, "rejected_examples_", msg=unfiltered)
        if not balancer.codec_.is_image:
            raise ValueError(
                "FilterDisplay draws images, but this balancer was fitted to a table; "
                "look at filter_report_ and rejected_examples_."
            )
        y = np.asarray(y)
        examples = balancer.rejected_examples_
        n_rejected = dict.fromkeys(balancer.filter_report_, 0)
        n_rejected |= {label: len(reasons) for label, (_, reasons) in examples.items()}
        labels = sorted(n_rejected, key=lambda label: n_rejected[label], reverse=True)
        labels = sorted(labels[:n_classes])
        images = _pictures(X, balancer.codec_)
        # Rows that passed come first; rejected ones that fill a class up follow.
        n_kept = {label: min(n_columns, balancer.filter_report_[label]["kept"]) for label in labels}
        kept = {
            label: images[(y == label) & balancer.synthetic_mask_][: n_kept[label]]
            for label in labels
        }
        rejected = {
            label: _pictures(examples[label][0], balancer.codec_)[:n_columns]
            for label in labels
            if label in examples
        }
        return cls(kept, rejected, {label: examples[label][1][:n_columns] for label in rejected})

    def plot(self) -> Self:
        """Draw one line per class: kept rows left, rejected rows right."""
        import matplotlib.pyplot as plt

        n_columns = max(
            [1, *(len(images) for images in [*self.kept.values(), *self.rejected.values()])]
        )
        figure, axes = plt.subplots(
            max(1, len(self.kept)),
            2 * n_columns + 1,
            figsize=(0.6 * (2 * n_columns + 2), 0.75 * len(self.kept) + 0.7),
            squeeze=False,
        )
        for ax in axes.flat:
            ax.set_axis_off()
        if not self.rejected:
            figure.text(0.73, 0.5, "none", ha="center", fontsize=9)
        for line, label in zip(axes, self.kept, strict=False):
            _draw_row(line[:n_columns], self.kept[label])
            if label in self.rejected:
                _draw_row(line[n_columns + 1 :], self.rejected[label], self.reasons[label])
            _name_row(line[0], f"class {label}")
        figure.text(0.3, 0.97, "kept", ha="center", va="top", fontsize=10)
        figure.text(0.73, 0.97, "rejected, and by what", ha="center", va="top", fontsize=10)
        self.figure_ = figure
        return self
