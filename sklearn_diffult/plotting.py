"""Displays: what a balancer made, what its filters decided, and what a search found.

matplotlib is imported when a picture is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import _num_samples, check_is_fitted

from sklearn_diffult.codecs import ImageCodec


def _pictures(X: Any, codec: ImageCodec) -> np.ndarray:
    """Return images of the codec's container as floats "n h w c" in [0, 1]."""
    return ((codec.encode(X) + 1) / 2).permute(0, 2, 3, 1).numpy()


def _check_resampled(X: Any, y: np.ndarray, synthetic_mask: np.ndarray) -> None:
    """Raise a ValueError unless all three are what one call of ``fit_resample`` gave."""
    n_rows = _num_samples(X)
    if y.shape != (n_rows,):
        raise ValueError(
            f"y has shape {y.shape}, but X has {n_rows} images; give the X and y that one call of "
            "fit_resample returned, y with one label per image."
        )
    if synthetic_mask.dtype != bool or synthetic_mask.shape != (n_rows,):
        raise ValueError(
            f"synthetic_mask is of {synthetic_mask.dtype} with shape {synthetic_mask.shape}, but X "
            f"has {n_rows} images; give balancer.synthetic_mask_ of the fit_resample that returned "
            "X, one boolean per image."
        )


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

        Raises
        ------
        ValueError
            If lengths differ, the mask is none or marks no row, or a label is not in y.
        """
        y, synthetic_mask = np.asarray(y), np.asarray(synthetic_mask)
        _check_resampled(X, y, synthetic_mask)
        images = _pictures(X, ImageCodec(image_shape).fit(X))
        if labels is None:
            labels = np.unique(y[synthetic_mask]).tolist()
        if not labels:
            raise ValueError(
                "synthetic_mask marks no row as synthetic, so there is no class to show; name some "
                "in labels."
            )
        known = np.unique(y).tolist()
        if unknown := [label for label in labels if label not in known]:
            raise ValueError(f"labels={labels!r} has {unknown}, which y has not; it has {known}.")
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

        Raises
        ------
        NotFittedError
            Before ``fit_resample``.
        ValueError
            If the balancer was fitted to a table, or X and y are not what it returned last.
        """
        unfiltered = "%(name)s has filtered nothing yet; call fit_resample first."
        check_is_fitted(balancer, "rejected_examples_", msg=unfiltered)
        if not balancer.codec_.is_image:
            raise ValueError(
                "FilterDisplay draws images, but this balancer was fitted to a table; "
                "look at filter_report_ and rejected_examples_."
            )
        y = np.asarray(y)
        n_rows = len(balancer.synthetic_mask_)
        if y.shape != (n_rows,) or _num_samples(X) != n_rows:
            raise ValueError(
                f"X has {_num_samples(X)} images and y shape {y.shape}, but the balancer's last "
                f"fit_resample returned {n_rows}; give the X and y that it returned, y with one "
                "label per image."
            )
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
            # By default images pass but one filter.
            why = "none\n(near-copies aside; d1_max, d2_max\nand d3_max turn filters on)"
            figure.text(0.73, 0.5, why, ha="center", va="center", fontsize=9)
        for line, label in zip(axes, self.kept, strict=False):
            _draw_row(line[:n_columns], self.kept[label])
            if label in self.rejected:
                _draw_row(line[n_columns + 1 :], self.rejected[label], self.reasons[label])
            _name_row(line[0], f"class {label}")
        figure.text(0.3, 0.97, "kept", ha="center", va="top", fontsize=10)
        figure.text(0.73, 0.97, "rejected, and by what", ha="center", va="top", fontsize=10)
        self.figure_ = figure
        return self


@dataclass(repr=False)
class SearchDisplay:
    """Scores of a search against one parameter, with their spread over the folds.

    Parameters
    ----------
    param : str
        The parameter's name in the search.
    values : ndarray of shape (n_values,)
        Its values: sorted numbers, or text where a value is no number.
    means, deviations : dict of str to ndarray of shape (n_values,)
        Mean and standard deviation over the folds, by score.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Set by `plot`.
    figure_ : matplotlib Figure
        Set by `plot`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_diffult.plotting import SearchDisplay
    >>> grid = {"max_depth": [1, 2, 3], "criterion": ["gini", "entropy"]}
    >>> search = GridSearchCV(DecisionTreeClassifier(random_state=0), grid, cv=3)
    >>> search.fit(*load_iris(return_X_y=True))
    GridSearchCV(...)
    >>> display = SearchDisplay.from_search(search, param="max_depth")
    >>> display.values.tolist(), list(display.means)
    ([1.0, 2.0, 3.0], ['score'])
    """

    param: str
    values: np.ndarray
    means: dict[str, np.ndarray]
    deviations: dict[str, np.ndarray]

    @classmethod
    def from_search(
        cls, search: Any, *, param: str = "balance__omega", scores: Sequence[str] | None = None
    ) -> Self:
        """Take the scores out of a fitted search.

        Where the search went over other parameters too, each value of `param` stands for the
        candidate with the best first score among those that have the value. All lines show that
        one candidate: bests of each score on its own might come from different candidates, and no
        classifier would have them all.

        Parameters
        ----------
        search : GridSearchCV, RandomizedSearchCV or other estimator with ``cv_results_``
            Fitted, with one score or several, such as those of
            `sklearn_diffult.metrics.make_shot_scorers`.
        param : str, default="balance__omega"
            Name of the parameter, as in the search.
        scores : sequence of str or None, default=None
            Scores to show; the first picks the candidate. None takes all, that of ``refit`` first.

        Raises
        ------
        NotFittedError
            Before the search's `fit`.
        ValueError
            If the search did not vary `param` or has no such score.
        """
        check_is_fitted(search, "cv_results_")
        results = search.cv_results_
        names = _scores_of(search, scores)
        candidates = [i for i, each in enumerate(results["params"]) if param in each]
        if not candidates:
            searched = sorted({name for each in results["params"] for name in each})
            raise ValueError(f"param={param!r} is not among the searched parameters {searched}.")
        found = [results["params"][i][param] for i in candidates]
        values = np.array(found if all(map(_is_number, found)) else list(map(str, found)))
        values = values.astype(float) if values.dtype.kind in "biuf" else values
        # A candidate whose fit failed has no score.
        deciding = next(iter(names.values()))
        first = np.nan_to_num(results[f"mean_test_{deciding}"][candidates], nan=-np.inf)
        distinct = np.unique(values)
        best = [max(np.flatnonzero(values == each), key=lambda i: first[i]) for each in distinct]
        chosen = np.array(candidates)[best]
        means, deviations = (
            {
                title: np.asarray(results[f"{kind}_test_{name}"])[chosen]
                for title, name in names.items()
            }
            for kind in ("mean", "std")
        )
        return cls(param, distinct, means, deviations)

    def plot(self, ax: Any = None) -> Self:
        """Draw one line per score and a band of one standard deviation over the folds around it.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : SearchDisplay
        """
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=(6, 4), layout="constrained")
        for name, mean in self.means.items():
            (line,) = ax.plot(self.values, mean, marker="o", markersize=4, label=name)
            low, high = mean - self.deviations[name], mean + self.deviations[name]
            ax.fill_between(self.values, low, high, color=line.get_color(), alpha=0.15, lw=0)
        what = "score" if len(self.means) > 1 else next(iter(self.means))
        ax.set(xlabel=self.param, ylabel=f"{what} in the test folds")
        if len(self.means) > 1:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _scores_of(search: Any, scores: Sequence[str] | None) -> dict[str, str]:
    """Titles of the scores to show and their names in the results, the one that decides first."""
    prefix, scoring = "mean_test_", getattr(search, "scoring", None)
    known = [key.removeprefix(prefix) for key in search.cv_results_ if key.startswith(prefix)]
    names = {name: name for name in known}
    # Whatever it is, the one score of a search is called "score" there.
    if known == ["score"] and isinstance(scoring, str):
        names = {scoring: "score"}
    refit = getattr(search, "refit", None)
    if scores is None:
        scores = sorted(names, key=lambda name: name != refit)
    if isinstance(scores, str) or not scores or not set(scores) <= set(names):
        raise ValueError(f"scores={scores!r} must be a list of names among {list(names)}.")
    return {title: names[title] for title in scores}
