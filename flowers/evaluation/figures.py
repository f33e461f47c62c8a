"""Figures of predictions and of a training: every function returns a matplotlib ``Figure``, none shows or saves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from cycler import cycler
from matplotlib import rcParams
from matplotlib.figure import Figure
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from flowers.evaluation.calibration import Reliability
    from flowers.evaluation.predictions import PredictionTable
    from flowers.evaluation.training_curves import Curve

# With more classes a number in each cell, or a curve for each class, can no longer be read.
_MAX_NUMBERED = 20
_MAX_CURVES = 20
_LONGEST_NAME = 40


def confusion_figure(counts: NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    """Return the confusion matrix ``(K, K)``, coloured by the share of each row, with counts where there is room."""
    num_classes = len(class_names)
    side = min(12.0, 2.5 + 0.55 * num_classes) if num_classes <= _MAX_NUMBERED else 12.0
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 9 if num_classes <= _MAX_NUMBERED else max(3.5, 420 / num_classes)
    names = [_shown(name) for name in class_names]
    axes.set_xticks(
        range(num_classes), names, rotation=45 if num_classes <= _MAX_NUMBERED else 90, ha="right"
    )
    axes.set_yticks(range(num_classes), names)
    axes.tick_params(labelsize=size)
    if num_classes > _MAX_NUMBERED:
        axes.set_xticks(range(num_classes), names, rotation=90, ha="center")
    else:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = f"{count}\n{shares[row, column]:.0%}" if count else "0"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set(xlabel="predicted", ylabel="label")
    figure.colorbar(image, ax=axes, label="share of the label's images", shrink=0.8)
    return figure


def roc_figure(predictions: PredictionTable) -> Figure:
    """Return the receiver operating characteristic of each class against the rest, with its area."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    for name, is_class, probs in _one_against_rest(predictions):
        false, true, _ = roc_curve(is_class, probs)
        axes.plot(false, true, label=f"{_shown(name)} ({roc_auc_score(is_class, probs):.3f})")
    axes.set(
        xlabel="false positive rate", ylabel="true positive rate", title="ROC, area in brackets"
    )
    _legend(axes, "lower right")
    return figure


def precision_recall_figure(predictions: PredictionTable) -> Figure:
    """Return precision over recall of each class against the rest, with the average precision."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    for name, is_class, probs in _one_against_rest(predictions):
        precision, recall, _ = precision_recall_curve(is_class, probs)
        axes.step(
            recall,
            precision,
            where="post",
            label=f"{_shown(name)} ({average_precision_score(is_class, probs):.3f})",
        )
    axes.set(
        xlabel="recall",
        ylabel="precision",
        title="Precision and recall, average precision in brackets",
    )
    axes.set_ylim(0, 1.02)
    _legend(axes, "lower left")
    return figure


def reliability_figure(found: Reliability, *, title: str) -> Figure:
    """Return a reliability diagram: the share that is right over the confidence, with the images of each bin."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    filled, width = found.counts > 0, np.diff(found.edges)
    centres = (found.edges[:-1] + found.edges[1:]) / 2
    axes.bar(
        centres[filled],
        found.accuracy[filled],
        width=width[filled],
        edgecolor="white",
        label="accuracy",
    )
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--", label="as sure as right")
    means = (found.confidence[filled], found.accuracy[filled])
    axes.plot(*means, "o", color="black", markersize=3, label="mean confidence")
    for centre, count in zip(centres[filled], found.counts[filled], strict=True):
        axes.text(centre, 1.01, str(count), ha="center", fontsize=7, color="dimgrey")
    axes.set(
        xlabel="confidence; above: images of each bin",
        ylabel="share that is right",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.set_title(f"{title}: ECE {found.error:.3f}", pad=14)
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    return figure


def confidence_figure(predictions: PredictionTable) -> Figure:
    """Return a histogram of the confidence of right and of wrong predictions."""
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    confidence = predictions.probs.max(axis=1)
    right = predictions.probs.argmax(axis=1) == predictions.labels
    bins = np.linspace(0, 1, 21).tolist()
    axes.hist(
        [confidence[right], confidence[~right]], bins=bins, stacked=True, label=["right", "wrong"]
    )
    axes.set(xlabel="confidence", ylabel="images", xlim=(0, 1))
    axes.legend(loc="upper left", frameon=False)
    return figure


def history_figure(
    curves: Mapping[str, Curve], *, marks: Mapping[str, int] | None = None
) -> Figure:
    """Return a training's loss, accuracy and learning rate, with some epochs marked.

    Args:
        curves: Scalars of the run by their names, as ``train/loss``.
        marks: Epochs, counted from 0, by what to call them, as ``best checkpoint``.
    """
    rates = [name for name in curves if name.startswith("lr-")]
    panels = {
        "loss": ["train/loss", "val/loss"],
        "accuracy": ["train/acc", "val/acc"],
        # Of several groups of parameters the fastest: the head's, where the backbone learns more
        # slowly.
        "learning rate": sorted(rates, key=lambda name: -curves[name].values.max())[:1],
    }
    shown = {title: [name for name in names if name in curves] for title, names in panels.items()}
    shown = {title: names for title, names in shown.items() if names}
    figure = Figure(figsize=(5.5, 2.4 * max(1, len(shown)) + 0.3), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(max(1, len(shown)), sharex=True))
    for axes, (title, names) in zip(all_axes, shown.items(), strict=False):
        for name in names:
            _plot(axes, curves[name], label=name.partition("/")[0] if len(names) > 1 else None)
        for label, epoch in (marks or {}).items():
            axes.axvline(
                epoch + 1,
                color="grey",
                linewidth=0.8,
                linestyle="--",
                label=f"{label} (epoch {epoch})",
            )
        axes.set_ylabel(title)
        _legend(axes, "best")
    all_axes[-1].set_xlabel("epochs trained")
    return figure


def overlay_figure(curves: Mapping[str, Curve], *, title: str) -> Figure:
    """Return one curve of each of several runs.

    Args:
        curves: The curves by the name of their run.
        title: What they show.
    """
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(cycler(linestyle=["-", "--", ":", "-."]) * rcParams["axes.prop_cycle"])
    for name, curve in curves.items():
        _plot(axes, curve, label=_shown(name))
    axes.set(xlabel="epochs trained", ylabel=title)
    _legend(axes, "best")
    return figure


def gallery_figure(
    images: Sequence[NDArray[np.uint8]], titles: Sequence[str], *, columns: int = 4
) -> Figure:
    """Return images ``(H, W, 3)``, some in a row, each under its title."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2.25 * columns, 2.8 * rows + 0.2), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in all_axes:
        axes.axis("off")
    for axes, image, title in zip(all_axes, images, titles, strict=False):
        axes.imshow(image)
        axes.set_title("\n".join(map(_shown, title.split("\n"))), fontsize=9)
    return figure


def _one_against_rest(
    predictions: PredictionTable,
) -> list[tuple[str, NDArray[np.bool_], NDArray[np.float64]]]:
    """Return name, truth and probability of the classes with images; of many, those that are hardest to tell."""
    named = []
    for label, name in enumerate(predictions.class_names):
        is_class = predictions.labels == label
        if 0 < is_class.sum() < len(is_class):
            named.append((name, is_class, predictions.probs[:, label]))
    if len(named) > _MAX_CURVES:
        named.sort(key=lambda item: average_precision_score(item[1], item[2]))
    return named[:_MAX_CURVES]


def _legend(axes: Axes, place: Literal["best", "lower left", "lower right"]) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc=place, fontsize=8, frameon=False)


def _plot(axes: Axes, curve: Curve, *, label: str | None) -> None:
    """Draw a curve; a single value, of which there is no line, as a dot."""
    axes.plot(
        curve.epochs, curve.values, label=label, marker="o" if len(curve.values) == 1 else None
    )


def _shown(name: str) -> str:
    """Return a name as matplotlib can draw it, which takes $ for mathematics and _ at the beginning for a secret."""
    short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
    plain = short.encode("utf-8", "replace").decode().replace("$", r"\$")
    return f"\u200b{plain}" if plain.startswith("_") else plain
