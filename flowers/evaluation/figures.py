"""Matplotlib figures of predictions and of a training; nothing is shown or saved."""

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from cycler import cycler
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from flowers.evaluation.calibration import Reliability
from flowers.evaluation.predictions import PredictionTable
from flowers.evaluation.training_curves import Curve

# With more classes, the counts in the cells or the curves of the classes are illegible.
_MAX_CLASSES = 20
_MAX_NAME = 40  # characters
MIN_BIN = 10  # images; the accuracy of fewer is too uncertain
_DASHED: dict[str, Any] = {"color": "grey", "linewidth": 0.8, "linestyle": "--"}


def confusion_figure(counts: NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    """Return a confusion matrix ``(K, K)``, each cell coloured by its fraction of the row.

    With at most 20 classes, the cells contain the counts.
    """
    num_classes = len(class_names)
    side = min(12.0, 2.5 + 0.55 * num_classes)
    figure, axes = _new_figure(1.1 * side, side)  # the aspect ratio of the other figures
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    ticks = range(num_classes)
    names = list(map(_plain, class_names))
    axes.set_yticks(ticks, names)
    if num_classes <= _MAX_CLASSES:
        axes.set_xticks(ticks, names, rotation=45, ha="right")
        axes.tick_params(labelsize=9)
        for (row, column), count in np.ndenumerate(counts):
            fraction = fractions[row, column]
            colour = "white" if fraction > 0.5 else "black"
            text = f"{count}\n{fraction:.0%}" if count else "0"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    else:
        axes.set_xticks(ticks, names, rotation=90, ha="center")
        axes.tick_params(labelsize=max(3.5, 420 / num_classes))
    axes.set(xlabel="predicted", ylabel="label")
    figure.colorbar(image, ax=axes, label="fraction of the label's images", shrink=0.8)
    return figure


def roc_figure(predictions: PredictionTable) -> Figure:
    """Return the receiver operating characteristic of each class against the rest."""
    figure, axes = _new_figure(5.5, 5)
    axes.plot([0, 1], [0, 1], **_DASHED)
    for name, is_class, probs in _one_against_rest(predictions):
        false_positives, true_positives, _ = roc_curve(is_class, probs)
        area = roc_auc_score(is_class, probs)
        axes.plot(false_positives, true_positives, label=f"{_plain(name)} ({area:.3f})")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.set_title("ROC curves (area under the curve)")
    _legend(axes, "lower right")
    return figure


def precision_recall_figure(predictions: PredictionTable) -> Figure:
    """Return the precision-recall curve of each class against the rest."""
    figure, axes = _new_figure(5.5, 5)
    for name, is_class, probs in _one_against_rest(predictions):
        precision, recall, _ = precision_recall_curve(is_class, probs)
        average = average_precision_score(is_class, probs)
        axes.step(recall, precision, where="post", label=f"{_plain(name)} ({average:.3f})")
    axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    axes.set_title("Precision-recall curves (average precision)")
    _legend(axes, "lower left")
    return figure


def reliability_figure(bins: Reliability, *, title: str) -> Figure:
    """Return a reliability diagram: accuracy over confidence, with the image count of each bin.

    Bins of fewer than ten images are merged with their neighbours; the ECE is that before merging.
    """
    figure, axes = _new_figure(5.5, 5)
    merged = bins.merged(MIN_BIN)
    centres = (merged.edges[:-1] + merged.edges[1:]) / 2
    widths = np.diff(merged.edges)
    axes.bar(centres, merged.accuracy, width=widths, edgecolor="white", label="accuracy")
    axes.plot([0, 1], [0, 1], label="perfectly calibrated", **_DASHED)
    axes.plot(merged.confidence, merged.accuracy, "ko", markersize=3, label="mean confidence")
    for centre, count in zip(centres, merged.counts, strict=True):
        axes.text(centre, 1.01, str(count), ha="center", fontsize=7, color="dimgrey")
    xlabel = "confidence (numbers at the top: images in each bin)"
    axes.set(xlabel=xlabel, ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"{title}: ECE {bins.error:.3f}", pad=14)
    axes.legend(loc="upper left", fontsize=8, framealpha=0.9, edgecolor="white")
    return figure


def confidence_figure(predictions: PredictionTable) -> Figure:
    """Return a histogram of the confidence of correct and of incorrect predictions."""
    figure, axes = _new_figure(5.5, 5)
    correct = predictions.confidence[predictions.correct]
    incorrect = predictions.confidence[~predictions.correct]
    bins = np.linspace(0, 1, 21).tolist()
    axes.hist([correct, incorrect], bins=bins, stacked=True, label=["correct", "incorrect"])
    axes.set(xlabel="confidence", ylabel="images", xlim=(0, 1))
    _legend(axes, "upper left")
    return figure


def history_figure(
    curves: Mapping[str, Curve], *, marks: Mapping[str, int] | None = None
) -> Figure:
    """Return the loss, accuracy and learning rate of a training.

    Args:
        curves: Scalars of the run by their names, such as ``train/loss``.
        marks: Epochs to mark, counted from 0, by their labels, such as ``best checkpoint``.
    """
    panels: dict[str, list[str]] = {}
    for title, metric in {"loss": "loss", "accuracy": "acc"}.items():
        names = [name for name in (f"train/{metric}", f"val/{metric}") if name in curves]
        if names:
            panels[title] = names
    # Of several parameter groups, plot the largest learning rate, which is that of the head.
    rates = [name for name in curves if name.startswith("train/lr")]
    if rates:
        panels["learning rate"] = [max(rates, key=lambda name: curves[name].values.max())]
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    all_axes = figure.subplots(max(1, len(panels)), sharex=True, squeeze=False).ravel()
    for axes, (title, names) in zip(all_axes, panels.items(), strict=False):
        for name in names:
            label = name.partition("/")[0] if len(names) > 1 else None
            _plot(axes, curves[name], label=label)
        for label, epoch in (marks or {}).items():
            axes.axvline(epoch + 1, label=f"{label} (after {epoch + 1} epochs)", **_DASHED)
        axes.set_ylabel(title)
        _legend(axes, "best")
    all_axes[-1].set_xlabel("epochs trained")
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def overlay_figure(curves: Mapping[str, Curve], *, title: str) -> Figure:
    """Return a plot of one scalar, with a curve for each run.

    Args:
        curves: The curves by the names of their runs.
        title: Label of the y-axis.
    """
    figure, axes = _new_figure(5.5, 4)
    axes.set_prop_cycle(cycler(linestyle=["-", "--", ":", "-."]) * rcParams["axes.prop_cycle"])
    for name, curve in curves.items():
        _plot(axes, curve, label=_plain(name))
    axes.set(xlabel="epochs trained", ylabel=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes, "best")
    return figure


def gallery_figure(
    images: Sequence[NDArray[np.uint8]],
    titles: Sequence[str],
    *,
    columns: int = 4,
    highlighted: Collection[int] = (),
) -> Figure:
    """Return a grid of images ``(H, W, 3)``, each below its title.

    Args:
        images: The images.
        titles: Their titles, of one or several lines.
        columns: Number of images in a row.
        highlighted: Positions of the images whose title is red.
    """
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2.25 * columns, 2.8 * rows + 0.2), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in all_axes:
        axes.axis("off")
    for number, (axes, image) in enumerate(zip(all_axes, images, strict=False)):
        axes.imshow(image)
        title = "\n".join(map(_plain, titles[number].split("\n")))
        colour = "firebrick" if number in highlighted else "black"
        axes.set_title(title, fontsize=9, color=colour)
    return figure


def figure_bytes(figure: Figure, kind: str = "png", *, dpi: float = 150) -> bytes:
    """Return a figure as the content of an image file.

    Args:
        figure: The figure.
        kind: Format of the file, as Matplotlib names it: png, jpg, pdf, svg.
        dpi: Pixels per inch.
    """
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=dpi)
    return file.getvalue()


def jpeg_bytes(image: Image.Image) -> bytes:
    """Return an image as the content of a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def _new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure with one plot; width and height are in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _one_against_rest(
    predictions: PredictionTable,
) -> list[tuple[str, NDArray[np.bool_], NDArray[np.float64]]]:
    """Return for each class: its name, which images have this label, and its probabilities.

    Classes without images and a class with all images have no curve. Of more than 20 classes, the
    20 with the lowest average precision are returned.
    """
    classes = []
    for label, name in enumerate(predictions.class_names):
        is_class = predictions.labels == label
        if 0 < is_class.sum() < len(is_class):
            classes.append((name, is_class, predictions.probs[:, label]))
    if len(classes) > _MAX_CLASSES:
        classes.sort(key=lambda item: average_precision_score(item[1], item[2]))
    return classes[:_MAX_CLASSES]


def _legend(axes: Axes, place: Literal["best", "lower left", "lower right", "upper left"]) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc=place, fontsize=8, frameon=False)


def _plot(axes: Axes, curve: Curve, *, label: str | None) -> None:
    """Plot a curve; a single value, which has no line, as a dot."""
    marker = "o" if len(curve.values) == 1 else None
    axes.plot(curve.epochs, curve.values, label=label, marker=marker)


def _plain(name: str) -> str:
    """Shorten and escape a name: in matplotlib ``$`` starts a formula, ``_`` hides a label."""
    if len(name) > _MAX_NAME:
        name = f"{name[: _MAX_NAME - 3]}..."
    plain = name.encode("utf-8", "replace").decode().replace("$", r"\$")
    return f"\u200b{plain}" if plain.startswith("_") else plain
